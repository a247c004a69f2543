"""Environment variables that change what is computed are in the keys of what was computed, and nowhere else."""

from __future__ import annotations

import os

import pytest
from fake import quiet, subject

from harness.backends import BACKENDS
from harness.machine import BUILDING, COMPUTING, machine, set_variables
from harness.machine.variables import TIMED
from harness.verify.target import Run

CASES = {
    "NVIDIA_TF32_OVERRIDE": {"engine", "reference", "series"},
    "TRT_INTERNAL_OPTIONS": {"engine", "series"},
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": {"reference", "series"},
    "ONEDNN_DEFAULT_FPMATH_MODE": {"reference", "series"},
    "DNNL_DEFAULT_FPMATH_MODE": {"reference", "series"},
    "CUBLAS_WORKSPACE_CONFIG": {"reference", "series"},
    "ATEN_CPU_CAPABILITY": {"reference", "series"},
    "MKL_CBWR": {"reference", "series"},
    "MKL_DEBUG_CPU_TYPE": {"reference", "series"},
    "OMP_SCHEDULE": {"reference", "series"},
    "KMP_DETERMINISTIC_REDUCTION": {"reference", "series"},
    "ORT_MLAS_QKGEMM_S8_APPROX_VNNI": {"reference", "series"},
    "NPY_DISABLE_CPU_FEATURES": {"reference"},
    "OPENBLAS_CORETYPE": {"reference"},
    "CUDA_LAUNCH_BLOCKING": {"series"},
    "PYTORCH_CUDA_ALLOC_CONF": {"series"},
    "OMP_NUM_THREADS": {"reference"},  # a series has the number of threads as a fact
    "MKL_VERBOSE": set(),
    "CUDNN_LOGLEVEL_DBG": set(),
    "CUDA_MODULE_LOADING": set(),  # PyTorch sets these three
    "KMP_DUPLICATE_LIB_OK": set(),
    "TORCHINDUCTOR_CACHE_DIR": set(),
    "PATH": set(),
    "PARITY_RUN": set(),
}
"""By variable: in which keys it is."""


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return a patch of an environment in which no such variable is set."""
    for name in set_variables((*BUILDING, *COMPUTING, *TIMED)):
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    run = Run(subject(), quiet(tmp_path_factory.mktemp("run")))
    rtx = BACKENDS["rtx"]
    keys = {"reference": lambda: run.prepared.references._maker, "series": lambda: machine("ort-cpu", "1", False).key}
    return keys | ({} if rtx.unavailable() else {"engine": rtx.cache_key})


@pytest.mark.parametrize("name", CASES)
def test_a_variable_is_in_the_keys_that_it_matters_to(name, unset, keys):
    before = {what: key() for what, key in keys.items()}
    unset.setenv(name, f"{os.environ.get(name, '')}1")
    after = {what: key() for what, key in keys.items()}
    assert {what for what in keys if before[what] != after[what]} == CASES[name] & keys.keys()
    if CASES[name]:
        unset.setenv(name, "")
        assert {what: key() for what, key in keys.items()} == before, "one that is set to nothing is not set"


def test_a_machine_without_such_variables_keeps_the_key_that_it_had(unset):
    assert "variables" not in machine("ort-cpu", "1", False).facts
    unset.setenv("MKL_CBWR", "COMPATIBLE")
    assert machine("ort-cpu", "1", False).facts["variables"] == {"MKL_CBWR": "COMPATIBLE"}


def test_the_number_of_threads_is_in_the_key_of_a_reference(unset, keys):
    before = keys["reference"]()
    unset.setattr("torch.get_num_threads", lambda: 63)
    assert keys["reference"]() != before

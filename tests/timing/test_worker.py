"""The worker's protocol, spoken with real processes on the CPU."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from harness import Settings, errors
from harness.backends import BACKENDS
from harness.backends.base import BuildRequest
from harness.errors import EngineFailed, NotJudged
from harness.latency.processes import Worker
from harness.records.sessions import run_from_json
from harness.timing import worker
from harness.timing.sampling import ON_CPU

QUICK = asdict(
    replace(
        ON_CPU, warm_up_s=0.0, warm_up_cap_s=0.05, sample_s=0.02, sample_cap_s=0.05, secondary_s=0.0, throughput_s=0.02,
        block_s=0.005,
    )
)  # fmt: skip
SUBJECT = """
import torch
from harness import Subject, targets

class Twice(torch.nn.Module):
    def forward(self, x):
        return {{"y": 2 * x}}

def build():
    {body}

SUBJECT = Subject(name="twice", build=build, cases={{"one": lambda: {{"x": torch.ones(2, 4)}}}},
                  targets=targets("torch", precisions=("fp32",)), weights="random")
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine for ort-cpu that doubles x [2, 4]."""
    folder = tmp_path_factory.mktemp("engine")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"], name="add")], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "m.onnx")
    request = BuildRequest(onnx=folder / "m.onnx", tf32=False, shapes={})
    BACKENDS["ort-cpu"].build(request, folder / "engine", Settings(progress=lambda message: None))
    return folder / "engine"


@pytest.fixture
def request_for(tmp_path: Path, engine: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that makes requests for the engine, with changes."""
    save_file({"x": torch.ones(2, 4)}, tmp_path / "inputs.safetensors")

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "runner": "engine", "backend": "ort-cpu", "precision": "fp32", "engine": str(engine), "subject": None,
            "inputs": str(tmp_path / "inputs.safetensors"), "device": "cpu", "graph": False, "l2": "warm",
            "throughput": True, "lock_clocks": None, "result": str(tmp_path / "result.json"), "sampling": QUICK,
            **changes,
        }  # fmt: skip

    return make


def module_request(tmp_path: Path, body: str = "return Twice().eval()") -> dict[str, Any]:
    """Return what a request says about a subject whose ``build`` has this body."""
    (tmp_path / "test_twice.py").write_text(SUBJECT.format(body=body), encoding="utf-8")
    where = {"locator": "twice", "suites": str(tmp_path)}
    return {"backend": "torch", "engine": "", "runner": "eager", "subject": where}


# In this process


def measured(request: dict[str, Any]) -> Any:
    return worker.measure(request, worker.prepare(request))


def test_an_engine_is_loaded_and_timed(request_for: Callable[..., dict[str, Any]]) -> None:
    run = measured(request_for())
    assert run.load_ms > 0
    assert run.end_to_end_ms.median > 0
    assert run.throughput_per_s > 0


def test_a_module_is_built_and_timed(request_for: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    run = measured(request_for(**module_request(tmp_path), throughput=False))
    assert run.load_ms > 0
    assert run.end_to_end_ms.median > 0
    assert run.throughput_per_s is None


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_the_module_and_its_inputs_have_the_precision_asked_for(
    request_for: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen = []

    def look(call: Callable[..., Any], inputs: dict[str, torch.Tensor], *options: Any, **times: Any) -> str:
        seen.append((inputs["x"].dtype, call(inputs)["y"].dtype, torch.backends.cuda.matmul.allow_tf32))
        return "measured"

    monkeypatch.setattr("harness.timing.worker.measure_module", look)
    assert measured(request_for(**module_request(tmp_path), precision=precision)) == "measured"
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    assert seen == [(dtype, dtype, precision == "tf32")]


def test_integers_keep_their_dtype(
    request_for: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"x": torch.ones(2, 4, dtype=torch.int64)}, tmp_path / "inputs.safetensors")
    seen = []
    monkeypatch.setattr(
        "harness.timing.worker.measure_module", lambda call, inputs, *options, **times: seen.append(inputs["x"].dtype)
    )
    measured(request_for(**module_request(tmp_path), precision="fp16"))
    assert seen == [torch.int64]


def test_a_compiler_that_fails_is_a_sentence(
    request_for: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(module: torch.nn.Module) -> Callable[..., Any]:
        def call(**inputs: torch.Tensor) -> None:
            raise RuntimeError("no working C++ compiler\nlong tail")

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(NotJudged) as error:
        measured(request_for(**{**module_request(tmp_path), "runner": "compile"}))
    assert str(error.value) == "twice: PyTorch (compile, fp32) raised RuntimeError: no working C++ compiler"


def test_a_compiler_that_is_not_there_is_a_sentence(
    request_for: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(module: torch.nn.Module) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.15")

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(NotJudged, match=r"torch.compile cannot be used: torch.compile is not supported on Python 3.15"):
        measured(request_for(**{**module_request(tmp_path), "runner": "compile"}))


def test_a_build_that_raises_is_a_sentence(request_for: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match=r"twice: build\(\) raised OSError: no weights"):
        measured(request_for(**module_request(tmp_path, "raise OSError('no weights')")))


def test_without_a_gpu_nothing_is_measured_on_one(
    request_for: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotJudged, match="no GPU"):
        measured(request_for(device="cuda"))


# The protocol, in this process


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, Any]]:
    """Return a function that serves a request and returns the exit status, what was printed, and the answer."""

    def serve(request: dict[str, Any], *, told: str) -> tuple[int, str, Any]:
        printed = io.StringIO()
        monkeypatch.setattr(worker, "_own_stdout", lambda: printed)
        monkeypatch.setattr("sys.stdin", io.StringIO(told))
        (tmp_path / "request.json").write_text(json.dumps(request))
        status = worker.main(str(tmp_path / "request.json"))
        result = Path(request["result"])
        return status, printed.getvalue(), json.loads(result.read_text()) if result.exists() else None

    return serve


def test_what_is_wrong_with_the_request_is_known_before_anybody_says_go(
    request_for: Callable[..., dict[str, Any]], tmp_path: Path, serve: Callable[..., tuple[int, str, Any]]
) -> None:
    where = {"locator": "trice", "suites": str(tmp_path)}
    status, printed, answer = serve(request_for(**{**module_request(tmp_path), "subject": where}), told="")
    assert (status, printed, answer["kind"]) == (3, "", "UsageError")
    assert "'trice'; did you mean twice?" in answer["error"]


def test_what_goes_wrong_while_measuring_is_the_answer(
    request_for: Callable[..., dict[str, Any]], tmp_path: Path, serve: Callable[..., tuple[int, str, Any]]
) -> None:
    (tmp_path / "engine").write_bytes(b"no engine")
    status, printed, answer = serve(request_for(engine=str(tmp_path / "engine")), told="go\n")
    assert (status, printed) == (3, "ready\n")
    assert issubclass(vars(errors)[answer["kind"]], NotJudged)
    assert "not an engine of this backend" in answer["error"]


def test_a_worker_whose_parent_is_gone_measures_nothing(
    request_for: Callable[..., dict[str, Any]], serve: Callable[..., tuple[int, str, Any]]
) -> None:
    assert serve(request_for(), told="") == (1, "ready\n", None)


# As a process


def test_two_processes_wait_and_measure_in_turn(request_for: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    requests = [request_for(result=str(tmp_path / f"{number}.json")) for number in range(2)]
    with closing(Worker(requests[0])) as first, closing(Worker(requests[1])) as second:
        first.ready()
        second.ready()
        assert not (tmp_path / "0.json").exists()
        second.go()
        assert second.result().end_to_end_ms.n > 0
        assert not (tmp_path / "0.json").exists()
        first.go()
        run = first.result()
    assert run == run_from_json(json.loads((tmp_path / "0.json").read_text()))


def test_what_a_suite_prints_does_not_count_as_ready(
    request_for: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    body = "print('ready or not'); import os; os.write(1, b'go'); return Twice().eval()"
    with closing(Worker(request_for(**module_request(tmp_path, body)))) as worker:
        worker.ready()
        worker.go()
        assert worker.result().end_to_end_ms.n > 0


def test_a_process_that_dies_says_how(request_for: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    body = "import os, sys; print('last words', file=sys.stderr, flush=True); os.abort()"
    with closing(Worker(request_for(**module_request(tmp_path, body)))) as worker:
        worker.ready()
        worker.go()
        with pytest.raises(
            EngineFailed, match=r"timed torch-fp32 \(eager\) died with signal 6 \(SIGABRT\): last words"
        ):
            worker.result()


def test_a_process_says_how_long_it_took_to_its_first_sample(request_for: Callable[..., dict[str, Any]]) -> None:
    started = time.monotonic()
    with closing(Worker(request_for())) as process:
        process.ready()
        waiting = time.monotonic()
        while time.monotonic() - waiting < 0.5:  # its turn has not come
            pass
        process.go()
        run = process.result()
    assert run.first_sample_ms is not None
    assert run.load_ms < run.first_sample_ms <= (time.monotonic() - started - 0.5) * 1e3 + 20


def test_a_process_that_times_an_engine_imports_what_it_needs() -> None:
    """Each of these takes a tenth of a second or more, and there is a fresh process per engine and turn."""
    code = (
        "import sys\n"
        "from harness.timing import worker\n"
        "worker.prepare({'runner': 'engine', 'backend': 'ort-cpu'})\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    needless = {
        "scipy", "onnx", "onnx_ir", "onnxscript", "matplotlib", "sqlalchemy", "transformers", "sympy", "fsspec",
        "jinja2", "pytest", "pynvml",
    }  # fmt: skip
    import_torch = subprocess.run(
        [sys.executable, "-c", "import sys, torch; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    torch_needs = {name.split(".")[0] for name in import_torch.stdout.split()}
    assert needless & set(done.stdout.split()) <= torch_needs

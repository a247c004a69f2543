"""Reproducers: one that shows the fault is kept, one that does not leaves nothing, and the script stands alone."""

from __future__ import annotations

import ast
import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from harness.bisect.reproducer import folder as reproducer
from harness.bisect.reproducer.folder import NotReproduced, write
from harness.bisect.reproducer.scripts import common
from harness.bisect.reproducer.text import Spec, script
from harness.errors import CannotWrite, NotJudged, UsageError

PARTS = Path(common.__file__).parent
RTX = "tensorrt_rtx_bindings"
ENVIRONMENT = {
    "gpus": [{"name": "GPU X", "memory_bytes": 1, "compute_capability": "9.0"}],
    "driver": "600.1",
    "platform": "Linux",
    "engines": "/home/somebody/engines",
    "packages": {"torch": "2.13"},
    "backends": {"ort-cpu": {"version": "1.2.3"}},
}


def installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def save_graph(path: Path, *, rows: int | str = 2, op: str = "MatMul") -> Path:
    """Write y = half(x) op half(w) as a typed FP16 graph from and to FP32."""
    weight = numpy_helper.from_array(np.eye(32, dtype=np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["file"], ["half"], name="node_in", to=TensorProto.FLOAT16),
        helper.make_node(op, ["half", "w"] if op == "MatMul" else ["half"], ["low"], name="node_op"),
        helper.make_node("Cast", ["low"], ["a/y"], name="node_out", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("file", TensorProto.FLOAT, [rows, 32])],
        [helper.make_tensor_value_info("a/y", TensorProto.FLOAT, [rows, 32])],
        [weight] if op == "MatMul" else [],
    )
    opsets = [helper.make_opsetid("", 18)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


X = torch.linspace(-4, 4, 64).reshape(2, 32)


def spec_for(tmp_path: Path, **changes: Any) -> Spec:
    """Return a region whose expected output is 1 % off, unless told otherwise. Names as np.savez cannot take them."""
    op, rows = changes.pop("op", "MatMul"), changes.pop("rows", 2)
    fields: dict[str, Any] = {
        "title": 'A "title" with \\ in it',
        "backend": "ort-cpu",
        "tf32": False,
        "precision": "fp16",
        "graph": save_graph(tmp_path / "region.onnx", op=op, rows=rows),
        "inputs": {"file": X},
        "expected": {"a/y": X * 1.01},
        "limits": {"a/y": 1.5e-3},
        "finding": "The engine loses more than PyTorch does.",
        "notes": ("Seen on Tuesdays.",),
        "environment": ENVIRONMENT,
        "weights": "random",
        "inputs_kind": "real",
        "full_model": "a larger model",
    }
    return Spec(**(fields | changes))


def quiet(line: str) -> None:
    assert line


def again(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a reproducer's script by hand, from another folder."""
    command = [sys.executable, str(folder / "reproduce.py"), *options]
    done = subprocess.run(
        command, cwd=folder.parent, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.stderr == "" or done.returncode == 2, done.stderr
    return done


def draft(tmp_path: Path, spec: Spec) -> Path:
    """Write a reproducer's files without running it."""
    folder = tmp_path / "draft"
    folder.mkdir()
    reproducer._write_parts(folder, spec)
    return folder


# On ONNX Runtime, for real


def test_a_fault_that_shows_is_kept(tmp_path: Path) -> None:
    found = write(tmp_path / "new" / "fault", spec_for(tmp_path), progress=quiet)
    assert found.folder == tmp_path / "new" / "fault"
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "README.md", "environment.json", "expected.npz", "graph.onnx", "inputs.npz", "issue.md", "reproduce.py",
    ]  # fmt: skip
    assert found.output.splitlines()[-1] == (
        "REPRODUCED: 1 of 1 outputs are wrong; a/y: relative L2 error 0.0099 (allowed 0.0015), 0 non-finite"
    )
    assert "the 2 runs gave the same bits" in found.output
    assert "3 times PyTorch's own fp16 error" in found.output
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fault"]


def test_the_readme_and_the_environment(tmp_path: Path) -> None:
    folder = write(tmp_path / "fault", spec_for(tmp_path), progress=quiet).folder
    text = (folder / "README.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Environment", "## Steps to reproduce", "## Expected", "## Actual", "## Notes"]
    for words in ("GPU X (9.0)", "600.1", "onnxruntime==1.2.3 numpy", "REPRODUCED: 1 of 1", "Seen on Tuesdays."):
        assert words in text
    for words in ("a larger model", "weights: random; inputs: real", "The engine loses more than PyTorch does."):
        assert words in text
    kept = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert kept == {key: value for key, value in ENVIRONMENT.items() if key != "engines"}
    assert "somebody" not in text


def test_the_bug_report_has_what_nvidias_form_asks_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "fault", spec_for(tmp_path), progress=quiet).folder
    text = (folder / "issue.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Description", "## Environment", "## Relevant Files", "## Steps To Reproduce"]
    for words in ("**TensorRT Version**: ort-cpu 1.2.3", "**NVIDIA GPU**: GPU X (9.0)",
                  "**NVIDIA Driver Version**: 600.1",
                  "pip install onnxruntime==1.2.3 numpy\npython reproduce.py", "REPRODUCED: 1 of 1",
                  "a larger model", "weights: random; inputs: real"):  # fmt: skip
        assert words in text
    assert "parity verify" not in text
    assert "somebody" not in text


def test_no_fault_leaves_nothing(tmp_path: Path) -> None:
    before = {tmp_path / "region.onnx"}
    with pytest.raises(NotReproduced, match=r"script ended with status 0 .* not reproduced: every output of every run"):
        write(tmp_path / "new" / "deep" / "fault", spec_for(tmp_path, expected={"a/y": X}), progress=quiet)
    assert set(tmp_path.iterdir()) == before


def test_nan_is_a_fault_however_wide_the_limit(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, op="Sqrt", expected={"a/y": X.clamp(min=0).sqrt()}, limits={"a/y": 1e9})
    found = write(tmp_path / "fault", spec, progress=quiet)
    assert found.output.splitlines()[-1].endswith("32 non-finite")
    assert "[0, 0]: nan, expected 0" in found.output


def test_a_kept_script_runs_again_anywhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "fault", spec_for(tmp_path), progress=quiet).folder
    done = again(folder, "--runs", "3", "--engine", str(tmp_path / "saved.onnx"))
    assert done.returncode == 1
    assert done.stdout.count("WRONG") == 1, "runs of the same bits are one line"
    assert "the 3 runs gave the same bits" in done.stdout
    assert onnx.load(tmp_path / "saved.onnx").graph.node
    assert again(folder, "--runs", "0").returncode == 2
    np.savez(folder / "expected.npz", **{"a/y": X.numpy()})
    assert again(folder).returncode == 0
    (folder / "inputs.npz").unlink()
    done = again(folder)
    assert (done.returncode, done.stdout) == (2, "cannot run: inputs.npz is missing; it belongs beside this script\n")


def test_an_exported_graph_is_evaluated_as_it_stands(tmp_path: Path) -> None:
    found = write(tmp_path / "fault", spec_for(tmp_path, backend="torch"), progress=quiet)
    assert "CPUExecutionProvider, graph not optimised" in found.output
    assert "The fault is in the exported graph" in (found.folder / "README.md").read_text(encoding="utf-8")


def test_what_onnx_runtime_refuses_is_a_sentence(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, inputs={"file": X.double()})
    with pytest.raises(NotReproduced, match=r"ended with status 2 .*cannot run: ONNX Runtime cannot run graph.onnx"):
        write(tmp_path / "fault", spec, progress=quiet)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotReproduced, match=r"status 2 .*(has no CUDAExecutionProvider|no GPU)"):
        write(tmp_path / "fault", spec_for(tmp_path, backend="ort-cuda"), progress=quiet)


def test_many_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.graph.onnx_file.EXTERNAL_DATA_BYTES", 1000)
    folder = write(tmp_path / "fault", spec_for(tmp_path), progress=quiet).folder
    assert (folder / "graph.onnx.data").stat().st_size == 2048


# The folder


def test_something_else_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "environment.json").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not a reproducer"):
        write(folder, spec_for(tmp_path), progress=quiet)
    assert (folder / "environment.json").read_text() == "mine"


def test_an_earlier_reproducer_is_replaced_only_by_one_that_shows_the_fault(tmp_path: Path) -> None:
    folder = write(tmp_path / "fault", spec_for(tmp_path), progress=quiet).folder
    (folder / "old").touch()
    with pytest.raises(NotReproduced):
        write(folder, spec_for(tmp_path, expected={"a/y": X}), progress=quiet)
    assert (folder / "old").exists()
    write(folder, spec_for(tmp_path, title="newer"), progress=quiet)
    assert not (folder / "old").exists()
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# newer\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fault", "region.onnx"]


def test_a_file_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be written: .*give another folder"):
        write(tmp_path / "file" / "fault", spec_for(tmp_path), progress=quiet)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("writer", "error"), [("save_model", FULL), ("write_text", CannotWrite(Path("r"), FULL))])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    writer: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(reproducer, writer, full)
    with pytest.raises(NotJudged, match="the disk is full while writing the reproducer") as raised:
        write(tmp_path / "new" / "fault", spec_for(tmp_path), progress=quiet)
    assert not isinstance(raised.value, NotReproduced)
    assert [path.name for path in tmp_path.iterdir()] == ["region.onnx"]


# What is no proof


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ValueError('odd')", r"status 1 .*ValueError: odd"),
        ("print('REPRODUCED: so it says')", r"status 0"),
        ("import os; print('REPRODUCED: and then'); os.abort()", r"status -6"),
        ("import sys; print('REPRODUCED: once'); print('more'); sys.exit(1)", r"status 1"),
        ("import sys; sys.exit(1)", r"it printed: nothing"),
    ],
)
def test_only_the_script_s_own_word_and_status_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(reproducer, "script", lambda spec: text)
    with pytest.raises(NotReproduced, match=said):
        write(tmp_path / "fault", spec_for(tmp_path), progress=quiet)
    assert not (tmp_path / "fault").exists()


def test_a_script_that_does_not_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    text = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nprint('still building')\ntime.sleep(60)"
    monkeypatch.setattr(reproducer, "script", lambda spec: text)
    monkeypatch.setattr(reproducer, "TIMEOUT_S", 3.0)
    monkeypatch.setattr(reproducer, "PROGRESS_INTERVAL_S", 0.5)
    lines: list[str] = []
    with pytest.raises(NotReproduced, match="did not end within 3 s"):
        write(tmp_path / "fault", spec_for(tmp_path), progress=lines.append)
    assert any(line.startswith("the reproducer has been running for ") for line in lines)
    assert any(line.endswith(": still building") for line in lines)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"backend": "rtz"}, UsageError, "unknown backend 'rtz'; did you mean trt or rtx"),
        ({"expected": {}, "limits": {}}, NotJudged, "at least one expected output"),
        ({"limits": {"z": 1.0}}, NotJudged, r"limits are for \['z'\], but the outputs are \['a/y'\]"),
        ({"limits": {"a/y": float("nan")}}, NotJudged, "limit nan"),
        ({"limits": {"a/y": float("inf")}}, NotJudged, "limit inf"),
        ({"expected": {"a/y": X.log()}}, NotJudged, "expected output 'a/y' holds NaN"),
        ({"inputs": {"file": X.bfloat16()}}, NotJudged, "'file' is bfloat16"),
    ],
)
def test_a_region_that_proves_nothing_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        write(tmp_path / "fault", spec_for(tmp_path, **changes), progress=quiet)
    assert not (tmp_path / "fault").exists()


# The comparison


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("actual", "expected", "error", "nonfinite", "wrong"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0, 0, False),
        ([3.0, 4.5], [3.0, 4.0], 0.1, 0, False),
        ([3.0, 5.0], [3.0, 4.0], 0.2, 0, True),
        ([0.0, 0.0], [0.0, 0.0], 0.0, 0, False),
        ([0.0, 1.0], [0.0, 0.0], INF, 0, True),
        ([0.0, 0.0], [3.0, 4.0], 1.0, 0, True),
        ([NAN, 4.0], [3.0, 4.0], 0.0, 1, True),
        ([INF, 4.0], [3.0, 4.0], 0.0, 1, True),
        ([INF, 4.0], [INF, 4.0], 0.0, 1, False),
        ([INF, 4.0], [-INF, 4.0], 0.0, 1, True),
        ([1.0, 4.0], [INF, 4.0], 0.0, 0, True),
        ([INF, INF], [INF, INF], 0.0, 2, False),
        ([NAN, NAN], [3.0, 4.0], NAN, 2, True),
        ([], [], 0.0, 0, False),
    ],
)
def test_measure(
    monkeypatch: pytest.MonkeyPatch,
    actual: list[float],
    expected: list[float],
    error: float,
    nonfinite: int,
    wrong: bool,
) -> None:
    monkeypatch.setattr(common, "LIMITS", {"y": 0.15})
    found = common.measure(np.float32(actual), np.float32(expected), output="y", run=1)
    assert (found.nonfinite, found.wrong) == (nonfinite, wrong)
    assert found.error == pytest.approx(error, nan_ok=True)


def test_measure_names_the_worst_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "LIMITS", {"y": 1.0})
    actual = np.float32([[1, 2, 3], [4, 9, 6]])
    expected = np.float32([[1, 2, 3], [4, 5, 6]])
    assert common.measure(actual, expected, output="y", run=1).worst == "[1, 1]: 9, expected 5"
    actual[0, 2] = np.nan
    assert common.measure(actual, expected, output="y", run=1).worst == "[0, 2]: nan, expected 3"
    turned = common.measure(actual.T, expected, output="y", run=1)
    assert turned.wrong
    assert turned.worst == "shape (3, 2), expected (2, 3)"


# TensorRT, with a stand-in for it and for CUDA: "device" memory is host memory, the engine doubles x or misbehaves

FAKE_TRT = """
import ctypes, os
__version__ = "9.9"
MODE = os.environ.get("FAKE", "")
class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2
class Named:
    def __init__(self, **names): self.__dict__.update(names)
NetworkDefinitionCreationFlag = Named() if MODE == "typed" else Named(STRONGLY_TYPED=3)
ProfilingVerbosity, BuilderFlag = Named(DETAILED=1), Named(TF32="TF32")
TensorIOMode, TensorLocation = Named(INPUT="in"), Named(HOST="host")
class OnnxParser:
    num_errors = 1
    def __init__(self, network, log): pass
    def parse_from_file(self, path): return os.path.exists(path) and MODE != "unparsed"
    def get_error(self, index): return Named(desc=lambda: "op Foo is unknown")
class Builder:
    def __init__(self, log): self.log = log
    def create_network(self, flags):
        assert flags == (0 if MODE == "typed" else 8)
        return Named(num_inputs=1, get_input=lambda index: Named(name="x", shape=(-1, 4)))
    def create_builder_config(self):
        say = lambda what: lambda flag: print(what, flag)
        return Named(set_flag=say("set"), clear_flag=say("cleared"), add_optimization_profile=lambda profile: 0)
    def create_optimization_profile(self):
        return Named(set_shape=lambda name, *shapes: print("profile", name, *shapes))
    def build_serialized_network(self, network, config):
        self.log.log(ILogger.ERROR, "last words")
        return None if MODE == "unbuilt" else b"plan"
class Context:
    run, address = 0, {}
    def set_input_shape(self, name, shape): self.shape = tuple(shape); return True
    def set_tensor_address(self, name, address): self.address[name] = address
    def infer_shapes(self): return []
    def get_tensor_shape(self, name): return (-1, 4) if MODE == "dynamic" else self.shape
    def execute_async_v3(self, stream):
        assert stream == 7
        self.run += 1
        count = 4 * self.shape[0]
        x, y = ((ctypes.c_float * count).from_address(self.address[name]) for name in "xy")
        if MODE != "silent":
            y[:] = [2 * one for one in x]
        if MODE == "wrong" or (MODE == "unrepeatable" and self.run == 2):
            y[2] = float("inf")
        return MODE != "failing"
class Engine:
    num_io_tensors, num_layers = 2, 5
    def get_tensor_name(self, index): return "xy"[index]
    def get_tensor_mode(self, name): return "in" if name == "x" else "out"
    def get_tensor_dtype(self, name): return Named(name="FLOAT")
    def get_tensor_location(self, name): return "host" if name == "y" and MODE == "host" else "device"
    def create_execution_context(self): return Context()
class Runtime:
    def __init__(self, log): pass
    def deserialize_cuda_engine(self, data): assert data == b"plan"; return Engine()
"""

FAKE_CUDA = """
import ctypes, enum, os
class Status(enum.IntEnum): cudaSuccess = 0; cudaErrorInsufficientDriver = 35
class cudaMemcpyKind: cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = 1, 2
OK, held = Status.cudaSuccess, {}
class Properties: name, major, minor = b"GPU Y", 9, 0
class Stream:
    def __int__(self): return 7
def cudaGetDeviceCount():
    return (Status.cudaErrorInsufficientDriver, None) if os.environ.get("FAKE") == "no gpu" else (OK, 1)
def cudaGetDevice(): return OK, 0
def cudaGetDeviceProperties(device): return OK, Properties
def cudaDriverGetVersion(): return OK, 13020
def cudaRuntimeGetVersion(): return OK, 13010
def cudaStreamCreate(): return OK, Stream()
def cudaStreamDestroy(stream): print("still held:", len(held)); return OK,
def cudaStreamSynchronize(stream): return OK,
def cudaMalloc(size):
    block = ctypes.create_string_buffer(size)
    held[ctypes.addressof(block)] = block
    return OK, ctypes.addressof(block)
def cudaFree(address): del held[address]; return OK,
def cudaMemcpy(to, start, size, kind):
    assert (to if kind == 1 else start) in held
    ctypes.memmove(to, start, size)
    return OK,
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-ins on the module search path of every child."""
    folder = tmp_path / "fakes"
    (folder / "cuda" / "bindings").mkdir(parents=True)
    for name in ("tensorrt_rtx", "tensorrt"):
        (folder / f"{name}.py").write_text(FAKE_TRT, encoding="utf-8")
    for package in (folder / "cuda", folder / "cuda" / "bindings"):
        (package / "__init__.py").touch()
    (folder / "cuda" / "bindings" / "runtime.py").write_text(FAKE_CUDA, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def trt_spec(tmp_path: Path, **changes: Any) -> Spec:
    x = torch.arange(8.0).reshape(2, 4)
    fields = {"backend": "rtx", "inputs": {"x": x}, "expected": {"y": 2 * x}, "limits": {"y": 1e-3}}
    return spec_for(tmp_path, **(fields | changes))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("wrong", ["[0, 2]: inf, expected 4", "the 8 runs gave the same bits", "REPRODUCED: 1 of 1"]),
        (
            "unrepeatable",
            ["y       1    0            0.001    0           ok", "y       2 ", "the 8 runs differ in y", "REPRODUCED"],
        ),
        ("silent", ["[0, 0]: nan, expected 0", "8 non-finite"]),
    ],
)
def test_a_wrong_engine_is_reproduced(
    tmp_path: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch, mode: str, said: list[str]
) -> None:
    monkeypatch.setenv("FAKE", mode)
    found = write(tmp_path / "fault", trt_spec(tmp_path), progress=quiet)
    known = ["tensorrt_rtx 9.9", "GPU GPU Y (compute capability 9.0)", "5 layers, TF32 off", "cleared TF32"]
    for words in (*known, "profile x (2, 4) (2, 4) (2, 4)", "still held: 0", *said):
        assert words in found.output


@pytest.mark.parametrize(
    ("mode", "status", "said"),
    [
        ("", 0, "not reproduced: every output of every run is within its limit"),
        ("typed", 0, "not reproduced"),
        ("host", 0, "not reproduced"),
        ("no gpu", 2, "cannot run: no GPU: cudaErrorInsufficientDriver"),
        ("unparsed", 2, "cannot run: graph.onnx is refused: op Foo is unknown"),
        ("unbuilt", 2, "cannot run: the engine cannot be built: last words"),
        ("failing", 2, "cannot run: the engine does not run"),
        ("dynamic", 2, "cannot run: the shape of output 'y' depends on data"),
    ],
)
def test_an_engine_that_is_right_or_cannot_run_is_not(
    tmp_path: Path, fakes: Path, mode: str, status: int, said: str
) -> None:
    done = again(draft(tmp_path, trt_spec(tmp_path)), FAKE=mode)
    assert done.returncode == status, done.stdout
    assert done.stdout.splitlines()[-1].startswith(said)


def test_the_backend_decides_the_module_and_the_plan_tf32(tmp_path: Path, fakes: Path) -> None:
    folder = draft(tmp_path, trt_spec(tmp_path, backend="trt", tf32=True))
    done = again(folder, "--engine", str(tmp_path / "plan"))
    assert "\ntensorrt 9.9\n" in done.stdout
    assert "\nset TF32\n" in done.stdout
    assert (tmp_path / "plan").read_bytes() == b"plan"
    (fakes / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open')", encoding="utf-8")
    (fakes / "tensorrt_bindings.py").write_text("raise ImportError('too old')", encoding="utf-8")
    assert "\ntensorrt_rtx 9.9\n" in again(folder).stdout
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        (fakes / f"{name}.py").write_text("raise ImportError('not for you')", encoding="utf-8")
    done = again(folder)
    assert done.returncode == 2
    assert "TensorRT cannot be imported (tensorrt: libnvinfer.so.11: cannot open; tensorrt_bindings: " in done.stdout


def test_files_that_do_not_belong_together(tmp_path: Path, fakes: Path) -> None:
    folder = draft(tmp_path, trt_spec(tmp_path, inputs={"z": X}, expected={"q": X}, limits={"q": 1.0}))
    assert "cannot run: inputs.npz holds no 'x', which the graph takes" in again(folder).stdout
    np.savez(folder / "inputs.npz", x=np.zeros((2, 4), np.float64))
    assert "cannot run: input 'x' is float64, but the engine takes float32" in again(folder).stdout
    np.savez(folder / "inputs.npz", x=np.zeros((2, 4), np.float32))
    assert "cannot run: the graph has no output q" in again(folder).stdout
    np.savez(folder / "expected.npz", r=np.zeros(1))
    assert "cannot run: expected.npz holds ['r'], but limits are known for ['q']" in again(folder).stdout


@pytest.mark.parametrize(
    ("module", "said"),
    [("numpy", "cannot run: numpy is missing"), ("cuda", "cannot run: not here; install it with: pip install cuda-b")],
)
def test_a_missing_package_is_not_the_fault(tmp_path: Path, fakes: Path, module: str, said: str) -> None:
    hidden = fakes / module / "__init__.py"
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_text("raise ImportError('not here')", encoding="utf-8")
    done = again(draft(tmp_path, trt_spec(tmp_path)))
    assert done.returncode == 2
    assert said in done.stdout.splitlines()[-1]


@pytest.mark.skipif(not installed(RTX), reason=f"{RTX} is not installed")
@pytest.mark.parametrize("rows", [2, "rows"])
def test_tensorrt_for_rtx_builds_the_graph(tmp_path: Path, fakes: Path, rows: int | str) -> None:
    (fakes / "tensorrt_rtx.py").unlink()
    (fakes / "tensorrt.py").unlink()
    folder = draft(tmp_path, spec_for(tmp_path, backend="rtx", rows=rows))
    done = again(folder, "--engine", str(tmp_path / "plan"), FAKE="no gpu")
    assert done.stdout.splitlines()[-1] == "cannot run: no GPU: cudaErrorInsufficientDriver", done.stdout
    assert done.returncode == 2
    assert (tmp_path / "plan").stat().st_size > 1000


@pytest.mark.gpu
@pytest.mark.skipif(not (installed(RTX) and installed("cuda.bindings")), reason="needs TensorRT for RTX, cuda-bindings")
@pytest.mark.parametrize("rows", [2, "rows"])
def test_a_planted_fault_on_a_gpu(tmp_path: Path, rows: int | str) -> None:
    found = write(tmp_path / "fault", spec_for(tmp_path, backend="rtx", rows=rows), progress=quiet)
    assert re.search(r"relative L2 error 0\.009[89]", found.output)
    assert "the 8 runs gave the same bits" in found.output
    with pytest.raises(NotReproduced, match="status 0"):
        write(tmp_path / "right", spec_for(tmp_path, backend="rtx", rows=rows, expected={"a/y": X}), progress=quiet)


# The script's text


@pytest.mark.parametrize("backend", ["trt", "rtx", "ort-cpu", "ort-cuda", "torch"])
def test_the_script_stands_alone(tmp_path: Path, backend: str) -> None:
    tree = ast.parse(script(spec_for(tmp_path, backend=backend)))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    brought = [alias.name for node in imports for alias in node.names]
    assert len(brought) == len(set(brought)), "imported twice"
    assert tree.body[1 : len(imports) + 1] == imports
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy"}
    assert ast.get_docstring(tree).startswith('A "title" with \\ in it\n')
    assert "LIMITS = {'a/y': 0.0015}\n" in ast.unparse(tree)


OBJECTS = {
    "trt", "flags", "builder", "network", "network_input", "parser", "config", "profile", "self.trt", "self.engine",
    "self.context", "self.runtime",
}  # fmt: skip


def is_trt(node: ast.expr) -> bool:
    text = ast.unparse(node)
    return text in OBJECTS or text.startswith(("trt.", "self.trt."))


def used_names() -> tuple[set[str], set[str]]:
    """Return the TensorRT names the script uses, and those of them that are guarded by hasattr."""
    used, guarded = set(), set()
    for node in ast.walk(ast.parse((PARTS / "on_tensorrt.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and is_trt(node.value):
            used.add(node.attr)
        elif isinstance(node, ast.ClassDef) and any(is_trt(base) for base in node.bases):
            used |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr":
            guarded.add(ast.literal_eval(node.args[1]))
    return {name for name in used if not name.startswith("__")}, guarded


@pytest.mark.parametrize("version", ["10", "11"])
def test_every_name_is_in_this_tensorrt_or_guarded(version: str) -> None:
    lines = (
        (Path(__file__).parents[1] / "data" / f"tensorrt_{version}_api.txt").read_text(encoding="utf-8").splitlines()
    )
    known = {line for line in lines if not line.startswith("#")}
    used, guarded = used_names()
    assert {"execute_async_v3", "build_serialized_network", "parse_from_file", "TF32", "set_tensor_address"} <= used
    assert sorted(used - known - guarded) == []


@pytest.mark.skipif(not installed("cuda.bindings"), reason="cuda-bindings is not installed")
def test_every_cuda_name_is_in_the_installed_bindings() -> None:
    from cuda.bindings import runtime

    tree = ast.parse((PARTS / "on_tensorrt.py").read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("cudart")
    }
    assert "cudaMemcpy" in used
    assert sorted(name for name in used if not hasattr(runtime, name)) == []

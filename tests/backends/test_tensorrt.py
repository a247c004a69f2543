"""TensorRT: building in a child process, the session's checks and stream order, and the names of TensorRT's API."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from harness import limits
from harness.backends import BACKENDS
from harness.backends.base import BuildRequest, ShapeRange
from harness.backends.tensorrt import build as tensorrt_build
from harness.backends.tensorrt.backend import TensorRTBackend
from harness.backends.tensorrt.context import Contexts, Workspace
from harness.backends.tensorrt.session import TensorRTSession, enqueue
from harness.errors import EngineFailed, EngineRefused, NoMemory, NotJudged, TookTooLong
from harness.settings import Settings

SOURCES = [
    Path(importlib.import_module(f"harness.backends.tensorrt.{name}").__file__ or "")
    for name in ("build", "context", "tensors", "session", "bound", "output")
]
RTX = "tensorrt_rtx_bindings"
needs_rtx = pytest.mark.skipif(importlib.util.find_spec(RTX) is None, reason=f"{RTX} is not installed")


def write_model(path: Path, nodes: list[onnx.NodeProto], *, rows: int | str = "rows", domain: str = "") -> Path:
    """Write a graph from x [rows, 4] to y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def relu(path: Path, *, rows: int | str = "rows") -> Path:
    return write_model(path, [helper.make_node("Relu", ["x"], ["y"], name="node_relu")], rows=rows)


def request_for(model: Path, *, tf32: bool = False, **shapes: tuple[int, ...]) -> BuildRequest:
    ranges = {name: ShapeRange(minimum=(1, 4), optimum=shape, maximum=(8, 4)) for name, shape in shapes.items()}
    return BuildRequest(onnx=model, tf32=tf32, shapes=ranges)


def quiet(messages: list[str] | None = None) -> Settings:
    return Settings(progress=(messages if messages is not None else []).append)


# Building


@needs_rtx
def test_rtx_builds_without_a_gpu(tmp_path: Path) -> None:
    model = relu(tmp_path / "relu.onnx")
    report = BACKENDS["rtx"].build(request_for(model, x=(2, 4)), tmp_path / "engine", quiet())
    assert (tmp_path / "engine").stat().st_size > 1000
    assert report.options["tf32"] is False
    assert report.options["optimization_profiles"] == 1
    assert report.options["user_allocation"] is False  # with dynamic shapes it would end the process that runs it
    assert report.network_layers
    assert report.notes[0] == f"{report.network_layers} network layers before fusion"


@needs_rtx
def test_rtx_keeps_tf32_when_asked_and_makes_no_profile_for_fixed_shapes(tmp_path: Path) -> None:
    model = relu(tmp_path / "relu.onnx", rows=2)
    request = BuildRequest(onnx=model, tf32=True, shapes={})
    report = BACKENDS["rtx"].build(request, tmp_path / "engine", quiet())
    assert report.options["tf32"] is True
    assert report.options["optimization_profiles"] == 0
    assert report.options["user_allocation"] is True  # or large engines could not be captured into a CUDA graph


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ((8, 9), []),
        ((9, 0), ["fake 1.0 names compute capabilities 7.5, 8.9, 12.0 as targets, and this GPU has 9.0"]),
    ],
)
def test_a_gpu_that_is_no_target_is_said(
    capability: tuple[int, int], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = SimpleNamespace(__members__=dict.fromkeys(["NONE", "CURRENT", "SM75", "SM89", "SM120"]))
    backend = TensorRTBackend("fake", modules=("fake",), install="", builds_without_gpu=True)
    backend._loaded = SimpleNamespace(__version__="1.0", ComputeCapability=targets)
    monkeypatch.setattr("harness.backends.tensorrt.backend.no_gpu", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert backend._unnamed_gpu() == words


def test_a_version_that_names_no_targets_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TensorRTBackend("fake", modules=("fake",), install="", builds_without_gpu=True)
    backend._loaded = SimpleNamespace(__version__="10.0")
    monkeypatch.setattr("harness.backends.tensorrt.backend.no_gpu", lambda: None)
    assert backend._unnamed_gpu() == []


class FakeUserManaged:
    """An engine and its context that take their memory from outside."""

    device_memory_size_v2 = 1000

    def __init__(self) -> None:
        self.strategies: list[object] = []
        self.given: list[int] = []
        self.needs = 4000

    def create_execution_context(self, strategy: object) -> FakeUserManaged:
        self.strategies.append(strategy)
        return self

    def update_device_memory_size_for_shapes(self) -> int:
        return self.needs

    def set_device_memory(self, address: int, size: int) -> None:
        assert address
        self.given.append(size)


def test_a_context_gets_memory_for_its_shapes_where_it_may_not_allocate() -> None:
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(REQUIRE_USER_ALLOCATION=1),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user"),
    )
    engine, stream = FakeUserManaged(), SimpleNamespace(synchronize=lambda: None)
    context = Contexts(trt, engine, None).make()
    workspace = Workspace(trt, engine, torch.device("cpu"))
    for needs in (4000, 500, 8000):
        engine.needs = needs
        workspace.fit(context, stream)
    assert (engine.strategies, engine.given) == (["user"], [4000, 4000, 8000])
    plain = SimpleNamespace(BuilderFlag=SimpleNamespace())
    Workspace(plain, engine, torch.device("cpu")).fit(context, stream)
    assert len(engine.given) == 3  # it allocates for itself


def test_an_engine_may_allocate_only_where_it_was_refused_otherwise() -> None:
    class Config:
        def __init__(self) -> None:
            self.flags = {"user"}

        def get_flag(self, flag: str) -> bool:
            return flag in self.flags

        def clear_flag(self, flag: str) -> None:
            self.flags.remove(flag)

    rtx, config = SimpleNamespace(BuilderFlag=SimpleNamespace(REQUIRE_USER_ALLOCATION="user")), Config()
    assert tensorrt_build._allow_allocation(rtx, config)  # the build is tried once more
    assert not tensorrt_build._allow_allocation(rtx, config)
    assert not tensorrt_build._allow_allocation(SimpleNamespace(BuilderFlag=SimpleNamespace()), Config())


@needs_rtx
def test_rtx_reads_weights_from_an_external_file(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="node_matmul")
    model = onnx.load(write_model(tmp_path / "plain.onnx", [node]))
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [4, 4], b"\0" * 64, raw=True))
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, location="external.data", size_threshold=0)
    assert (tmp_path / "external.data").stat().st_size == 64
    BACKENDS["rtx"].build(request_for(path, x=(2, 4)), tmp_path / "engine", quiet())
    assert (tmp_path / "engine").is_file()


@needs_rtx
def test_a_refused_op_is_named_with_its_node(tmp_path: Path) -> None:
    node = helper.make_node("Foo", ["x"], ["y"], name="node_foo_3", domain="some.ops")
    model = write_model(tmp_path / "foo.onnx", [node], domain="some.ops")
    with pytest.raises(EngineRefused, match=r"rtx cannot build this graph: op 'Foo' \(node 'node_foo_3'\): .*not supp"):
        BACKENDS["rtx"].build(request_for(model, x=(2, 4)), tmp_path / "engine", quiet())


@needs_rtx
def test_a_type_error_of_strong_typing_is_named_with_its_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], name="node_cast", to=TensorProto.FLOAT16),
        helper.make_node("Add", ["half", "x"], ["y"], name="node_add"),
    ]
    with pytest.raises(EngineRefused, match=r"op 'Add' \(node 'node_add'\).*types Half and Float") as error:
        BACKENDS["rtx"].build(request_for(write_model(tmp_path / "m.onnx", nodes), x=(2, 4)), tmp_path / "e", quiet())
    assert "driver" not in str(error.value)


@needs_rtx
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"input 'x' has the dynamic shape \(-1, 4\) and no range"),
        ({"x": (2, 4), "z": (2, 4)}, r"shapes are given for \['z'\].*inputs are \['x'\]"),
    ],
)
def test_shapes_that_do_not_fit_the_graph_are_refused(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(EngineRefused, match=message):
        BACKENDS["rtx"].build(request_for(relu(tmp_path / "m.onnx"), **shapes), tmp_path / "engine", quiet())


@needs_rtx
def test_a_range_for_a_fixed_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        EngineRefused, match=r"input 'x' has the shape \(2, 4\) in the graph, which \(1, 4\) does not fit"
    ):
        BACKENDS["rtx"].build(request_for(relu(tmp_path / "m.onnx", rows=2), x=(2, 4)), tmp_path / "engine", quiet())


@needs_rtx
def test_an_engine_that_cannot_be_written_is_not_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="the engine cannot be written to") as error:
        BACKENDS["rtx"].build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "no" / "engine", quiet())
    assert not isinstance(error.value, EngineRefused)


def fake_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> TensorRTBackend:
    """Return a backend whose module is this code; the child finds it on the module search path as well."""
    (tmp_path / f"{name}.py").write_text(f"__version__ = '0'\n{code}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return TensorRTBackend("fake", modules=(name,), install="pip install it", builds_without_gpu=True)


LOGGER = "class ILogger:\n    INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2\n"


def test_a_crash_of_the_builder_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import os\n{LOGGER}def Builder(log):\n    log.log(ILogger.ERROR, 'last words')\n    os.abort()\n"
    backend = fake_backend(tmp_path, monkeypatch, "trt_that_aborts", code)
    with pytest.raises(EngineRefused, match=r"builder died with signal 6 \(SIGABRT\); last log lines: .*last words"):
        backend.build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "engine", quiet())


def test_a_build_that_the_system_kills_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = fake_backend(tmp_path, monkeypatch, "trt_that_leaves", "")
    assert backend.unavailable() is None
    (tmp_path / "trt_that_leaves.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(NoMemory, match=r"signal 9 \(SIGKILL, as when memory runs out\)"):
        backend.build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "engine", quiet())


def test_an_exception_in_the_builder_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = fake_backend(
        tmp_path, monkeypatch, "trt_that_raises", "def Builder(log): raise ValueError('odd')\n" + LOGGER
    )
    with pytest.raises(
        EngineRefused, match=r"ended with status 1 and left no report; last log lines: .*ValueError: odd"
    ):
        backend.build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "engine", quiet())


def test_running_out_of_gpu_memory_is_not_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"{LOGGER}def Builder(log):\n    raise SystemExit('Error Code 2: OutOfMemory (no further information)')\n"
    backend = fake_backend(tmp_path, monkeypatch, "trt_without_memory", code)
    with pytest.raises(NotJudged, match="out of GPU memory") as error:
        backend.build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "engine", quiet())
    assert not isinstance(error.value, EngineRefused)


def test_an_interrupt_ends_the_builder_and_a_long_build_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        f"import os, time, pathlib\n{LOGGER}"
        "def Builder(log):\n"
        "    print('Timing tactics, step 3 of 9', flush=True)\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
    )
    backend = fake_backend(tmp_path, monkeypatch, "trt_that_sleeps", code)
    monkeypatch.setattr("harness.backends.tensorrt.backend.PROGRESS_INTERVAL_S", 0.2)

    def interrupt_once_it_builds(message: str) -> None:
        if "Timing tactics, step 3 of 9" in message and (tmp_path / "pid").exists():
            assert message.startswith("fake has been building for ")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.build(
            request_for(relu(tmp_path / "m.onnx"), x=(2, 4)),
            tmp_path / "engine",
            Settings(progress=interrupt_once_it_builds),
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_builder_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "trt_that_waits.py").write_text(f"import time\n{LOGGER}def Builder(log): time.sleep(60)\n")
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.backends.tensorrt.build"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES[0].parents[2]), str(tmp_path)])},
    )
    assert child.stdin is not None
    child.stdin.write(b'{"module": "trt_that_waits"}\n')
    child.stdin.flush()
    time.sleep(0.3)
    child.stdin.close()
    assert child.wait(timeout=20) == 1


def test_a_missing_module_says_how_to_install_it() -> None:
    backend = TensorRTBackend(
        "none", modules=("no_such_trt", "nor_this"), install="pip install it", builds_without_gpu=True
    )
    reason = backend.unavailable()
    assert reason is not None
    assert "no_such_trt" in reason
    assert reason.endswith("; pip install it")


def test_a_module_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = fake_backend(tmp_path, monkeypatch, "trt_broken", "raise OSError('libnvinfer.so.11: cannot open')")
    assert backend.unavailable() == "trt_broken cannot be imported: libnvinfer.so.11: cannot open"


def test_without_a_gpu_nothing_runs_and_the_cache_key_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backend = fake_backend(tmp_path, monkeypatch, "trt_idle", "")
    assert "no GPU" in (backend.cannot_run() or "")
    key = backend.cache_key()
    assert (key["version"], key["gpu"]) == ("0", "no GPU: portable build")
    with pytest.raises(NotJudged, match="no GPU"):
        backend.load(tmp_path / "engine")


# Running, with a TensorRT and streams that only write down what is called


class FakeStream:
    cuda_stream = 7

    def __init__(self, calls: list[str], name: str) -> None:
        self.calls, self.name = calls, name

    def wait_event(self, event: FakeEvent) -> None:
        self.calls.append(f"{self.name} waits for {event.name}")

    def synchronize(self) -> None:
        self.calls.append(f"{self.name} synchronised")


class FakeEvent:
    name = "nothing"

    def record(self, stream: FakeStream) -> None:
        self.name = f"event of {stream.name}"
        stream.calls.append(f"{stream.name} records")


class FakeContext:
    """Doubles x [rows, 4]; in ``mode`` "silent" it writes nothing, in "failing" it does not start."""

    def __init__(self, calls: list[str], mode: str) -> None:
        self.calls, self.mode = calls, mode
        self.address: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.allocator = SimpleNamespace()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.address[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 4) if self.mode == "data-dependent" else self.shape

    def set_output_allocator(self, name: str, allocator: SimpleNamespace) -> bool:
        self.allocator = allocator
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.calls.append(f"engine enqueued on {stream}")
        if self.mode == "failing":
            return False
        count = self.shape[0] * 4
        if self.mode == "data-dependent":
            self.address["y"] = self.allocator.reallocate_output_async("y", 0, 1024, 256, stream)
            self.allocator.notify_shape("y", self.shape)
        if self.mode != "silent":
            source = (ctypes.c_float * count).from_address(self.address["x"])
            (ctypes.c_float * count).from_address(self.address["y"])[:] = [2 * value for value in source]
        return True


class FakeEngine:
    num_io_tensors = 2
    num_layers = 1

    def __init__(self, context: FakeContext) -> None:
        self.context = context

    def create_execution_context(self) -> FakeContext:
        return self.context

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 4)

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "x" else "out"

    def get_tensor_location(self, name: str) -> str:
        return "device"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 4), (2, 4), (8, 4)]


def fake_trt(engine: FakeEngine | None) -> SimpleNamespace:
    return SimpleNamespace(
        BuilderFlag=SimpleNamespace(),
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=lambda data: engine),
        TensorIOMode=SimpleNamespace(INPUT="in"),
        TensorLocation=SimpleNamespace(HOST="host"),
        IOutputAllocator=type("IOutputAllocator", (), {"__init__": lambda self: None}),
    )


def fake_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str = "") -> tuple[TensorRTSession, list[str]]:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(calls, "side"))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: FakeStream(calls, "current"))
    (tmp_path / "engine").write_bytes(b"engine")
    log = SimpleNamespace(errors=[])
    trt = fake_trt(FakeEngine(FakeContext(calls, mode)))
    return TensorRTSession(trt, log, tmp_path / "engine", name="fake", device=torch.device("cpu")), calls


ORDER = [
    "current records",
    "side waits for event of current",
    "engine enqueued on 7",
    "side records",
    "current waits for event of side",
]


def test_the_engine_runs_between_two_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, calls = fake_session(tmp_path, monkeypatch)
    outputs = session.run({"x": torch.arange(8.0).reshape(2, 4)})
    assert calls == ORDER
    assert torch.equal(outputs["y"], 2 * torch.arange(8.0).reshape(2, 4))


def test_enqueue_says_whether_the_engine_started() -> None:
    calls: list[str] = []
    streams = {"current": FakeStream(calls, "current"), "side": FakeStream(calls, "side")}
    assert not enqueue(FakeContext(calls, "failing"), make_event=FakeEvent, **streams)
    assert calls == ORDER


def test_an_unwritten_output_is_nan_and_not_the_last_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch, "silent")
    assert session.run({"x": torch.ones(2, 4)})["y"].isnan().all()


def test_two_runs_return_separate_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch)
    first = session.run({"x": torch.ones(2, 4)})["y"]
    second = session.run({"x": torch.zeros(2, 4)})["y"]
    assert torch.equal(first, torch.full((2, 4), 2.0))
    assert torch.equal(second, torch.zeros(2, 4))


def test_inputs_that_are_not_contiguous_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch)
    turned = torch.arange(8.0).reshape(4, 2).T
    assert torch.equal(session.run({"x": turned})["y"], 2 * turned)


def test_an_output_whose_shape_depends_on_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    session, _ = fake_session(tmp_path, monkeypatch, "data-dependent")
    assert torch.equal(session.run({"x": torch.ones(3, 4)})["y"], torch.full((3, 4), 2.0))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"missing \['x'\]"),
        ({"x": torch.ones(2, 4), "z": torch.ones(1)}, r"unexpected \['z'\]"),
        ({"x": torch.ones(2, 4).half()}, r"input 'x' is torch.float16, but the engine takes torch.float32"),
        ({"x": torch.ones(9, 4)}, r"input 'x' has shape \(9, 4\), but the engine takes \(1, 4\) to \(8, 4\)"),
        ({"x": torch.ones(2, 4, 1)}, r"input 'x' has shape \(2, 4, 1\)"),
    ],
)
def test_inputs_that_the_engine_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, torch.Tensor], message: str
) -> None:
    session, calls = fake_session(tmp_path, monkeypatch)
    with pytest.raises(EngineRefused, match=message):
        session.run(inputs)
    assert calls == []


def test_an_engine_that_does_not_start_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, calls = fake_session(tmp_path, monkeypatch, "failing")
    with pytest.raises(EngineFailed, match="fake could not run engine"):
        session.run({"x": torch.ones(2, 4)})
    assert calls == [*ORDER, "side synchronised"]


def test_gpu_memory_that_runs_out_is_not_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch)

    def no_memory(*args: object, **options: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB\nsee the manual")

    monkeypatch.setattr(torch, "full", no_memory)
    with pytest.raises(NotJudged, match=r"ran out of GPU memory: CUDA out of memory. Tried to allocate 3 GiB$"):
        session.run({"x": torch.ones(2, 4)})


def test_a_closed_session_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch)
    with session:
        pass
    with pytest.raises(EngineFailed, match="is closed"):
        session.run({"x": torch.ones(2, 4)})


@pytest.mark.parametrize(
    ("data", "said", "kind", "message"),
    [
        (b"", "", EngineRefused, "the file is empty"),
        (b"xx", "magicTag does not match", EngineRefused, "magicTag does not match"),
        (b"xx", "Error Code 2: OutOfMemory", NoMemory, "out of GPU memory"),
    ],
)
def test_an_engine_file_that_does_not_load(tmp_path: Path, data: bytes, said: str, kind: type, message: str) -> None:
    (tmp_path / "engine").write_bytes(data)
    log = SimpleNamespace(errors=[])
    trt = fake_trt(None)
    trt.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=lambda data: log.errors.append(said))
    with pytest.raises(kind, match=message) as error:
        TensorRTSession(trt, log, tmp_path / "engine", name="fake", device=torch.device("cpu"))
    assert error.type is kind


# Bound to fixed buffers, to be timed


def test_a_bound_engine_runs_on_its_own_buffers_and_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, calls = fake_session(tmp_path, monkeypatch)
    given = torch.arange(8.0).reshape(2, 4)
    bound = session.bind({"x": given})
    assert calls == ["current synchronised"]
    buffers = bound.inputs["x"].data_ptr(), bound.outputs["y"].data_ptr()
    assert buffers[0] != given.data_ptr()
    bound.launch()
    assert calls[1:] == ["engine enqueued on 7"]
    assert torch.equal(bound.outputs["y"], 2 * given)
    bound.inputs["x"].copy_(given + 1)
    bound.launch()
    assert torch.equal(bound.outputs["y"], 2 * (given + 1))
    assert buffers == (bound.inputs["x"].data_ptr(), bound.outputs["y"].data_ptr())


def test_an_output_that_a_bound_engine_does_not_write_is_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch, "silent")
    bound = session.bind({"x": torch.ones(2, 4)})
    bound.launch()
    assert bound.outputs["y"].isnan().all()


def test_a_bound_engine_forgets_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch)
    bound = session.bind({"x": torch.ones(2, 4)})
    bound.launch()
    assert torch.equal(bound.outputs["y"], torch.full((2, 4), 2.0))
    bound.forget()
    assert bound.outputs["y"].isnan().all()


def test_a_bound_engine_has_fixed_output_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch, "data-dependent")
    with pytest.raises(NotJudged, match="the shape of output 'y' depends on the data"):
        session.bind({"x": torch.ones(2, 4)})


def test_a_bound_engine_that_does_not_start_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch, "failing")
    bound = session.bind({"x": torch.ones(2, 4)})
    with pytest.raises(EngineFailed, match="fake could not launch the engine"):
        bound.launch()


def test_only_inputs_that_fit_are_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch)
    with pytest.raises(EngineRefused, match=r"input 'x' has shape \(9, 4\)"):
        session.bind({"x": torch.ones(9, 4)})
    session.close()
    with pytest.raises(EngineFailed, match="is closed"):
        session.bind({"x": torch.ones(2, 4)})


def test_a_closed_binding_lets_go_of_its_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, calls = fake_session(tmp_path, monkeypatch)
    bound = session.bind({"x": torch.ones(2, 4)})
    bound.close()
    assert calls[-1] == "side synchronised"
    assert (bound.inputs, dict(bound.outputs), bound.context) == ({}, {}, None)


def test_the_profiler_hears_every_kernel_of_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    session, _ = fake_session(tmp_path, monkeypatch)
    session._trt.IProfiler = type("IProfiler", (), {"__init__": lambda self: None})
    launch = FakeContext.execute_async_v3
    runs = iter(range(9))

    def report(context: FakeContext, stream: int) -> bool:
        number = next(runs)
        context.profiler.report_layer_time("matmul", 1.0 + number)
        context.profiler.report_layer_time("relu", 0.5)
        return launch(context, stream)

    monkeypatch.setattr(FakeContext, "execute_async_v3", report)
    assert session.profile({"x": torch.ones(2, 4)}, runs=2) == [
        [("matmul", 3.0), ("relu", 0.5)],  # the first two runs warm up
        [("matmul", 4.0), ("relu", 0.5)],
    ]


def test_rtx_is_told_to_wait_for_its_final_kernels_and_to_keep_them() -> None:
    config = SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="LAZY", create_runtime_cache=lambda: "cache")
    kept: list[str] = []
    config.set_runtime_cache = kept.append
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(), DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="EAGER")
    )
    given: list[object] = []
    engine = SimpleNamespace(create_runtime_config=lambda: config, create_execution_context=given.append)
    Contexts(trt, engine, None).make()
    assert given == [config]
    assert config.dynamic_shapes_kernel_specialization_strategy == "EAGER"
    assert kept == ["cache"]


def test_tensorrt_needs_no_such_advice() -> None:
    given: list[tuple[object, ...]] = []
    engine = SimpleNamespace(create_runtime_config=lambda: "x", create_execution_context=lambda *a: given.append(a))
    Contexts(SimpleNamespace(BuilderFlag=SimpleNamespace()), engine, None).make()
    assert given == [()]


def test_what_says_that_it_cannot_be_captured_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = fake_session(tmp_path, monkeypatch)
    bound = session.bind({"x": torch.ones(2, 4)})
    assert bound.not_capturable() == ""
    bound.context.is_stream_capturable = lambda stream: stream != 7
    assert bound.not_capturable() == "fake says that this engine cannot be captured into a CUDA graph"


# Running on a GPU


@pytest.mark.gpu
@needs_rtx
def test_a_bound_engine_gives_what_the_session_gives_and_says_where_its_time_goes(tmp_path: Path) -> None:
    backend = BACKENDS["rtx"]
    backend.build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "engine", quiet())
    inputs = {"x": torch.randn(8, 4, device="cuda")}
    with backend.load(tmp_path / "engine") as session:
        expected = session.run(inputs)["y"]
        first, second = session.bind(inputs), session.bind(inputs)
        for bound in (first, second):
            bound.launch()
            bound.stream.synchronize()
            assert torch.equal(bound.outputs["y"], expected)
            bound.close()
        assert torch.equal(session.run(inputs)["y"], expected)
        profiles = session.profile(inputs, runs=3)
    assert len(profiles) == 3
    assert all(ms > 0 for profile in profiles for _, ms in profile)
    assert len({tuple(name for name, _ in profile) for profile in profiles}) == 1


@pytest.mark.gpu
@needs_rtx
def test_an_input_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    backend = BACKENDS["rtx"]
    backend.build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "engine", quiet())
    late, wanted = torch.zeros(8, 4, device="cuda"), torch.rand(8, 4, device="cuda") + 1
    with backend.load(tmp_path / "engine") as session:
        session.run({"x": late})
        for _ in range(3):
            late.zero_()
            torch.cuda.synchronize()
            torch.cuda._sleep(100_000_000)
            late.copy_(wanted)
            outputs = session.run({"x": late})
            late.fill_(-1)  # queued behind the engine, which must still see what was there before
            assert torch.equal(outputs["y"], wanted)


@pytest.mark.gpu
@needs_rtx
def test_a_file_that_is_no_engine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "engine").write_bytes(b"no engine at all" * 100)
    with pytest.raises(EngineRefused, match="rtx cannot load engine"):
        BACKENDS["rtx"].load(tmp_path / "engine")


# The names of TensorRT's API

OBJECTS = {
    "trt", "flags", "builder", "network", "network_input", "parser", "parser_error", "config", "profile", "engine",
    "context", "self.engine", "self.context", "self.runtime", "cache", "self._engine", "self._config",
}  # fmt: skip


def used_names() -> tuple[set[str], set[str]]:
    """Return the TensorRT names the sources use, and those of them that are guarded by hasattr."""
    used, guarded = set(), set()
    for tree in (ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_trt(node.value):
                used.add(node.attr)
            elif isinstance(node, ast.ClassDef) and any(is_trt(base) for base in node.bases):
                used |= {
                    item.name for item in node.body if isinstance(item, ast.FunctionDef) and item.name != "__init__"
                }
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr":
                guarded.add(ast.literal_eval(node.args[1]))
    return used - {"__init__", "show"}, guarded


def is_trt(node: ast.expr) -> bool:
    text = ast.unparse(node)
    return text in OBJECTS or text.startswith("trt.")


@pytest.mark.parametrize("version", ["10", "11"])
def test_every_name_is_in_this_tensorrt_or_guarded(version: str) -> None:
    lines = (
        (Path(__file__).parents[1] / "data" / f"tensorrt_{version}_api.txt").read_text(encoding="utf-8").splitlines()
    )
    known = {line for line in lines if not line.startswith("#")}
    used, guarded = used_names()
    assert {"execute_async_v3", "build_serialized_network", "parse_from_file", "TF32", "notify_shape"} <= used
    assert sorted(used - known - guarded) == []


@needs_rtx
def test_every_name_is_in_the_installed_tensorrt_for_rtx() -> None:
    shared = next(Path(importlib.util.find_spec(RTX).origin).parent.glob("*.so")).read_bytes()  # type: ignore[union-attr, arg-type]
    used, guarded = used_names()
    assert sorted(name for name in used - guarded if name.encode() + b"\0" not in shared) == []


@pytest.mark.parametrize("catches", [False, True])
def test_a_build_that_takes_too_long_is_killed_with_all_that_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catches: bool
) -> None:
    code = (
        f"import itertools, os, pathlib, signal\n{LOGGER}"
        "def Builder(log):\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        f"    {'signal.signal(signal.SIGTERM, signal.SIG_IGN)' if catches else 'pass'}\n"
        "    sum(itertools.repeat(1))\n"
    )
    backend = fake_backend(tmp_path, monkeypatch, "trt_that_hangs", code)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def time_passes_once_it_builds(message: str) -> None:
        if (tmp_path / "pid").exists():
            for limit in limits._applying():
                limit.ends = time.monotonic() - 0.01

    monkeypatch.setattr("harness.backends.tensorrt.backend.PROGRESS_INTERVAL_S", 0.2)
    request, settings = request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), Settings(progress=time_passes_once_it_builds)
    took = pytest.raises(TookTooLong, match=r"^relu \[fake\]: building the engine took longer than 900 s \(--build")
    with limits.allowed(build=900), took, limits.build("relu [fake]"):
        backend.build(request, tmp_path / "engine", settings)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("os.kill(os.getpid(), 11)", "crash"),
        ("raise ValueError('odd')", "crash"),
        ("raise SystemExit('Error Code 2: OutOfMemory (no further information)')", "memory"),
        ("os.kill(os.getpid(), 9)", "memory"),
    ],
)
def test_a_builder_that_dies_has_a_class_of_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, failure: str
) -> None:
    backend = fake_backend(tmp_path, monkeypatch, "trt_that_dies", f"import os\n{LOGGER}def Builder(log): {code}\n")
    with pytest.raises(NotJudged) as error:
        backend.build(request_for(relu(tmp_path / "m.onnx"), x=(2, 4)), tmp_path / "engine", quiet())
    assert error.value.failure == failure

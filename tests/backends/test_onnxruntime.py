"""ONNX Runtime: the engine file, what goes in and out, and what its refusals say."""

from __future__ import annotations

import errno
from pathlib import Path

import onnx
import pytest
import torch
from fake import quiet
from onnx import TensorProto, helper

from harness import Subject, Target
from harness.backends import BACKENDS, Starter
from harness.backends.base import BuildRequest
from harness.backends.onnxruntime import backend as module
from harness.backends.onnxruntime.errors import run_error
from harness.bisect import bisect
from harness.errors import EngineFailed, EngineRefused, NotJudged
from harness.settings import Settings
from harness.verify import verify

QUIET = Settings(progress=lambda message: None)
CPU = BACKENDS["ort-cpu"]


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    dtype: int = TensorProto.FLOAT,
    constants: dict[str, torch.Tensor] | None = None,
    domain: str = "",
) -> Path:
    """Write a graph from x [rows, 4] to y, both of one dtype."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", dtype, ["rows", 4])],
        [helper.make_tensor_value_info("y", dtype, None)],
        [
            helper.make_tensor(name, dtype, value.shape, value.numpy().tobytes(), raw=True)
            for name, value in (constants or {}).items()
        ],
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def request_for(model: Path) -> BuildRequest:
    return BuildRequest(onnx=model, tf32=False, shapes={})


def double(path: Path, dtype: int = TensorProto.FLOAT) -> Path:
    return write_model(path, [helper.make_node("Add", ["x", "x"], ["y"], name="node_add")], dtype=dtype)


def test_an_engine_runs(tmp_path: Path) -> None:
    report = CPU.build(request_for(double(tmp_path / "m.onnx")), tmp_path / "engine", QUIET)
    assert report.options["provider"] == "CPUExecutionProvider"
    assert report.notes == ()
    with CPU.load(tmp_path / "engine") as session:
        x = torch.arange(8.0).reshape(4, 2).T
        first, second = session.run({"x": x})["y"], session.run({"x": -x})["y"]
    assert torch.equal(first, 2 * x)
    assert torch.equal(second, -2 * x)


def test_the_engine_needs_no_other_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    constants = {"w": torch.randn(4, 4, generator=generator), "b": torch.randn(4, generator=generator)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    plain = write_model(tmp_path / "plain.onnx", nodes, constants=constants)
    source = tmp_path / "source"
    source.mkdir()
    onnx.save(
        onnx.load(plain), source / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0
    )
    assert len(list(source.iterdir())) == 3
    CPU.build(request_for(source / "m.onnx"), tmp_path / "engine", QUIET)
    for file in source.iterdir():
        file.unlink()
    x = torch.randn(3, 4, generator=generator)
    with CPU.load(tmp_path / "engine") as session:
        torch.testing.assert_close(session.run({"x": x})["y"], x @ constants["w"] + constants["b"])


def test_weights_outside_the_models_folder_are_refused(tmp_path: Path) -> None:
    model = onnx.load(double(tmp_path / "m.onnx"))
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineRefused, match=r"weights of 'w' are in '../elsewhere', which is no file beside the model"):
        CPU.build(request_for(tmp_path / "m.onnx"), tmp_path / "engine", QUIET)


@pytest.mark.parametrize(
    ("number", "dtype"),
    [
        (TensorProto.FLOAT, torch.float32),
        (TensorProto.FLOAT16, torch.float16),
        (TensorProto.BFLOAT16, torch.bfloat16),
        (TensorProto.INT64, torch.int64),
        (TensorProto.BOOL, torch.bool),
    ],
)
def test_every_dtype_goes_in_and_out_bit_by_bit(tmp_path: Path, number: int, dtype: torch.dtype) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"], name="node_identity")]
    CPU.build(request_for(write_model(tmp_path / "m.onnx", nodes, dtype=number)), tmp_path / "engine", QUIET)
    x = torch.tensor([[0.0, 1.0, 3.14159, -2.5]]).to(dtype)
    with CPU.load(tmp_path / "engine") as session:
        y = session.run({"x": x})["y"]
        empty = session.run({"x": x[:0]})["y"]
    assert y.dtype == dtype
    assert torch.equal(y, x)
    assert empty.shape == (0, 4)


def test_fp16_on_the_cpu_is_noted(tmp_path: Path) -> None:
    report = CPU.build(request_for(double(tmp_path / "m.onnx", TensorProto.FLOAT16)), tmp_path / "engine", QUIET)
    assert report.notes == ("ONNX Runtime on the CPU computes FP16 operators in FP32 between casts",)


def test_an_op_without_a_kernel_is_named_with_its_node(tmp_path: Path) -> None:
    model = double(tmp_path / "m.onnx", TensorProto.BFLOAT16)
    with pytest.raises(
        EngineRefused, match=r"ort-cpu cannot build this graph: op 'Add' \(node 'node_add'\) has no kernel"
    ):
        CPU.build(request_for(model), tmp_path / "engine", QUIET)


def test_an_unknown_op_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Foo", ["x"], ["y"], name="node_foo_3")]
    with pytest.raises(EngineRefused, match=r"op 'Foo' \(node 'node_foo_3'\): .*Foo"):
        CPU.build(request_for(write_model(tmp_path / "m.onnx", nodes)), tmp_path / "engine", QUIET)


def test_an_op_of_an_unknown_domain_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Foo", ["x"], ["y"], name="node_foo_3", domain="some.ops")]
    with pytest.raises(EngineRefused, match=r"cannot build this graph: .*Foo"):
        CPU.build(request_for(write_model(tmp_path / "m.onnx", nodes, domain="some.ops")), tmp_path / "engine", QUIET)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"missing \['x'\]"),
        ({"x": torch.ones(2, 4), "z": torch.ones(1)}, r"unexpected \['z'\]"),
        ({"x": torch.ones(2, 4).half()}, r"input 'x' is torch.float16, but the engine takes torch.float32"),
        ({"x": torch.ones(2, 5)}, r"input 'x' has shape \(2, 5\), but the engine takes \('rows', 4\)"),
        ({"x": torch.ones(4)}, r"input 'x' has shape \(4,\)"),
    ],
)
def test_inputs_that_the_engine_does_not_take(tmp_path: Path, inputs: dict[str, torch.Tensor], message: str) -> None:
    CPU.build(request_for(double(tmp_path / "m.onnx")), tmp_path / "engine", QUIET)
    with CPU.load(tmp_path / "engine") as session, pytest.raises(EngineRefused, match=message):
        session.run(inputs)


def test_a_run_that_raises_has_failed(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="node_reshape")]
    model = onnx.load(write_model(tmp_path / "m.onnx", nodes))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [1], [7]))
    onnx.save(model, tmp_path / "m.onnx")
    CPU.build(request_for(tmp_path / "m.onnx"), tmp_path / "engine", QUIET)
    with (
        CPU.load(tmp_path / "engine") as session,
        pytest.raises(EngineFailed, match=r"could not run the model.*node_reshape"),
    ):
        session.run({"x": torch.ones(2, 4)})


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("MLFloat16 data type is not supported with ScatterND opset 16 when reduction is 'add'.", True),
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : the kernel lacks it", True),
        ("Unsupported data type: BFloat16", True),
        ("The input tensor cannot be reshaped to the requested shape. Input shape:{2,4}, requested shape:{7}", False),
        ("invalid expand shape", False),
    ],
)
def test_a_kernel_that_lacks_a_dtype_is_a_refusal_with_its_op(message: str, refused: bool) -> None:
    head = "[ONNXRuntimeError] : 6 : Non-zero status code returned while running Op node. Name:'n1'"
    text = f"{head} Status Message: {message}"
    error = run_error("ort-cpu", RuntimeError(text))
    assert isinstance(error, EngineRefused) == refused
    assert isinstance(error, EngineFailed) != refused
    if refused:
        assert "op 'Op' (node 'n1')" in str(error)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_operator_without_a_kernel_in_half_precision_is_not_judged(tmp_path: Path, precision: str) -> None:
    """ONNX Runtime takes the model and refuses when it runs: ``MLFloat16 data type is not supported``."""
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], name="scatter", reduction="add")
    ports = {"x": (TensorProto.FLOAT, [6]), "i": (TensorProto.INT64, [3, 1]), "u": (TensorProto.FLOAT, [3])}
    inputs = [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in ports.items()]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6])])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    given = {"x": torch.zeros(6), "i": torch.tensor([[1], [1], [4]]), "u": torch.tensor([1.0, 2.0, 3.0])}
    target, settings = Target("ort-cpu", precision), quiet(tmp_path)
    subject = Subject(
        name="net", onnx=tmp_path / "m.onnx", cases={"one": lambda: given}, targets=(target,), weights="file"
    )
    [result] = verify(subject, targets=[target], cases=["one"], settings=settings)
    found = bisect(subject, target, "one", settings)
    assert (result.verdict, found.kind) == ("not_judged", "not_judged")
    for sentence in (result.reason, found.finding):
        assert "op 'ScatterND' (node 'scatter')" in sentence
    [right] = verify(subject, targets=[Target("ort-cpu", "fp32")], cases=["one"], settings=settings)
    assert right.verdict == "pass"


def test_a_closed_session_does_not_run(tmp_path: Path) -> None:
    CPU.build(request_for(double(tmp_path / "m.onnx")), tmp_path / "engine", QUIET)
    session = CPU.load(tmp_path / "engine")
    session.close()
    with pytest.raises(EngineFailed, match="is closed"):
        session.run({"x": torch.ones(2, 4)})


@pytest.mark.parametrize(("keep", "message"), [(0, "not an engine of this backend"), (-1, "the file is cut short")])
def test_a_damaged_file_is_refused(tmp_path: Path, keep: int, message: str) -> None:
    CPU.build(request_for(double(tmp_path / "m.onnx")), tmp_path / "engine", QUIET)
    (tmp_path / "engine").write_bytes((tmp_path / "engine").read_bytes()[:keep])
    with pytest.raises(EngineRefused, match=message):
        CPU.load(tmp_path / "engine")


def test_a_full_disk_is_not_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(request: BuildRequest, engine: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "pack", full)
    with pytest.raises(NotJudged, match=r"engine cannot be written to .*: No space left on device") as error:
        CPU.build(request_for(double(tmp_path / "m.onnx")), tmp_path / "engine", QUIET)
    assert error.type is NotJudged


def test_the_gpu_backend_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import onnxruntime

    cuda = BACKENDS["ort-cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "has no CUDAExecutionProvider; install it with: pip install onnxruntime-gpu" in (cuda.unavailable() or "")
    assert "no GPU" in (cuda.cannot_run() or "")
    assert cuda.cache_key()["device"] == "no GPU"
    assert CPU.unavailable() is None
    assert CPU.cannot_run() is None
    with pytest.raises(NotJudged, match="ort-cuda cannot run engine"):
        cuda.load(tmp_path / "engine")


@pytest.mark.gpu
@pytest.mark.skipif(BACKENDS["ort-cuda"].unavailable() is not None, reason="onnxruntime has no CUDAExecutionProvider")
def test_cuda_reads_inputs_that_are_still_being_written(tmp_path: Path) -> None:
    cuda = BACKENDS["ort-cuda"]
    cuda.build(request_for(double(tmp_path / "m.onnx")), tmp_path / "engine", QUIET)
    late, wanted = torch.zeros(8, 4, device="cuda"), torch.rand(8, 4, device="cuda")
    with cuda.load(tmp_path / "engine") as session:
        torch.cuda._sleep(100_000_000)
        late.copy_(wanted)
        outputs = session.run({"x": late})
    assert outputs["y"].is_cuda
    assert torch.equal(outputs["y"], 2 * wanted)


def test_a_process_that_cannot_start_ahead_is_started_when_it_is_needed(monkeypatch):
    def fails(*_: object) -> None:
        raise OSError("no room for a process")

    monkeypatch.setattr("harness.isolated.models._process", fails)
    backend = BACKENDS["ort-cpu"]
    assert isinstance(backend, Starter)
    backend.start_ahead()

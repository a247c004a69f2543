"""ONNX files as subjects: opening, the value table, inputs, and the three ways of running one on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from graphs import parse

from harness.errors import NotJudged, UsageError
from harness.graph.hash import graph_sha256
from harness.graph.ir import weights_of
from harness.graph.onnx_file import onnx_values, open_onnx, save_for_now
from harness.graph.onnx_inputs import InputSpec, check_inputs, generate_inputs, input_specs
from harness.graph.plan import assign, load_plan
from harness.graph.types import promote
from harness.reference.interpreter import run_graph
from harness.reference.onnx_calls import onnx_run_graph
from harness.reference.witness import run_onnxruntime

LINEAR = "g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { h = MatMul(x, w)  y = Exp(h) }"
TOKENS = """
g (int64[batch, seq] input_ids, int64[batch, seq] attention_mask, int64[batch, seq] token_type_ids, bool[2] flag,
   float16[1, 3] x, float[?] anything) => (float[batch, seq, 1] y)
<float[3, 1] words = {1, 2, 3}, float[2, 1] kinds = {1, 2}>
{ w = Gather(words, input_ids)  i = Cast <to = 6> (token_type_ids)  k = Gather(kinds, i)  y = Add(w, k) }
"""


def save(model: ir.Model, path: Path, **options: str) -> Path:
    ir.save(model, path, **options)
    return path


def external(tmp_path: Path) -> Path:
    """Write a model with a weight of 4 KiB in a file of its own."""
    model = parse("g (float[1, 32] x) => (float[1, 32] y) <float[1] w = {0}> { y = MatMul(x, w) }")
    weight = np.eye(32, dtype=np.float32)
    model.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")
    model.graph.initializers["w"].shape = ir.Shape(weight.shape)
    return save(model, tmp_path / "model.onnx", external_data="weights.bin")


# Opening


def test_open_reads_what_was_saved(tmp_path: Path) -> None:
    model = open_onnx(str(save(parse(LINEAR), tmp_path / "m.onnx")))
    assert [node.op_type for node in model.graph] == ["MatMul", "Exp"]


NUMBERS = [dtype for dtype in ir.DataType if dtype.name not in ("UNDEFINED", "STRING")]


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
def test_weights_and_constants_become_arrays_and_stay_what_they_are(tmp_path: Path, dtype: ir.DataType) -> None:
    """An array of protobuf's is copied each time it is read, and the whole file stays in memory with it."""
    model = parse("g () => (float[2] y) <float[2] w = {0, 0}> { y = Exp(w) }")
    numbers = ir.Tensor(np.array([0, 1, 1]).astype(dtype.numpy()), dtype=dtype, name="w", doc_string="ones")
    model.graph.initializers["w"].const_value = numbers
    model.graph.append(ir.Node("", "Constant", [], [ir.AttrTensor("value", numbers)], name="c"))
    path = save(model, tmp_path / "m.onnx")
    opened = open_onnx(path)
    weight = opened.graph.initializers["w"].const_value
    constant = opened.graph[-1].attributes["value"].value
    assert isinstance(weight, ir.Tensor)
    assert weight.numpy() is weight.numpy()
    assert isinstance(constant, ir.Tensor)
    assert ir.to_proto(opened) == ir.to_proto(ir.load(path))


def test_open_names_what_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.onnx does not exist; give the path"):
        open_onnx(tmp_path / "nowhere.onnx")
    with pytest.raises(UsageError, match="is a folder; give the path"):
        open_onnx(tmp_path)
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(UsageError, match=r"model\.pt is a zip archive, as PyTorch checkpoints are"):
        open_onnx(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a text file\n", "is not an ONNX file"),
        (b"\xff\xfe\x00\x01" * 16, "is not an ONNX file"),
        (b"\x08\x09" + b"\xff" * 40, "is truncated or damaged"),
        (b"\x08\x09", "is not an ONNX model: it has no graph"),
    ],
)
def test_open_refuses_other_bytes(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"m\.onnx") as error:
        open_onnx(tmp_path / "m.onnx")
    assert message in str(error.value)


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(parse(LINEAR), tmp_path / "m.onnx")

    def raising(error: Exception) -> None:
        def load(*args: object, **options: object) -> None:
            raise error

        monkeypatch.setattr(ir, "load", load)

    raising(ValueError("99 is not a valid DataType\nat graph.input[0]"))
    words = r"m\.onnx cannot be read as ONNX \(ValueError: 99 is not a valid DataType\); if it is damaged, copy"
    with pytest.raises(UsageError, match=words):
        open_onnx(path)
    for kind in (MemoryError, PermissionError):
        raising(kind("not the file"))
        with pytest.raises(kind, match="not the file"):
            open_onnx(path)


def test_open_refuses_a_value_that_nothing_computes(tmp_path: Path) -> None:
    node = onnx.helper.make_node("MatMul", ["x", "nowhere"], ["y"], name="product")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 2]) for name in "xy")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"m\.onnx .*'product' \(MatMul\) uses 'nowhere'"):
        open_onnx(tmp_path / "m.onnx")


def test_open_refuses_every_truncation(tmp_path: Path) -> None:
    content = save(parse(LINEAR), tmp_path / "m.onnx").read_bytes()
    for size in range(1, len(content)):
        (tmp_path / "m.onnx").write_bytes(content[:size])
        with pytest.raises(UsageError):
            open_onnx(tmp_path / "m.onnx")


# The value table


def test_table_takes_modules_from_node_names() -> None:
    model = parse("g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}>"
                  "{ c = Constant <value_float = 1.0> ()  h = MatMul(x, w)  y = Add(h, c) }")  # fmt: skip
    for node, name in zip(model.graph, ("", "/encoder/layer.0/attention/MatMul", "Add_7"), strict=True):
        node.name = name
    table = onnx_values(model)
    assert list(table) == ["h", "y"]
    first = table["h"]
    assert (first.origin, first.op, first.module) == ("h", "onnx.MatMul", "encoder.layer.0.attention")
    assert (first.dtype, first.shape) == ("float32", ("n", 2))
    assert table["y"].module == ""
    assert model.graph[1].outputs[0].shape is None


def test_table_reads_the_exporters_metadata() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Softmax(-1)).eval()
    dims = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.onnx.export(module, (torch.randn(4, 2),), dynamo=True, verbose=False, dynamic_shapes=dims)
    assert program is not None
    table = onnx_values(program.model)
    linear, softmax = table["linear"], table["softmax"]
    assert (linear.op, linear.module, linear.origin) == ("aten.linear.default", "0", "linear")
    assert (softmax.op, softmax.module) == ("aten.softmax.int", "1")
    assert linear.shape is not None
    assert linear.shape[1] == 3
    assert isinstance(linear.shape[0], str)
    kept = {name for name, dtype in assign(load_plan("fp16"), table).items() if dtype == "float16"}
    assert kept == set(table)


def test_damaged_metadata_falls_back_to_names() -> None:
    model = parse(LINEAR)
    model.graph[0].metadata_props["pkg.torch.onnx.name_scopes"] = "['broken"
    model.graph[0].name = "/mlp/MatMul"
    assert onnx_values(model)["h"].module == "mlp"


# Inputs


def test_generated_inputs_are_valid_and_repeatable() -> None:
    model = parse(TOKENS)
    shapes = {"input_ids": (4, 5), "anything": (3,)}
    inputs = generate_inputs(model, shapes=shapes, symbols={})
    assert {name: (str(tensor.dtype), tuple(tensor.shape)) for name, tensor in inputs.items()} == {
        "input_ids": ("torch.int64", (4, 5)),
        "attention_mask": ("torch.int64", (4, 5)),
        "token_type_ids": ("torch.int64", (4, 5)),
        "flag": ("torch.bool", (2,)),
        "x": ("torch.float16", (1, 3)),
        "anything": ("torch.float32", (3,)),
    }
    assert (int(inputs["input_ids"].max()), int(inputs["token_type_ids"].max())) == (2, 1)
    assert set(inputs["attention_mask"].unique().tolist()) == {0, 1}
    assert inputs["attention_mask"][:, 0].tolist() == [1] * 4
    again = generate_inputs(model, shapes=shapes, symbols={})
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)
    other = generate_inputs(model, shapes=shapes, symbols={}, seed=1)
    assert not torch.equal(inputs["x"], other["x"])
    check_inputs(inputs, input_specs(model))


def test_symbols_size_dimensions() -> None:
    inputs = generate_inputs(parse(TOKENS), shapes={"anything": (1,)}, symbols={"batch": 2, "seq": 7})
    assert tuple(inputs["token_type_ids"].shape) == (2, 7)


@pytest.mark.parametrize(
    ("shapes", "symbols", "message"),
    [
        ({}, {}, "input 'input_ids' has dynamic dimension 'batch'; give --shape input_ids=2,16"),
        ({}, {"batch": 2}, "input 'input_ids' has dynamic dimension 'seq'; give --shape input_ids=2,16"),
        ({}, {"batch": 2, "seq": 2}, "input 'anything' has dynamic dimension without a name; give --shape anything=2"),
        ({"input_idz": (1, 1)}, {}, "unknown input 'input_idz'; did you mean input_ids"),
        ({}, {"batches": 1}, "unknown dynamic dimension 'batches'; did you mean batch"),
        ({"input_ids": (1,)}, {}, "input 'input_ids': --shape has shape [1], but the model declares [batch, seq]"),
        ({"x": (1, 4)}, {}, "input 'x': --shape has shape [1, 4], but the model declares [1, 3]"),
        ({"input_ids": (2, 3)}, {"seq": 4}, "the model declares [batch, seq] (with seq = 4)"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], symbols: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError) as error:
        generate_inputs(parse(TOKENS), shapes=shapes, symbols=symbols)
    assert message in str(error.value)


@pytest.mark.parametrize("size", [10**15, 2**62, 10**30])
def test_inputs_beyond_memory(size: int) -> None:
    with pytest.raises(UsageError, match=rf"input 'input_ids' of shape \[{size}, 4\] is too large"):
        generate_inputs(parse(TOKENS), shapes={}, symbols={"batch": size, "seq": 4})


def test_inputs_that_are_no_tensors_of_numbers() -> None:
    with pytest.raises(UsageError, match="input 's' is not a tensor of numbers"):
        input_specs(parse("g (string[2] s) => (string[2] t) { t = Identity(s) }"))


SPECS = (
    InputSpec(name="x", dtype="float32", shape=("n", 2)),
    InputSpec(name="ids", dtype="int64", shape=("n",)),
)


def good() -> dict[str, torch.Tensor]:
    return {"x": torch.ones(3, 2), "ids": torch.zeros(3, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": torch.zeros(1)}, "unknown input 'id'; did you mean ids?"),
        ({"ids": None}, "inputs are missing: 'ids'; the model declares ids, x"),
        ({"x": torch.ones(3, 3)}, "input 'x': the given tensor has shape [3, 3], but the model declares [n, 2]"),
        ({"ids": torch.zeros(4, dtype=torch.int64)}, "has shape [4], but the model declares [n] (with n = 3)"),
        ({"x": torch.ones(3, 2).double()}, "input 'x' is float64, but the model declares float32; convert it"),
        ({"ids": torch.zeros(3, dtype=torch.int32)}, "input 'ids' is int32, but the model declares int64; convert it"),
    ],
)
def test_wrong_inputs_are_named(changes: dict[str, torch.Tensor | None], message: str) -> None:
    inputs = {name: tensor for name, tensor in {**good(), **changes}.items() if tensor is not None}
    with pytest.raises(UsageError) as error:
        check_inputs(inputs, SPECS)
    assert message in str(error.value)


def test_inputs_that_are_not_finite_are_not_judged() -> None:
    inputs = good()
    inputs["x"][0] = torch.nan
    inputs["x"][1, 1] = -torch.inf
    with pytest.raises(NotJudged, match="input 'x' holds 2 NaN and 1 Inf"):
        check_inputs(inputs, SPECS)
    check_inputs(good(), SPECS)


# Running


def computed(model: ir.Model, dtype: torch.dtype, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    return run_graph(onnx_run_graph(model), inputs, dtype=dtype)


def test_fp32_and_fp64_agree() -> None:
    x = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    expected = (x.double() @ torch.tensor([[1.0, 2], [3, 4]]).double()).exp()
    single, double = (computed(parse(LINEAR), dtype, x=x)["y"] for dtype in (torch.float32, torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(double, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(single.double(), expected, rtol=1e-6, atol=0)


def test_the_witness_of_a_half_file_computes_in_fp32() -> None:
    model = parse("g (float16[1] x) => (float16[1] y) { a = Add(x, x)  y = Mul(a, a) }")
    result = run_onnxruntime(model, {"x": torch.tensor([1000.0])})[0]["y"]
    assert (result.dtype, result.item()) == (torch.float32, 4e6)


def test_external_weights_run(tmp_path: Path) -> None:
    model, x = open_onnx(external(tmp_path)), torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert torch.equal(computed(model, dtype, x=x)["y"], x.to(dtype))
    assert torch.equal(run_onnxruntime(model, {"x": x})[0]["y"], x)
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_weights_reach_onnx_runtime_within_the_graph_or_beside_it(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.graph.onnx_file.INLINE_BYTES", limit)
    monkeypatch.setattr("harness.graph.onnx_file.INLINE_TENSOR_BYTES", 0)
    model = parse("g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }")
    assert run_onnxruntime(model, {"x": torch.tensor([[1.0, 10.0]])})[0]["y"].tolist() == [[31, 42]]


def test_a_witness_that_refuses_is_named() -> None:
    custom = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18, "plugin" : 1]> g (float[2] x) => (float[2] y) { y = plugin.Foo(x) }'
    )
    with pytest.raises(NotJudged, match=r"ONNX Runtime refuses the graph: .*Foo"):
        run_onnxruntime(custom, {"x": torch.zeros(2)})[0]


@pytest.fixture
def all_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files that were written just now for files that do not change any more."""
    monkeypatch.setattr("harness.stamps.SETTLED_S", -1.0)


@pytest.mark.usefixtures("all_settled")
def test_a_file_is_read_once_while_somebody_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(parse(LINEAR), tmp_path / "m.onnx")
    reads: list[object] = []
    load = ir.load
    monkeypatch.setattr(ir, "load", lambda *args, **options: (reads.append(args), load(*args, **options))[1])
    first = open_onnx(path)
    assert open_onnx(path) is first
    assert len(reads) == 1
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # as soon as the clock of the file system has moved
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert open_onnx(path) is not first


def test_a_file_that_was_written_just_now_is_read_again(tmp_path: Path) -> None:
    path = save(parse(LINEAR), tmp_path / "m.onnx")
    first = open_onnx(path)
    assert open_onnx(path) is not first


@pytest.mark.usefixtures("all_settled")
def test_a_file_is_read_again_where_its_weights_changed(tmp_path: Path) -> None:
    path, data = external(tmp_path), tmp_path / "weights.bin"
    first = open_onnx(path)
    assert open_onnx(path) is first
    before = data.stat().st_ctime_ns
    while data.stat().st_ctime_ns == before:
        data.write_bytes(bytes(data.stat().st_size))
    assert open_onnx(path) is not first


def test_weights_that_lie_in_a_file_are_not_written_again(tmp_path: Path) -> None:
    model = open_onnx(external(tmp_path))
    (folder := tmp_path / "now").mkdir()
    links = save_for_now(model, folder / "graph.onnx", linked=True)
    ((name, file),) = links.items()
    assert file == (tmp_path / "weights.bin").resolve() == (folder / name).resolve()
    assert sorted(it.name for it in folder.iterdir()) == sorted([name, "graph.onnx"])
    assert [Path(it.path).name for it in weights_of(model) if isinstance(it, ir.ExternalTensor)] == ["weights.bin"]


def test_weights_are_written_for_who_follows_no_link(tmp_path: Path) -> None:
    model = open_onnx(external(tmp_path))
    (folder := tmp_path / "now").mkdir()
    assert save_for_now(model, folder / "graph.onnx") == {}
    assert [it.name for it in folder.iterdir()] == ["graph.onnx"]
    assert graph_sha256(open_onnx(folder / "graph.onnx")) == graph_sha256(model)


def test_large_weights_in_memory_go_into_one_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_onnx(external(tmp_path))
    value = model.graph.initializers["w"]
    value.const_value = ir.Tensor(np.eye(32, dtype=np.float32), name="w")
    monkeypatch.setattr("harness.graph.onnx_file.INLINE_BYTES", 0)
    (folder := tmp_path / "now").mkdir()
    save_for_now(model, folder / "graph.onnx")
    assert sorted(it.name for it in folder.iterdir()) == ["graph.onnx", "graph.onnx.data"]
    assert graph_sha256(open_onnx(folder / "graph.onnx")) == graph_sha256(model)
    assert isinstance(value.const_value, ir.Tensor)


def test_what_has_nothing_to_promote_is_not_copied() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }")
    assert promote(model) is model
    half = parse("g (float[2] x) => (float[2] y) { h = Cast <to = 10> (x)  y = Cast <to = 1> (h) }")
    assert {int(node.attributes["to"].value) for node in promote(half).graph} == {1}
    assert {int(node.attributes["to"].value) for node in half.graph} == {10, 1}

"""Copies with more outputs, regions as models of their own, and their borders; run in ONNX Runtime."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
import torch
from graphs import parse

from harness.errors import NotJudged, UsageError
from harness.graph.subgraph import boundary, captured_values, extract, order, used_values, with_outputs
from harness.graph.typed import apply
from harness.reference.witness import run_onnxruntime


def run(model: ir.Model, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Check a model fully and run it."""
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return run_onnxruntime(model, inputs)[0]


def names(values: object) -> list[str]:
    return [str(value.name) for value in values]  # type: ignore[attr-defined]


# h is computed from x, half from a constant only, and the two branches meet in y.
BRANCHES = """
g (float[n, 2] x, float[n, 2] z) => (float[n, 2] y)
<float[2, 2] w = {1, 2, 3, 4}, float[1] unused = {7}>
{
    one = Constant <value = float[1] {1.0}> ()
    half = Exp(one)
    h = MatMul(x, w)
    a = Add(h, half)
    b = Mul(h, z)
    y = Sub(a, b)
}
"""
INPUTS = {"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "z": torch.full((2, 2), 0.5)}

CONTROL = """
g (float[2] x, bool flag, float[2] z) => (float[2] y)
{
    s = Exp(x)
    t = Neg(z)
    c = If (flag) <
        then_branch = then_graph () => (float[2] p) { p = Add(s, s) },
        else_branch = else_graph () => (float[2] q) {
            q = If (flag) <
                then_branch = inner_then () => (float[2] r) { r = Neg(s) },
                else_branch = inner_else () => (float[2] u) { u = Mul(t, s) }
            >
        }
    >
    y = Sub(c, s)
}
"""


# More outputs


def test_values_become_outputs_after_the_declared_ones() -> None:
    model = parse(BRANCHES)
    before = ir.to_proto(model).SerializeToString()
    marked = with_outputs(model, ["b", "y", "h", "b"])
    assert names(marked.graph.outputs) == ["y", "b", "h"]
    assert ir.to_proto(model).SerializeToString() == before
    assert marked.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    outputs = run(marked, **INPUTS)
    assert torch.equal(outputs["y"], run(model, **INPUTS)["y"])
    assert torch.equal(outputs["h"], INPUTS["x"] @ torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert torch.equal(outputs["b"], outputs["h"] * 0.5)


@pytest.mark.parametrize(("dtype", "found"), [("float16", "FLOAT16"), ("bfloat16", "BFLOAT16")])
def test_added_outputs_keep_their_own_dtype(dtype: str, found: str) -> None:
    typed = apply(parse(BRANCHES), {}, default=dtype).model
    outputs = {str(value.name): str(value.dtype) for value in with_outputs(typed, ["h", "a"]).graph.outputs}
    assert outputs == {"y": "FLOAT", "h": found, "a": found}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hh", UsageError, "unknown value 'hh'; did you mean h"),
        ("x", UsageError, "'x' is a network input, which no node computes"),
        ("w", UsageError, "'w' is a weight or constant, which no node computes"),
    ],
)
def test_only_computed_values_become_outputs(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        with_outputs(parse(BRANCHES), ["h", name])


def test_values_in_bodies_cannot_become_outputs() -> None:
    for name in ("p", "u"):
        with pytest.raises(NotJudged, match=rf"'{name}' is inside the body of a control flow node"):
            with_outputs(parse(CONTROL), [name])


def test_what_is_no_tensor_cannot_become_an_output() -> None:
    model = parse("g (float[2] x) => (float[2] y) { s = SequenceConstruct(x)  i = Constant <value_int = 0> ()"
                  "  y = SequenceAt(s, i) }")  # fmt: skip
    with pytest.raises(NotJudged, match="'s' cannot be an input or output of a graph: it is no tensor but"):
        with_outputs(model, ["s"])
    model.opset_imports["custom"] = 1
    model.graph[0].domain = "custom"
    with pytest.raises(NotJudged, match="'s' cannot be an input or output of a graph: its dtype is not known"):
        with_outputs(model, ["s"])


def test_values_of_functions_are_found_by_the_names_of_the_value_table() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18, "own" : 1]>\n'
        "g (float[2] x) => (float[2] y) { y = own.twice (x) }\n"
        '<opset_import: ["" : 18], domain: "own"> twice (a) => (c) { b = Exp(a)  c = Add(b, b) }'
    )
    inside, output = order(model)
    assert output == "y"
    marked = with_outputs(model, [inside])
    x = torch.tensor([0.0, 1.0])
    outputs = run_onnxruntime(marked, {"x": x})[0]
    torch.testing.assert_close(outputs[inside], x.exp())
    assert boundary(model, [inside]) == (("x",), (inside,))


# Regions


def test_a_region_is_a_model_of_its_own() -> None:
    model = parse(BRANCHES)
    before = ir.to_proto(model).SerializeToString()
    region = extract(model, ["h", "z"], ["y", "a"])
    assert ir.to_proto(model).SerializeToString() == before
    assert (names(region.graph.inputs), names(region.graph.outputs)) == (["h", "z"], ["y", "a"])
    assert [node.op_type for node in region.graph] == ["Constant", "Exp", "Add", "Mul", "Sub"]
    assert not region.graph.initializers
    assert (region.ir_version, region.opset_imports) == (model.ir_version, model.opset_imports)
    full = run(with_outputs(model, ["h", "a"]), **INPUTS)
    found = run(region, h=full["h"], z=INPUTS["z"])
    assert torch.equal(found["y"], full["y"])
    assert torch.equal(found["a"], full["a"])


def test_shapes_stay_symbolic_at_the_border() -> None:
    region = extract(parse(BRANCHES), ["h", "z"], ["y"])
    for value in (*region.graph.inputs, *region.graph.outputs):
        assert str(value.dtype) == "FLOAT"
        assert value.shape is not None
        assert (str(value.shape[0].value), value.shape[1]) == ("n", 2)  # type: ignore[union-attr]


def test_weights_come_along_shared() -> None:
    model = parse(BRANCHES)
    region = extract(model, ["x"], ["a"])
    assert list(region.graph.initializers) == ["w"]
    assert region.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    expected = run(with_outputs(model, ["a"]), **INPUTS)["a"]
    assert torch.equal(run(region, x=INPUTS["x"])["a"], expected)


def test_what_only_constants_make_is_a_region_without_inputs() -> None:
    region = extract(parse(BRANCHES), [], ["half"])
    torch.testing.assert_close(run(region)["half"], torch.ones(1).exp())


def test_an_input_that_nothing_reads_stays_declared() -> None:
    assert names(extract(parse(BRANCHES), ["x", "h", "z"], ["b"]).graph.inputs) == ["x", "h", "z"]


def test_one_output_of_a_node_enters_and_another_leaves() -> None:
    model = parse("g (float[4] x, int64[1] k) => (float[m] y) { v, i = TopK(x, k)  f = Cast <to = 1> (i)"
                  "  y = Add(v, f) }")  # fmt: skip
    region = extract(model, ["x", "k", "v"], ["y", "i"])
    inputs = {"x": torch.tensor([1.0, 4.0, 2.0, 3.0]), "k": torch.tensor([2]), "v": torch.tensor([10.0, 20.0])}
    found = run(region, **inputs)
    assert found["i"].tolist() == [1, 3]
    assert found["y"].tolist() == [11.0, 23.0]


def test_captured_values_belong_to_the_border() -> None:
    model = parse(CONTROL)
    assert boundary(model, ["c"]) == (("flag", "s", "t"), ("c",))
    region = extract(model, ["flag", "s", "t"], ["c"])
    x, z = torch.tensor([0.5, 1.0]), torch.tensor([2.0, 3.0])
    for flag in (True, False):
        full = run_onnxruntime(model, {"x": x, "z": z, "flag": torch.tensor(flag)}, also=["c", "s", "t"])[0]
        found = run_onnxruntime(region, {"flag": torch.tensor(flag), "s": full["s"], "t": full["t"]})[0]
        assert torch.equal(found["c"], full["c"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["h"], ["y"], r"outputs \(y\) need network input 'z', which is not among its inputs \(h\)"),
        ([], ["h"], r"need network input 'x', which is not among its inputs \(none\)"),
        (["h"], ["h"], "'h' is both an input and an output"),
        (["x"], [], "a region without outputs"),
        (["x"], ["x"], "'x' is a network input"),
        (["w"], ["h"], "'w' is a weight or constant"),
        (["hh"], ["y"], "unknown value 'hh'; did you mean h"),
        (["h"], ["yy"], "unknown value 'yy'; did you mean y"),
    ],
)
def test_a_region_that_is_none_is_refused(inputs: list[str], outputs: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        extract(parse(BRANCHES), inputs, outputs)


def test_a_captured_network_input_is_missed() -> None:
    with pytest.raises(UsageError, match="need network input 'z'"):
        extract(parse(CONTROL), ["flag", "s"], ["c"])


# Borders and order


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (["h"], (("x",), ("h",))),
        (["a", "b", "y"], (("z", "h"), ("y",))),
        (["a", "b"], (("z", "h"), ("a", "b"))),
        (["h", "y"], (("x", "a", "b"), ("h", "y"))),
        (["h", "a", "b", "y", "half"], (("x", "z"), ("y",))),
        (["half", "a"], (("h",), ("a",))),
        ([], ((), ())),
    ],
)
def test_border_of_a_region(region: list[str], expected: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    model = parse(BRANCHES)
    assert boundary(model, region) == expected
    assert boundary(model, frozenset(region)) == expected


def test_every_region_with_its_border_gives_what_the_model_gives() -> None:
    model = parse(BRANCHES)
    values = order(model)
    full = run(with_outputs(model, values), **INPUTS) | INPUTS
    for start in range(len(values)):
        for stop in range(start + 1, len(values) + 1):
            entering, leaving = boundary(model, values[start:stop])
            found = run(extract(model, entering, leaving), **{name: full[name] for name in entering})
            assert set(found) == set(leaving)
            assert all(torch.equal(found[name], full[name]) for name in leaving)


def test_a_node_belongs_to_a_region_with_all_it_computes() -> None:
    model = parse("g (float[4] x) => (float[2] y) { a, b = Split <num_outputs = 2> (x)  y = Add(a, b) }")
    assert boundary(model, ["a"]) == (("x",), ("a", "b"))


def test_border_of_unknown_names() -> None:
    with pytest.raises(UsageError, match="unknown value 'hh'"):
        boundary(parse(BRANCHES), ["hh"])
    with pytest.raises(UsageError, match="'x' is a network input"):
        boundary(parse(BRANCHES), ["x"])
    with pytest.raises(NotJudged, match="'p' is inside the body"):
        boundary(parse(CONTROL), ["p"])


def test_order_leaves_constants_and_absent_outputs_out() -> None:
    assert order(parse(BRANCHES)) == ["h", "a", "b", "y"]
    assert order(parse(CONTROL)) == ["s", "t", "c", "y"]
    model = parse("g (float[4] x, int64[1] k) => (int64[m] i) { , i = TopK(x, k) }")
    assert order(model) == ["i"]


def test_weights_listed_among_the_inputs_are_no_inputs() -> None:
    model = parse(BRANCHES)
    model.graph.inputs.append(model.graph.initializers["w"])
    assert boundary(model, ["h"]) == (("x",), ("h",))
    assert names(extract(model, ["x"], ["h"]).graph.inputs) == ["x"]
    assert order(model) == ["h", "a", "b", "y"]


def test_what_a_node_reads() -> None:
    node = parse(CONTROL).graph[2]
    assert names(captured_values(node)) == ["s", "flag", "t"]
    assert names(used_values(node)) == ["flag", "s", "t"]

"""Values that only the ONNX graph has, from those of the exported program."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from fake import normal
from graphs import BLOCK_INPUTS, export_module, exported_block

from harness.errors import NotJudged, UsageError
from harness.graph.export import Program
from harness.graph.subgraph import order
from harness.reference import helper_values
from harness.reference.helper_values import HelperValues
from harness.reference.witness import run_onnxruntime

Tensors = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def block() -> Program:
    return exported_block()


class Heads(torch.nn.Module):
    """A linear layer on a tensor of rank 3, whose MatMul is a value of its own in ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).exp())


@pytest.fixture(scope="module")
def heads() -> Program:
    torch.manual_seed(0)
    return export_module(Heads().eval(), {"x": normal(2, 3, 4)}, ["output"])


def fx_values(program: Program, inputs: Tensors) -> dict[str, torch.Tensor]:
    """Return the values of the exported program by FX name, inputs among them."""

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            seen[n.name] = result = super().run_node(n)
            return result

    seen: dict[str, torch.Tensor] = {}
    exported = program.exported
    flat = [
        exported.state_dict[spec.target] if spec.kind.name == "PARAMETER" else inputs[spec.arg.name]
        for spec in exported.graph_signature.input_specs
    ]
    with torch.no_grad():
        Recorder(exported.graph_module).run(*flat)
    return seen


def helpers_of(program: Program) -> HelperValues:
    known = {node.name for node in program.exported.graph.nodes}
    return HelperValues(program.model, known, aliases=program.outputs)


def test_a_matmul_before_its_bias_is_computed_from_what_pytorch_has(heads: Program) -> None:
    inputs = {"x": normal(2, 3, 4)}
    seen, helpers = fx_values(heads, inputs), helpers_of(heads)
    first, second = (str(node.outputs[0].name) for node in heads.model.graph if node.op_type == "MatMul")
    assert [name for name in order(heads.model) if name in helpers] == [first, second]
    assert (helpers.needs(first), helpers.needs(second)) == (("x",), ("exp",))
    assert helpers.needs("output") == ("exp",)
    asked: list[str] = []
    found = helpers.value(second, lambda name: asked.append(name) or seen[name])
    assert asked == ["exp"]
    torch.testing.assert_close(found, seen["exp"] @ heads.exported.state_dict["second.weight"].T)
    for name in ("output", heads.outputs["output"]):
        torch.testing.assert_close(helpers.value(name, seen.__getitem__), seen[heads.outputs["output"]])


def test_a_value_that_pytorch_knows_is_computed_from_parts_that_were_seen(heads: Program) -> None:
    inputs = {"x": normal(2, 3, 4)}
    known, helpers = fx_values(heads, inputs), helpers_of(heads)
    for part in (name for name in order(heads.model) if name in helpers):
        [owner] = helpers.owners(part)
        assert part in helpers.parts(owner)
        right = helpers.value(part, known.__getitem__)
        same = helpers.value(owner, known.__getitem__, seen={part: right})
        torch.testing.assert_close(same, known[owner])
        other = helpers.value(owner, known.__getitem__, seen={part: 2 * right})
        assert not torch.allclose(other, known[owner])
    assert helpers.parts("exp") == helpers.parts("nothing") == frozenset()


def test_a_helper_has_the_precision_of_what_it_is_computed_from(heads: Program) -> None:
    helpers = helpers_of(heads)
    first = next(str(node.outputs[0].name) for node in heads.model.graph if node.op_type == "MatMul")
    x, weight = normal(2, 3, 4), heads.exported.state_dict["first.weight"].detach()
    double = helpers.value(first, lambda name: x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, x.double() @ weight.double().T, rtol=1e-14, atol=1e-14)
    for dtype in (torch.float16, torch.bfloat16):
        low = helpers.value(first, lambda name, dtype=dtype: x.to(dtype))
        assert low.dtype == dtype
        assert torch.equal(low, (x.to(dtype).float() @ weight.to(dtype).float().T).to(dtype))


def test_a_helper_of_what_is_not_there_is_not_there(heads: Program) -> None:
    helpers = helpers_of(heads)
    first = next(str(node.outputs[0].name) for node in heads.model.graph if node.op_type == "MatMul")
    assert helpers.value(first, lambda name: None) is None
    assert "exp" not in helpers
    assert "nothing" not in helpers
    with pytest.raises(UsageError, match="unknown value 'nothing'"):
        helpers.needs("nothing")
    with pytest.raises(NotJudged, match=r"value 'x' has shape \[2, 4\]"):
        helpers.value(first, lambda name: normal(2, 4))


def test_every_helper_of_an_exported_model(block: Program) -> None:
    inputs = {name: tensor.clone() for name, tensor in BLOCK_INPUTS.items()}
    seen, helpers = fx_values(block, inputs), helpers_of(block)
    expected = run_onnxruntime(block.model, inputs, also=order(block.model))[0]
    computed = [name for name in order(block.model) if name in helpers]
    assert computed
    for name in computed:
        assert set(helpers.needs(name)) <= set(seen)
        found = helpers.value(name, seen.__getitem__)
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)
    known = {node.name for node in block.exported.graph.nodes} | set(block.outputs)
    assert set(order(block.model)) == set(computed) | (known & set(order(block.model)))


def test_what_pytorch_knows_is_not_copied_for_every_value(heads: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[int] = []
    real = helper_values.nodes_between
    monkeypatch.setattr(
        helper_values, "nodes_between", lambda node, among, **kw: (known.append(id(among)), real(node, among, **kw))[1]
    )
    helpers_of(heads)
    assert len(known) > 3
    assert len(set(known)) == 1

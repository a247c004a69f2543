"""Export: output names, the value table with module paths and call numbers, inputs that do not fit."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from graphs import INPUTS, Net, export, subject
from safetensors.torch import load, save

from harness import NotJudged, UsageError
from harness.graph.export import check_arguments, value_table
from harness.tensors import on_cpu


@pytest.fixture(scope="module")
def program():
    return export(subject(), Net().eval(), INPUTS, ["hidden", "scores", "best"])


def test_onnx_has_the_declared_names_and_dynamic_dimensions(program):
    assert [value.name for value in program.model.graph.inputs] == ["x", "mask"]
    assert [value.name for value in program.model.graph.outputs] == ["hidden", "scores", "best"]
    assert not isinstance(program.model.graph.inputs[0].shape[0], int)


def test_value_table_names_op_module_call_and_source(program):
    first, second = program.values["linear"], program.values["linear_1"]
    assert (first.op, first.module) == ("aten.linear.default", "layer")
    assert second.module == "layer#2"
    assert first.source.startswith("graphs.py:")
    assert first.dtype == "float32"
    assert program.values["hidden"].origin == "layer_norm"
    assert program.values["best"].dtype == "int64"


def test_every_value_of_the_onnx_graph_is_in_the_table(program):
    names = {output.name for node in program.model.graph for output in node.outputs}
    assert names <= set(program.values)


def test_the_parts_of_a_split_have_the_names_of_their_fx_nodes():
    class Gate(torch.nn.Module):
        def forward(self, x):
            first, gate = x.exp().chunk(2, -1)
            a, b = first.split([1, 1], -1)
            return {"y": a + b * gate.relu()}

    parts = export(subject(dynamic={}, ranges={}), Gate().eval(), {"x": torch.ones(3, 4)}, ["y"])
    split = {value.name: parts.values[value.name] for node in parts.model.graph for value in node.outputs}
    assert parts.exported is not None
    assert {value.origin for value in split.values()} <= {node.name for node in parts.exported.graph.nodes}
    ops = Counter(value.op for name, value in split.items() if name.startswith("getitem"))
    assert ops == {"aten.split.Tensor": 2, "aten.split_with_sizes.default": 2}


def test_what_is_folded_into_a_value_is_named_with_it():
    class Blocks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = torch.nn.Conv1d(4, 6, 3), torch.nn.BatchNorm1d(6)
            self.last = torch.nn.Linear(2, 2)

        def forward(self, x):
            hidden = self.bn(self.conv(x)).relu()
            return {"y": self.last(hidden.transpose(1, 2).transpose(1, 2))}

    blocks = export(subject(dynamic={}, ranges={}), Blocks().eval(), {"x": torch.ones(3, 4, 4)}, ["y"])
    exported = {value.name for node in blocks.model.graph for value in node.outputs}
    folded = {name: blocks.values[name].folded for name in exported if blocks.values[name].folded}
    [(name, modules)] = folded.items()
    assert (blocks.values[name].module, modules) == ("bn", ("conv",))


def test_a_node_that_says_nothing_of_its_origin_belongs_to_what_it_reads(program):
    model = program.model.clone()
    for node in model.graph:
        node.metadata_props.clear()
    table = value_table(program.exported, model, program.outputs)
    known = {node.name for node in program.exported.graph.nodes}
    computed = {value.name for node in model.graph if node.op_type != "Constant" for value in node.outputs}
    assert {table[name].origin for name in computed} <= known


class Named(torch.nn.Module):
    """Called as what it is made of: values, weights and inputs."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, **given):
        hidden = self.layer(given["relu"])
        made = hidden.relu()
        return {"linear": made * 2, "mul": hidden, "layer.weight": made.sigmoid(), "sum": given["layer.bias"] + 1}


def test_no_two_values_share_a_name():
    given = {"relu": torch.ones(3, 4), "layer.bias": torch.ones(3, 4)}
    named = export(subject(dynamic={}, ranges={}), Named().eval(), given, ["linear", "mul", "layer.weight", "sum"])
    values = [value.name for value in (*named.model.graph.inputs, *named.model.graph.initializers.values())]
    values += [value.name for node in named.model.graph for value in node.outputs]
    assert len(values) == len(set(values))
    assert [value.name for value in named.model.graph.outputs] == ["linear", "mul", "layer.weight", "sum"]
    assert named.exported is not None
    nodes = [node.name for node in named.exported.graph.nodes]
    assert len(nodes) == len(set(nodes))
    ops = [named.values[name].op for name in named.outputs]
    assert ops == ["aten.mul.Tensor", "aten.linear.default", "aten.sigmoid.default", "aten.add.Tensor"]


def test_what_is_computed_twice_and_returned_twice_is_found():
    class Twice(torch.nn.Module):
        def forward(self, x):
            return {"half": x.exp()[:1], "whole": x.exp(), "again": x.exp()}

    made = export(subject(dynamic={}, ranges={}), Twice().eval(), {"x": torch.ones(3, 4)}, ["half", "whole", "again"])
    assert made.exported is not None
    assert set(made.outputs.values()) <= {node.name for node in made.exported.graph.nodes}
    assert made.outputs["whole"] == made.outputs["again"] == "exp"


def test_an_output_named_like_an_input_is_refused():
    with pytest.raises(UsageError, match="'x' is both an input and an output"):
        export(subject(), Net().eval(), INPUTS, ["x", "scores", "best"])


class LearnedBias(torch.nn.Module):
    """Attention as in T5 and Swin: what is added to the scores is learned, by relative position."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Embedding(36, 2)

    def forward(self, x):
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        bias = self.bias(torch.arange(36).view(6, 6)).permute(2, 0, 1)[None]
        mixed = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
        return {"y": mixed.transpose(1, 2).contiguous().reshape(x.shape)}


def test_attention_with_a_learned_bias_can_be_exported():
    module = LearnedBias()
    program = export(subject(dynamic={}, ranges={}), module, {"x": torch.ones(2, 6, 8)}, ["y"])
    assert [value.name for value in program.model.graph.outputs] == ["y"]
    assert module.bias.weight.requires_grad, "the module is left as it was"


class Branches(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_a_module_that_cannot_be_exported_is_not_judged():
    with pytest.raises(NotJudged, match=r"could not export 'net': .*; change that operation"):
        export(subject(dynamic={}, ranges={}), Branches(), {"x": torch.ones(2)}, ["output"])


class Pooled(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return {"y": x[:, : self.size].view(-1, self.size) if self.size else x.view(-1, 8)}


@pytest.mark.parametrize(("size", "takes"), [(6, "n from 6 to 32"), (0, "n = 8")])
def test_sizes_that_the_module_does_not_take_are_said_with_those_that_it_takes(size, takes):
    ranged = subject(dynamic={"x": {1: "n"}}, ranges={"n": (2, 32)})
    words = f"could not export 'net': the module does not take all sizes of ranges=, only {takes}; give these, or take"
    with pytest.raises(NotJudged, match=words):
        export(ranged, Pooled(size), {"x": torch.ones(3, 8)}, ["y"])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": torch.ones(3, 4)}, "input 'mask' is missing"),
        ({**INPUTS, "maks": torch.ones(1)}, "no input 'maks'; it takes x, mask"),
    ],
)
def test_inputs_that_do_not_fit(inputs, words):
    with pytest.raises(UsageError, match=words):
        check_arguments(Net(), inputs, inputs, where="case 'one'")


def test_inputs_that_hold_nan():
    with pytest.raises(NotJudged, match="input 'x' holds 4 NaN and 0 infinite"):
        check_arguments(Net(), INPUTS, {**INPUTS, "x": torch.full((1, 4), math.nan)}, where="case 'one'")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": None}, "needs either build="),
        ({"cases": {}}, "has no cases"),
        ({"targets": ()}, "has no targets"),
        ({"ranges": {}}, "no range for dynamic dimension batch"),
    ],
)
def test_a_subject_that_is_not_complete_says_what_is_missing(changes, words):
    with pytest.raises(UsageError, match=words):
        subject(**changes)


def test_copies_share_no_memory_and_can_be_stored():
    base = torch.arange(12.0).reshape(3, 4)
    given = {"all": base, "again": base, "column": base[:, 1], "turned": base.t(), "wide": base[:1, :1].expand(2, 3)}
    copies = on_cpu({name: tensor.requires_grad_() for name, tensor in given.items()})
    assert all(torch.equal(load(save(copies))[name], tensor) for name, tensor in given.items())
    assert len({tensor.untyped_storage().data_ptr() for tensor in [base, *copies.values()]}) == 6

"""Random operators of an ONNX graph: found, so that nothing random is judged, or replaced by stored noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from harness.errors import NotJudged
from harness.graph.dtypes import BOOL
from harness.graph.edits import FreshNames, add_initializer, new_node
from harness.graph.ir import constant_of, copy_model, elements_of, plain_model
from harness.graph.types import infer_types
from harness.lazy import onnx_ir as ir
from harness.sentences import Sentence

_NOISE = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Dropout"}
_RANDOM = {*_NOISE, "Multinomial"} - {"Dropout"}


def random_nodes(model: ir.Model) -> list[str]:
    """Return the random operators of a model, those in bodies included, as ``RandomNormalLike (value 'noise')``."""
    plain = plain_model(model)
    opset = plain.opset_imports.get("", 1)
    return [
        Sentence("op_of_value", target=node.op_type, name=node.outputs[0].name)
        for node in plain.graph.all_nodes()
        if node.domain == "" and (node.op_type in _RANDOM or _drops(node, opset))
    ]


def with_stored_noise(model: ir.Model, seed: int) -> ir.Model:
    """Return a copy in which every random operator is a constant of seeded noise, the same for every engine.

    Raises NotJudged for one whose shape is not fixed, and for those of which noise alone is not the result.
    """
    copy = copy_model(model)
    infer_types(copy)
    names, opset = FreshNames(copy), copy.opset_imports.get("", 1)
    generator = np.random.default_rng(seed)
    for node in list(copy.graph.all_nodes()):
        if node.domain != "" or not (node.op_type in _RANDOM or _drops(node, opset)):
            continue
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        value = node.outputs[0]
        if node.op_type not in _NOISE:
            raise NotJudged(Sentence("random_not_replaced", target=node.op_type, name=value.name))
        dtype = int(value.dtype or ir.DataType.FLOAT)
        share = _ratio(node, opset) if node.op_type == "Dropout" else 0.0
        drawn = _drawn(node, value, generator, share)
        noise = add_initializer(copy.graph, names.fresh(f"{value.name}_noise"), ir.Tensor(drawn))
        if node.op_type == "Bernoulli":
            less = new_node("Less", [noise, _input(node)], names.fresh(f"{value.name}_drawn"), BOOL)
            cast = new_node("Cast", [less.outputs[0]], names.fresh(str(value.name)), dtype, to=dtype)
            _replace(graph, node, [less, cast], [cast.outputs[0]])
        elif node.op_type == "Dropout":
            result = new_node("Mul", [_input(node), noise], names.fresh(str(value.name)), dtype)
            mask = new_node("Cast", [noise], names.fresh(f"{value.name}_mask"), BOOL, to=BOOL)
            _replace(graph, node, [result, mask], [result.outputs[0], mask.outputs[0]])
        else:
            same = new_node("Identity", [noise], names.fresh(str(value.name)), dtype)
            _replace(graph, node, [same], [same.outputs[0]])
    return copy


def _drops(node: ir.Node, opset: int) -> bool:
    """Return whether a Dropout is in training mode."""
    if node.op_type != "Dropout":
        return False
    if opset < 7:
        return not (node.attributes["is_test"].as_int() if "is_test" in node.attributes else 0)
    flag = node.inputs[2] if opset >= 12 and len(node.inputs) > 2 else None
    constant = None if flag is None else constant_of(flag)
    return constant is not None and bool(elements_of(constant).all()) and _ratio(node, opset) != 0


def _ratio(node: ir.Node, opset: int) -> float | None:
    """Return what share a Dropout sets to zero; None where the graph computes it."""
    if opset < 12:
        return node.attributes["ratio"].as_float() if "ratio" in node.attributes else 0.5
    given = node.inputs[1] if len(node.inputs) > 1 else None
    constant = None if given is None else constant_of(given)
    if given is None:
        return 0.5
    return None if constant is None else float(elements_of(constant).item())


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _drawn(
    node: ir.Node, value: ir.Value, generator: np.random.Generator, share: float | None
) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """Return seeded noise of a node's kind, shape and type; for a Dropout of a share the factors it multiplies by."""
    if share is None:
        raise NotJudged(Sentence("random_dropout", name=value.name))
    shape = value.shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        raise NotJudged(Sentence("random_shape_export", op_type=node.op_type, name=value.name, shape=shape))

    def number(name: str, default: float) -> float:
        return node.attributes[name].as_float() if name in node.attributes else default

    sizes = tuple(int(size) for size in shape if isinstance(size, int))
    if "Normal" in node.op_type:
        drawn = number("mean", 0.0) + number("scale", 1.0) * generator.standard_normal(sizes)
    elif node.op_type == "Dropout":
        drawn = (generator.random(sizes) >= share) / max(1 - share, np.finfo(np.float64).tiny)
    else:
        low, high = (0.0, 1.0) if node.op_type == "Bernoulli" else (number("low", 0.0), number("high", 1.0))
        drawn = low + (high - low) * generator.random(sizes)
    assert drawn.size == math.prod(sizes)
    decides = _input(node).dtype if node.op_type == "Bernoulli" else value.dtype
    return drawn.astype(np.float64 if decides == ir.DataType.DOUBLE else np.float32)


def _replace(graph: ir.Graph, node: ir.Node, made: list[ir.Node], results: list[ir.Value]) -> None:
    """Put nodes in the place of one; its outputs' names go over to the results."""
    graph.insert_before(node, made)
    names = [value.name for value in node.outputs]
    for value, new in zip(node.outputs, results, strict=False):
        value.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    for name, new in zip(names, results, strict=False):
        new.name = name or new.name

"""Random operators of an ONNX graph: found, so that nothing random is judged, or replaced by stored noise."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from harness.errors import NotJudged
from harness.graph.edits import FreshNames, add_initializer, new_node
from harness.graph.ir import constant_of, copy_model, elements_of
from harness.graph.types import infer_types

_NOISE = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
_RANDOM = {*_NOISE, "Multinomial"}


def random_nodes(model: ir.Model) -> list[str]:
    """Return the random operators of a model, those in bodies included, as ``RandomNormalLike (value 'noise')``."""
    copy = copy_model(model)
    opset = copy.opset_imports.get("", 1)
    return [
        f"{node.op_type} (value {node.outputs[0].name!r})"
        for node in copy.graph.all_nodes()
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
            raise NotJudged(f"{node.op_type} (value {value.name!r}) is random, and --seed-random cannot replace it")
        drawn = _drawn(node, value, generator)
        noise = add_initializer(copy.graph, names.fresh(f"{value.name}_noise"), ir.Tensor(drawn))
        if node.op_type == "Bernoulli":
            dtype = int(value.dtype or ir.DataType.FLOAT)
            less = new_node("Less", [noise, _input(node)], names.fresh(f"{value.name}_drawn"), int(ir.DataType.BOOL))
            made = [less, new_node("Cast", [less.outputs[0]], names.fresh(str(value.name)), dtype, to=dtype)]
        else:
            made = [new_node("Identity", [noise], names.fresh(str(value.name)), int(value.dtype or 1))]
        _replace(graph, node, made)
    return copy


def _drops(node: ir.Node, opset: int) -> bool:
    """Return whether a Dropout is in training mode."""
    if node.op_type != "Dropout":
        return False
    if opset < 7:
        return not (node.attributes["is_test"].as_int() if "is_test" in node.attributes else 0)
    flag = node.inputs[2] if opset >= 12 and len(node.inputs) > 2 else None
    constant = None if flag is None else constant_of(flag)
    return constant is not None and bool(elements_of(constant).all())


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _drawn(
    node: ir.Node, value: ir.Value, generator: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return seeded noise of a node's kind and shape."""
    shape = value.shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        raise NotJudged(
            f"{node.op_type} (value {value.name!r}) is random and of no fixed shape ({shape}), so that --seed-random "
            "cannot store its noise; export the model with fixed sizes"
        )

    def number(name: str, default: float) -> float:
        return node.attributes[name].as_float() if name in node.attributes else default

    sizes = tuple(int(size) for size in shape if isinstance(size, int))
    if "Normal" in node.op_type:
        drawn = number("mean", 0.0) + number("scale", 1.0) * generator.standard_normal(sizes)
    else:
        low, high = (0.0, 1.0) if node.op_type == "Bernoulli" else (number("low", 0.0), number("high", 1.0))
        drawn = low + (high - low) * generator.random(sizes)
    assert drawn.size == math.prod(sizes)
    return drawn.astype(np.float32)


def _replace(graph: ir.Graph, node: ir.Node, made: list[ir.Node]) -> None:
    """Put nodes in the place of one; the last one's output takes over its name."""
    value, new = node.outputs[0], made[-1].outputs[0]
    name = value.name
    graph.insert_before(node, made)
    value.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name = name

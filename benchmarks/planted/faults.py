"""Faults as data, and what each does to an ONNX graph: nodes behind the value that is wrong, or its node changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One place that is wrong."""

    value: str
    """The value that is made wrongly, by its name in the ONNX graph."""
    how: str
    """A name in ``WAYS``."""
    args: tuple[Any, ...] = ()
    at: int | None = None
    """Which input of its node is wrong; None for what the node makes."""
    half: bool = False
    """Only where the node computes in FP16."""
    fused: str = ""
    """Only where this value is made in the same engine, and neither of the two is an output of it."""
    hidden: bool = False
    """Only while no value that the engine itself reads is an output of it."""


class Nodes:
    """Makes nodes: ``nodes.Add(x, y, axis=1)`` returns what the node computes."""

    def __init__(self, prefix: str, weights: Path | None) -> None:
        self.prefix, self.weights, self.made = prefix, weights, list[ir.Node]()

    def __getattr__(self, op: str) -> Callable[..., ir.Value]:
        def make(*inputs: ir.Value, **attributes: Any) -> ir.Value:
            name = f"{self.prefix}__{len(self.made)}"
            node = ir.Node("", op, inputs, ir.convenience.convert_attributes(attributes), num_outputs=1, name=name)
            node.outputs[0].name = name
            self.made.append(node)
            return node.outputs[0]

        return make

    def constant(self, numbers: Any, dtype: Any = np.float32) -> ir.Value:
        return self.Constant(value=ir.tensor(np.array(numbers, dtype), name=f"{self.prefix}__{len(self.made)}"))

    def like(self, x: ir.Value, numbers: Any) -> ir.Value:
        """Return numbers in the dtype of a value."""
        if x.dtype is None:
            return self.CastLike(self.constant(numbers), x)
        return self.constant(numbers, x.dtype.numpy())

    def in_half(self, x: ir.Value) -> ir.Value:
        """Return a value rounded to FP16; ONNX Runtime would cancel a pair of casts."""
        axis = self.constant([0], np.int64)
        return self.Squeeze(self.Unsqueeze(self.Cast(x, to=10), axis), axis)


Way = Callable[..., ir.Value | None]
WAYS: dict[str, Way] = {}
"""By name: given the maker of nodes, the value, its node and the arguments; returns the wrong value, or None where the
node itself was changed."""


def way(function: Way) -> Way:
    WAYS[function.__name__] = function
    return function


def size(x: ir.Value, axis: int) -> int:
    assert x.shape is not None
    return int(x.shape[axis])


@way
def scale(n: Nodes, x: ir.Value, node: ir.Node, factor: float) -> ir.Value:
    """As long as the last axis: ONNX Runtime 1.32 crashes where it moves a single number into a product behind it."""
    return n.Mul(x, n.like(x, np.full(size(x, -1), factor)))


@way
def offset(n: Nodes, x: ir.Value, node: ir.Node, number: float) -> ir.Value:
    return n.Add(x, n.like(x, number))


@way
def entry(n: Nodes, x: ir.Value, node: ir.Node, axis: int, index: int, factor: float) -> ir.Value:
    """One channel, head, row or batch entry times a factor."""
    shape = [1] * len(x.shape)
    shape[axis] = size(x, axis)
    factors = np.where(np.arange(shape[axis]) == index, factor, 1.0).reshape(shape)
    return n.Mul(x, n.like(x, factors))


@way
def channels(n: Nodes, x: ir.Value, node: ir.Node, axis: int, number: float) -> ir.Value:
    """Add another constant to every channel."""
    shape = [1] * len(x.shape)
    shape[axis] = size(x, axis)
    return n.Add(x, n.like(x, (number * np.sin(1.0 + np.arange(shape[axis]))).reshape(shape)))


@way
def factors(n: Nodes, x: ir.Value, node: ir.Node, axis: int, most: float) -> ir.Value:
    """Multiply every channel by another factor, from 1 - most to 1 + most."""
    shape = [1] * len(x.shape)
    shape[axis] = size(x, axis)
    return n.Mul(x, n.like(x, (1 + most * np.sin(1.0 + np.arange(shape[axis]))).reshape(shape)))


@way
def shifted(n: Nodes, x: ir.Value, node: ir.Node, axis: int, steps: int = 1) -> ir.Value:
    return n.Gather(x, n.constant(np.roll(np.arange(size(x, axis)), steps), np.int64), axis=axis)


@way
def repeated(n: Nodes, x: ir.Value, node: ir.Node, axis: int) -> ir.Value:
    """The first entry of an axis stands for all of them."""
    return n.Gather(x, n.constant(np.zeros(size(x, axis)), np.int64), axis=axis)


@way
def transposed(n: Nodes, x: ir.Value, node: ir.Node, *axes: int) -> ir.Value:
    return n.Transpose(x, perm=list(axes))


@way
def saturated(n: Nodes, x: ir.Value, node: ir.Node, limit: float) -> ir.Value:
    return n.Max(n.Min(x, n.like(x, limit)), n.like(x, -limit))


@way
def rounded(n: Nodes, x: ir.Value, node: ir.Node) -> ir.Value:
    """Rounded to FP16, whatever the graph says."""
    return n.CastLike(n.in_half(x), x)


@way
def tf32(n: Nodes, x: ir.Value, node: ir.Node) -> ir.Value:
    """A product of FP32 factors that are rounded to 11 bits, as TF32 does; ``node`` must be a MatMul."""
    short = [n.Sub(large := n.Mul(it, n.constant(2.0**13 + 1)), n.Sub(large, it)) for it in node.inputs]
    return n.MatMul(*short)


@way
def noise(n: Nodes, x: ir.Value, node: ir.Node, size: float) -> ir.Value:
    """Another error in every run."""
    return n.Add(x, n.CastLike(n.RandomNormalLike(x, dtype=1, scale=size), x))


@way
def holds(n: Nodes, x: ir.Value, node: ir.Node, other: str) -> ir.Value:
    """What another value should be, where that is made in the same engine."""
    made = {str(it.name): it for one in x.graph or () for it in one.outputs}
    return n.CastLike(made.get(other, x), x)


@way
def swapped(n: Nodes, x: ir.Value, node: ir.Node, one: str, other: str) -> None:
    """Two outputs of one engine, each in the place of the other."""
    outputs = {str(it.name): it for it in getattr(x.graph, "outputs", ())}
    if {one, other} <= outputs.keys():
        outputs[one].name, outputs[other].name = other, one


@way
def swamped(n: Nodes, x: ir.Value, node: ir.Node, by: float) -> ir.Value:
    """Added to something large in FP16, which is subtracted again."""
    large = n.constant(by, np.float16)
    return n.CastLike(n.Sub(n.in_half(n.Add(n.in_half(x), large)), large), x)


@way
def nan(n: Nodes, x: ir.Value, node: ir.Node) -> ir.Value:
    return n.Mul(x, n.like(x, math.nan))


@way
def nan_above(n: Nodes, x: ir.Value, node: ir.Node, limit: float) -> ir.Value:
    return n.Where(n.Greater(x, n.like(x, limit)), n.like(x, math.nan), x)


@way
def zeros(n: Nodes, x: ir.Value, node: ir.Node) -> ir.Value:
    return n.Mul(x, n.like(x, 0.0))


@way
def computes(n: Nodes, x: ir.Value, node: ir.Node, op: str) -> ir.Value:
    """Another function of one input in the place of the node's."""
    return getattr(n, op)(node.inputs[0])


@way
def bypassed(n: Nodes, x: ir.Value, node: ir.Node, index: int = 0) -> ir.Value:
    """One of its inputs, as it is: a factor, a bias or an epsilon was dropped."""
    return n.Identity(node.inputs[index])


@way
def silu(n: Nodes, x: ir.Value, node: ir.Node) -> ir.Value:
    return n.Mul(node.inputs[0], n.Sigmoid(node.inputs[0]))


@way
def negated(n: Nodes, x: ir.Value, node: ir.Node) -> ir.Value:
    return n.Neg(x)


@way
def inverted(n: Nodes, x: ir.Value, node: ir.Node) -> ir.Value:
    return n.Not(x)


@way
def next_index(n: Nodes, x: ir.Value, node: ir.Node, count: int) -> ir.Value:
    one, many = n.constant(1, np.int64), n.constant(count, np.int64)
    return n.Mod(n.Add(n.Cast(x, to=7), one), many)


@way
def constant(n: Nodes, x: ir.Value, node: ir.Node, number: float) -> ir.Value:
    return n.like(x, number)


@way
def weights_of(n: Nodes, x: ir.Value, node: ir.Node, other: str) -> ir.Value:
    """The weights of another layer, as the whole graph has them."""
    assert n.weights is not None
    model = ir.load(n.weights)
    found = next(v for name, v in model.graph.initializers.items() if name in (other, f"{other}_fp16"))
    return n.like(x, found.const_value.numpy().astype(np.float32))


@way
def attribute(n: Nodes, x: ir.Value, node: ir.Node, name: str, value: Any) -> None:
    value = list(value) if isinstance(value, list | tuple) else value
    node.attributes[name] = ir.convenience.convert_attribute(name, value)


@way
def no_bias(n: Nodes, x: ir.Value, node: ir.Node) -> None:
    """A convolution, Gemm or RNN without its bias."""
    node.replace_input_with(2 if node.op_type in ("Conv", "Gemm", "ConvTranspose") else 3, None)


@way
def exchanged(n: Nodes, x: ir.Value, node: ir.Node, first: int = 0, second: int = 1) -> None:
    """Two inputs in the wrong order."""
    a, b = node.inputs[first], node.inputs[second]
    node.replace_input_with(first, b)
    node.replace_input_with(second, a)

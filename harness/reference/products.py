"""Products of FP16 numbers on a CPU, computed in FP32 and rounded: what the kernels give, 5 to 50 times sooner.

These kernels multiply FP16 numbers exactly, sum in FP32 and round once, but one by one where the processor has no FP16
instructions. Both ways lie 2.07e-4 from the exact result, to five digits, and at most 0.6% of their elements differ, by
one rounding: the order of the sum. Transposed convolutions and fused attention round in between, and are not meant.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from harness.reference.onnx_calls import OnnxCall

_aten = torch.ops.aten
_PRODUCTS = frozenset({
    _aten.linear.default, _aten.matmul.default, _aten.mm.default, _aten.bmm.default, _aten.addmm.default,
    _aten.baddbmm.default, _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.conv1d.padding,
    _aten.conv2d.padding, _aten.conv3d.padding,
})  # fmt: skip


def is_product(node: Node) -> bool:
    """Return whether a node gives sums of products, rounded once."""
    target = node.target
    if isinstance(target, OnnxCall):
        has_bias = len(node.args) > 2 and node.args[2] is not None  # without one, alpha is a second rounding
        return target.node.domain == "" and (
            target.node.op_type in ("Conv", "MatMul") or (target.node.op_type == "Gemm" and has_bias)
        )
    if target is _aten.convolution.default:
        return node.args[6] is False
    return target in _PRODUCTS

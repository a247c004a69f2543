"""ONNX operators in PyTorch: what each means, by opset, in the dtype and on the device of its inputs.

``bind(node)`` gives the function of a node with its attributes; tests hold every one against the node tests of ONNX.
"""

from __future__ import annotations

from harness.operators import (  # noqa: F401  (each registers its operators)
    arithmetic,
    attention,
    casting,
    classical,
    control_flow,
    convolution,
    detection,
    elementwise,
    fused,
    fused_attention,
    indexing,
    linear,
    losses,
    normalization,
    ordering,
    parts,
    pooling,
    quantization,
    quantized,
    recurrent,
    reductions,
    resize,
    sampling,
    sequences,
    shapes,
    signal,
)
from harness.operators.binding import Call, bind, tensor_of
from harness.operators.quantization import RANGES, codes, kind_of_codes, spread
from harness.operators.values import CARRIED, Unsupported

__all__ = ["CARRIED", "RANGES", "Call", "Unsupported", "bind", "codes", "kind_of_codes", "spread", "tensor_of"]

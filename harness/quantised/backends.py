"""How each backend quantises where it does otherwise than ONNX says: a fact per backend, with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What a backend does at a quantiser and before it."""

    reciprocal: bool = False
    """It multiplies by the reciprocal of the scale, rounded to FP32, where ONNX divides."""
    rounds_bias: bool = False
    """It rounds the bias of a convolution or a Gemm between DQs to INT32, in units of the product of both scales."""


DIVIDES = Arithmetic()
ARITHMETIC = {
    "rtx": Arithmetic(reciprocal=True),
    "trt": Arithmetic(reciprocal=True),
    "ort-cpu": Arithmetic(rounds_bias=True),
    "ort-cuda": Arithmetic(rounds_bias=True),
}
"""By backend.

rtx: TensorRT for RTX 1.6.1 on an H200, Q and DQ alone: all codes of 2^18 values are those of x * (1 / s).
trt: its documentation of quantised types (10.11): "quantization uses the reciprocal scale"; not measured here.
ort-*: QuantizeLinear divides (onnxruntime 1.32 on the CPU: every code of 10^6 values). Its pass
qdq_transformer/weight_bias_quantization.cc makes a float bias INT32, in units of the product of both scales: the
optimised graph of an FP8 net has a DequantizeLinear of "..._bias_int32" for each, and codes move by up to half a unit.
"""

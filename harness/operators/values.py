"""What operators have in common: the dtypes that PyTorch carries for ONNX, and the precision inside an operation."""

from __future__ import annotations

import torch

CARRIED = {
    "FLOAT": torch.float32,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "UINT16": torch.uint16,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "FLOAT16": torch.float16,
    "DOUBLE": torch.float64,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "COMPLEX64": torch.complex64,
    "COMPLEX128": torch.complex128,
    "BFLOAT16": torch.bfloat16,
    "FLOAT8E4M3FN": torch.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": torch.float8_e4m3fnuz,
    "FLOAT8E5M2": torch.float8_e5m2,
    "FLOAT8E5M2FNUZ": torch.float8_e5m2fnuz,
    "FLOAT8E8M0": torch.float8_e8m0fnu,
    # PyTorch has no arithmetic for these: the numbers travel in the next wider type.
    "UINT4": torch.uint8,
    "INT4": torch.int8,
    "UINT2": torch.uint8,
    "INT2": torch.int8,
    "FLOAT4E2M1": torch.float8_e4m3fn,
}
"""The PyTorch dtype that holds the numbers of an ONNX element type; strings have none."""


class Unsupported(Exception):
    """An operator has no meaning here for these inputs or attributes; ONNX Runtime is asked next."""


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a float tensor in at least FP32: what ONNX calls the stash type of a normalisation."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()

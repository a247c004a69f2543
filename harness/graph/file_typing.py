"""The typing that an ONNX file brings along: what ``-p file`` leaves as it is."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from harness.graph.dtypes import HALF, NAMES, PRECISIONS
from harness.graph.ir import copy_model, graph_values, lacks_types, plain_model
from harness.graph.onnx_inputs import dtype_name
from harness.graph.types import infer_types
from harness.lazy import onnx_ir as ir

_QUANTISES = ("QuantizeLinear", "DequantizeLinear")


def is_quantised(model: ir.Model) -> bool:
    """Return whether a file has ``QuantizeLinear`` or ``DequantizeLinear``, in a function too."""
    parts: tuple[ir.Graph | ir.Function, ...] = (model.graph, *model.functions.values())
    return any(node.op_type in _QUANTISES for part in parts for node in part.all_nodes())


def is_typed(model: ir.Model) -> bool:
    """Return whether somebody has decided what a file computes in: it is quantised, or has FP16 or BF16 values."""
    return is_quantised(model) or computes_in(model) != "fp32"


def computes_in(model: ir.Model) -> str:
    """Return the coarsest format that a value of a file has: ``fp32``, ``fp16`` or ``bf16``."""
    values = [value for graph in model.graphs() for value in graph_values(graph) if value.name]
    found = {NAMES[int(value.dtype)] for value in values if value.dtype in HALF}
    if not found and any(value.type is None for value in values):
        found = set(file_dtypes(model).values())
    return next((PRECISIONS[dtype] for dtype in ("bfloat16", "float16") if dtype in found), "fp32")


def file_dtypes(model: ir.Model) -> dict[str, str]:
    """Return the dtype of every computed value of floats, in bodies too, by name: ``float32``, ``float16``..."""
    if lacks_types(plain := plain_model(model)):
        plain = copy_model(model)
        infer_types(plain)
    made = (value for node in plain.graph.all_nodes() for value in node.outputs if value.name)
    return {str(value.name): NAMES[int(value.dtype)] for value in made if value.dtype in NAMES}


def port_dtypes(values: Iterable[ir.Value]) -> dict[str, torch.dtype]:
    """Return the dtypes of inputs or outputs by name, where PyTorch has them."""
    dtypes = {str(it.name): getattr(torch, dtype_name(it.dtype), None) for it in values if it.dtype is not None}
    return {name: dtype for name, dtype in dtypes.items() if dtype is not None}

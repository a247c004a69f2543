"""The inputs and outputs of a TensorRT engine, and whether tensors fit them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.backends.base import Shape
from harness.errors import EngineRefused

if TYPE_CHECKING:
    import torch

TORCH_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""What PyTorch calls a TensorRT dtype."""


@dataclass(frozen=True, kw_only=True)
class EngineTensor:
    """One input or output of an engine."""

    name: str
    is_input: bool
    dtype: torch.dtype
    shape: Shape
    """As declared; -1 where a dimension is dynamic."""
    minimum: Shape
    """The smallest shape accepted; equal to ``shape`` unless this is a dynamic input."""
    maximum: Shape
    """The largest shape accepted."""
    on_host: bool
    """TensorRT reads or writes it in host memory."""


def io_tensors(trt: Any, engine: Any) -> tuple[EngineTensor, ...]:
    """Return the inputs and outputs of an engine. Raises EngineRefused for a dtype that PyTorch has not."""
    return tuple(_io_tensor(trt, engine, engine.get_tensor_name(index)) for index in range(engine.num_io_tensors))


def _io_tensor(trt: Any, engine: Any, name: str) -> EngineTensor:
    import torch

    dtype = engine.get_tensor_dtype(name).name
    if dtype not in TORCH_DTYPES:
        raise EngineRefused(f"engine tensor {name!r} has dtype {dtype}, which PyTorch has no equal of")
    shape = tuple(engine.get_tensor_shape(name))
    is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
    minimum = maximum = shape
    if is_input and -1 in shape:
        minimum, _, maximum = (tuple(limit) for limit in engine.get_tensor_profile_shape(name, 0))
    return EngineTensor(
        name=name,
        is_input=is_input,
        dtype=getattr(torch, TORCH_DTYPES[dtype]),
        shape=shape,
        minimum=minimum,
        maximum=maximum,
        on_host=engine.get_tensor_location(name) == trt.TensorLocation.HOST,
    )


def check_inputs(tensors: Iterable[EngineTensor], given: Mapping[str, torch.Tensor], backend: str) -> None:
    """Raise EngineRefused unless names, dtypes and shapes are the engine's."""
    wanted = {tensor.name: tensor for tensor in tensors if tensor.is_input}
    if wanted.keys() != given.keys():
        missing, unexpected = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise EngineRefused(f"{backend}: inputs differ from the engine's: missing {missing}, unexpected {unexpected}")
    for name, tensor in wanted.items():
        dtype, shape = given[name].dtype, tuple(given[name].shape)
        if dtype != tensor.dtype:
            raise EngineRefused(f"{backend}: input {name!r} is {dtype}, but the engine takes {tensor.dtype}")
        fits = len(shape) == len(tensor.minimum) and all(
            low <= size <= high for low, size, high in zip(tensor.minimum, shape, tensor.maximum, strict=True)
        )
        if not fits:
            allowed = (
                f"{tensor.minimum}" if tensor.minimum == tensor.maximum else f"{tensor.minimum} to {tensor.maximum}"
            )
            raise EngineRefused(f"{backend}: input {name!r} has shape {shape}, but the engine takes {allowed}")

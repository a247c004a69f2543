"""The inputs and outputs of a TensorRT engine, and the shapes that fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.backends.base import Shape
from harness.errors import EngineRefused
from harness.sentences import Sentence

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

    def takes(self, shape: Shape) -> bool:
        """Return whether an input of this shape lies within the range."""
        return len(shape) == len(self.minimum) and all(
            low <= size <= high for low, size, high in zip(self.minimum, shape, self.maximum, strict=True)
        )

    def accepted(self) -> str:
        """Return the range of shapes, or the only one."""
        return f"{self.minimum}" if self.minimum == self.maximum else f"{self.minimum} to {self.maximum}"


def io_tensors(trt: Any, engine: Any) -> tuple[EngineTensor, ...]:
    """Return the inputs and outputs of an engine. Raises EngineRefused for a dtype that PyTorch has not."""
    return tuple(_io_tensor(trt, engine, engine.get_tensor_name(index)) for index in range(engine.num_io_tensors))


def _io_tensor(trt: Any, engine: Any, name: str) -> EngineTensor:
    import torch

    dtype = engine.get_tensor_dtype(name).name
    if dtype not in TORCH_DTYPES:
        raise EngineRefused(Sentence("no_equal_dtype", name=name, dtype=dtype))
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

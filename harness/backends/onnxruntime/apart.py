"""An engine of ONNX Runtime on the CPU in a process of its own, where it may crash, hang or want all memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.backends.base import ProfileSession, check_inputs
from harness.backends.onnxruntime.errors import load_error, run_error
from harness.backends.onnxruntime.file import read_header
from harness.backends.onnxruntime.ports import Port, dtype_of, onnx_number, read_port
from harness.backends.onnxruntime.profile import profiled
from harness.errors import EngineFailed
from harness.isolated import Model, Raised
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch


class ApartSession(ProfileSession):
    """A loaded engine file; tensors go in and out as their bytes, which carry BF16 too."""

    layers: int | None = None  # ONNX Runtime does not tell

    def __init__(self, file: Path, *, name: str, profile: Path | None = None) -> None:
        self._name, self._file = name, file
        with file.open("rb") as source:
            header = read_header(source, file, name)
            start = source.tell()
        try:
            self._model: Model | None = Model(
                optimise=True, path=str(file.absolute()), start=start, bytes=header["model"], weights=header["weights"],
                profile="" if profile is None else str(profile),
            )  # fmt: skip
        except Raised as error:
            raise load_error(name, error) from error
        self._inputs, self._outputs = (self._ports(kind) for kind in ("inputs", "outputs"))

    def _ports(self, kind: str) -> tuple[Port, ...]:
        assert self._model is not None
        return tuple(read_port(name, type_, shape, self._name) for name, type_, shape in self._model.ports[kind])

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run once and return fresh tensors by output name.

        Raises EngineRefused for inputs that the model does not take, EngineFailed when it raises or its process dies,
        NotJudged when memory or the time of the step runs out.
        """
        if self._model is None:
            raise EngineFailed(f"{self._name}: the session of {self._file.name} is closed; load the engine again")
        check_inputs(self._inputs, inputs, self._name)
        feeds = {it.name: _raw(inputs[it.name]) for it in self._inputs}
        try:
            (results,) = self._model.run(feeds, [it.name for it in self._outputs], raw=True)
        except Raised as error:
            raise run_error(self._name, error) from error
        return {it.name: _tensor(it, *result) for it, result in zip(self._outputs, results, strict=True)}

    def profile(self, inputs: Mapping[str, torch.Tensor], *, runs: int) -> list[list[tuple[str, float]]]:
        """Return, for each run, its nodes after optimisation with their milliseconds; raises what ``run`` raises."""
        return profiled(lambda prefix: ApartSession(self._file, name=self._name, profile=prefix), inputs, runs=runs)

    def end_profiling(self) -> str:
        """End the profile that was begun with the session, and return the path of its file."""
        assert self._model is not None
        return self._model.end_profiling()

    def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            self._model.close()
        self._model = None


def _raw(tensor: torch.Tensor) -> list[Any]:
    """Return a tensor's bytes, ONNX's number of its dtype, and its shape."""
    from harness.tensors import tensor_bytes

    return [np.frombuffer(tensor_bytes(tensor), np.uint8), onnx_number(tensor.dtype), list(tensor.shape)]


def _tensor(declared: Port, data: np.ndarray[Any, Any], number: int, shape: list[int]) -> torch.Tensor:
    import torch

    if number != onnx_number(declared.dtype):
        raise EngineFailed(
            Sentence("output_came_as", name=declared.name, data_type=dtype_of(number), dtype=declared.dtype)
        )
    if not data.size:
        return torch.empty(shape, dtype=declared.dtype)
    return torch.from_numpy(data).view(declared.dtype).reshape(shape)

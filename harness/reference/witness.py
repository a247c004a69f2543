"""The second witness of an ONNX file's reference: ONNX Runtime on the CPU, or ``onnx.reference`` where that refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from harness.errors import NotJudged, first_line
from harness.graph import promote, save_for_now, weight_bytes, with_outputs
from harness.isolated import Model, Raised
from harness.lazy import onnx_ir as ir
from harness.sentences import Sentence
from harness.temporary import temporary_folder
from harness.tensors import Tensors

LARGEST_REFERENCE = 2**26
"""Weights in bytes up to which ``onnx.reference``, which computes element by element, is waited for."""


def run_onnxruntime(
    model: ir.Model, inputs: Mapping[str, torch.Tensor], *, also: Sequence[str] = (), runs: int = 1
) -> list[Tensors]:
    """Return a model's outputs in FP32, run by run, as another implementation computes them, without optimisation.

    ``also`` names values of the graph to return as well. float16 and bfloat16 in the file are promoted. Raises
    NotJudged where neither runs the graph.
    """
    promoted = promote(with_outputs(model, also) if also else model)
    names = list(dict.fromkeys(str(value.name) for value in promoted.graph.outputs))
    declared = {str(value.name): value for value in promoted.graph.inputs if not value.is_initializer()}
    feeds = {name: inputs[name].detach().cpu().numpy() for name in declared}
    with temporary_folder() as folder:
        graph = folder / "model.onnx"
        save_for_now(promoted, graph)
        try:
            results: list[list[Any]] = load(str(graph)).run(feeds, names, times=runs)
        except Raised as error:
            results = [_reference(promoted, names, feeds, refusal=first_line(error))] * runs
    return [
        {name: tensor_of(np.asarray(it, order="C")) for name, it in zip(names, result, strict=True)}
        for result in results
    ]


def run_onnx_reference(model: ir.Model, inputs: Mapping[str, torch.Tensor]) -> Tensors:
    """Return a model's outputs in FP32 as ``onnx.reference`` computes them.

    Raises NotJudged where it does not, or would take too long.
    """
    promoted = promote(model)
    names = list(dict.fromkeys(str(value.name) for value in promoted.graph.outputs))
    declared = [str(value.name) for value in promoted.graph.inputs if not value.is_initializer()]
    feeds = {name: inputs[name].detach().cpu().numpy() for name in declared}
    results = _reference(promoted, names, feeds, refusal=Sentence("witness_not_asked"))
    return {name: tensor_of(np.asarray(it, order="C")) for name, it in zip(names, results, strict=True)}


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return a result of ONNX Runtime or ``onnx.reference``, an array of numbers in C order, as a tensor."""
    array = array.view(array.dtype.str)  # of C's two names for 64 bits PyTorch knows one
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def load(model: bytes | str, *, threads: int = 0) -> Model:
    """Load a model, or its file, into ONNX Runtime on the CPU without graph optimisation. Raises what Model raises.

    ``threads`` is 0 for as many as there are.
    """
    return Model(threads=threads, **{"path": model} if isinstance(model, str) else {"model": as_array(model)})


def as_array(model: bytes) -> np.ndarray[Any, Any]:
    """Return a serialised model as what goes to another process."""
    return np.frombuffer(model, np.uint8)


def _reference(model: ir.Model, names: list[str], feeds: Mapping[str, Any], *, refusal: str) -> list[Any]:
    if weight_bytes(model) > LARGEST_REFERENCE:
        raise NotJudged(Sentence("ort_refuses", refusal=refusal))
    try:
        serialized = as_array(ir.to_proto(model).SerializeToString())
        (results,) = Model(library="onnx.reference", model=serialized).run(feeds, names)
    except Raised as error:
        raise NotJudged(Sentence("ort_and_reference_refuse", refusal=refusal, said=first_line(error))) from error
    return list(results)

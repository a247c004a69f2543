"""The line that shows an ONNX file's failure in Polygraphy, and the inputs file that the line needs."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.records import save_json

if TYPE_CHECKING:
    import torch


_RUNNERS = {
    "trt": "--onnxrt --trt",
    "rtx": "--onnxrt --trt",
    "ort-cpu": "--onnxrt --providers cpu",
    "ort-cuda": "--onnxrt --providers cuda",
}


def save_inputs(inputs: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write inputs as ``polygraphy run --load-inputs`` reads them: one iteration, every array as the base64 of a .npy.

    Raises UsageError when the file cannot be written.
    """
    save_json([{name: _encode(tensor) for name, tensor in inputs.items()}], path)


def run_line(model: Path, *, backend: str, precision: str, inputs: Path) -> str:
    """Return the ``polygraphy run`` line for one backend, or an empty string where Polygraphy has no such backend.

    Only ``trt`` with weakly typed networks has precision flags; elsewhere the line runs the graph as the file types it.
    """
    if backend not in _RUNNERS:
        return ""
    prefix = "POLYGRAPHY_USE_TENSORRT_RTX=1 " if backend == "rtx" else ""
    flag = f" --{precision}" if backend == "trt" and precision in ("fp16", "bf16", "tf32") else ""
    files = f"{shlex.quote(str(model))} {_RUNNERS[backend]}{flag} --load-inputs {shlex.quote(str(inputs))}"
    words = "" if flag or precision in ("fp32", "file") else "  (runs the graph as the file types it)"
    return f"{prefix}polygraphy run {files}{words}"


def _encode(tensor: torch.Tensor) -> dict[str, str]:
    import numpy as np
    import torch

    file = io.BytesIO()
    array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()  # NumPy has no bfloat16
    np.save(file, array, allow_pickle=False)
    return {"array": base64.b64encode(file.getvalue()).decode("ascii"), "polygraphy_class": "ndarray"}

"""Every backend there is, by the name typed after ``-b``."""

from __future__ import annotations

from harness.backends.base import Backend
from harness.backends.onnxruntime import OnnxRuntimeBackend
from harness.backends.tensorrt import TensorRTBackend
from harness.backends.torch import TorchBackend
from harness.errors import install_hint

BACKENDS: dict[str, Backend] = {
    "trt": TensorRTBackend(
        "trt",
        modules=("tensorrt", "tensorrt_bindings"),
        install=install_hint("trt"),
        builds_without_gpu=False,
    ),
    "rtx": TensorRTBackend(
        "rtx",
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        install=install_hint("rtx"),
        builds_without_gpu=True,
    ),
    "ort-cpu": OnnxRuntimeBackend("ort-cpu", device="cpu"),
    "ort-cuda": OnnxRuntimeBackend("ort-cuda", device="cuda"),
    "torch": TorchBackend(),
}
"""Every backend there is."""

"""What an error of CUDA is about: GPU memory ran out, the GPU or its driver failed, or a kernel faulted.

PyTorch, TensorRT and ONNX Runtime hand on CUDA's text, some with its name or number; texts are searched here and
nowhere else. Texts and numbers: the CUDA Runtime API, ``cudaGetErrorString`` and ``cudaError_t``.
"""

from __future__ import annotations

import re

from harness.errors import EngineFailed, Failure, NoMemory, NotJudged, ParityError
from harness.sentences import Sentence

_SIGNS: tuple[tuple[Failure, re.Pattern[str]], ...] = (
    ("memory", re.compile(r"out of memory|outofmemory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED", re.I)),
    (
        "device",
        re.compile(
            r"device\(s\) is/are busy or unavailable|devices are busy or unavailable|no CUDA-capable device is detected"
            r"|driver shutting down|driver version is insufficient|driver is a stub library|driver/library version mism"
            r"|uncorrectable (?:ECC|NVLink)|hardware error|fallen off the bus|GPU is lost|GPU requires reset"
            r"|system (?:not yet initialized|driver mismatch|has unsupported display driver)|CUDA initialization fail"
            r"|forward compatibility was attempted|CUDA unknown error|(?:CUDA|Cuda).{0,20}\bunknown error"
            r"|(?:CUDA|Cuda).{0,20}\binitialization error|context is destroyed|CUDA_ERROR_(?:NO_DEVICE|ECC|NVLINK|"
            r"DEVICE_UNAVAILABLE|NOT_INITIALIZED|DEINITIALIZED|SYSTEM|UNKNOWN)|Unexpected error from cudaGetDeviceCount"
            r"|cudaError(?:NoDevice|DevicesUnavailable|EccUncorrectable|InsufficientDriver|SystemNotReady|Unknown)\b"
            r"|NVML_ERROR_GPU_IS_LOST",
            re.IGNORECASE,
        ),
    ),
    (
        "crash",
        re.compile(
            r"illegal memory access|illegal instruction|misaligned address|unspecified launch failure|hardware stack"
            r"|device-side assert|invalid program counter|operation not supported on global/shared address space"
            r"|launch timed out|(?:CUDNN|CUBLAS)_STATUS_EXECUTION|CUDA_ERROR_(?:ILLEGAL|LAUNCH|MISALIGNED|ASSERT)"
            r"|cudaError(?:IllegalAddress|LaunchFailure|LaunchTimeout|MisalignedAddress|Assert)\b|CUDA failure 7[01]\d",
            re.IGNORECASE,
        ),
    ),
)


def gpu_failure(text: str) -> Failure:
    """Return what class of failure CUDA's text tells of; empty where it is not about that."""
    return next((failure for failure, signs in _SIGNS if signs.search(text)), "")


def gpu_error(text: str, doing: str = "", *, by: type[ParityError] = EngineFailed) -> ParityError | None:
    """Return the error for a text of CUDA's, or None where it is not one.

    ``doing`` says during what, such as `` while running the engine``, and ``by`` is the error of a kernel that faulted.
    No memory and a device that failed are nobody's wrong answer: no verdict is given.
    """
    failure, during = gpu_failure(text), doing
    if failure == "memory":
        return NoMemory(Sentence("gpu_memory_during", during=during, text=text))
    if failure == "device":
        return NotJudged(Sentence("gpu_failed_during", during=during, text=text), failure="device")
    return by(Sentence("kernel_faulted", during=during, text=text), failure="crash") if failure == "crash" else None

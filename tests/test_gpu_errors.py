"""Texts of CUDA, as PyTorch, TensorRT and ONNX Runtime hand them on, and what they are about."""

from __future__ import annotations

import pytest

from harness.errors import EngineFailed, EngineRefused, NotJudged
from harness.gpu_errors import gpu_error, gpu_failure

TEXTS = {
    "CUDA out of memory. Tried to allocate 2.00 GiB": "memory",
    "CUDA error: out of memory": "memory",
    "Error Code 2: OutOfMemory (no further information)": "memory",
    "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)": "memory",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable": "device",
    "CUDA error: uncorrectable ECC error encountered": "device",
    "no CUDA-capable device is detected": "device",
    "CUDA driver version is insufficient for CUDA runtime version": "device",
    "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized": "device",
    "NVML: Driver/library version mismatch": "device",
    "CUDA error: unknown error": "device",
    "Unable to determine the device handle: GPU is lost": "device",
    "CUDA error: an illegal memory access was encountered": "crash",
    "CUDA error: misaligned address": "crash",
    "CUDA error: unspecified launch failure": "crash",
    "CUDA error: device-side assert triggered": "crash",
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0": "crash",
    "CUDNN_STATUS_EXECUTION_FAILED": "crash",
    "op 'Foo' (node 'node_foo'): not supported": "",
    "the device of the input is not that of the weight": "",
    "unknown error in the tokenizer": "",
}


@pytest.mark.parametrize(("text", "failure"), TEXTS.items())
def test_what_a_text_of_cuda_is_about(text: str, failure: str):
    assert gpu_failure(text) == failure
    error = gpu_error(text, "while running the engine")
    assert (error.failure if error else "") == failure


def test_a_device_that_failed_is_not_judged_and_a_kernel_that_faulted_is_the_engines():
    device = gpu_error("uncorrectable ECC error encountered")
    assert isinstance(device, NotJudged)
    assert not isinstance(device, EngineRefused)
    assert isinstance(gpu_error("an illegal memory access was encountered"), EngineFailed)
    assert isinstance(gpu_error("an illegal memory access was encountered", by=EngineRefused), EngineRefused)

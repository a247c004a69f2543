"""Environment variables by which libraries compute or build something else: part of the key of what they made.

Names are patterns of :mod:`fnmatch`. A variable that is set to nothing counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

BUILDING = ("NVIDIA_TF32_OVERRIDE", "TRT_INTERNAL_OPTIONS", "__LUNOWUD")
"""What TensorRT's builder reads: which kernels it may choose, and how it fuses."""
COMPUTING = (
    "ATEN_CPU_CAPABILITY", "CUBLAS*", "CUDNN_*", "DISABLE_ADDMM_CUDA_LT", "DNNL_*", "KMP_*", "MKL_*", "MLAS_*",
    "NPY_*_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE", "OMP_*", "ONEDNN_*", "OPENBLAS_*", "ORT_*", "PYTORCH_TUNABLEOP_*",
    "TORCH_ALLOW_TF32_*", "TORCH_BLAS_PREFER_*", "TORCH_CUDNN_*", "TORCH_LINALG_PREFER_*", "TORCH_LINEAR_FLATTEN_3D",
    "TORCH_MKLDNN_*", "TORCH_NNPACK*",
)  # fmt: skip
"""What PyTorch, ONNX Runtime and NumPy read: formats of products, instructions, the order of sums."""
TIMED = (
    *(name for name in COMPUTING if not name.startswith(("NPY", "OPENBLAS"))), *BUILDING,
    "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING", "GOMP_*", "MALLOC_*",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_*",
)  # fmt: skip
"""What makes an engine or a module faster or slower. Nothing that is timed runs in NumPy."""
_SAYS_ONLY = ("*_VERBOSE", "*_VERBOSE_*", "*_LOG*", "*_PRINT_*", "*_DISPLAY_*", "*_JIT_DUMP", "*_DEBUG")
"""What these libraries only print or dump."""
_SET_BY_LIBRARIES = ("*_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
"""What PyTorch and others set themselves while they run: a key would depend on what ran before it was made."""
_COUNTED = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""What a machine's facts count as ``threads``."""


def set_variables(names: Iterable[str]) -> dict[str, str]:
    """Return the variables that are set and match one of these names, sorted."""
    wanted = tuple(names)
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if value and _matches(name, wanted) and not _matches(name, (*_SAYS_ONLY, *_SET_BY_LIBRARIES))
    }


def timed_variables() -> dict[str, str]:
    """Return the variables that make a series of latencies another one; the number of threads is a fact beside them."""
    return {name: value for name, value in set_variables(TIMED).items() if name not in _COUNTED}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

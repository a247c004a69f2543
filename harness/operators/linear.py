"""Products of matrices."""

from __future__ import annotations

import torch

from harness.operators.registry import operator
from harness.operators.values import Unsupported, unsigned, wide


@operator("MatMul")
@unsigned
def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.is_cuda and not a.dtype.is_floating_point:
        raise Unsupported("PyTorch multiplies no matrices of integers on a GPU")
    return a @ b


@operator("Gemm")
@unsigned
def gemm(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 1,
) -> torch.Tensor:
    """Before opset 7 ``broadcast`` allows what is always allowed since."""
    a, b = a.T if transA else a, b.T if transB else b
    if not a.dtype.is_floating_point:
        product = matmul(a, b)
        scaled = product if alpha == 1 else product * alpha
        return (scaled if c is None else scaled + (c if beta == 1 else c * beta)).to(a.dtype)
    if c is not None:
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    return a @ b if alpha == 1 else a @ b * alpha


@operator("Einsum")
@unsigned
def einsum(*inputs: torch.Tensor, equation: str) -> torch.Tensor:
    if inputs[0].is_cuda and not inputs[0].dtype.is_floating_point:
        raise Unsupported("PyTorch multiplies no matrices of integers on a GPU")
    return torch.einsum(equation, *inputs)


@operator("Det")
def det(x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.det(wide(x))
    return found.to(x.dtype)

"""Operators on codes: sums are exact, in FP64, and are given back as integers, codes or floats."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.operators.convolution import conv
from harness.operators.pooling import average_pool
from harness.operators.quantization import codes, dynamic_quantize_linear
from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import CARRIED, Unsupported

_KINDS = {CARRIED[name]: name for name in ("UINT8", "INT8", "UINT16", "INT16")}


def _less(x: torch.Tensor, zero: torch.Tensor | None) -> torch.Tensor:
    """Return codes less their zero point, exactly."""
    return x.double() if zero is None else x.double() - zero.double()


def _column(parameter: torch.Tensor) -> torch.Tensor:
    """Return what a left matrix has for each row as a column."""
    return parameter[:, None] if parameter.ndim == 1 and parameter.numel() > 1 else parameter


def _product(
    a: torch.Tensor, b: torch.Tensor, a_zero: torch.Tensor | None, b_zero: torch.Tensor | None
) -> torch.Tensor:
    return _less(a, None if a_zero is None else _column(a_zero)) @ _less(b, b_zero)


def _values(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None) -> torch.Tensor:
    return _less(x, zero).to(scale.dtype) * scale


def _back(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Return numbers as codes of the dtype of other codes."""
    return codes(x / scale, zero, _KINDS[like.dtype if zero is None else zero.dtype])


@operator("MatMulInteger", since=10)
def matmul_integer(
    a: torch.Tensor, b: torch.Tensor, a_zero: torch.Tensor | None = None, b_zero: torch.Tensor | None = None
) -> torch.Tensor:
    return _product(a, b, a_zero, b_zero).to(torch.int32)


@operator("QLinearMatMul", since=10)
def qlinear_matmul(
    a: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero: torch.Tensor,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor,
) -> torch.Tensor:
    by = _column(a_scale) * b_scale / _column(y_scale)
    return codes(_product(a, b, a_zero, b_zero).to(by.dtype) * by, _column(y_zero), _KINDS[y_zero.dtype])


@operator("ConvInteger", since=10)
def conv_integer(
    x: torch.Tensor,
    w: torch.Tensor,
    x_zero: torch.Tensor | None = None,
    w_zero: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """Padding is the zero point, so that it stands for zero."""
    y = conv(
        _less(x, x_zero),
        _less(w, None if w_zero is None else w_zero.reshape(-1, *[1] * (w.ndim - 1))),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return y.to(torch.int32)


@operator("QLinearConv", since=10)
def qlinear_conv(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    w_zero: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """The bias is in units of both scales. Filters may have a scale and a zero point each."""
    filters = [1] * (w.ndim - 1)
    total = conv(
        _less(x, x_zero),
        _less(w, w_zero.reshape(-1, *filters)),
        None if bias is None else bias.double(),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    by = x_scale * w_scale.reshape(-1, *filters[1:]) / y_scale
    return codes(total.to(by.dtype) * by, y_zero, _KINDS[y_zero.dtype])


@operator("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(
    a: torch.Tensor,
    b: torch.Tensor,
    a_scale: torch.Tensor,
    b_scale: torch.Tensor,
    a_zero: torch.Tensor | None = None,
    b_zero: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    by = _column(a_scale) * b_scale
    y = _product(a, b, a_zero, b_zero).to(by.dtype) * by
    return y if bias is None else y + bias


@operator("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    quantised, scale, zero = dynamic_quantize_linear(a)
    return matmul_integer_to_float(quantised, b, scale, b_scale, zero, b_zero, bias)


@operator("QLinearAdd", domain=MICROSOFT)
def qlinear_add(
    a: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero: torch.Tensor | None,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor | None = None,
) -> torch.Tensor:
    return _back(_values(a, a_scale, a_zero) + _values(b, b_scale, b_zero), y_scale, y_zero, a)


@operator("QLinearMul", domain=MICROSOFT)
def qlinear_mul(
    a: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero: torch.Tensor | None,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor | None = None,
) -> torch.Tensor:
    return _back(_values(a, a_scale, a_zero) * _values(b, b_scale, b_zero), y_scale, y_zero, a)


@operator("QLinearSigmoid", domain=MICROSOFT)
def qlinear_sigmoid(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor | None = None,
) -> torch.Tensor:
    return _back(_values(x, x_scale, x_zero).sigmoid(), y_scale, y_zero, x)


@operator("QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_leaky_relu(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> torch.Tensor:
    y = torch.nn.functional.leaky_relu(_values(x, x_scale, x_zero), alpha)
    return _back(y, y_scale, y_zero, x)


@operator("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor | None = None,
    *,
    channels_last: int = 0,
) -> torch.Tensor:
    axes = tuple(range(1, x.ndim - 1)) if channels_last else tuple(range(2, x.ndim))
    return _back(_values(x, x_scale, x_zero).mean(axes, keepdim=True), y_scale, y_zero, x)


@operator("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    values = _values(x, x_scale, x_zero)
    y = average_pool(
        values.movedim(-1, 1) if channels_last else values,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _back(y.movedim(1, -1) if channels_last else y, y_scale, y_zero, x)


@operator("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(y_scale: torch.Tensor, y_zero: torch.Tensor, *inputs: torch.Tensor, axis: int) -> torch.Tensor:
    """Inputs come in threes: codes, scale, zero point."""
    parts = [_values(*inputs[at : at + 3]) for at in range(0, len(inputs), 3)]
    return _back(torch.cat(parts, dim=axis), y_scale, y_zero, inputs[0])


@operator("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero: torch.Tensor | None = None,
    *,
    axis: int = -1,
    opset: int,
) -> torch.Tensor:
    """Before opset 13 the softmax is over all axes from one on."""
    values = _values(x, x_scale, x_zero)
    y = values.softmax(axis) if opset >= 13 else values.flatten(axis).softmax(-1).reshape(x.shape)
    return _back(y, y_scale, y_zero, x)


@operator("QGemm", domain=MICROSOFT)
def qgemm(
    a: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero: torch.Tensor,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero: torch.Tensor,
    bias: torch.Tensor | None = None,
    y_scale: torch.Tensor | None = None,
    y_zero: torch.Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> torch.Tensor:
    """The bias is in units of both scales. Without a scale of its own the result is a float."""
    left, right = _less(a, a_zero), _less(b, b_zero if b_zero.ndim == 0 or not transB else b_zero[:, None])
    total = (left.T if transA else left) @ (right.T if transB else right)
    if bias is not None:
        total = total + bias.double()
    by = a_scale * b_scale * alpha
    if y_scale is None:
        return total.to(by.dtype) * by
    by = by / y_scale
    return codes(total.to(by.dtype) * by, y_zero, _KINDS[a.dtype if y_zero is None else y_zero.dtype])


@operator("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(
    a: torch.Tensor,
    b: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None = None,
    order: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    K: int,
    N: int,
    accuracy_level: int = 0,
    bits: int = 4,
    block_size: int,
    weight_prepacked: int = 0,
) -> torch.Tensor:
    """Weights (N, blocks, bytes) hold K codes a row, the low bits first; the middle code is zero if none is given."""
    if weight_prepacked or bits not in (2, 4, 8):
        raise Unsupported(f"MatMulNBits with weights of {bits} bits in a layout of its own")
    blocks = -(-K // block_size)
    numbers = _unpacked(b.reshape(N, -1), bits)[:, : blocks * block_size]
    if zeros is None:
        points = torch.full((N, blocks), 2.0 ** (bits - 1), dtype=scales.dtype, device=a.device)
    elif zeros.is_floating_point():
        points = zeros.reshape(N, blocks)
    else:
        points = _unpacked(zeros.reshape(N, -1), bits)[:, :blocks]
    block = torch.arange(K, device=a.device) // block_size if order is None else order.long()[:K]
    by = scales.reshape(N, blocks)
    weights = (numbers[:, :K].to(by.dtype) - points.to(by.dtype)[:, block]) * by[:, block]
    y = a @ weights.to(a.dtype).T
    return y if bias is None else y + bias


@operator("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(
    table: torch.Tensor,
    indices: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None = None,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    input_types: tuple[str | None, ...],
    quantize_axis: int = 1,
) -> torch.Tensor:
    """Rows of a table of codes, in blocks along its rows; bytes hold the codes of few bits, about their middle."""
    if (
        table.ndim != 2
        or gather_axis % 2 != 0
        or quantize_axis % 2 != 1
        or not block_size
        or table.dtype.is_floating_point
    ):
        raise Unsupported("GatherBlockQuantized but for rows of a table, in blocks along them")
    chosen = indices.long()
    rows, by = table[chosen], scales[chosen]
    points = None if zeros is None else zeros[chosen]
    if input_types[0] in (None, "UINT8"):
        rows = _unpacked(rows, bits)
        points = torch.tensor(2 ** (bits - 1), device=rows.device) if points is None else _unpacked(points, bits)
    block = torch.arange(rows.shape[-1], device=rows.device) // block_size
    if points is not None and points.ndim:
        points = points[..., block]
    difference = rows.long() if points is None else rows.long() - points.long()
    return difference.to(by.dtype) * by[..., block]


def _unpacked(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the codes in bytes (..., bytes), the low bits first."""
    shifts = torch.arange(0, 8, bits, device=packed.device)
    codes_of = torch.bitwise_right_shift(packed.to(torch.int32)[..., None], shifts)
    return codes_of.bitwise_and(2**bits - 1).flatten(-2)

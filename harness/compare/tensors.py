"""Compare two tensors: every figure that a verdict, a table or a plot needs, from a few passes."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.compare import cpu
from harness.compare.norms import ratio
from harness.compare.totals import QUANTILES, Measured, Totals, elements_at
from harness.errors import EngineFailed
from harness.records import ErrorStats


def compare(actual: torch.Tensor, expected: torch.Tensor, *, name: str = "") -> ErrorStats:
    """Return the distance of ``actual`` from ``expected``.

    Any real dtype, device and strides; dtypes may differ. ``name`` only words the errors.
    The median and 99th percentile of n errors are the elements at 0-based rank ``(n - 1) // 2`` and
    ``99 * (n - 1) // 100`` of the sorted errors, so they are errors that occurred, at any size.
    Float64 values are scaled so that their squares do not overflow; what is 1e140 times smaller than the largest may
    then count as 0 in sums. An ``a - e`` or a sum of relative errors beyond float64 is infinite.
    Raises EngineFailed when the shapes differ, a dtype is complex, or there is no element to compare.
    """
    label = require_comparable(actual, expected, name)
    if actual.numel() == 0:
        raise EngineFailed(f"{label} is empty (shape {list(actual.shape)}); nothing can be compared")
    actual, expected = actual.detach().resolve_neg(), expected.detach().resolve_neg()
    return error_stats(actual, expected, _measure(actual, expected))


def require_comparable(actual: torch.Tensor, expected: torch.Tensor, name: str) -> str:
    """Return what errors call the output; raises EngineFailed when the shapes differ or a dtype is complex."""
    label = f"output {name!r}" if name else "output"
    if actual.shape != expected.shape:
        raise EngineFailed(f"{label} has shape {list(actual.shape)}, but should have {list(expected.shape)}")
    if actual.is_complex() or expected.is_complex():
        raise EngineFailed(
            f"{label} is complex; compare its real and its imaginary part, torch.view_as_real() gives both"
        )
    return label


def bitwise_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether shape, dtype and every bit are the same: equal NaNs are equal, 0 and -0 are not."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(a.element_size())
    if bits is None or a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
        return bitwise_equal(a, b)
    a, b = (tensor.detach().resolve_neg().to(a.device) for tensor in (a, b))
    return torch.equal(a.view(bits), b.view(bits))


def _measure(actual: torch.Tensor, expected: torch.Tensor) -> Measured:
    """Return the totals and the four order statistics, in the order of QUANTILES."""
    if actual.is_cuda and actual.device == expected.device and importlib.util.find_spec("triton") is not None:
        from harness.compare import cuda

        if cuda.handles(actual, expected):
            return cuda.measure(actual, expected)
    return cpu.measure(actual, expected)


def error_stats(actual: torch.Tensor, expected: torch.Tensor, measured: Measured) -> ErrorStats:
    """Return the figures that sums, extremes and order statistics give; :class:`ErrorStats` has the formulas."""
    totals, quantiles = measured
    added, peaks, scale = totals.added, totals.peaks, totals.scale
    compared = int(added["compared"])

    def mean(total: str) -> float:
        return added[total] / compared if compared else math.nan

    constant = {side: compared > 0 and peaks[side] == -peaks[f"minus_{side}"] for side in ("actual", "expected")}

    def std(side: str) -> float:
        return 0.0 if constant[side] else math.sqrt(max(mean(f"{side}_squared") - mean(side) ** 2, 0.0)) / scale

    relative_l2 = ratio(math.sqrt(added["squared"]), math.sqrt(added["expected_squared"])) if compared else math.nan
    decades = math.log10(relative_l2) if relative_l2 else -math.inf
    rms = math.sqrt(mean("expected_squared"))
    absolute, relative = _distributions(totals, quantiles)
    largest = {s: max(peaks[s], peaks[f"minus_{s}"]) if compared else math.nan for s in ("actual", "expected")}
    return ErrorStats(
        shape=tuple(actual.shape),
        dtype=str(actual.dtype).removeprefix("torch."),
        absolute=absolute,
        relative=relative,
        relative_l2=relative_l2,
        cosine=_cosine(added) if compared else math.nan,
        snr_db=-20 * decades,
        effective_bits=-math.log2(10) * decades,
        bias=ratio(mean("signed"), rms) if compared else math.nan,
        elements=actual.numel(),
        compared=compared,
        rms_expected=rms / scale,
        std_actual=std("actual"),
        std_expected=std("expected"),
        max_expected=largest["expected"],
        zero_actual=largest["actual"] == 0,
        zero_expected=largest["expected"] == 0,
        constant_actual=constant["actual"],
        constant_expected=constant["expected"],
        nonfinite_actual=int(added["nonfinite_actual"]),
        nonfinite_expected=int(added["nonfinite_expected"]),
        nan_actual=int(added["nan_actual"]),
        nan_expected=int(added["nan_expected"]),
        mismatched_nonfinite=int(added["mismatched_nonfinite"]),
        first_nonfinite=_unravel(totals.first_nonfinite[0], actual) if totals.first_nonfinite else None,
        worst=_pairs(actual, expected, [flat for _, flat in totals.worst]),
    )


def _distributions(totals: Totals, quantiles: Sequence[float]) -> tuple[dict[str, float], dict[str, float]]:
    """Return largest, mean, median and 99th percentile of the absolute and of the relative errors."""
    added, undefined = totals.added, int(totals.added["undefined"])
    found: dict[str, dict[str, float]] = {}
    for kind, count, scale in (
        ("absolute", added["compared"], totals.scale), ("relative", added["compared"] - undefined, 1.0),
    ):  # fmt: skip
        figures = (totals.peaks[kind], added[kind] / count / scale) if count else (math.nan, math.nan)
        found[kind] = dict(zip(("max", "mean"), figures, strict=True))
    for (kind, figure, _, _), value in zip(QUANTILES, quantiles, strict=True):
        found[kind][figure] = value
    return found["absolute"], {**found["relative"], "undefined": undefined}


def _cosine(added: Mapping[str, float]) -> float:
    norms = math.sqrt(added["actual_squared"]) * math.sqrt(added["expected_squared"])
    if norms:
        return max(-1.0, min(1.0, added["product"] / norms))
    return 1.0 if added["actual_squared"] == added["expected_squared"] else math.nan


def _unravel(flat: int, tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the index of a flat place; NumPy takes five times as long for a single one."""
    index = []
    for size in reversed(tensor.shape):
        flat, place = divmod(flat, size)
        index.append(place)
    return tuple(reversed(index))


def _pairs(actual: torch.Tensor, expected: torch.Tensor, places: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """Return index and both values at flat places, in one journey from the GPU for each tensor."""
    flat = torch.tensor(places, dtype=torch.int64, device=actual.device)
    values = (elements_at(tensor, flat.to(tensor.device)).tolist() for tensor in (actual, expected))
    return tuple(
        {"index": list(_unravel(place, actual)), "actual": a, "expected": e}
        for place, a, e in zip(places, *values, strict=True)
    )

"""From figures to a verdict: an engine is held against what PyTorch itself loses in the same precision.

The limit is derived, not chosen. An engine passes when its error is at most ``FACTOR`` times the floor. The floor is
PyTorch's own error in that precision, never less than one rounding of the format, and widened by what so few elements
can say about it. docs/verdicts.md shows the measurements behind the constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.records import OutputResult
from harness.subject import Tolerance

if TYPE_CHECKING:
    from harness.records import ErrorStats


FACTOR = 3.0
"""An engine may lose this many times what PyTorch loses (relative L2)."""
MAX_FACTOR = 10.0
"""The same for the single largest error: maxima of equally wrong tensors differ more than their norms."""
LEAST_BITS = 1.0
"""A result with less than one effective bit fails, even where PyTorch loses as much."""
UNIT_ROUNDOFF = {"fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of one rounding to nearest."""


def judge_output(
    name: str,
    stats: ErrorStats,
    *,
    precision: str,
    floor: ErrorStats | None = None,
    floor_name: str = "PyTorch",
    tf32_floor: Callable[[], ErrorStats | None] | None = None,
    tolerance: Tolerance | None = None,
    is_floor: bool = False,
) -> OutputResult:
    """Return the verdict on one output.

    ``precision`` is the format computed in (``fp32``, ``tf32``, ``fp16``, ``bf16``); ``floor_name`` says what made the
    floor. ``tf32_floor`` is given where an FP32 engine may compute in TF32: it returns what PyTorch loses in TF32, or
    None without a GPU. ``is_floor`` marks the ``torch`` backend, whose result is the floor: without a tolerance it can
    only fail for what no limit excuses.
    """
    reason = _never_passes(stats, UNIT_ROUNDOFF[precision])
    if reason:
        return OutputResult(name=name, verdict="fail", reason=reason, stats=stats, floor=floor)
    if stats.nan_expected:
        reason = f"the reference itself holds {stats.nan_expected} NaN; repair the model or its inputs"
        return OutputResult(name=name, verdict="not_judged", reason=reason, stats=stats, floor=floor)
    if not stats.compared:
        reason = "no element is finite on both sides, so there is nothing to compare"
        return OutputResult(name=name, verdict="not_judged", reason=reason, stats=stats, floor=floor)
    if stats.zero_expected and stats.zero_actual:
        reason = "reference and output are all zeros, which proves nothing; give inputs that move this output"
        return OutputResult(name=name, verdict="not_judged", reason=reason, stats=stats, floor=floor)
    allowed = _limits(stats, floor, precision, tolerance)
    if allowed is None:
        reason = _no_floor(stats, floor, f"{floor_name} {precision}")
        return OutputResult(name=name, verdict="not_judged", reason=reason, stats=stats, floor=floor)
    broken = [] if is_floor and tolerance is None else _broken(stats, allowed)
    if stats.relative_l2 >= 2.0**-LEAST_BITS and "relative_l2" not in broken and tolerance is None:
        broken.append("relative_l2")
    loses = f"{floor_name} {precision} loses {floor.relative_l2:.3g}" if floor else "no floor"
    if is_floor:
        loses = "this is the floor that engines are held against"
    reason = _sentence(stats, loses, allowed, tolerance, broken)
    words = _tf32_words(stats, tf32_floor()) if broken and tf32_floor is not None else ""
    return OutputResult(
        name=name,
        verdict="fail" if broken else "pass",
        reason=reason + words,
        stats=stats,
        floor=floor,
        allowed=allowed,
        tf32_sized=bool(words),
    )


def confidence_factor(elements: int) -> float:
    """Return the factor by which a floor measured on this many elements may understate the true one.

    The upper 99 % confidence bound of an RMS of n independent normal errors over its estimate, sqrt(n / chi2(0.01, n)),
    with the Wilson-Hilferty approximation of the quantile (Biometrika 1931); at most 10, reached below 4 elements.
    """
    n = max(elements, 1)
    root = 1 - 2 / (9 * n) - 2.3263 * math.sqrt(2 / (9 * n))
    return min(10.0, root**-1.5) if root > 0 else 10.0


def _never_passes(stats: ErrorStats, roundoff: float) -> str:
    """Return why an output is wrong at any tolerance, or an empty string."""
    if stats.nan_actual:
        where = list(stats.first_nonfinite or ())
        return f"{stats.nan_actual} of {stats.elements} elements are NaN, the first non-finite one at {where}"
    if stats.mismatched_nonfinite and not stats.nan_expected:
        return (
            f"{stats.mismatched_nonfinite} of {stats.elements} elements are infinite on one side only "
            f"({stats.nonfinite_actual} in the output, {stats.nonfinite_expected} in the reference)"
        )
    if stats.zero_actual and not stats.zero_expected:
        return f"the output is all zeros; the reference's RMS is {stats.rms_expected:.3g}"
    if stats.std_expected <= roundoff * stats.max_expected:
        return ""  # the reference varies by less than the format can hold: a constant is the right answer
    if stats.constant_actual and not stats.constant_expected:
        return f"the output is constant; the reference's standard deviation is {stats.std_expected:.3g}"
    if stats.std_actual < 0.5 * stats.std_expected:
        # Half the spread missing is an error of at least half the spread, which the norm hides under a large mean.
        return f"the variance vanished: standard deviation {stats.std_actual:.3g}, reference {stats.std_expected:.3g}"
    return ""


def _limits(
    stats: ErrorStats, floor: ErrorStats | None, precision: str, tolerance: Tolerance | None
) -> dict[str, float] | None:
    """Return the limits by figure name, or None when there is neither a usable floor nor a tolerance."""
    if tolerance is not None:
        named = {
            "relative_l2": tolerance.relative_l2,
            "max_absolute": tolerance.max_absolute,
            "cosine": tolerance.cosine,
        }
        return {figure: limit for figure, limit in named.items() if limit is not None}
    if floor is None or floor.nonfinite_actual > floor.nonfinite_expected:
        return None
    roundoff = UNIT_ROUNDOFF[precision] if "float" in stats.dtype else 0.0
    factor = confidence_factor(stats.compared)
    return {
        "relative_l2": min(FACTOR * max(floor.relative_l2 * factor, roundoff), 2.0**-LEAST_BITS),
        "max_absolute": MAX_FACTOR * max(floor.absolute["max"] * factor, roundoff * stats.max_expected),
    }


def _broken(stats: ErrorStats, allowed: dict[str, float]) -> list[str]:
    """Return the figures that exceed their limit; a figure that is NaN does."""
    broken = []
    if "relative_l2" in allowed and not stats.relative_l2 <= allowed["relative_l2"]:
        broken.append("relative_l2")
    if "max_absolute" in allowed and not stats.absolute["max"] <= allowed["max_absolute"]:
        broken.append("max_absolute")
    if "cosine" in allowed and not stats.cosine >= allowed["cosine"]:
        broken.append("cosine")
    return broken


def _sentence(
    stats: ErrorStats, loses: str, allowed: dict[str, float], tolerance: Tolerance | None, broken: list[str]
) -> str:
    limit = f" (allowed {allowed['relative_l2']:.3g})" if "relative_l2" in allowed and "the floor" not in loses else ""
    text = f"relative error {stats.relative_l2:.3g}, {loses}{limit}"
    if "max_absolute" in broken:
        text += f"; largest error {stats.absolute['max']:.3g} (allowed {allowed['max_absolute']:.3g})"
    if "cosine" in allowed:
        text += f"; cosine {stats.cosine:.6f} (allowed {allowed['cosine']:.6f})"
    if broken and stats.worst:
        text += f"; worst at {list(stats.worst[0]['index'])}"
    if stats.relative_l2 >= 2.0**-LEAST_BITS and not tolerance:
        text += "; less than one effective bit is left"
    return f"{text}; tolerance: {tolerance.why}" if tolerance else text


def _no_floor(stats: ErrorStats, floor: ErrorStats | None, what: str) -> str:
    if floor is None:
        return f"relative error {stats.relative_l2:.3g}, but {what} cannot run here, so no floor; give a Tolerance"
    return (
        f"relative error {stats.relative_l2:.3g}, but {what} itself gives {floor.nonfinite_actual} "
        "non-finite elements, so there is no floor; keep the overflowing modules in FP32 or give a Tolerance"
    )


def is_tf32(outputs: Sequence[OutputResult]) -> bool:
    """Return whether the outputs of an FP32 engine that failed did so only because it computes in TF32."""
    failed = [output for output in outputs if output.verdict == "fail"]
    return bool(failed) and all(output.tf32_sized or _is_tf32_sized(output) for output in failed)


def _is_tf32_sized(output: OutputResult) -> bool:
    stats = output.stats
    return stats is not None and not stats.nonfinite_actual and 2.0**-14 <= stats.relative_l2 <= FACTOR * 2.0**-11


def _tf32_words(stats: ErrorStats, tf32_floor: ErrorStats | None) -> str:
    """Return words that name an FP32 engine whose error is that of TF32, or an empty string."""
    if tf32_floor is not None:
        loses = tf32_floor.relative_l2
        if loses / 4 <= stats.relative_l2 <= loses * 4:
            return f"; this is TF32-sized (TF32 costs {loses:.3g}): the engine computes in TF32, not FP32"
        return ""
    # Without a GPU there is no TF32 to measure: an 11-bit significand leaves 9 to 14 effective bits.
    if 2.0**-14 <= stats.relative_l2 <= 2.0**-9:
        return "; this is TF32-sized (an 11-bit significand): the engine seems to compute in TF32, not FP32"
    return ""

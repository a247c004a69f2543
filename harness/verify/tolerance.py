"""From figures to a verdict: an engine is held against what PyTorch itself loses in the same precision.

The limits are derived, not chosen: every part of an output may lose what PyTorch loses there, times FACTOR and what
chance may add (harness/verify/parts.py). docs/verdicts.md shows the measurements behind the constants.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.compare import UNIT_ROUNDOFF
from harness.records import OutputResult, Verdict
from harness.subject import Tolerance
from harness.verify.parts import FACTOR, MAX_FACTOR

if TYPE_CHECKING:
    from harness.records import ErrorStats, PartResult


LEAST_BITS = 1.0
"""A result with less than one effective bit fails, even where PyTorch loses as much."""
FP32_HOLDS = 2.0**-10
"""An FP32 result that is farther from FP64 than this is no reference and no floor."""
HOLDS = 0.1
"""A precision in which PyTorch loses more than this cannot hold the model; an engine that loses less is right."""
PART_HOLDS = 0.25
"""The same for a part of an output, for an engine that passes where PyTorch cannot hold the model: two bits."""
_ONE_BIT = 2.0**-LEAST_BITS
_COSINE_SCALE = 0.25
"""What a scale may add to the error where only a cosine is limited: two effective bits."""


def judge_output(
    name: str,
    stats: ErrorStats,
    *,
    precision: str,
    floor: ErrorStats | None = None,
    parts: Sequence[PartResult] = (),
    tf32_floor: Callable[[], ErrorStats | None] | None = None,
    reference_error: Callable[[], ErrorStats | None] | None = None,
    tolerance: Tolerance | None = None,
    is_floor: bool = False,
    cause: str = "",
) -> OutputResult:
    """Return the verdict on one output of floats.

    ``precision`` is the format computed in (``fp32``, ``tf32``, ``fp16``, ``bf16``). ``parts`` are the whole and its
    worst parts against the floor, by :func:`judge_parts`. ``tf32_floor`` is given where an FP32 engine may compute in
    TF32: it returns what PyTorch loses in TF32, or None without a GPU. ``reference_error`` returns how far the FP32
    reference is from FP64; it is asked only where an output is about to fail for having no bit in common with its
    reference. ``is_floor`` marks the ``torch`` backend, whose result is the floor: without a tolerance it can only fail
    for what no limit excuses. ``cause`` says why PyTorch cannot hold the model, or why the reference holds NaN.
    """

    def result(verdict: Verdict, reason: str, *, allowed: dict[str, float] | None = None) -> OutputResult:
        return OutputResult(
            name=name, verdict=verdict, reason=reason, stats=stats, floor=floor, allowed=allowed or {},
            parts=tuple(parts),
        )  # fmt: skip

    if stats.nan_expected:
        why = f" ({cause})" if cause else ""
        reason = f"the reference itself holds {stats.nan_expected} NaN{why}; repair the model or its inputs"
        return result("not_judged", reason)
    what = f"PyTorch {precision}"
    cannot = "" if floor is None or tolerance else cannot_hold(floor, precision, what, cause)
    if reason := _not_finite(stats):
        # Where PyTorch's own FP32 is not finite, there is no reference: only FP64 holds such a model.
        unknown = precision == "fp32" and floor is not None and floor.mismatched_nonfinite
        words = f"; {cannot}" if cannot and not is_floor else ""
        return result("not_judged" if unknown else "fail", reason + words)
    if not stats.compared:
        return result("not_judged", "no element is finite on both sides, so there is nothing to compare")
    if stats.zero_expected and stats.zero_actual:
        reason = "reference and output are all zeros, which proves nothing; give inputs that move this output"
        return result("not_judged", reason)
    reason = _faded(stats, floor, UNIT_ROUNDOFF[precision])
    hopeless = not stats.relative_l2 < _ONE_BIT and not stats.zero_expected
    noise = reference_error() if (reason or hopeless) and reference_error is not None else None
    if noise is not None and noise.relative_l2 > FP32_HOLDS:
        words = f"the reference is rounding noise: its FP32 is {noise.relative_l2:.3g} from FP64"
        return result("not_judged", f"relative error {stats.relative_l2:.3g}, but {words}")
    if reason:
        return result("fail", f"{reason}; {cannot}" if cannot else reason)
    if tolerance is not None:
        return _by_tolerance(result, stats, floor, what, tolerance)
    if floor is None:
        words = f"but {what} cannot run here, so no floor; give a Tolerance"
        return result("not_judged", f"relative error {stats.relative_l2:.3g}, {words}")
    if cannot:
        return result(*_without_floor(stats, parts, cannot, precision))
    allowed = _limits(stats, floor, precision, parts)
    broken = [] if is_floor else [part for part in parts if part.fails]
    beyond = [] if is_floor or parts else _broken(stats, allowed)
    failed = bool(broken or beyond or hopeless)
    loses = f"{what} loses {floor.relative_l2:.3g}"
    if is_floor:
        text = f"relative error {stats.relative_l2:.3g}, this is the floor that engines are held against"
    else:
        text = _sentence(stats, broken, allowed, loses, what)
        if "max_absolute" in beyond:
            text += f"; largest error {stats.absolute['max']:.3g} (allowed {allowed['max_absolute']:.3g})"
    if failed and stats.worst:
        text += f"; worst at {list(stats.worst[0]['index'])}"
    if hopeless:
        text += "; less than one effective bit is left"
    words = _tf32_words(stats, tf32_floor()) if failed and tf32_floor is not None else ""
    return dataclasses.replace(
        result("fail" if failed else "pass", text + words, allowed=allowed), tf32_sized=bool(words)
    )


def confidence_factor(elements: int) -> float:
    """Return the factor by which a floor measured on this many elements may understate the true one.

    The upper 99 % confidence bound of an RMS of n independent normal errors over its estimate, sqrt(n / chi2(0.01, n)),
    with the Wilson-Hilferty approximation of the quantile (Biometrika 1931); at most 10, reached below 4 elements.
    """
    n = max(elements, 1)
    root = 1 - 2 / (9 * n) - 2.3263 * math.sqrt(2 / (9 * n))
    return min(10.0, root**-1.5) if root > 0 else 10.0


def _not_finite(stats: ErrorStats) -> str:
    """Return where an output is not finite and its reference is, or has not the same infinity; else an empty string."""
    if stats.nan_actual:
        where = list(stats.first_nonfinite or ())
        return f"{stats.nan_actual} of {stats.elements} elements are NaN, the first non-finite one at {where}"
    if stats.mismatched_nonfinite:
        return (
            f"{stats.mismatched_nonfinite} of {stats.elements} elements are infinite on one side only "
            f"({stats.nonfinite_actual} in the output, {stats.nonfinite_expected} in the reference)"
        )
    return ""


def _faded(stats: ErrorStats, floor: ErrorStats | None, roundoff: float) -> str:
    """Return why an output is wrong at any tolerance for having lost what its reference shows, or an empty string.

    What PyTorch loses as well in that precision is left to the limits.
    """
    if stats.zero_actual and not stats.zero_expected:
        if floor is not None and floor.zero_actual:
            return ""
        return f"the output is all zeros; the reference's RMS is {stats.rms_expected:.3g}"
    if stats.std_expected <= roundoff * stats.max_expected:
        return ""  # the reference varies by less than the format can hold: a constant is the right answer
    if stats.constant_actual and not stats.constant_expected and not (floor is not None and floor.constant_actual):
        return f"the output is constant; the reference's standard deviation is {stats.std_expected:.3g}"
    kept = 0.5 * stats.std_expected
    if stats.std_actual < kept and not (floor is not None and floor.std_actual < kept):
        # Half the spread missing is an error of at least half the spread, which the norm hides under a large mean.
        return f"the variance vanished: standard deviation {stats.std_actual:.3g}, reference {stats.std_expected:.3g}"
    return ""


def cannot_hold(floor: ErrorStats, precision: str, what: str = "PyTorch", cause: str = "") -> str:
    """Return in words that PyTorch itself loses too much in this precision to be a floor, or an empty string."""
    why = f": {cause}" if cause else ""
    if floor.mismatched_nonfinite:
        return f"{what} cannot hold this model (gives {floor.nonfinite_actual} non-finite elements){why}"
    limit = FP32_HOLDS if precision == "fp32" else HOLDS
    if floor.relative_l2 > limit and not floor.zero_expected:
        return f"{what} cannot hold this model (loses {floor.relative_l2:.3g}){why}"
    return ""


def _without_floor(stats: ErrorStats, parts: Sequence[PartResult], cannot: str, precision: str) -> tuple[Verdict, str]:
    """Return the verdict on an output whose floor is none: right, wrong, or neither to be seen."""
    text = f"relative error {stats.relative_l2:.3g}; {cannot}"
    if precision == "fp32":
        return "not_judged", f"{text}, so there is no floor"
    if not stats.relative_l2 < _ONE_BIT:
        return "fail", f"{text}; less than one effective bit is left"
    if stats.relative_l2 > HOLDS:
        return "not_judged", f"{text}, so there is no floor; keep what overflows in FP32 or give a Tolerance"
    for part in parts:
        if part.fails:
            why = f"with that in FP32 it loses {part.floor:.3g}" if part.floor else "so there is no floor for this part"
            return "not_judged", f"{_of_part(part, '')}; {text}, {why}; keep that in FP32 or give a Tolerance"
    return "pass", f"{text}, but this engine holds it"


def _by_tolerance(
    result: Callable[..., OutputResult], stats: ErrorStats, floor: ErrorStats | None, what: str, tolerance: Tolerance
) -> OutputResult:
    """Return the verdict by explicit limits; what they do not limit must keep one effective bit."""
    named = {
        "relative_l2": tolerance.relative_l2,
        "max_absolute": tolerance.max_absolute,
        "cosine": tolerance.cosine,
    }
    given = {figure: limit for figure, limit in named.items() if limit is not None}
    allowed = dict(given)
    if tolerance.relative_l2 is None:
        allowed["relative_l2"] = _ONE_BIT
        if tolerance.max_absolute is None and tolerance.cosine is not None:
            # A cosine says nothing of scale: the chord of its angle is all that it allows.
            allowed["relative_l2"] = min(math.sqrt(max(2 - 2 * tolerance.cosine, 0.0)) + _COSINE_SCALE, _ONE_BIT)
    broken = _broken(stats, allowed)
    if tolerance.relative_l2 is None and not stats.relative_l2 < _ONE_BIT and "relative_l2" not in broken:
        broken.append("relative_l2")
    text = f"relative error {stats.relative_l2:.3g}, " + (
        f"{what} loses {floor.relative_l2:.3g}" if floor else "no floor"
    )
    if "relative_l2" in given or "relative_l2" in broken:
        text += f" (allowed {allowed['relative_l2']:.3g})"
    if "max_absolute" in broken:
        text += f"; largest error {stats.absolute['max']:.3g} (allowed {allowed['max_absolute']:.3g})"
    if "cosine" in given:
        text += f"; cosine {stats.cosine:.6f} (allowed {given['cosine']:.6f})"
    if broken and stats.worst:
        text += f"; worst at {list(stats.worst[0]['index'])}"
    if tolerance.relative_l2 is None and not stats.relative_l2 < _ONE_BIT:
        text += "; less than one effective bit is left"
    return result("fail" if broken else "pass", f"{text}; tolerance: {tolerance.why}", allowed=allowed)


def _limits(stats: ErrorStats, floor: ErrorStats, precision: str, parts: Sequence[PartResult]) -> dict[str, float]:
    """Return the limits of the whole by figure name: those of its parts, or what the figures alone say."""
    if parts:
        return {part.figure: part.allowed for part in parts if part.kind == "whole" and part.figure == "relative_l2"}
    roundoff = UNIT_ROUNDOFF[precision]
    factor = confidence_factor(stats.compared)
    return {
        "relative_l2": min(FACTOR * max(floor.relative_l2 * factor, roundoff), _ONE_BIT),
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


def _sentence(stats: ErrorStats, broken: Sequence[PartResult], allowed: dict[str, float], loses: str, what: str) -> str:
    limit = f" (allowed {allowed['relative_l2']:.3g})" if "relative_l2" in allowed else ""
    whole = f"relative error {stats.relative_l2:.3g}, {loses}{limit}"
    named = next((part for part in broken if part.kind != "whole" or part.figure != "relative_l2"), None)
    if named is None:
        return whole
    if broken[0] is named:
        return f"{_of_part(named, what)}; the whole: {whole}"
    return f"{whole}; {_of_part(named, what)}"


_FIGURES = {
    "relative_l2": "{error}", "rms_absolute": "RMS {error}", "max_absolute": "largest error {error}",
    "scale": "scale off by {error}", "bias": "mean error {error} of its RMS",
}  # fmt: skip


def _of_part(part: PartResult, what: str) -> str:
    """Return a part and what it loses: ``slice 17 of axis 1: 0.41, PyTorch fp16 loses 0.0006 (allowed 0.0021)``."""
    error = _FIGURES[part.figure].format(error=f"{part.error:.3g}")
    loses = f", {what} loses {part.floor:.3g}" if what else ""
    return f"{part.name or 'the whole'}: {error}{loses} (allowed {part.allowed:.3g})"


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

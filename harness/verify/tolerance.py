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
from harness.sentences import Sentence
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
        reason: str = Sentence("reference_holds_nan", nan_expected=stats.nan_expected, why=why)
        return result("not_judged", reason)
    what = f"PyTorch {precision}"
    cannot = "" if floor is None or tolerance else cannot_hold(floor, precision, what, cause)
    if reason := _not_finite(stats):
        # Where PyTorch's own FP32 is not finite, there is no reference: only FP64 holds such a model.
        unknown = precision == "fp32" and floor is not None and floor.mismatched_nonfinite
        words = Sentence("then", text=cannot) if cannot and not is_floor else ""
        return result("not_judged" if unknown else "fail", reason + words)
    if not stats.compared:
        return result("not_judged", Sentence("nothing_finite"))
    if stats.zero_expected and stats.zero_actual:
        reason = Sentence("zeros_prove_nothing")
        return result("not_judged", reason)
    reason = _faded(stats, floor, UNIT_ROUNDOFF[precision])
    hopeless = not stats.relative_l2 < _ONE_BIT and not stats.zero_expected
    noise = reference_error() if (reason or hopeless) and reference_error is not None else None
    if noise is not None and noise.relative_l2 > FP32_HOLDS:
        words = Sentence("reference_is_noise", relative_l2=noise.relative_l2)
        return result("not_judged", Sentence("error_but", relative_l2=stats.relative_l2, words=words))
    if reason:
        return result("fail", Sentence("joined_two", text=reason, unknown=cannot) if cannot else reason)
    if tolerance is not None:
        return _by_tolerance(result, stats, floor, what, tolerance)
    if floor is None:
        words = Sentence("no_floor_here", what=what)
        return result("not_judged", Sentence("error_and", relative_l2=stats.relative_l2, words=words))
    if cannot:
        return result(*_without_floor(stats, parts, cannot, precision))
    allowed = _limits(stats, floor, precision, parts)
    broken = [] if is_floor else [part for part in parts if part.fails]
    beyond = [] if is_floor or parts else _broken(stats, allowed)
    failed = bool(broken or beyond or hopeless)
    loses = Sentence("loses_by", what=what, relative_l2=floor.relative_l2)
    if is_floor:
        text: str = Sentence("error_is_floor", relative_l2=stats.relative_l2)
    else:
        text = _sentence(stats, broken, allowed, loses, what)
        if "max_absolute" in beyond:
            text += Sentence("largest_error", max=stats.absolute["max"], max_absolute=allowed["max_absolute"])
    if failed and stats.worst:
        text += Sentence("worst_at", index=list(stats.worst[0]["index"]))
    if hopeless:
        text += Sentence("no_bit_left")
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
        return Sentence("elements_nan", nan_actual=stats.nan_actual, elements=stats.elements, where=where)
    if stats.mismatched_nonfinite:
        return Sentence(
            "elements_infinite",
            mismatched_nonfinite=stats.mismatched_nonfinite,
            elements=stats.elements,
            nonfinite_actual=stats.nonfinite_actual,
            nonfinite_expected=stats.nonfinite_expected,
        )
    return ""


def _faded(stats: ErrorStats, floor: ErrorStats | None, roundoff: float) -> str:
    """Return why an output is wrong at any tolerance for having lost what its reference shows, or an empty string.

    What PyTorch loses as well in that precision is left to the limits.
    """
    if stats.zero_actual and not stats.zero_expected:
        if floor is not None and floor.zero_actual:
            return ""
        return Sentence("output_zeros", rms_expected=stats.rms_expected)
    if stats.std_expected <= roundoff * stats.max_expected:
        return ""  # the reference varies by less than the format can hold: a constant is the right answer
    if stats.constant_actual and not stats.constant_expected and not (floor is not None and floor.constant_actual):
        return Sentence("output_constant", std_expected=stats.std_expected)
    kept = 0.5 * stats.std_expected
    if stats.std_actual < kept and not (floor is not None and floor.std_actual < kept):
        # Half the spread missing is an error of at least half the spread, which the norm hides under a large mean.
        return Sentence("variance_vanished", std_actual=stats.std_actual, std_expected=stats.std_expected)
    return ""


def cannot_hold(floor: ErrorStats, precision: str, what: str = "PyTorch", cause: str = "") -> str:
    """Return in words that PyTorch itself loses too much in this precision to be a floor, or an empty string."""
    why = Sentence("since", cause=cause) if cause else ""
    if floor.mismatched_nonfinite:
        return Sentence("cannot_hold_nonfinite", what=what, nonfinite_actual=floor.nonfinite_actual, why=why)
    limit = FP32_HOLDS if precision == "fp32" else HOLDS
    if floor.relative_l2 > limit and not floor.zero_expected:
        return Sentence("cannot_hold_loses", what=what, relative_l2=floor.relative_l2, why=why)
    return ""


def _without_floor(stats: ErrorStats, parts: Sequence[PartResult], cannot: str, precision: str) -> tuple[Verdict, str]:
    """Return the verdict on an output whose floor is none: right, wrong, or neither to be seen."""
    text = Sentence("error_then", relative_l2=stats.relative_l2, cannot=cannot)
    if precision == "fp32":
        return "not_judged", Sentence("so_no_floor", text=text)
    if not stats.relative_l2 < _ONE_BIT:
        return "fail", Sentence("then_no_bit_left", text=text)
    if stats.relative_l2 > HOLDS:
        return "not_judged", Sentence("so_no_floor_keep", text=text)
    for part in parts:
        if part.fails:
            why = Sentence("with_fp32_loses", floor=part.floor) if part.floor else Sentence("no_floor_for_part")
            return "not_judged", Sentence("part_without_floor", of_part=_of_part(part, ""), text=text, why=why)
    return "pass", Sentence("but_engine_holds", text=text)


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
    text = Sentence("error_comma", relative_l2=stats.relative_l2) + (
        Sentence("loses_by", what=what, relative_l2=floor.relative_l2) if floor else Sentence("no_floor")
    )
    if "relative_l2" in given or "relative_l2" in broken:
        text += Sentence("allowed", limit=allowed["relative_l2"])
    if "max_absolute" in broken:
        text += Sentence("largest_error", max=stats.absolute["max"], max_absolute=allowed["max_absolute"])
    if "cosine" in given:
        text += Sentence("cosine_allowed", cosine=stats.cosine, cosine_2=given["cosine"])
    if broken and stats.worst:
        text += Sentence("worst_at", index=list(stats.worst[0]["index"]))
    if tolerance.relative_l2 is None and not stats.relative_l2 < _ONE_BIT:
        text += Sentence("no_bit_left")
    return result(
        "fail" if broken else "pass", Sentence("with_tolerance", text=text, why=tolerance.why), allowed=allowed
    )


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
    limit = Sentence("allowed", limit=allowed["relative_l2"]) if "relative_l2" in allowed else ""
    whole = Sentence("error_loses", relative_l2=stats.relative_l2, loses=loses, limit=limit)
    named = next((part for part in broken if part.kind != "whole" or part.figure != "relative_l2"), None)
    if named is None:
        return whole
    if broken[0] is named:
        return Sentence("part_then_whole", of_part=_of_part(named, what), whole=whole)
    return Sentence("whole_then_part", whole=whole, of_part=_of_part(named, what))


def _figure(figure: str, error: float) -> str:
    """Return an error as it is called: an RMS, the largest error, a factor."""
    if figure == "rms_absolute":
        return Sentence("figure_rms", error=error)
    if figure == "max_absolute":
        return Sentence("figure_largest", error=error)
    if figure == "scale":
        return Sentence("figure_scale", error=error)
    return Sentence("figure_bias", error=error) if figure == "bias" else f"{error:.3g}"


def _of_part(part: PartResult, what: str) -> str:
    """Return a part and what it loses: ``slice 17 of axis 1: 0.41, PyTorch fp16 loses 0.0006 (allowed 0.0021)``."""
    error = _figure(part.figure, part.error)
    loses = Sentence("and_loses", what=what, floor=part.floor) if what else ""
    name = part.name or Sentence("the_whole")
    return Sentence("part_loses", name=name, error=error, loses=loses, allowed=part.allowed)


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
            return Sentence("tf32_sized", loses=loses)
        return ""
    # Without a GPU there is no TF32 to measure: an 11-bit significand leaves 9 to 14 effective bits.
    if 2.0**-14 <= stats.relative_l2 <= 2.0**-9:
        return Sentence("tf32_sized_bits")
    return ""

"""How far a value of an engine is from its replay, measured in one pass on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from harness.compare import ratio
from harness.sentences import Sentence

LARGEST = {"fp16": 65504.0, "bf16": 3.39e38, "tf32": 3.4e38, "fp32": 3.4e38}


@dataclass(frozen=True, kw_only=True)
class LocalError:
    """The error of a value against its replay, over the elements that are finite in both."""

    relative: float
    """Relative L2 error."""
    bias: float
    """Mean of the error over its RMS, from -1 to 1."""
    rms: float
    """Of the replay."""
    largest: float
    """Largest finite magnitude of the value."""
    largest_replay: float
    nonfinite: int
    """Elements that are not finite in the value only."""
    finite: bool
    """Whether all are finite in both."""


def local_error(actual: torch.Tensor, expected: torch.Tensor) -> LocalError:
    """Return the error over the pairs finite on both sides, and how many are not finite in ``actual`` only."""
    a, e = actual.double(), expected.double().to(actual.device)
    figures, count, nonfinite = _sums(a - e, e, a, e), a.numel(), 0
    finite = all(map(math.isfinite, figures))
    if not finite:  # rare: the pass over finite elements is paid only where it is needed
        finite_a, finite_e = a.isfinite(), e.isfinite()
        both = finite_a & finite_e
        count, nonfinite = torch.stack([both.sum(), (finite_e & ~finite_a).sum()]).tolist()
        parts = (both, a - e), (both, e), (finite_a, a), (finite_e, e)
        figures = _sums(*(torch.where(finite, part, 0.0) for finite, part in parts))
    error, norm, total, largest, largest_replay = figures
    return LocalError(
        relative=math.sqrt(ratio(error, norm)),
        bias=total / math.sqrt(error * count) if error and count else 0.0,
        rms=math.sqrt(norm / count) if count else 0.0,
        largest=largest,
        largest_replay=largest_replay,
        nonfinite=nonfinite,
        finite=finite,
    )


def _sums(difference: torch.Tensor, kept: torch.Tensor, a: torch.Tensor, e: torch.Tensor) -> list[float]:
    figures: list[float] = torch.stack([
        difference.square().sum(), kept.square().sum(), difference.sum(), a.abs().amax(), e.abs().amax(),
    ]).tolist()  # fmt: skip
    return figures


def made_here(
    actual: torch.Tensor, expected: torch.Tensor, error: LocalError, *, unlimited: torch.Tensor, end: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the error of each element, and where it is the actual value that counts, not a difference to be added.

    That is so where something is lost whole: what became exactly 0 must stay 0 for a logarithm behind it, and of what
    is beyond the ``end`` of the format in ``unlimited``, the expected value before it saturates, no small number can
    be taken. There is no error where the expected value is no number: that arrived with the inputs.
    """
    given = actual.to(expected.dtype)
    own = (given == 0) & (expected != 0)
    if expected is not unlimited or not error.finite or error.largest_replay > end:
        own |= (unlimited.abs() > end) & (given != expected)
    difference = given - expected
    if not error.finite:
        difference = torch.where(expected.isfinite(), difference, 0.0)
    return (torch.where(own, given, difference), own) if bool(own.any()) else (difference, None)


def saturated(expected: torch.Tensor, low: torch.Tensor, largest: float) -> torch.Tensor:
    """Return the expected values with those at the end of the format that PyTorch in that format, ``low``, ends there.

    A mask of -3.4e38 becomes -65504 in FP16, in PyTorch as in an engine. A computed value beyond 65504 is infinite in
    PyTorch's FP16: an engine that gives 65504 in its place is as wrong as any other.
    """
    if largest > 1e38:
        return expected  # what lies beyond is beyond FP32 too
    beyond = expected.abs() > largest
    if not bool(beyond.any()):
        return expected
    at_the_end = beyond & (low.abs() >= largest) & low.isfinite() & ((low < 0) == (expected < 0))
    return torch.where(at_the_end, low.to(expected.dtype), expected)


def follows_from_inputs(
    actual: torch.Tensor, expected: torch.Tensor, low: torch.Tensor, floor: torch.Tensor, *, end: float
) -> bool:
    """Return whether a value is infinite only because what it is computed from is wrong.

    All that is not finite where ``expected``, computed from the same, is a number is the infinity of a number beyond
    the ``end`` of the format. So it is in ``low``, PyTorch in the format from the same, but not in its own ``floor``.
    """
    bad = ~actual.isfinite() & expected.isfinite()
    there = beyond(expected[bad], end)
    alike = (actual[bad] == there) & (low[bad] == there)
    return bool(alike.all() and floor[bad].isfinite().all())


def beyond(value: torch.Tensor, end: float) -> torch.Tensor:
    """Return a value in which what lies beyond the end of a format is infinite, as computing it there makes it."""
    return torch.where(value.abs() > end, value.sign() * math.inf, value)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A magnitude beyond the end of a format."""

    magnitude: float
    """In the reference's precision."""
    index: tuple[int, ...]
    """Of the element."""
    precision: str
    """The format, ``fp16``."""

    @property
    def words(self) -> str:
        """``reached 1.785e+05 at [0, 3], FP16 ends at 65504``."""
        ends = Sentence("format_ends", upper=self.precision.upper(), largest=LARGEST[self.precision])
        return Sentence("reached_at", magnitude=self.magnitude, index=list(self.index), ends=ends)


def reached(replay: torch.Tensor, precision: str) -> Reached | None:
    """Return the largest finite magnitude of a value where it is beyond the end of the format."""
    sizes = torch.where(replay.isfinite(), replay.abs(), 0.0)
    place = int(sizes.argmax())
    largest = float(sizes.flatten()[place])
    if not largest > LARGEST[precision]:
        return None
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), replay.shape))
    return Reached(magnitude=largest, index=index, precision=precision)

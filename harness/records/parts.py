"""What was found of one part of an output: a slice, an octave, or the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.records.data import JsonRecord
from harness.sentences import Sentence

Figure = Literal["relative_l2", "rms_absolute", "max_absolute", "scale", "bias"]


@dataclass(frozen=True, kw_only=True)
class PartResult(JsonRecord):
    """One figure of one part, with its limit."""

    kind: Literal["whole", "slice", "octave", "zeros"]
    """A slice lies along an axis; an octave holds the elements whose reference is from ``low`` to ``high``."""
    figure: Figure
    """``relative_l2`` and ``rms_absolute`` (where the reference is 0) of the part's errors, ``max_absolute`` of one
    element, ``scale`` (the regression slope of engine on reference, less 1), ``bias`` (mean error over the RMS)."""
    error: float
    """The engine's."""
    floor: float
    """PyTorch's in the same precision."""
    allowed: float
    """The largest that passes."""
    elements: int
    """Elements in the part."""
    axis: int | None = None
    """Of a slice."""
    index: int | None = None
    """Of a slice, along its axis."""
    low: float | None = None
    """Of an octave: the smallest magnitude."""
    high: float | None = None
    """Of an octave: the magnitude that is too large for it."""

    @property
    def fails(self) -> bool:
        """Whether the error is beyond the limit; NaN is."""
        return not abs(self.error) <= self.allowed

    @property
    def name(self) -> str:
        """``slice 17 of axis 1``, ``elements of 0.25 to 0.5``, ``elements that should be 0``; empty for the whole."""
        if self.kind == "slice":
            return Sentence("part_slice", index=self.index, axis=self.axis)
        if self.kind == "octave":
            return Sentence("part_octave", low=self.low, high=self.high)
        return Sentence("part_zeros") if self.kind == "zeros" else ""

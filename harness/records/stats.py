"""The figures of one comparison of two tensors, as data. See docs/json.md."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ErrorStats:
    """The distance between two tensors of one shape. Figures are NaN where no pair is finite on both sides."""

    shape: tuple[int, ...]
    """Dimensions of both tensors."""
    dtype: str
    """Of the actual tensor, such as ``float16``."""
    absolute: dict[str, float]
    """``max``, ``mean``, ``median`` and ``p99`` of ``|a - e|``."""
    relative: dict[str, float]
    """The same of ``|a - e| / |e|``, 0 where both are 0; ``undefined`` counts the left out e = 0, a != 0."""
    relative_l2: float
    """``||a - e|| / ||e||``; for ``||e|| = 0`` it is 0 without error and infinite with one."""
    cosine: float
    """Cosine similarity; 1 when both are zero, NaN when only one is."""
    snr_db: float
    """Signal-to-noise ratio, ``-20 log10(relative_l2)``, in decibels; infinite without error."""
    effective_bits: float
    """``-log2(relative_l2)``; infinite without error."""
    bias: float
    """Mean of ``a - e`` over the RMS of ``e``; for an RMS of 0 it is 0 or infinite."""
    elements: int
    """Number of elements."""
    compared: int
    """Number of pairs finite on both sides."""
    rms_expected: float
    """Root mean square of the expected values."""
    std_actual: float
    """Standard deviation of the actual values, from sums of squares: right to 1e-7 of their RMS."""
    std_expected: float
    """Standard deviation of the expected values, likewise."""
    max_expected: float
    """Largest ``|e|``."""
    zero_actual: bool
    """Every compared actual value is 0."""
    zero_expected: bool
    """Every compared expected value is 0."""
    constant_actual: bool
    """All compared actual values are one value."""
    constant_expected: bool
    """All compared expected values are one value."""
    nonfinite_actual: int
    """Number of NaN and infinities in the actual tensor."""
    nonfinite_expected: int
    """Number of NaN and infinities in the expected tensor."""
    nan_actual: int
    """Number of NaN in the actual tensor."""
    nan_expected: int
    """Number of NaN in the expected tensor."""
    mismatched_nonfinite: int
    """Positions that hold a NaN or an infinity and not the same infinity on both sides."""
    first_nonfinite: tuple[int, ...] | None
    """Index of the first NaN or infinity of the actual tensor."""
    worst: tuple[dict[str, Any], ...]
    """``index``, ``actual`` and ``expected`` of the five largest absolute errors; of equal ones the first."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, one key per field; figures that are not finite are left as they are."""
        data = dataclasses.asdict(self)
        first = self.first_nonfinite
        return {
            **data,
            "shape": list(self.shape),
            "first_nonfinite": None if first is None else list(first),
            "worst": list(data["worst"]),
        }

"""What an entrant's folder of a contest is worth, as data. See docs/json.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from harness.records.accuracy import Verdict
from harness.records.data import plain


@dataclass(frozen=True, kw_only=True)
class ContestPicture:
    """One picture that an entrant's folder made."""

    name: str
    latency_ms: float
    """Wall clock around ``process``, what it does on the host included."""
    pd: float | None
    """Perceptual distance to the reference picture; None where it was not judged."""
    file: str
    """What was made, encoded as the reference picture is; empty where it was no picture of the contest's form."""
    reason: str = ""
    """Why this picture fails whatever the others are; empty where it can be judged."""


@dataclass(frozen=True, kw_only=True)
class ContestResult:
    """What an entrant's folder is worth."""

    folder: str
    verdict: Verdict
    reason: str
    pictures: tuple[ContestPicture, ...] = ()
    latency_ms: float | None = None
    """Mean without the first, as the contest takes it."""
    pd_mean: float | None = None
    pd_max: float | None = None
    score: float | None = None
    score_rule: str = ""
    preprocess_s: float | None = None
    """Seconds that ``preprocess.sh`` took."""
    parameters: dict[str, Any]
    """What ``process`` was called with."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys."""
        data: dict[str, Any] = plain(asdict(self))
        return data

"""What an entrant's folder of a contest is worth, as data. See docs/json.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.records.data import JsonRecord, Verdict


@dataclass(frozen=True, kw_only=True)
class ContestPicture:
    """One picture that an entrant's folder made."""

    name: str
    """The picture's file name without its suffix."""
    latency_ms: float
    """Wall clock around ``process``, what it does on the host included."""
    pd: float | None
    """Perceptual distance to the reference picture; None where it was not judged."""
    file: str
    """What was made, encoded as the reference picture is; empty where it was no picture of the contest's form."""
    reason: str = ""
    """Why this picture fails whatever the others are; empty where it can be judged."""


@dataclass(frozen=True, kw_only=True)
class ContestResult(JsonRecord):
    """What an entrant's folder is worth."""

    folder: str
    """The entrant's folder."""
    verdict: Verdict
    """``pass``, ``fail`` or ``not_judged``."""
    reason: str
    """One sentence."""
    pictures: tuple[ContestPicture, ...] = ()
    """In the order they were made."""
    latency_ms: float | None = None
    """Mean without the first, as the contest takes it."""
    pd_mean: float | None = None
    """Mean perceptual distance over the pictures; None where it was not judged."""
    pd_max: float | None = None
    """The largest perceptual distance of a picture."""
    score: float | None = None
    """By the contest's rule; None where it cannot be had."""
    score_rule: str = ""
    """The rule in one sentence."""
    preprocess_s: float | None = None
    """Seconds that ``preprocess.sh`` took."""
    parameters: dict[str, Any]
    """What ``process`` was called with."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures."""

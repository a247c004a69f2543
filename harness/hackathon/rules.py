"""The rules of the TensorRT Hackathon 2023 preliminary: its parameters and limits, and a score by them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records import Verdict
from harness.sentences import Sentence

PD_LIMIT, LATENCY_LIMIT_MS = 12.0, 2600.0
PICTURES = 20
SCRIPT, PREPROCESS = "canny2image_TRT.py", "preprocess.sh"
PARAMETERS: Mapping[str, Any] = {
    "prompt": "a bird",
    "a_prompt": "best quality, extremely detailed",
    "n_prompt": "longbody, lowres, bad anatomy, bad hands, missing fingers",
    "num_samples": 1,
    "image_resolution": 256,
    "ddim_steps": 20,
    "guess_mode": False,
    "strength": 1,
    "scale": 9,
    "seed": 2946901,
    "eta": 0.0,
    "low_threshold": 100,
    "high_threshold": 200,
}
"""What ``process`` is called with after the picture, in this order; the contest's public values."""


def default_score(pd: float, latency_ms: float) -> float:
    """Return 100 (1 - pd / 12) (1 - latency / 2600): 0 at either limit, and falling with both.

    The contest says only that the score falls with both and is 0 from the limits on; it never published its formula.
    """
    return 100 * max(0.0, 1 - pd / PD_LIMIT) * max(0.0, 1 - latency_ms / LATENCY_LIMIT_MS)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What fails, and what the rest is worth. Replace ``score`` to rank by another formula."""

    pd_limit: float = PD_LIMIT
    """A larger perceptual distance fails; the contest does not say of a picture or the mean, so the worst counts."""
    latency_limit_ms: float = LATENCY_LIMIT_MS
    """A mean latency of this or more fails."""
    score: Callable[[float, float], float] = default_score
    """Of the mean perceptual distance and the mean latency in milliseconds."""
    words: str = Sentence("contest_formula")
    """The score in one sentence."""

    def judge(self, distances: Sequence[float], latency_ms: float | None) -> tuple[Verdict, str, float | None]:
        """Return verdict, reason and score; without distances it is a fail by latency, or not judged."""
        if latency_ms is None or not math.isfinite(latency_ms):
            return "not_judged", Sentence("no_latency_measured"), None
        if latency_ms >= self.latency_limit_ms:
            limit = Sentence("or_more_fails", latency_limit_ms=self.latency_limit_ms)
            return "fail", Sentence("mean_latency_limit", latency_ms=latency_ms, limit=limit), 0.0
        if not distances:
            return "not_judged", Sentence("pd_not_judged", latency_ms=latency_ms), None
        worst, mean = max(distances, key=largest_key), statistics.fmean(distances)
        if not worst <= self.pd_limit:
            return "fail", Sentence("pd_above", worst=worst, mean=mean, pd_limit=self.pd_limit), 0.0
        reason = Sentence("pd_at_most", worst=worst, mean=mean, latency_ms=latency_ms)
        return "pass", reason, self.score(mean, latency_ms)


RULES = Rules()


def largest_key(value: float) -> float:
    """Return a key for the largest distance: a NaN is worse than any figure."""
    return math.inf if math.isnan(value) else value

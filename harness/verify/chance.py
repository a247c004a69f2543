"""What chance may do to the ratio of two mean squares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from harness.lazy import special

if TYPE_CHECKING:
    from harness.compare import Array

FEWEST_DEGREES = 8.0
"""However much the slices differ in what the engine loses over the floor, each counts as this many errors."""
FEWEST_SLICES = 8
"""With fewer slices, the spread between them says nothing."""
LEAST_PRIOR = 2.0
"""Degrees of freedom that the octaves have against a slice's own floor, at least: a floor of 0 may be luck."""
MOST_PRIOR = 1e3
MOST_CHANCE = 200.0
"""One number that exceeds one other of its kind by FACTOR times this is one in a thousand: 2 / (3 pi 200)."""
_BELOW = 0.15865525393145707  # of a normal distribution lies below one standard deviation under the median


def chance_factor(engine: float, floor: float, level: float) -> float:
    """Return how many times the root of one mean square exceeds that of another of the same size, at a level.

    ``engine`` and ``floor`` are their degrees of freedom. Never below 1, and at most MOST_CHANCE.
    """
    share = float(special.betaincinv(floor / 2, engine / 2, level))
    if not share:
        return MOST_CHANCE
    return min(max(1.0, math.sqrt(floor * (1 - share) / (engine * share))), MOST_CHANCE)


def degrees_between(engine: Array, floor: Array) -> float:
    """Return the degrees of freedom that explain how much log(engine / floor) differs from slice to slice.

    The variance of the log of a ratio of two mean squares of d degrees each is 2 trigamma(d/2). The spread is taken
    from below the median, where a fault in a part of the slices does not reach. Infinite where that cannot be told.
    """
    known = (engine > 0) & (floor > 0)
    if known.sum() < FEWEST_SLICES:
        return math.inf
    ratio = np.log(engine[known] / floor[known])
    low, median = np.quantile(ratio, [_BELOW, 0.5])
    return max(2 * float(_trigamma_inverse((median - low) ** 2 / 2)), FEWEST_DEGREES)


def moderated(squared: Array, prior: Array, degrees: Array) -> tuple[Array, Array]:
    """Return sums of squares moderated by prior ones, and their degrees of freedom (Smyth 2004, section 6).

    How much the prior counts follows from how much the sums differ from it, beyond chance, over all slices.
    """
    known = (squared > 0) & (prior > 0)
    if not known.any():
        return np.maximum(squared, prior * LEAST_PRIOR / (LEAST_PRIOR + degrees)), degrees
    half = degrees[known] / 2
    log = np.log(squared[known] / prior[known]) - special.digamma(half) + np.log(half)
    centre = math.exp(float(log.mean()))
    weight = MOST_PRIOR
    if known.sum() > 1:
        beyond = float(log.var(ddof=1) - special.polygamma(1, half).mean())
        if beyond > 0:
            weight = min(max(2 * float(_trigamma_inverse(beyond)), LEAST_PRIOR), MOST_PRIOR)
    return (weight * centre * prior + degrees * squared) / (weight + degrees), weight + degrees


def _trigamma_inverse(value: float) -> float:
    """Return x with trigamma(x) = value, by Newton's method on 1/trigamma, which is almost straight (Smyth 2004)."""
    if value > 1e7:
        return float(1 / math.sqrt(value))
    if value < 1e-6:
        return 1 / max(value, 1e-300)
    x = 0.5 + 1 / value
    for _ in range(20):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x

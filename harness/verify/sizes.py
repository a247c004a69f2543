"""What size of numbers the elements of an output were computed from, as far as their octaves show it.

An element that is the difference of larger numbers, or the exponential of one, may lose roundings of those.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.lazy import special

if TYPE_CHECKING:
    from harness.compare import Array, Octaves

NORMAL_SPREAD = math.pi / math.sqrt(8)
"""Standard deviation of log|x| for a normal x."""
MOST_SPREAD = 64.0
SHOWN = 4.0
"""An exponential of rounded numbers loses a quarter of its spread in roundings at least, and the floor shows that."""
WIDE = 1.4
"""A spread from which a reference is taken for the exponential of something."""
GAP = 4
"""Octaves that are empty between two kinds of values."""
FEW = 16
"""Elements up to which the RMS of a part says little about the numbers it was computed from."""
SUMS_TO = 1e-5
"""How far the sum of a softmax may be from the number of its rows, relative to that."""


def before_cancelling(octaves: Octaves, level: float) -> tuple[Array, Array]:
    """Return the size of the numbers whose difference an element of each octave may be: usual, and largest.

    Where terms cancel, the results have a flat density around zero: k octaves below, a share 2^-k is left, and of a
    cube 2^-k/3. An octave that holds no larger share than that of those up to a larger one, as all between, may have
    come about so. Few in an octave may be so by luck: their number is taken for its lower confidence bound at ``level``
    (Poisson). More than FEW with GAP empty octaves above them are of another kind. The usual size is that at which the
    flat density holds all elements, and for a product, few of which are small for the one term that cancelled, the
    geometric mean of that and the largest.
    """
    zeros = octaves.exponents[0] is None
    places = np.array(octaves.exponents[1 if zeros else 0 :], dtype=float)
    count = octaves.count[1 if zeros else 0 :]
    apart = np.minimum(places[None, :] - places[:, None], 500)
    within = np.cumsum(count)[None, :] - (np.cumsum(count) - count)[:, None]  # from one octave to the other
    share = within / special.gammaincinv(count, level)[:, None]
    flat = (share >= 2 ** (apart / 3)) | (apart < GAP)
    steady = np.logical_and.accumulate(flat[::-1])[::-1] & (share >= 2 ** (apart / 3)) & (apart >= 0)
    kind = np.cumsum(np.diff(places, prepend=places[:1]) > GAP)
    alike = (kind[:, None] == kind[None, :]) | (np.bincount(kind, count)[kind] <= FEW)[:, None]
    larger = np.where(steady & alike, 2.0**apart, 0.0)
    usual, largest = (
        x.max(1, initial=0.0) * 2.0**places for x in (np.sqrt(np.minimum(share / 2, larger) * larger), larger)
    )
    if not zeros:
        return usual, largest
    # Where nothing is negative, zeros may have been clipped, from numbers that had cancelled as those of the lowest.
    usual, largest = (np.concatenate([x[:1] if octaves.positive and len(x) else [0.0], x]) for x in (usual, largest))
    return usual, largest


def softmax_axis(octaves: Octaves, expected: torch.Tensor) -> int | None:
    """Return the axis along which all values are positive and add up to one, as far as their sums show that."""
    for axis, size in enumerate(expected.shape):
        rows = float(octaves.count.sum()) / size  # of those that count
        if size <= 1 or not octaves.positive or not abs(octaves.total - rows) < SUMS_TO * rows:
            continue
        sums = expected.sum(axis, dtype=torch.float64)
        if bool((((sums - 1).abs() < SUMS_TO) | sums.isinf()).all()):
            return axis
    return None


def spread_of(octaves: Octaves, softmax: bool, fair: Array, least: float) -> Array:
    """Return how many roundings of an element one rounding of what it was computed from is, by octave.

    exp(t) was computed from t: one rounding of t is a relative error of |t| roundings. t is taken for the distance of
    log|reference| from its mean, and not less than its standard deviation over that of normal values. All elements of a
    softmax share the error of the largest t. Octaves with GAP empty ones between them have nothing in common, such as a
    mask. At least 1 and at most MOST_SPREAD; and no more than the floor shows, ``fair`` being its squared error of an
    element in roundings, where t was not rounded at all.
    """
    places = np.array([np.nan if k is None else k for k in octaves.exponents], dtype=float)
    group = np.cumsum(np.diff(places, prepend=places[:1]) > (math.inf if softmax else GAP))
    spread = np.ones(len(places))
    for number in set(group[~np.isnan(places)]):
        own = (group == number) & ~np.isnan(places)
        weights, t = octaves.count[own], places[own] * math.log(2)
        apart = np.abs(t - np.average(t, weights=weights))
        usual = max(math.sqrt(float(np.average(apart**2, weights=weights))) / NORMAL_SPREAD, 1.0)
        usual = max(usual, float(apart[-1])) if softmax else usual
        spread[own] = np.minimum(np.maximum(apart, usual) if usual > WIDE else usual, MOST_SPREAD)
        known = own & (2.0**places >= least)
        if known.any():
            predicted = float(np.sum(octaves.count[known] * spread[known] ** 2))
            shown = float(np.sum(fair[known] * (octaves.count**2)[known] / octaves.reference[known]))
            spread[own] = np.maximum(spread[own] * min(SHOWN * math.sqrt(shown / predicted), 1.0), 1.0)
    return spread

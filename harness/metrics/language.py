"""Language models: what an engine's logits do to the next token, held against a floor.

Logits are [n, words], one row for every position that counts; padding is left out before. The floor is PyTorch in the
engine's precision on the same tokens: no fixed limit fits every model, and its own loss does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.errors import NotJudged, UsageError
from harness.metrics.binding import Metric
from harness.metrics.remarks import remark

if TYPE_CHECKING:
    import torch

FP32_LOSS = 2.0**-20
"""Of the largest logit: what FP32 may lose in any order of adding, where the floor happens to be exact."""
NAMES = ("KL divergence", "top-1 agreement", "perplexity ratio less 1")
TIMES = 3
"""An engine may lose as many times what PyTorch loses, as in the verdicts of outputs."""
MOST_LOST = 0.1
"""Nats that PyTorch itself may lose on average: what has lost more, such as by squares beyond FP16, is no floor."""
_ROWS = 64
"""Rows that are computed at a time: in float64 the logits of a long text are gigabytes."""


def kl_divergence(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return KL(expected || actual) of the two softmax distributions of each row, in nats, float64 [n].

    A row that is not finite on either side gets NaN. Raises UsageError for shapes that differ, and for nothing.
    """
    import torch

    _check("KL divergence", actual, expected)
    found = []
    for left, right in zip(_chunks(actual), _chunks(expected.to(actual.device)), strict=True):
        ours, theirs = (side.double().log_softmax(1) for side in (left, right))
        nats = (theirs.exp() * (theirs - ours)).sum(1)
        found.append(nats.masked_fill(~(left.isfinite() & right.isfinite()).all(1), math.nan))
    return torch.cat(found)


def surprise(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return minus the log of the probability of each row's token, in nats, float64 [n]; ``tokens`` are int64 [n].

    A row that is not finite gets NaN. Raises UsageError for other shapes, and for nothing.
    """
    import torch

    _check_tokens("perplexity", logits, tokens)
    found = []
    for rows, wanted in zip(_chunks(logits), _chunks(tokens.to(logits.device)), strict=True):
        nats = -rows.double().log_softmax(1).gather(1, wanted[:, None])[:, 0]
        found.append(nats.masked_fill(~rows.isfinite().all(1), math.nan))
    return torch.cat(found)


def perplexity(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    """Return the perplexity of tokens int64 [n] under logits [n, words]: e to the mean of :func:`surprise`."""
    return float(surprise(logits, tokens).mean().exp())


def logit_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest absolute difference of two logits; NaN where one is NaN. Raises as :func:`kl_divergence`."""
    _check("logit error", actual, expected)
    return float((actual - expected.to(actual.device)).abs().max())


def margins(expected: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return by how much the best logit of each row exceeds that of ``tokens`` int64 [n]: float64 [n], 0 for the best.

    A row with a NaN gets NaN. Raises UsageError for other shapes, and for nothing.
    """
    _check_tokens("margins", expected, tokens)
    wanted = tokens.to(expected.device)[:, None]
    return (expected.amax(1) - expected.gather(1, wanted)[:, 0]).double()


def top1_or_tied(actual: torch.Tensor, expected: torch.Tensor, *, tied: float) -> torch.Tensor:
    """Return 1 for each row of which ``actual`` chooses the reference's best token or one that ties with it, else 0.

    A token ties whose logit in ``expected`` is at most ``tied`` below the best. float64 [n]; a row that is not finite
    on either side has 0, and so has one whose logits are all alike where the other's are not. A remark says how many
    tokens differ and how many of them tie. Raises UsageError for shapes that differ, for nothing, and where ``tied`` is
    no number from 0.
    """
    _check("top-1 agreement", actual, expected)
    if not (math.isfinite(tied) and tied >= 0):
        raise UsageError(f"top-1 agreement: tied={tied}; give a number from 0")
    expected = expected.to(actual.device)
    chosen, best = actual.argmax(1), expected.argmax(1)
    is_finite = (actual.isfinite() & expected.isfinite()).all(1)
    is_flat = [logits.amax(1) == logits.amin(1) for logits in (actual, expected)]  # all words tie: nothing is chosen
    is_right = is_finite & (margins(expected, chosen) <= tied) & (is_flat[0] == is_flat[1])
    differ, ties = int((chosen != best).sum()), int(((chosen != best) & is_right).sum())
    remark(f"{differ} of {len(best)} tokens differ, {ties} of them ties within {tied:.3g}")
    return is_right.double()


def against_floor(
    expected: torch.Tensor, floor: torch.Tensor, tokens: torch.Tensor, *, least: float = 0.0
) -> tuple[Metric, ...]:
    """Return what an engine's teacher-forced logits are held to: KL divergence, top-1 agreement, perplexity ratio.

    ``expected`` are the reference's logits [n, words], ``floor`` those of PyTorch in the engine's precision, and
    ``tokens`` int64 [n] the text's next ones. ``least`` is a logit error that is the reference's own, such as its
    distance from FP64. The metrics take ``(actual, expected)``. Where the floor is not
    finite, or has lost more than MOST_LOST, they are not judged.
    Raises UsageError for other shapes, and for nothing.
    """
    error = tie_width(expected, floor, least=least)
    if not math.isfinite(error):
        return tuple(map(_without_floor, NAMES))
    own = max(least, FP32_LOSS * float(expected.abs().max()))
    kl = max(float(kl_divergence(floor, expected).mean()), own**2 / 2)  # of an error of that size in every logit
    if not kl <= MOST_LOST:
        return tuple(map(_without_floor, NAMES))
    lost = surprise(floor, tokens) - surprise(expected, tokens)
    chance = 2 * float(lost.std(correction=0)) / math.sqrt(len(lost))
    ratio = math.expm1(min(TIMES * max(abs(float(lost.mean())) + chance, own), 700.0))
    return (
        Metric(
            "KL divergence", kl_divergence, at_most=TIMES**2 * kl, over="mean",
            why=f"{TIMES} times the logit error that PyTorch has in this precision; nats go with its square",
        ),
        Metric(
            "top-1 agreement", lambda ours, theirs: top1_or_tied(ours, theirs, tied=error), at_least=1.0, over="mean",
            why="a token may differ only where the reference's margin is below the floor's logit error",
        ),
        Metric(
            "perplexity ratio less 1", lambda ours, theirs: _ratio_less_1(ours, theirs, tokens), at_most=ratio,
            why=f"{TIMES} times what PyTorch's perplexity changes by in this precision, and what chance adds",
        ),
    )  # fmt: skip


def tie_width(expected: torch.Tensor, floor: torch.Tensor, *, least: float = 0.0) -> float:
    """Return the logit error below which a margin of the reference decides nothing; infinite or NaN without a floor.

    It is the floor's largest, and no less than ``least`` and what FP32 may lose of the largest logit.
    """
    found = logit_error(floor, expected)
    return max(found, least, FP32_LOSS * float(expected.abs().max())) if math.isfinite(found) else found


def _ratio_less_1(actual: torch.Tensor, expected: torch.Tensor, tokens: torch.Tensor) -> float:
    """Return by how much the larger of two perplexities exceeds the smaller one, as a share of it."""
    ours, theirs = (perplexity(logits, tokens) for logits in (actual, expected))
    remark(f"perplexity {ours:.6g}, reference {theirs:.6g}")
    return math.expm1(min(abs(math.log(ours) - math.log(theirs)), 700.0))  # min() gives its first where that is NaN


def _without_floor(name: str) -> Metric:
    def unjudged(actual: Any, expected: Any) -> float:
        raise NotJudged(
            "PyTorch itself is not finite, or all but lost, in this precision: there is no floor to hold it to"
        )

    return Metric(name, unjudged, at_most=0.0, why="there is no floor")


def _chunks(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    return (rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS))


def _check(what: str, actual: torch.Tensor, expected: torch.Tensor) -> None:
    if actual.shape != expected.shape or actual.ndim != 2 or not actual.numel():
        shapes = f"{list(actual.shape)} against {list(expected.shape)}"
        raise UsageError(f"{what}: logits of {shapes}; give two tensors [n, words] of one shape, not empty")
    for logits in (actual, expected):
        if not logits.is_floating_point():
            raise UsageError(f"{what}: logits of {logits.dtype}; give floating point")


def _check_tokens(what: str, logits: torch.Tensor, tokens: torch.Tensor) -> None:
    _check(what, logits, logits)
    if tokens.shape != logits.shape[:1] or tokens.is_floating_point():
        raise UsageError(f"{what}: tokens {tokens.dtype} {list(tokens.shape)}; give int64 [{len(logits)}], one per row")
    if int(tokens.min()) < 0 or int(tokens.max()) >= logits.shape[1]:
        raise UsageError(f"{what}: a token is none of 0 to {logits.shape[1] - 1}")

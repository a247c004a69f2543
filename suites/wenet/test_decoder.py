"""WeNet's decoder, which rescores the hypotheses of a beam search."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from harness.checks import test_layers, test_outputs, test_parts
from harness.metrics import Metric
from suites.wenet.cases import contest, hypotheses, subject, with_contest
from suites.wenet.models import SIZE, Decoder


def build() -> torch.nn.Module:
    """Return the decoder with seeded weights."""
    return Decoder(SIZE).eval()


SUBJECT = subject("decoder", build, hypotheses, x4_16=(4, 16))


def agreement(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> float:
    """Return the share of utterances for which the same hypothesis is the best."""
    best = expected["best_index"]
    return float((actual["best_index"].to(best.device) == best).float().mean())


AGREEMENT = Metric(
    "best hypothesis", agreement, at_least=1.0,
    why="the contest takes a median over best_index, which hides what is wrong in less than half of them",
)  # fmt: skip


def test_best(parity):
    """The same hypothesis is the best."""
    parity.check_metric(AGREEMENT)


@with_contest
def test_contest(parity):
    """Output 0 is as near to the contest's file as the contest asks."""
    for metric in contest("decoder", parity.result.case, "decoder_out", absolute=4e-1, relative=2e-4, epsilon=1e-5):
        parity.check_metric(metric)

"""WeNet's decoder, which rescores the hypotheses of a beam search."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from harness.checks import test_layers, test_outputs, test_parts
from harness.metrics import Metric
from suites.wenet.cases import BATCH, HEARD, check_contest, hypotheses, subject
from suites.wenet.models import SIZE, Decoder


def build() -> torch.nn.Module:
    """Return the decoder with seeded weights."""
    return Decoder(SIZE).eval()


SUBJECT = subject(
    "decoder", hypotheses, (4, 16), build=build, ranges={"batch": BATCH, "heard": HEARD},
    dynamic={name: {0: "batch"} for name in hypotheses(1, 16)} | {"encoder_out": {0: "batch", 1: "heard"}},
)  # fmt: skip


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


def test_contest(parity):
    """Output 0 is as near to the contest's file as the contest asks."""
    check_contest(parity, "decoder_out", absolute=4e-1, relative=2e-4, epsilon=1e-5)

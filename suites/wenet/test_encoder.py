"""WeNet's encoder: a Conformer over a spectrogram."""

from __future__ import annotations

import torch

from harness.checks import test_layers, test_outputs, test_parts
from suites.wenet.cases import contest, speech, subject, with_contest
from suites.wenet.models import SIZE, Encoder


def build() -> torch.nn.Module:
    """Return the encoder with seeded weights."""
    return Encoder(SIZE).eval()


SUBJECT = subject("encoder", build, speech, x4_64=(4, 64))


@with_contest
def test_contest(parity):
    """Output 0 is as near to the contest's file as the contest asks."""
    for metric in contest("encoder", parity.result.case, "encoder_out", absolute=3.5e-2, relative=2e-3, epsilon=5e-5):
        parity.check_metric(metric)

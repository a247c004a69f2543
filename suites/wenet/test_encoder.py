"""WeNet's encoder: a Conformer over a spectrogram."""

from __future__ import annotations

import torch

from harness.checks import test_layers, test_outputs, test_parts
from suites.wenet.cases import BATCH, FRAMES, check_contest, speech, subject
from suites.wenet.models import SIZE, Encoder, heard


def build() -> torch.nn.Module:
    """Return the encoder with seeded weights."""
    return Encoder(SIZE).eval()


SUBJECT = subject(
    "encoder", speech, (4, 64), build=build,
    dynamic={"speech": {0: "batch", 1: "4*quarters"}, "speech_lengths": {0: "batch"}},
    ranges={"batch": BATCH, "quarters": FRAMES},
    valid={"encoder_out": lambda given: heard(given["speech_lengths"], given["speech"].shape[1])[..., None]},
)  # fmt: skip


def test_contest(parity):
    """Output 0 is as near to the contest's file as the contest asks."""
    check_contest(parity, "encoder_out", absolute=3.5e-2, relative=2e-3, epsilon=5e-5)

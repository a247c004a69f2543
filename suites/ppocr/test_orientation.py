"""The network of PP-OCR that says whether a line of text is upside down."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from harness.checks import test_outputs
from harness.metrics import Metric
from suites.ppocr.pictures import LINES, strip, subject

WIDTH = 192
"""Pixels of a line, as this network takes it: what is longer is squeezed."""
TEXTS = tuple(" ".join(text.split()[:2]) for text in LINES)
"""What is drawn: a line fits with two words."""


def both_ways() -> dict[str, torch.Tensor]:
    """Return every line as it is, then every line turned."""
    return {"x": torch.stack([strip(text, WIDTH, turned=turned) for turned in (False, True) for text in TEXTS])}


SUBJECT = subject("orientation", "ch_ppocr_mobile_v2.0_cls_infer.onnx", lines=both_ways)


def right(outputs: Mapping[str, torch.Tensor]) -> float:
    """Return the share of lines whose orientation is found."""
    (scores,) = outputs.values()
    turned = torch.arange(len(scores), device=scores.device) >= len(TEXTS)
    return float((scores.argmax(-1).bool() == turned).float().mean())


RIGHT = Metric(
    "orientations found", lambda actual, expected: right(actual), at_least=1.0,
    why="PyTorch in FP32 finds all of them",
)  # fmt: skip


def test_orientation(parity):
    """Every line is found to be upright or upside down."""
    parity.check_metric(RIGHT)

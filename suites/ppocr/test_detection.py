"""The detector of PP-OCRv4: a page to the probability of text, by pixel."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from harness import Tolerance
from harness.checks import test_outputs
from harness.metrics import Metric
from suites.ppocr.pictures import LEFT, LINES, SIZE, TOPS, drawn, page, subject

THRESHOLD = 0.3
"""From which a pixel counts as text, as in the package."""
FP32 = Tolerance(
    max_absolute=1e-4, relative_l2=1e-5,
    why="ONNX Runtime's Sigmoid on the CPU is 0 from -18 down (1.5e-8 at -18), which is all of a row without text; no "
    "box sees 1e-4",
)  # fmt: skip
SUBJECT = subject(
    "detection", "ch_PP-OCRv4_det_infer.onnx", tolerances={"fp32": FP32},
    one=lambda: {"x": page(LINES[:4])}, two=lambda: {"x": page(LINES[4:])},
)  # fmt: skip


def is_text(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return which pixels are text, bool [height, width]."""
    (probability,) = outputs.values()
    return probability[0, 0] > THRESHOLD


def overlap(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> float:
    """Return the intersection over union of what both take for text."""
    one, other = is_text(actual), is_text(expected)
    other = other.to(one.device)
    return float((one & other).sum() / (one | other).sum())


def covered(outputs: Mapping[str, torch.Tensor], lines: tuple[str, ...]) -> float:
    """Return the share of the middle line of each text that counts as text; of the worst text."""
    found = is_text(outputs)
    shares = []
    for text, top in zip(lines, TOPS, strict=True):
        width, height = drawn(text, SIZE).size
        shares.append(found[top + height // 2, LEFT + 8 : LEFT + width - 8].float().mean())
    return float(min(shares))


IOU = Metric(
    "IoU of text pixels", overlap, at_least=0.98, why="2 % of the pixels move a box by less than a pixel",
)  # fmt: skip


def test_boxes(parity):
    """The same pixels are text as in PyTorch, and every line that was drawn is found."""
    parity.check_metric(IOU)
    lines = LINES[:4] if parity.result.case == "one" else LINES[4:]
    parity.check_metric(
        Metric(
            "share of each line found", lambda actual, expected: covered(actual, lines), at_least=0.9,
            why="PyTorch in FP32 finds all of each line but gaps between words",
        )
    )  # fmt: skip

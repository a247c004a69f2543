"""The recogniser of PP-OCRv4: a line of text to its characters, by CTC."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch

from harness.checks import test_outputs
from harness.metrics import Metric
from harness.metrics.speech import cer
from suites.ppocr.pictures import LINES, WIDTH, model, strip, subject

FILE = "ch_PP-OCRv4_rec_infer.onnx"
SUBJECT = subject("recognition", FILE, lines=lambda: {"x": torch.stack([strip(text, WIDTH) for text in LINES])})


@cache
def characters() -> list[str]:
    """Return what the classes mean, the first of which is none; the file carries them."""
    import onnx

    found = {entry.key: entry.value for entry in onnx.load(model(FILE), load_external_data=False).metadata_props}
    return ["", *found["character"].splitlines(), " "]


def read(outputs: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the text of every line: the best class of each of its columns, repeated ones once."""
    (scores,) = outputs.values()
    best = scores.argmax(-1).tolist()
    return ["".join(characters()[c] for c, before in zip(row, [0, *row], strict=False) if c != before) for row in best]


AS_PYTORCH = Metric(
    "CER against PyTorch", lambda actual, expected: cer(read(actual), read(expected)), at_most=0.0,
    why="a character that is read otherwise is one that the user sees",
)  # fmt: skip
AS_DRAWN = Metric(
    "CER against what is drawn", lambda actual, expected: cer(read(actual), LINES), at_most=0.02,
    why="PyTorch in FP32 reads all of these lines",
)  # fmt: skip


def test_text(parity):
    """The same is read as in PyTorch, and as was drawn."""
    parity.check_metric(AS_PYTORCH)
    parity.check_metric(AS_DRAWN)

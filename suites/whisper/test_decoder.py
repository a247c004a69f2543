"""The decoder of Whisper tiny.en: its outputs, and the text that it writes of each recording."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks import test_layers, test_outputs, test_parts
from harness.metrics import Metric
from harness.metrics.speech import wer
from suites.whisper.models import memories, subject, text_of, written
from suites.whisper.speech import spoken

SUBJECT = subject("decoder")
AS_PYTORCH = Metric(
    "WER against PyTorch", lambda actual, expected: wer(actual, expected), at_most=0.02,
    why="a word in fifty: where the two best tokens are nearly tied, a right engine may write the other",
)  # fmt: skip
AS_SPOKEN = Metric(
    "WER against what is said, beyond PyTorch's", lambda actual, expected: heard(actual) - heard(expected),
    at_most=0.02, why="as the other: the words that PyTorch in FP32 mishears, espeak-ng says badly",
)  # fmt: skip


def heard(texts: Sequence[str]) -> float:
    """Return the WER of texts against what is said."""
    return wer(texts, [text for text, _ in spoken().values()])


def test_text(parity):
    """The same words are written as by PyTorch, and as many of those that were said."""
    found = [
        [text_of(written(run, memory.to(parity.inputs["memory"]))) for memory in memories().values()]
        for run in (parity.run, parity.run_reference)
    ]
    parity.check_metric(AS_PYTORCH, of=(found[0], found[1]))
    parity.check_metric(AS_SPOKEN, of=(found[0], found[1]))

"""From a subject to what all its targets share."""

from __future__ import annotations

from harness.settings import Settings
from harness.subject import Subject
from harness.verify.prepared import Prepared
from harness.verify.torch_subject import PreparedTorch


def prepare(subject: Subject, settings: Settings) -> Prepared:
    """Make a subject ready. Raises UsageError or NotJudged with a sentence when that is impossible."""
    if subject.onnx is not None:
        from harness.verify.onnx_subject import PreparedOnnx

        return PreparedOnnx(subject, settings)
    return PreparedTorch(subject, settings)

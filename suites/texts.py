"""What is judged of a language model beside its tensors: next tokens, texts and summaries.

A suite imports the tests; its module has the model's ``FAMILY``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from harness.compare import relative_l2
from harness.metrics import Metric
from harness.metrics.language import TIMES, against_floor, margins, tie_width
from harness.metrics.remarks import remark
from harness.metrics.text import ROUGE_KINDS, one_sentence_per_line, rouge
from harness.systems import Written, first_difference
from suites.articles import Article, articles
from suites.causal import Family, Network, greedy, padded, prefill, prompts_of

TOKENS = 24
"""So many are written for the comparison of texts."""


def own_error(parity: Any) -> float:
    """Return the error of PyTorch's logits in the engine's precision, root mean square, as the verdict has it."""
    floors = [output.floor for output in parity.result.outputs if output.name == "logits" and output.floor]
    return max((floor.relative_l2 * floor.rms_expected for floor in floors), default=0.0)


def test_next_tokens(parity):
    """After each token of the case the next one is as likely as PyTorch in this precision has it."""
    given = parity.inputs
    counts = given["attention_mask"][:, :-1] != 0
    actual, expected, floor = (
        found["logits"][:, :-1][counts] for found in (parity.actual, parity.expected, parity.run_floor(given))
    )
    tokens = given["input_ids"][:, 1:][counts]
    for metric in against_floor(expected, floor, tokens, least=own_error(parity)):
        parity.check_metric(metric, of=(actual, expected))


def test_text(parity, request):
    """Prefill and steps write the reference's text, but for ties; and the cache changes nothing."""
    family: Family = request.module.FAMILY
    first, given = parity.beside(prefill(family)), prompts_of(family, 0, 3)
    count = min(TOKENS, family.new)
    wanted, expected = greedy(first.run_reference, parity.run_reference, given, count)
    _, actual = greedy(first.run, parity.run, given, count, forced=wanted)
    whole = {
        "input_ids": torch.cat([given["input_ids"], wanted[:, :-1]], 1),
        "attention_mask": torch.nn.functional.pad(given["attention_mask"], (0, count - 1), value=1),
    }
    at_once, floor = (run(whole)["logits"][:, -count:] for run in (first.run, first.run_floor))
    rows = [logits.flatten(0, 1) for logits in (actual, expected, floor)]
    least = own_error(parity)
    for metric in against_floor(*rows[1:], wanted.flatten(), least=least):
        parity.check_metric(metric, of=(rows[0], rows[1]))
    parity.check_metric(_cache_metric(rows[1], rows[2], least), of=(actual, at_once))
    written, _ = greedy(first.run, parity.run, given, count)
    parity.check_metric(_text_metric(expected, tie_width(rows[1], rows[2], least=least)), of=(written, wanted))


def _cache_metric(expected: torch.Tensor, floor: torch.Tensor, least: float) -> Metric:
    """Return what the engine's steps are held to against its own prefill of the same text."""
    lost = max(relative_l2(floor, expected), least / float(expected.abs().max()))
    return Metric(
        "cache", relative_l2, at_most=2 * TIMES * lost,
        why=f"steps and prefill of one text may each be {TIMES} times what PyTorch loses from the right logits",
    )  # fmt: skip


def _text_metric(expected: torch.Tensor, tied: float) -> Metric:
    """Return what free-running texts int64 [batch, count] are held to: they part where the reference nearly ties."""

    def parting(written: torch.Tensor, wanted: torch.Tensor) -> list[float]:
        found = []
        for row, (ours, theirs) in enumerate(zip(written.tolist(), wanted.tolist(), strict=True)):
            place = first_difference(Written(tokens=tuple(ours)), Written(tokens=tuple(theirs)))
            if place is None:
                found.append(0.0)
                continue
            remark(f"text {row} parts at token {place}")
            token = torch.tensor([ours[place]])
            found.append(float(margins(expected[row, place][None], token)) if ours[place] >= 0 else float("nan"))
        return found

    return Metric(
        "margin where texts part", parting, at_most=tied,
        why="a text may go another way only where the reference's margin is below the floor's logit error",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Summaries:
    """What one side wrote of some articles."""

    prompts: tuple[tuple[int, ...], ...]
    """The tokens that went into its prefill."""
    texts: tuple[str, ...]


def summaries(family: Family, first: Network, then: Network, chosen: Sequence[Article]) -> Summaries:
    """Return the texts that follow the articles, up to their ends, in batches as large as they may be."""
    prompts, texts = [], []
    for start in range(0, len(chosen), family.batch):
        given = padded([family.encode(article) for article in chosen[start : start + family.batch]])
        prompts += [tuple(ids[ids_are.bool()].tolist()) for ids, ids_are in zip(*given.values(), strict=True)]
        tokens, _ = greedy(first, then, given, family.new, end=family.end)
        texts += [family.decode(row[: row.index(family.end)] if family.end in row else row) for row in tokens.tolist()]
    return Summaries(prompts=tuple(prompts), texts=tuple(texts))


_references: dict[tuple[str, tuple[Article, ...]], Summaries] = {}
"""What PyTorch wrote in this process, by model and articles."""


def both_sides(parity: Any, family: Family, chosen: tuple[Article, ...]) -> tuple[Summaries, Summaries]:
    """Return the engine's summaries and PyTorch's, of the same tokens. Skips the test with random weights."""
    if family.tokenizer is None:
        pytest.skip("not judged: random weights write no summaries")
    first = parity.beside(prefill(family))
    expected = _references.get((family.name, chosen))  # of all targets the same, and as slow as the engine's
    if expected is None:
        expected = summaries(family, first.run_reference, parity.run_reference, chosen)
        _references[family.name, chosen] = expected
    actual = summaries(family, first.run, parity.run, chosen)
    assert actual.prompts == expected.prompts, "the two sides were given other tokens"
    return actual, expected


def test_summaries(parity, request):
    """The engine's summaries are as near to what people wrote as PyTorch's: ROUGE within 1, paired by article."""
    chosen = articles()
    made = both_sides(parity, request.module.FAMILY, chosen)
    same = sum(ours == theirs for ours, theirs in zip(made[0].texts, made[1].texts, strict=True))
    for kind in ROUGE_KINDS:
        parity.check_metric(_rouge_metric(kind, chosen, f"{same} of {len(chosen)} summaries are the same"), of=made)


def rouge_of(side: Summaries, chosen: Sequence[Article], kind: str) -> torch.Tensor:
    """Return the ROUGE F-measure of each summary against what a person wrote, from 0 to 100, float64 [n]."""
    written = [one_sentence_per_line(article.summary) for article in chosen]
    return rouge(side.texts, written, kinds=[kind])[kind]


def _rouge_metric(kind: str, chosen: Sequence[Article], note: str = "") -> Metric:
    def scores(side: Summaries) -> torch.Tensor:
        remark(note)
        return rouge_of(side, chosen, kind)

    return Metric(kind, scores, difference=1, over="mean", why="the contest asks for ROUGE within 1 of the original")

"""KL divergence, perplexity and ties against values computed by hand, and what a floor allows."""

from __future__ import annotations

import math

import pytest
import torch

from harness.errors import UsageError
from harness.metrics import collect_remarks, measure
from harness.metrics.language import (
    FP32_LOSS,
    against_floor,
    kl_divergence,
    logit_error,
    margins,
    perplexity,
    surprise,
    tie_width,
    top1_or_tied,
)

HALVES, QUARTERS = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
NAN = float("nan")


def logits(rows: int = 200, words: int = 11, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, words, generator=torch.Generator().manual_seed(seed))


def off(right: torch.Tensor, size: float, seed: int) -> torch.Tensor:
    return right + size * torch.randn(right.shape, generator=torch.Generator().manual_seed(seed))


def test_divergence_of_two_coins():
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(kl_divergence(QUARTERS, HALVES)) == pytest.approx(by_hand, rel=1e-6)
    assert float(kl_divergence(HALVES, QUARTERS)) != pytest.approx(by_hand, rel=1e-2)
    assert float(kl_divergence(HALVES + 7, HALVES)) == pytest.approx(0, abs=1e-12)


def test_divergence_of_many_rows_is_that_of_each():
    right, wrong = logits(), off(logits(), 0.1, 1)
    each = torch.cat([kl_divergence(ours[None], theirs[None]) for ours, theirs in zip(wrong, right, strict=True)])
    assert torch.allclose(kl_divergence(wrong, right), each)


def test_perplexity_of_a_die_is_its_faces():
    assert perplexity(torch.zeros(3, 6), torch.tensor([0, 5, 2])) == pytest.approx(6)
    assert float(surprise(QUARTERS, torch.tensor([1]))) == pytest.approx(math.log(4 / 3))


def test_margins_and_ties():
    expected = torch.tensor([[1.0, 0.9, 0.0], [0.0, 2.0, 1.0]])
    assert margins(expected, torch.tensor([1, 1])).tolist() == pytest.approx([0.1, 0])
    swapped = torch.tensor([[0.9, 1.0, 0.0], [0.0, 1.0, 2.0]])
    with collect_remarks() as remarks:
        assert top1_or_tied(swapped, expected, tied=0.2).tolist() == [1, 0]
    assert [word for word in remarks[0].split() if word.isdigit()] == ["2", "2", "1"]


def test_a_token_that_is_far_from_the_best_is_no_tie_because_the_second_is():
    expected = torch.tensor([[1.0, 0.99, -5.0]])
    assert top1_or_tied(torch.tensor([[0.0, 0.0, 1.0]]), expected, tied=0.1).tolist() == [0]


def test_rows_that_are_not_finite_never_agree():
    bad = logits()
    bad[3, 0], bad[4, 1] = NAN, math.inf
    assert kl_divergence(bad, logits()).isnan().nonzero().flatten().tolist() == [3, 4]
    assert surprise(bad, torch.zeros(200, dtype=torch.int64)).isnan().sum() == 2
    assert top1_or_tied(bad, logits(), tied=1e9).sum() == 198
    assert math.isnan(logit_error(bad, logits()))


@pytest.mark.parametrize("tied", [NAN, math.inf, -1.0])
def test_a_tie_needs_a_width(tied: float):
    with pytest.raises(UsageError):
        top1_or_tied(logits(), logits(), tied=tied)


def test_tokens_that_are_no_words_are_refused():
    for tokens in (torch.tensor([11]), torch.tensor([-1]), torch.tensor([0.0]), torch.tensor([0, 1])):
        with pytest.raises(UsageError):
            surprise(logits(1), tokens)


def verdicts(actual: torch.Tensor, floor: torch.Tensor, least: float = 0.0) -> list[str]:
    expected, tokens = logits(), logits(seed=5).argmax(1)
    return [measure(metric, actual, expected).verdict for metric in against_floor(expected, floor, tokens, least=least)]


def test_what_is_as_good_as_the_floor_passes_and_what_is_ten_times_worse_fails():
    floor = off(logits(), 1e-3, 1)
    assert verdicts(off(logits(), 1e-3, 2), floor) == ["pass", "pass", "pass"]
    assert verdicts(off(logits(), 1e-2, 2), floor)[0] == "fail"


def test_a_bias_towards_one_word_changes_the_perplexity():
    biased = logits()
    biased[:, 4] += 1
    assert verdicts(biased, off(logits(), 1e-3, 1)) == ["fail", "fail", "fail"]


def test_nothing_but_right_logits_pass():
    floor = off(logits(), 1e-3, 1)
    for wrong in (torch.full_like(floor, NAN), torch.zeros_like(floor), floor.roll(1, 0), floor[:-1], floor[:0]):
        assert "fail" in verdicts(wrong, floor)
    one = floor.clone()
    one[7, 7] = NAN
    assert verdicts(one, floor) == ["fail", "fail", "fail"]


def test_without_a_finite_floor_nothing_is_judged():
    broken = logits()
    broken[0, 0] = NAN
    assert verdicts(logits(), broken) == ["not_judged"] * 3
    assert not math.isfinite(tie_width(logits(), broken))


def test_a_floor_that_has_lost_everything_holds_nothing():
    assert verdicts(logits(), logits(seed=9)) == ["not_judged"] * 3
    assert verdicts(logits(), off(logits(), 1.0, 1)) == ["not_judged"] * 3


def test_an_exact_floor_leaves_what_fp32_loses():
    expected = logits()
    assert tie_width(expected, expected) == pytest.approx(FP32_LOSS * float(expected.abs().max()))
    assert verdicts(off(expected, 1e-6, 1), expected) == ["pass", "pass", "pass"]
    assert verdicts(off(expected, 1e-4, 1), expected)[0] == "fail"
    assert verdicts(off(expected, 1e-4, 1), expected, least=1e-4)[0] == "pass"

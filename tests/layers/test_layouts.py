"""Layouts of a tensor: how far each is from a value, and what cannot be the value at all."""

from __future__ import annotations

import math

import pytest
import torch
from fake import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.layers.layouts import Expected, distances

FLOAT32 = frozenset({torch.float32})


def expected(replay: torch.Tensor, *, close: float = 0.01, dtypes: frozenset[torch.dtype] = FLOAT32) -> Expected:
    return Expected(replay=replay, close=close, dtypes=dtypes)


@pytest.mark.parametrize(
    ("changed", "possible"),
    [
        (lambda value: value * 1.5, False),
        (lambda value: torch.zeros_like(value), False),
        (lambda value: value.flip(0), True),
        (lambda value: value.index_fill(0, torch.tensor([3]), 1e6), True),  # one row of a wrong kernel
        (lambda value: value.index_fill(0, torch.tensor([3]), math.nan), True),
        (lambda value: value.half(), True),
    ],
    ids=["scaled", "zero", "reordered", "outliers", "nan", "half"],
)  # fmt: skip
def test_a_tensor_of_another_norm_cannot_be_the_value(changed, possible):
    value = normal(600, 12)
    assert expected(value, close=0.05).can_be(changed(value)) is possible


def test_norms_rule_out_no_integers():
    assert expected(torch.arange(6), dtypes=frozenset({torch.int64})).can_be(torch.zeros(6, dtype=torch.int64))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), error=st.floats(0, 0.5), close=st.floats(1e-3, 0.5), spread=st.floats(0, 8))
def test_norms_rule_out_no_tensor_that_is_close(seed, error, close, spread):
    value = normal(64, seed=seed) * torch.exp(spread * normal(64, seed=seed + 1))
    wrong = value + error * normal(64, seed=seed + 2) * value.norm() / 8
    if distances([wrong], value)[0] < close:
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        assert expected(value, close=close).can_be(wrong[order])


def test_distances():
    value = normal(4, 8)
    wrong = [value * 1.25, value, torch.full((4, 8), math.nan), value.index_fill(0, torch.tensor([1]), math.nan)]
    assert distances(wrong, value) == pytest.approx([0.25, 0, math.inf, 0.25], rel=1e-6)
    assert [distances([each], value) for each in wrong] == [[found] for found in distances(wrong, value)]
    assert distances([torch.zeros(4), torch.ones(4)], torch.zeros(4)) == [0, math.inf]
    assert distances([torch.tensor([1, 2, 3, 4])] * 2, torch.tensor([1, 2, 3, 5])) == [0.25, 0.25]
    assert distances([torch.empty(0)] * 3, torch.empty(0)) == [math.inf] * 3
    nothing = torch.full((4,), math.nan)
    assert distances([nothing, torch.ones(4)], nothing) == [0, math.inf]


def test_the_sample_of_a_large_tensor_meets_every_column():
    value = torch.zeros(4096, 64)
    for column in range(64):
        wrong = value + 1
        wrong[:, column] += 1
        assert distances([wrong], value + 1)[0] > 0, column

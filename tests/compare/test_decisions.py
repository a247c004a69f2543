"""Counts of decisions against lists, element by element."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare import count_differences
from harness.errors import EngineFailed
from harness.records import Decisions, WrongDecision

DTYPES = (torch.int64, torch.int32, torch.uint8, torch.bool)
ROWS, COLUMNS = 3, 4


def drawn(draw: st.DrawFn, dtype: torch.dtype) -> torch.Tensor:
    values = draw(st.lists(st.integers(0, 3), min_size=ROWS * COLUMNS, max_size=ROWS * COLUMNS))
    return torch.tensor(values).view(ROWS, COLUMNS).to(dtype)


@st.composite
def decided(draw: st.DrawFn) -> dict[str, torch.Tensor | None]:
    dtype = draw(st.sampled_from(DTYPES))
    found: dict[str, torch.Tensor | None] = {
        "actual": drawn(draw, draw(st.sampled_from(DTYPES))), "expected": drawn(draw, dtype)
    }  # fmt: skip
    for name, kind in (("floor", dtype), ("wrong", torch.bool), ("right", dtype)):
        found[name] = drawn(draw, kind) if draw(st.booleans()) else None
    return found


@given(decided())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_counts_are_those_of_the_lists(given_: dict[str, torch.Tensor | None]):
    actual, expected, floor, wrong, right = (
        None if (tensor := given_[name]) is None else [int(value) for value in tensor.flatten()]
        for name in ("actual", "expected", "floor", "wrong", "right")
    )
    assert actual is not None
    assert expected is not None
    right = expected if right is None else right
    places = range(len(expected))
    bad = [i for i in places if (actual[i] != right[i] if wrong is None else wrong[i])]
    differ = [i for i in places if actual[i] != expected[i] or i in bad]
    found = count_differences(**given_, name="y")  # type: ignore[arg-type]
    assert found == Decisions(
        shape=(ROWS, COLUMNS),
        dtype=str(given_["actual"].dtype).removeprefix("torch."),  # type: ignore[union-attr]
        elements=ROWS * COLUMNS,
        differ=len(differ),
        ties=len(set(differ) - set(bad)),
        floor_differ=None if floor is None else sum(f != e for f, e in zip(floor, expected, strict=True)),
        largest=max((max(abs(actual[i] - right[i]), 1) for i in bad), default=0),
        zero=not any(actual) and not any(expected),
        wrong=WrongDecision(
            index=divmod(bad[0], COLUMNS), actual=actual[bad[0]], expected=right[bad[0]]
        ) if bad else None,
    )  # fmt: skip


def test_a_floor_of_another_shape_is_none():
    ids = torch.tensor([1, 2])
    assert count_differences(ids, ids, floor=ids[:1]).floor_differ is None
    assert count_differences(ids, ids, floor=ids.flip(0)).floor_differ == 2


def test_integers_that_fp64_cannot_tell_apart_differ():
    found = count_differences(torch.tensor([2**53 + 1]), torch.tensor([2**53]))
    assert (found.differ, found.largest) == (1, 1)
    assert count_differences(torch.tensor([-(2**62)]), torch.tensor([2**62])).largest == 2**63


def test_nothing_is_equal_to_nothing():
    found = count_differences(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.int64))
    assert (found.elements, found.differ, found.largest, found.wrong) == (0, 0, 0, None)


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (torch.ones(3).long(), "output 'y' has shape [3], but should have [2]"),
        (torch.ones(2), "output 'y' holds float32, but should hold int32"),
        (torch.ones(2).half(), "output 'y' holds float16, but should hold int32"),
        (torch.ones(2) * 1j, "output 'y' is complex; compare its real and its imaginary part"),
    ],
)
def test_what_is_no_decision_fails_with_words(actual: torch.Tensor, words: str):
    expected = torch.ones(2, dtype=torch.int32)
    with pytest.raises(EngineFailed) as error:
        count_differences(actual, expected, name="y")
    assert str(error.value).startswith(words)
    with pytest.raises(EngineFailed, match=r"^output (has|holds|is) "):
        count_differences(actual, expected)


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "nan"), (float("-inf"), "-inf"), (0.5, "0.5")])
def test_floats_that_are_decisions_are_whole(value: float, words: str):
    expected = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    actual = expected.clone()
    actual[1, 0] = value
    with pytest.raises(EngineFailed, match=rf"^output 'y' holds {words} at \[1, 0\]"):
        count_differences(actual, expected, name="y")
    actual[1, 0] = 3.0
    found = count_differences(actual.half(), expected)
    assert (found.differ, found.largest, found.dtype) == (1, 2, "float16")
    assert found.wrong == WrongDecision(index=(1, 0), actual=3, expected=1)

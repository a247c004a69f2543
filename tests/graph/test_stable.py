"""Values as text: the same for the same content in any order, another for other content, none for code."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import Dim

from harness.graph import Unstable, stable_text


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Box:
    value: object


CONTENTS = [
    None, True, False, 0, 1, 1.0, -1.0, "1", b"1", "", [], (), {}, set(), [1], (1,), {1}, frozenset({1}), {"a": 1},
    {"a": {"b": 2}}, {"a": {"b": 3}}, ["a", "b"], ["b", "a"], ["ab", ""], [["a"], "b"], ["a", ["b"]], Path("a"),
    1j, float("nan"), float("inf"), Colour.RED, Colour.BLUE, Box(1), Box(2), slice(1), slice(1, 2),
    torch.float32, torch.float16, torch.device("cpu"), torch.device("cuda:1"), torch.strided,
    torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), torch.tensor([1, 2]), np.float32([1, 2]), np.float64([1, 2]),
    np.arange(5000), np.arange(5000) + (np.arange(5000) == 2500), {"x": {0: Dim("n", min=2, max=8)}},
    {"x": {0: Dim("n", min=2, max=9)}}, {"x": {0: Dim.AUTO}}, {"x": {0: Dim.STATIC}},
]  # fmt: skip


def test_other_content_is_another_text():
    texts = [stable_text(value) for value in CONTENTS]
    assert len(set(texts)) == len(CONTENTS)


def test_order_does_not_count_where_there_is_none():
    assert stable_text({"a": 1, "b": {"c": 2, "d": 3}}) == stable_text({"b": {"d": 3, "c": 2}, "a": 1})
    names = [f"name{i}" for i in range(50)]
    assert stable_text({*names}) == stable_text({*reversed(names)})
    assert stable_text(torch.ones(3)) == stable_text(torch.ones(3).clone())


@pytest.mark.parametrize(
    "value",
    [object(), len, lambda: 1, torch.nn.Linear(1, 1), Box, np.array([object()]), iter([1]), torch.ops.aten.add.Tensor],
)
def test_code_and_objects_have_none(value):
    for held in (value, [value], {"a": (1, value)}, {"a": Box(value)}):
        with pytest.raises(Unstable, match="a "):
            stable_text(held)
    with pytest.raises(Unstable, match="under 'deep' under 'options'"):
        stable_text({"options": {"deep": value}})


def test_what_the_caller_knows_has_the_callers_text():
    assert stable_text([len], lambda it: "len" if it is len else None) == stable_text(
        [0], lambda it: "len" if it == 0 else None
    )

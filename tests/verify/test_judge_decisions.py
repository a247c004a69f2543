"""The verdict on counted decisions, and its words; tests/verify/test_decisions.py has whole runs."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest

from harness import Tolerance, UsageError
from harness.records import Decisions, OutputResult, WrongDecision
from harness.verify.decisions import judge_decisions

FIRST = WrongDecision(index=(1, 2), actual=7, expected=3)
KNOWN = replace(FIRST, operator="ArgMax", value="ids", margin=0.5, loses=0.001, excused=0.004)
FOUND = Decisions(shape=(8, 8), dtype="int64", elements=64, differ=3, largest=4, floor_differ=2, wrong=FIRST)
CODES = Tolerance(max_absolute=4, why="seen on a screen")


def judged(found: Decisions, tolerance: Tolerance | None = None) -> OutputResult:
    return judge_decisions("y", found, precision="fp16", tolerance=tolerance)


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "fail", "3 of 64 differ; at [1, 2] the engine gives 7, the reference 3; what decides it is not known, so "
                     "none is excused; PyTorch fp16 itself decides 2 otherwise"),
        ({"unknown": "no node"}, "fail", "3 of 64 differ; at [1, 2] the engine gives 7, the reference 3; no node, so "
                                         "none is excused; PyTorch fp16 itself decides 2 otherwise"),
        ({"wrong": KNOWN}, "fail", "3 of 64 differ; at [1, 2] the engine gives 7, the reference 3: 0.5 apart in ArgMax "
                                   "'ids', PyTorch fp16 loses 0.001 there (a tie up to 0.004); PyTorch fp16 itself "
                                   "decides 2 otherwise"),
        ({"wrong": KNOWN, "floor_differ": None}, "fail", "3 of 64 differ; at [1, 2] the engine gives 7, the reference "
                                   "3: 0.5 apart in ArgMax 'ids', PyTorch fp16 loses 0.001 there (a tie up to 0.004)"),
        ({"wrong": replace(KNOWN, loses=float("inf"))}, "not_judged", "3 of 64 differ; at [1, 2] the engine gives 7, "
                                   "the reference 3; PyTorch fp16 cannot hold what decides it (ArgMax 'ids')"),
        ({"wrong": replace(KNOWN, margin=float("nan"))}, "not_judged", "3 of 64 differ; at [1, 2] the engine gives 7, "
                          "the reference 3; NaN decides it (ArgMax 'ids'); repair the model or its inputs"),
        ({"floor_differ": None, "unknown": "no floor here"}, "not_judged", "3 of 64 differ; at [1, 2] the engine gives "
                                   "7, the reference 3; no floor here"),
        ({"unknown": "no floor here"}, "fail", "3 of 64 differ; at [1, 2] the engine gives 7, the reference 3; no "
                                   "floor here, so none is excused; PyTorch fp16 itself decides 2 otherwise"),
        ({"floor_differ": None}, "fail", "3 of 64 differ; at [1, 2] the engine gives 7, the reference 3; what decides "
                                   "it is not known, so none is excused"),
        ({"differ": 1, "ties": 1, "wrong": None}, "pass", "1 of 64 differs, a tie"),
        ({"differ": 2, "ties": 2, "wrong": None}, "pass", "2 of 64 differ, both ties"),
        ({"ties": 3, "wrong": None}, "pass", "3 of 64 differ, all ties"),
        ({"ties": 3, "wrong": None, "most_ties": 3}, "pass", "3 of 64 differ, all ties"),
        ({"ties": 3, "wrong": None, "most_ties": 2}, "fail", "3 of 64 differ, all ties, but a right engine decides at "
                                                             "most 2 near ties otherwise"),
        ({"differ": 0, "wrong": None}, "pass", "all 64 equal the reference"),
        ({"differ": 0, "wrong": None, "elements": 0}, "pass", "empty, as the reference is"),
        ({"differ": 0, "wrong": None, "zero": True, "elements": 2}, "not_judged", "reference and output are all zeros, "
                                                          "which proves nothing; give inputs that move this output"),
        ({"differ": 0, "wrong": None, "zero": True, "elements": 1}, "pass", "all 1 equal the reference"),
    ],
)  # fmt: skip
def test_verdict_and_words(changes: dict[str, Any], verdict: str, reason: str):
    found = replace(FOUND, **changes)
    result = judged(found)
    assert (result.verdict, result.reason) == (verdict, reason)
    assert (result.name, result.decisions, result.allowed) == ("y", found, {})


@pytest.mark.parametrize(("ties", "words"), [(1, "1 of them a tie"), (2, "2 of them ties")])
def test_ties_beside_wrong_ones_are_counted(ties: int, words: str):
    assert f"3 of 64 differ, {words}; at [1, 2]" in judged(replace(FOUND, ties=ties)).reason


@pytest.mark.parametrize(("largest", "verdict"), [(0, "pass"), (4, "pass"), (5, "fail")])
@pytest.mark.parametrize("found", [FOUND, replace(FOUND, wrong=None)])
def test_a_tolerance_in_codes(largest: int, verdict: str, found: Decisions):
    result = judged(replace(found, largest=largest, dtype="uint8"), CODES)
    place = ", the first at [1, 2]" if verdict == "fail" and found.wrong else ""
    words = f"3 of 64 differ; {largest} codes away at most (allowed 4){place}; tolerance: seen on a screen"
    assert (result.verdict, result.reason, result.allowed) == (verdict, words, {"max_absolute": 4})


def test_a_tolerance_excuses_no_zeros_and_changes_nothing_where_all_are_equal():
    zero = replace(FOUND, differ=0, zero=True, wrong=None)
    assert judged(zero, CODES).verdict == "not_judged"
    equal = judged(replace(FOUND, differ=0, wrong=None), CODES)
    assert (equal.verdict, equal.reason) == ("pass", "all 64 equal the reference")


@pytest.mark.parametrize("dtype", ["bool", "int64", "int32", "uint8"])
@pytest.mark.parametrize("differ", [0, 3])
def test_decisions_have_no_norm(dtype: str, differ: int):
    found = replace(FOUND, dtype=dtype, differ=differ, largest=1)
    for figure, other in itertools.product(("relative_l2", "cosine"), (None, 0.5)):
        tolerance = Tolerance(**{figure: 0.5}, max_absolute=other, why="a test")
        said = rf"^the Tolerance of output 'y' sets {figure}, but y holds {dtype}: decisions are counted, not normed"
        with pytest.raises(UsageError, match=said):
            judged(found, tolerance)
    for codes in (1.0, 255.0):
        tolerance = Tolerance(max_absolute=codes, why="a test")
        if dtype == "bool":
            with pytest.raises(UsageError, match=re.escape("sets max_absolute of 1 or more, but y holds bool")):
                judged(found, tolerance)
        else:
            assert judged(found, tolerance).verdict == "pass"
    half = judged(found, Tolerance(max_absolute=0.5, why="a test"))
    assert half.verdict == ("fail" if differ else "pass")

"""What every judge refuses: one row per judge, one column per way in which an output can be wrong.

tests/metrics/test_refusals.py does so for metrics.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pytest
import torch
from fake import normal

import harness.verify
from harness import Tolerance
from harness.compare import FAITHFUL, bitwise_equal, count_differences, relative_l2, require_close, total_error
from harness.errors import EngineFailed, NotJudged
from harness.hackathon.rules import LATENCY_LIMIT_MS, PD_LIMIT, RULES
from harness.verify import judge_tensors
from harness.verify.decisions import judge_decisions

INF, NAN = float("inf"), float("nan")
Tensor = torch.Tensor
Judge = Callable[[Tensor, Tensor], str]


@dataclass(frozen=True)
class Row:
    """A judge under the limit that a right output meets."""

    function: Callable[..., Any]
    judge: Judge
    """Of an output and its reference."""
    expected: Tensor
    _: KW_ONLY
    right: Tensor | None = None
    """What a right engine gives; None: the reference itself."""


FLOATS = normal(4, 6, 16)
IDS = torch.randint(1, 3000, (4, 8), generator=torch.Generator().manual_seed(0))
MASK = normal(4, 32, seed=1) > 0
CODES = torch.randint(1, 250, (4, 3, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float16, "fp32": torch.float32}


def floats(precision: str, *, has_floor: bool = True, **limits: float) -> Row:
    """Return a judge of floats against the floor of a precision, or under a tolerance."""
    tolerance = Tolerance(why="a test", **limits) if limits else None

    def judge(actual: Tensor, expected: Tensor) -> str:
        floor = expected.to(DTYPES[precision]).to(expected.dtype) if has_floor else None
        return judge_tensors("y", actual, expected, floor, precision=precision, tolerance=tolerance).verdict

    return Row(judge_tensors, judge, FLOATS.double(), right=FLOATS.to(DTYPES[precision]).double())


def decisions(expected: Tensor, tolerance: Tolerance | None = None) -> Row:
    """Return a judge of decisions of which none is a tie."""

    def judge(actual: Tensor, reference: Tensor) -> str:
        try:
            found = count_differences(actual, reference, name="y", floor=reference)
        except EngineFailed:
            return "fail"
        return judge_decisions("y", found, precision="fp16", tolerance=tolerance).verdict

    return Row(judge_decisions, judge, expected)


def closeness(function: Callable[..., Any], close: Callable[[Tensor, Tensor], bool], expected: Tensor) -> Row:
    return Row(function, lambda actual, reference: "pass" if close(actual, reference) else "fail", expected)


def is_close(actual: Tensor, expected: Tensor) -> bool:
    try:
        require_close({"y": actual}, {"y": expected}, limit=FAITHFUL, sentence="{}: {}".format)
    except NotJudged:
        return False
    return True


ROWS = {
    **{f"floats, {precision}": floats(precision) for precision in DTYPES},
    "floats, a tolerance of the norm": floats("fp16", relative_l2=0.01),
    "floats, a tolerance of the largest error": floats("fp16", max_absolute=0.01),
    "floats, a tolerance of the cosine": floats("fp16", cosine=1 - 1e-6),
    "floats, a tolerance without a floor": floats("bf16", has_floor=False, relative_l2=0.01),
    "indices": decisions(IDS),
    "indices of 32 bits": decisions(IDS.int()),
    "booleans": decisions(MASK),
    "codes": decisions(CODES),
    "codes, a tolerance": decisions(CODES, Tolerance(max_absolute=1, why="a test")),
    "require_close": closeness(require_close, is_close, FLOATS),
    "require_close of indices": closeness(require_close, is_close, IDS),
    "total_error": closeness(total_error, lambda a, e: total_error({"y": a}, {"y": e}) <= FAITHFUL, FLOATS),
    "relative_l2": closeness(relative_l2, lambda a, e: relative_l2(a, e) <= FAITHFUL, FLOATS),
    "bitwise_equal": closeness(bitwise_equal, bitwise_equal, FLOATS),
}


def put(value: float) -> Callable[[Tensor], Tensor]:
    """Return what puts a value into the last element."""

    def change(right: Tensor) -> Tensor:
        bad = right.clone()
        bad.view(-1)[-1] = value
        return bad

    return change


def last_wrong(right: Tensor) -> Tensor:
    bad = right.clone()
    bad[-1] = bad[0]
    return bad


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "one sample less": lambda right: right[:-1],
    "an axis more": lambda right: right[None],
    "axes exchanged": lambda right: right.transpose(0, 1),
    "flat": torch.flatten,
    "one element": lambda right: right.view(-1)[:1],
    "empty": lambda right: right[:0],
    "samples swapped": lambda right: right.roll(1, 0),
    "places swapped": lambda right: right.roll(1, -1),
    "last sample wrong": last_wrong,
    "all zero": torch.zeros_like,
    "NaN in other types": lambda right: torch.full(right.shape, NAN),
}
FLOAT_FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "NaN": put(NAN),
    "all NaN": lambda right: torch.full_like(right, NAN),
    "infinite": put(INF),
    "minus infinite": put(-INF),
    "last element 0": put(0.0),
    "last element of another sign": lambda right: put(-float(right.view(-1)[-1]))(right),
    "integers": lambda right: (right * 255).long(),
    "signs alone": lambda right: right > 0,
    "complex": lambda right: right + 1j * right,
    "of another sign": torch.neg,
    "ten times as large": lambda right: right * 10,
    "constant": lambda right: torch.full_like(right, float(right.mean())),
}
DECISION_FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "last element 0": lambda right: put(0)(right) if right.dtype != torch.bool else put(not right.view(-1)[-1])(right),
    "last element 2 larger": lambda right: put(int(right.view(-1)[-1]) + 2)(right.short()),
    "floats beside": lambda right: right + 0.5,
    "NaN": lambda right: put(NAN)(right.double()),
    "infinite": lambda right: put(INF)(right.double()),
    "complex": lambda right: right + 1j,
}


def faults(row: Row) -> dict[str, Callable[[Tensor], Tensor]]:
    return FAULTS | (FLOAT_FAULTS if row.expected.is_floating_point() else DECISION_FAULTS)


CASES = [(name, fault) for name, row in ROWS.items() for fault in faults(row)]
OF_REFERENCES = [
    (name, fault)
    for name, fault in CASES
    if faults(ROWS[name])[fault](ROWS[name].expected).is_floating_point() is ROWS[name].expected.is_floating_point()
]
"""What is no float any more, or is one now, is for another judge."""


@pytest.mark.parametrize("name", ROWS)
def test_a_right_output_passes(name: str):
    row = ROWS[name]
    assert row.judge(row.expected if row.right is None else row.right, row.expected) == "pass"


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_wrong_output_fails(name: str, fault: str):
    row = ROWS[name]
    assert row.judge(faults(row)[fault](row.expected if row.right is None else row.right), row.expected) == "fail"


@pytest.mark.parametrize(("name", "fault"), OF_REFERENCES)
def test_a_wrong_reference_never_passes(name: str, fault: str):
    row = ROWS[name]
    reference = faults(row)[fault](row.expected)
    assert row.judge(row.expected if row.right is None else row.right, reference) != "pass"


@pytest.mark.parametrize("name", ROWS)
def test_what_is_nothing_on_both_sides_proves_nothing(name: str):
    """Zeros and NaN; equality of bits alone may say that they are equal."""
    row = ROWS[name]
    if row.function in (judge_tensors, judge_decisions):
        zeros = torch.zeros_like(row.expected)
        assert row.judge(zeros, zeros) == "not_judged"
    if row.function is judge_tensors:
        nan = torch.full_like(row.expected, NAN)
        assert row.judge(nan, nan) == "not_judged"


@pytest.mark.parametrize(
    ("distances", "latency_ms", "verdict"),
    [
        ([1.0, 2.0], 1000.0, "pass"),
        ([PD_LIMIT], 1000.0, "pass"),
        ([1.0, PD_LIMIT + 1e-6], 1000.0, "fail"),
        ([1.0, NAN], 1000.0, "fail"),
        ([NAN, 1.0], 1000.0, "fail"),
        ([1.0, INF], 1000.0, "fail"),
        ([1.0], LATENCY_LIMIT_MS, "fail"),
        ([1.0], LATENCY_LIMIT_MS - 1, "pass"),
        ([], LATENCY_LIMIT_MS, "fail"),
        ([], 1000.0, "not_judged"),
        ([1.0], None, "not_judged"),
        ([1.0], NAN, "not_judged"),
        ([1.0], INF, "not_judged"),
    ],
)
def test_the_rules_of_the_contest(distances: list[float], latency_ms: float | None, verdict: str):
    found, _, score = RULES.judge(distances, latency_ms)
    assert found == verdict
    assert (score is not None and math.isfinite(score) and score > 0) is (verdict == "pass" and distances[0] < PD_LIMIT)


def test_every_judge_has_a_row():
    found = {
        name
        for module in pkgutil.walk_packages(harness.verify.__path__, "harness.verify.")
        for name, function in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction)
        if name.startswith("judge") and function.__module__ == module.name
    }
    by_way_of_these = {"judge_output", "judge_parts", "judge_outputs", "judged_by"}
    by_way_of_these |= {"judge_cost", "judge_quantised"}  # test_cost.py and test_codes.py have what is theirs alone
    assert found - by_way_of_these == {"judge_tensors", "judge_decisions"}
    assert found > by_way_of_these

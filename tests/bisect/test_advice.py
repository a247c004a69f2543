"""What is advised: by what was found, and never what was seen to fail."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness import Target
from harness.bisect.advice import advice_on, engine_finding
from harness.bisect.findings import Findings
from harness.bisect.plan_search import PlanFound
from harness.bisect.screening import Screened
from harness.bisect.units import Candidates
from harness.records.bisection import Trial
from harness.records.diagnosis import Culprit, Diagnosis, ErrorShape


def findings(precision: str = "fp16", **fields: Any) -> Findings:
    known = {"kind": "engine", "candidates": Candidates(), **fields}
    return Findings(target=Target("planted", precision), **known)


@pytest.mark.parametrize(
    ("precision", "tried", "plan", "count", "action"),
    [
        ("fp16", (), None, 2, 'keep "op:aten.gelu" in FP32'),
        ("bf16", (), None, 1, 'keep "value:gelu_0" in FP32'),
        ("fp16", ("op:aten.gelu",), None, 2, 'keeping "op:aten.gelu" in FP32 was tried and is not enough'),
        ("fp16", ("op:aten.gelu",), None, 1, 'keeping "op:aten.gelu" in FP32 was tried and is not enough'),
        ("fp16", ("value:gelu_0",), None, 1, 'keeping "value:gelu_0" in FP32 was tried and is not enough'),
        ("fp16", ("value:gelu_0",), None, 2, 'keep "op:aten.gelu" in FP32'),
        ("fp16", (), ("op:aten.gelu",), 2, 'keep "op:aten.gelu" in FP32'),
        ("fp16", (), ("blocks.1",), 2, "nothing beyond the plan, which passes"),
        ("tf32", (), None, 2, "ask for -p fp32"),
        ("fp32", (), None, 2, "no plan can help: it is in FP32 already"),
    ],
)
def test_neither_what_failed_nor_more_than_a_plan_is_advised(
    precision: str, tried: tuple[str, ...], plan: tuple[str, ...] | None, count: int, action: str
):
    suspects = [
        Culprit(value=f"gelu_{index}", op="aten.gelu", module="", source="", error=0.1 - index / 99, floor=1e-4)
        for index in range(count)
    ]
    trial = Trial(keep_fp32=tried, where="engine", passed=False, error=None, reason="")
    found = findings(
        precision,
        diagnosis=Diagnosis(culprits=tuple(suspects)),
        plans=PlanFound(plan=plan, trials=(trial,), complete=False),
    )
    engine, operator = advice_on(dataclasses.replace(found, complete=False))
    assert engine.action == ("use the plan" if plan else "use another version of planted")
    assert operator.action == action
    assert f"{count} value" in operator.indicator
    assert "gelu_0 by 0.1; " in operator.indicator


def test_that_no_plan_passes_is_said_only_where_all_were_tried():
    none = findings(plans=PlanFound())
    assert "no plan passed" in [advice.indicator for advice in advice_on(none)]
    for unsure in (dataclasses.replace(none, complete=False), findings(), findings(plans=PlanFound(plan=("a",)))):
        assert "no plan passed" not in [advice.indicator for advice in advice_on(unsure)]


def test_where_nothing_is_right_in_pytorch_the_limit_is_the_trouble():
    nothing = findings(kind="precision", screened=Screened(), candidates=None)
    assert ["--limit" in advice.action for advice in advice_on(nothing)] == [True]
    interrupted = dataclasses.replace(nothing, screened=Screened(interrupted=True))
    assert advice_on(interrupted) == ()


def test_a_finding_begins_with_the_culprits():
    first = Culprit(
        value="gelu_1", op="aten.gelu", module="layers.1", source="net.py:7", error=0.05, floor=3e-4, alone=1
    )
    others = [Culprit(value=f"add_{n}", op="aten.add", module="", source="", folded=("norm",)) for n in range(5)]
    found = findings(diagnosis=Diagnosis(culprits=(first, *others)))
    words = engine_finding(found)
    assert words.startswith("gelu_1, aten.gelu in layers.1 (net.py:7); add_0, aten.add")
    assert "norm, which was folded into it" in words
    assert "; and 3 more; " in words


def test_a_place_that_was_not_found_is_said_so():
    assert "could not be narrowed down" in engine_finding(findings(diagnosis=Diagnosis()))


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ("fp16_rounding", 0.1, "less exact than fp16"),
        ("scale", 0.1, "this is no rounding"),
        ("decision", 0.1, "this is no rounding"),
        ("unknown", 0.1, "wrong, by 1e+03 times"),
        ("non_finite", None, "not finite"),
        ("decision", None, "this is no rounding"),
        (None, None, "for it are wrong"),
    ],
)
def test_what_is_no_rounding_is_not_called_less_exact(shape: Any, error: float | None, words: str):
    looks_like = ErrorShape(kind=shape) if shape else None
    reason = "reached 1.2e+05, fp16 ends at 65504"
    only = Culprit(
        value="pow_1",
        op="aten.pow",
        module="",
        source="",
        error=error,
        floor=1e-4,
        looks_like=looks_like,
        reason=reason,
    )
    _, operator = advice_on(findings(diagnosis=Diagnosis(culprits=(only,))))
    assert words in operator.meaning
    assert ("less exact" in operator.meaning) == (shape == "fp16_rounding")
    assert (reason in operator.indicator) == (error is None)

"""Diagnoses of every kind, as the commands record them: what the tests of the first lines, tables and pages render."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import recorded

from harness.records.accuracy import OutputResult, Result
from harness.records.bisection import Bisection, Price, Trial
from harness.records.decisions import Decisions
from harness.records.diagnosis import Culprit, Diagnosis, ErrorShape
from harness.records.layers import LayerReport, Mark, OutputEffect, ValueFinding
from harness.records.parts import PartResult

REPRODUCE = "python reports/bert-rtx-fp16-reproducer/reproduce.py"
BISECT = "parity bisect bert -b rtx -p fp16"
VERIFY_PLAN = "parity verify bert -b rtx -p reports/bert-rtx-fp16.toml"
OTHER = ErrorShape(kind="another_function")


def part(error: float, allowed: float, **changes: Any) -> PartResult:
    """Return one figure of one part of an output."""
    return PartResult(**{
        "kind": "whole", "figure": "relative_l2", "error": error, "floor": allowed / 3, "allowed": allowed,
        "elements": 1000, **changes,
    })  # fmt: skip


def output(name: str, error: float, limit: float, *parts: PartResult, **changes: Any) -> OutputResult:
    """Return an output with its error and what is allowed; it fails where that or a part's figure is beyond."""
    whole = part(error, limit)
    wrong = whole.fails or any(one.fails for one in parts)
    return OutputResult(**{
        "name": name, "verdict": "fail" if wrong else "pass", "stats": recorded.stats(error),
        "floor": recorded.stats(limit / 3), "allowed": {"relative_l2": limit}, "parts": (whole, *parts),
        "reason": f"relative error {error:.3g}, PyTorch loses {limit / 3:.3g} (allowed {limit:.3g})", **changes,
    })  # fmt: skip


POOLED, HIDDEN = output("pooled", 4.1e-5, 6.7e-7), output("hidden", 2.2e-5, 6.0e-7)


def culprit(**changes: Any) -> Culprit:
    """Return a GELU that computes another function."""
    return Culprit(**{
        "value": "gelu_1", "op": "aten.gelu.default", "module": "layers.1", "source": "model.py:44", "error": 2.1e-4,
        "floor": 4.2e-8, "explains": 0.999, "looks_like": OTHER, **changes,
    })  # fmt: skip


def diagnosis(*culprits: Culprit, **changes: Any) -> Diagnosis:
    """Return the diagnosis that one culprit explains everything, with changes."""
    return Diagnosis(**{
        "culprits": culprits, "right_before": 66, "wrong_later": 33, "compared": 100, "left": 1e-3, "complete": True,
        "observed": "rounding", **changes,
    })  # fmt: skip


def value(depth: int, mark: Mark = "ok", **changes: Any) -> ValueFinding:
    """Return one value of the network."""
    op = ("aten.layer_norm.default", "aten.linear.default", "aten.gelu.default", "aten.add.Tensor")[depth % 4]
    error = 4.0e-5 if mark == "passed_on" else 3.1e-8
    return ValueFinding(**{
        "name": f"{op.split('.')[1]}_{depth // 4}", "op": op, "module": f"layers.{depth // 4}",
        "source": f"model.py:{42 + depth % 4}", "depth": depth, "status": "compared", "kernel": f"__myl_{depth}",
        "tap": f"__mye{depth}", "mapped_by": "contents", "stats": recorded.stats(error), "floor": 5.2e-8,
        "local": 5.1e-8, "local_floor": 4.8e-8, "local_bias": 0.01, "largest": 12.5, "mark": mark, **changes,
    })  # fmt: skip


SUSPECT = value(
    6, "suspect", stats=recorded.stats(2.1e-4), local=2.1e-4, local_floor=4.2e-8, effect=4.1e-5, looks_like=OTHER
)


def look(found: Diagnosis | None, *special: ValueFinding, **changes: Any) -> LayerReport:
    """Return a look at 20 values, of which the ``special`` are as given; those behind the first of them are wrong."""
    first = min((one.depth for one in special), default=99)
    by_depth = {one.depth: one for one in special}
    values = [by_depth.get(depth) or value(depth, "passed_on" if depth > first else "ok") for depth in range(20)]
    nothing = dict.fromkeys(("stats", "floor", "local", "local_floor", "local_bias", "largest"))
    values[3] = value(3, "not_judged", status="not_delivered", reason="inside a kernel", **nothing)
    inner = value(17, "not_judged", **nothing)
    values.append(replace(inner, name="__mye214", depth=-1, status="inner", reason="a statistic of a kernel"))
    return LayerReport(**{
        "subject": "bert", "case": "short", "backend": "rtx", "precision": "fp16", "mode": "unfused",
        "values": tuple(values), "modules": (), "trusted": True, "diagnosis": found, "weights": "random",
        "inputs": "random", "device": "NVIDIA H200",
        "observer": (OutputEffect(name="pooled", identical=False, difference=2e-7, error=4.1e-5),), **changes,
    })  # fmt: skip


def result(*outputs: OutputResult, layers: LayerReport | None = None, **changes: Any) -> Result:
    """Return the verdict on an engine with these outputs."""
    wrong = any(one.verdict == "fail" for one in outputs)
    return recorded.result(**{
        "verdict": "fail" if wrong else "pass", "subject": "bert", "case": "short", "outputs": outputs,
        "layers": layers, "next_step": BISECT if wrong else "", "reason": f"{outputs[0].name}: {outputs[0].reason}",
        **changes,
    })  # fmt: skip


def bisected(found: Diagnosis | None, verdict: Result, **changes: Any) -> Bisection:
    """Return the bisection of an engine that is at fault, with a reproducer and no plan."""
    return recorded.bisection(**{
        "subject": "bert", "case": "short", "result": replace(verdict, layers=None, next_step=""), "diagnosis": found,
        "finding": "PyTorch in fp16 is right and rtx is not; it goes wrong in gelu_1 (layers.1)",
        "commands": (REPRODUCE,), "plan": None, "plan_file": "", "price": None, "trials": (), "region": ("gelu_1",),
        "reproducer": "reports/bert-rtx-fp16-reproducer", **changes,
    })  # fmt: skip


WRONG = result(POOLED, HIDDEN)
NAN = OutputResult(
    name="pooled", verdict="fail", stats=recorded.stats(math.nan), floor=recorded.stats(2e-7), allowed={},
    reason="1000 of 1000 elements are NaN",
)  # fmt: skip
OVERFLOW = culprit(
    value="pow_1", op="aten.pow.Tensor_Scalar", error=None, floor=None, explains=None,
    reason="reached 1.2e5, FP16 ends at 65504",
    looks_like=ErrorShape(kind="non_finite", count=34, elements=9856),
)  # fmt: skip
NAN_VALUE = value(
    6, "nonfinite", name="pow_1", op="aten.pow.Tensor_Scalar", local=math.nan, local_floor=None, largest=64800.0,
    stats=recorded.stats(math.nan), reason="34 of 9856 elements are not finite, though all it is computed from is",
)  # fmt: skip
TOKENS = OutputResult(
    name="tokens", verdict="fail", reason="3 of 77 differ, and none is a tie",
    decisions=Decisions(shape=(77,), dtype="int64", elements=77, differ=3, ties=0, floor_differ=0, largest=619),
)  # fmt: skip
PRICE = Price(device="NVIDIA H200", plan_ms=1.47, low_ms=1.40, fp32_ms=2.91)
PLAN = {
    "plan": ("value:exp_1", "value:log"), "plan_file": "reports/bert-rtx-fp16.toml", "price": PRICE,
    "commands": (VERIFY_PLAN, REPRODUCE),
    "trials": (
        Trial(keep_fp32=("value:exp_1",), where="engine", passed=False, error=3e-3, reason="0.003 (allowed 2e-7)"),
        Trial(keep_fp32=("value:exp_1", "value:log"), where="engine", passed=True, error=1e-7),
    ),
}  # fmt: skip
TF32 = output("pooled", 8.4e-4, 2.3e-6, tf32_sized=True)
CULPRITS = (
    culprit(explains=0.72, alone=1),
    culprit(value="softmax_4", op="aten._softmax.default", module="layers.4.attn", source="model.py:61", error=3.1e-3,
            explains=0.21, looks_like=ErrorShape(kind="scale", factor=1.03, explained=0.99), alone=3),
    culprit(value="add_9", op="aten.add.Tensor", module="", source="", error=8e-4, explains=0.06,
            looks_like=ErrorShape(kind="slice", axis=1, size=12, entries=((3, 3),), explained=1.0), alone=1),
    culprit(value="mul_11", explains=0.004, looks_like=ErrorShape(kind="unknown")),
    culprit(value="mul_12", explains=0.003),
    culprit(value="mul_13", explains=0.003),
)  # fmt: skip

ONE = diagnosis(culprit(alone=1))
VARIANTS: dict[str, tuple[Result, Bisection | None]] = {
    "one culprit": (replace(WRONG, layers=look(diagnosis(culprit()), SUSPECT)), bisected(ONE, WRONG)),
    "a look alone": (replace(WRONG, layers=look(diagnosis(culprit()), SUSPECT)), None),
    "many culprits": (WRONG, bisected(diagnosis(*CULPRITS), WRONG)),
    "two culprits, incomplete": (WRONG, bisected(diagnosis(*CULPRITS[:2], complete=False, left=0.07), WRONG)),
    "first value": (WRONG, bisected(diagnosis(culprit(alone=2), right_before=0, wrong_later=1), WRONG)),
    "share not computed": (
        WRONG, bisected(diagnosis(culprit(explains=None), complete=False, left=None), WRONG, reproducer=""),
    ),
    "none found, all right": (replace(WRONG, layers=look(diagnosis(left=1.0, complete=False, compared=19))), None),
    "none found, wrong ones do not explain": (
        replace(WRONG, layers=look(diagnosis(left=0.98, complete=False), replace(SUSPECT, effect=1e-7))), None,
    ),
    "none found, nothing seen": (WRONG, None),
    "none found by the bisection": (
        WRONG, bisected(None, WRONG, reproducer="", region=(), commands=(), finding=(
            "PyTorch in fp16 is right and rtx is not; where it goes wrong could not be narrowed down")),
    ),
    "NaN": (result(NAN, layers=look(diagnosis(OVERFLOW, left=None, observed="unchanged"), NAN_VALUE)), None),
    "hidden by looking": (
        result(NAN, layers=look(diagnosis(compared=19, left=None, complete=False, observed="hidden"), trusted=False)),
        None,
    ),
    "changed by looking": (
        replace(WRONG, layers=look(diagnosis(culprit(), observed="changed"), SUSPECT, trusted=False)), None,
    ),
    "inside a kernel": (
        result(
            output("pooled", 1.0, 4e-3, stats=recorded.stats(1.0, zero_actual=True)),
            layers=look(diagnosis(culprit(
                value="add_3", op="aten.add.Tensor", inside="__myl_AddSub_12", error=0.98, floor=2e-4,
                looks_like=ErrorShape(kind="fp16_rounding"), explains=0.97,
            ), observed="unchanged", left=0.03, wrong_later=0)),
        ), None,
    ),
    "precision": (
        WRONG, bisected(
            diagnosis(culprit(value="exp_1", op="aten.exp.default", error=None, floor=None, explains=0.98,
                              looks_like=None, made_by="precision", reason="overflows (1e+05 in FP32, beyond 65504)"),
                      culprit(value="log", op="aten.log.default", error=None, floor=None, explains=0.3,
                              looks_like=None, made_by="precision"),
                      observed="", compared=0, right_before=0, wrong_later=0),
            WRONG, cause="exp_1 overflows (1e+05 in FP32, beyond 65504)", kind="precision",
            region=("value:exp_1", "value:log"), reproducer="", **PLAN),
    ),
    "precision without a look": (
        WRONG, bisected(None, WRONG, kind="precision", region=("value:exp_1", "value:log"), reproducer="", **PLAN),
    ),
    "precision, no plan yet": (
        WRONG, bisected(None, WRONG, kind="precision", region=("value:exp_1", "value:log"), reproducer=""),
    ),
    "found by parts": (
        WRONG, bisected(diagnosis(culprit(explains=None, alone=3), right_before=0, wrong_later=0, observed="hidden"),
                        WRONG),
    ),
    "precision, no plan": (
        WRONG, bisected(None, WRONG, kind="precision", region=(), reproducer="", commands=(),
                        trials=PLAN["trials"][:1]),
    ),
    "export": (
        WRONG, bisected(
            diagnosis(culprit(alone=1, floor=None, made_by="export",
                              looks_like=ErrorShape(kind="scale", factor=1.00005)),
                      observed=""), WRONG, kind="export"),
    ),
    "folded": (
        WRONG, bisected(
            diagnosis(culprit(value="conv2d_3", op="aten.conv2d.default", module="stem.conv",
                              folded=("stem.bn", "stem.act"), alone=1)), WRONG),
    ),
    "TF32": (result(TF32, precision="fp32"), bisected(None, result(TF32, precision="fp32"), precision="fp32", commands=(
        "parity verify bert -b rtx -p tf32",))),
    "race": (
        result(NAN), bisected(diagnosis(culprit(looks_like=ErrorShape(kind="random")), observed=""), result(NAN),
                              races=True, **PLAN),
    ),
    "a slice": (
        result(output("pooled", 2e-4, 3e-4, part(3.2e-3, 4e-5, kind="slice", axis=1, index=17)),
               output("hidden", 2e-5, 3e-5)), None,
    ),
    "a largest error": (
        result(output("pooled", 2e-4, 3e-4, part(0.07, 0.005, figure="max_absolute")), POOLED, HIDDEN, HIDDEN, HIDDEN,
               ), None,
    ),
    "a given limit": (
        result(output("pooled", 1.1e-4, 3.9e-3, verdict="fail", allowed={"relative_l2": 5e-5})), None,
    ),
    "a given largest error": (
        result(output("pooled", 1.1e-4, 3.9e-3, verdict="fail", allowed={"relative_l2": 5e-3, "max_absolute": 1e-4})),
        None,
    ),
    "decisions": (result(TOKENS), None),
    "stale output": (
        result(replace(POOLED, looks_like=ErrorShape(kind="stale", other="long"))), None,
    ),
    "passes": (result(output("pooled", 3.2e-7, 6.7e-7), layers=look(None)), None),
    "passes, seen as another engine": (
        result(output("pooled", 3.2e-7, 6.7e-7), layers=look(None, trusted=False)), None,
    ),
    "bisected, passes": (
        result(output("pooled", 3.2e-7, 6.7e-7)),
        bisected(None, result(output("pooled", 3.2e-7, 6.7e-7)), kind="none", finding="", commands=(), region=()),
    ),
    "not judged": (result(replace(POOLED, verdict="not_judged"), verdict="not_judged", reason="no GPU"), None),
}  # fmt: skip
"""Every kind of diagnosis by its name: the verdict, and the bisection of the same engine where there is one."""


def as_json(name: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a variant's result and bisection as another process reads them."""
    verdict, found = VARIANTS[name]
    return verdict.to_json(), found.to_json() if found else None

"""The verdict on one run of one engine: every output against its reference, its floor and its limit."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness import compare, records
from harness.backends import Backend
from harness.errors import EngineFailed, NotJudged, ParityError
from harness.graph import Plan, is_fp32, load_plan
from harness.records import OutputResult, Provenance, Verdict
from harness.subject import Subject, Tolerance
from harness.tensors import Tensors, sha256_of
from harness.verify.tolerance import judge

if TYPE_CHECKING:
    from harness.verify.run import TargetRun


def judge_outputs(opened: TargetRun, case: str, actual: Tensors) -> tuple[tuple[OutputResult, ...], list[str]]:
    """Return the verdict on every output of a case, and notes on how it came about."""
    expected = opened.run.expected(case, opened.plan)
    floor_outputs, notes = _floor(opened, case)
    may_be_tf32 = has_tf32(opened.backend)
    results = []
    for name, tensor in expected.items():
        try:
            stats = compare.compare(actual[name], tensor, name=name)
        except EngineFailed as error:
            results.append(OutputResult(name=name, verdict="fail", reason=str(error)))
            continue
        floor = _against(floor_outputs, name, tensor) if floor_outputs else None
        if floor_outputs and floor is None:
            shapes = f"{list(floor_outputs[name].shape)}, and the reference has {list(tensor.shape)}"
            notes.append(f"no floor for {name}: PyTorch in {opened.plan.computes_in} gives shape {shapes}")
        options: dict[str, Any] = {
            "precision": opened.plan.computes_in,
            "floor": floor,
            "may_be_tf32": may_be_tf32,
            "tolerance": tolerance_for(name, opened.run.subject, opened.plan),
            "is_floor": opened.backend.name == "torch",
            "floor_name": opened.run.prepared.floor_name(opened.plan),
        }
        result = judge(name, stats, **options)
        if (
            result.verdict == "fail"
            and is_fp32(opened.plan)
            and may_be_tf32
            and (tf32 := _tf32_floor(opened, case, name, tensor))
        ):
            result = judge(name, stats, **options, tf32_floor=tf32)
        results.append(result)
    return tuple(results), notes


def has_tf32(backend: Backend) -> bool:
    """Return whether a backend may compute in TF32."""
    return "tf32" in backend.precisions


def _floor(opened: TargetRun, case: str) -> tuple[Tensors | None, list[str]]:
    """Return the floor's outputs, or None and why there are none (an explicit tolerance may still judge)."""
    if is_fp32(opened.plan):
        return opened.run.prepared.reference(case, "fp32"), []
    try:
        floor = opened.run.floor(case, opened.plan)
    except NotJudged as error:
        return None, [f"no floor: {error}"]
    return floor.outputs, list(floor.notes)


def _tf32_floor(opened: TargetRun, case: str, name: str, expected: torch.Tensor) -> records.ErrorStats | None:
    plan = load_plan("tf32")
    try:
        floor = opened.run.floor(case, plan)
    except NotJudged:
        return None  # without a GPU there is no TF32; judge() then goes by its size
    return _against(floor.outputs, name, expected)


def _against(floor: Tensors, name: str, expected: torch.Tensor) -> records.ErrorStats | None:
    """Return the figures of a floor; None where it has another shape, which no engine is to blame for."""
    tensor = floor[name]
    return compare.compare(tensor, expected, name=name) if tensor.shape == expected.shape else None


def tolerance_for(output: str, subject: Subject, plan: Plan) -> Tolerance | None:
    """Return the explicit limit of an output: by its name, by the plan's, or by the precision that the plan lowers to.

    A plan of fp16 may lose what fp16 may lose.
    """
    names = (output, plan.name, plan.computes_in)
    return next((subject.tolerances[name] for name in names if name in subject.tolerances), None)


def provenance(opened: TargetRun, case: str) -> Provenance | None:
    """Return what a reader needs to trust the figures; None where the subject could not be prepared."""
    try:
        prepared = opened.run.prepared
        truth = "fp64" if is_fp32(opened.plan) else "fp32"
        return Provenance(
            weights=opened.run.subject.weights,
            weights_source=opened.run.subject.weights_source,
            weights_sha256=prepared.weights_sha256,
            inputs=opened.run.subject.inputs,
            inputs_sha256=sha256_of(prepared.inputs(case)),
            program_sha256=prepared.program_sha256,
            commit=opened.run.commit,
            reference=prepared.reference_words(case, truth),
            device=opened.device_name(),
            plan={"dtype": opened.plan.computes_in, "keep_fp32": list(opened.plan.keep_fp32)},
        )
    except ParityError:
        return None  # the reason of the result says what kept the subject from being prepared


def next_step(opened: TargetRun, case: str) -> str:
    """Return the command that goes on from a failure: to whose fault it is, and a plan that passes."""
    subject = opened.run.subject
    only = ["--case", case] if len(subject.cases) > 1 else []
    options = shlex.join(["-b", opened.backend.name, "-p", opened.target.precision, *only])
    return f"parity bisect {subject.as_typed} {options}"


def worst_reason(outputs: Sequence[OutputResult], verdict: Verdict) -> str:
    """Return the reason of the output that decided: the one with the largest error among those of that verdict."""
    deciding = [output for output in outputs if output.verdict == verdict]
    if not deciding:
        return "no output was compared"
    chosen = max(deciding, key=lambda output: output.stats.relative_l2 if output.stats else float("inf"))
    return f"{chosen.name}: {chosen.reason}"

"""The part of a graph that fails alone, as a reproducer."""

from __future__ import annotations

import math
from pathlib import Path

from harness.backends import environment
from harness.bisect.context import Context
from harness.bisect.findings import Findings
from harness.bisect.regions import CASE, Region
from harness.bisect.reproducer import RUNTIMES, Spec, write
from harness.files import file_name
from harness.graph import order
from harness.records import OutputResult
from harness.subject import Target
from harness.temporary import temporary_folder
from harness.verify import FACTOR, Run, write_graph


def write_region(context: Context, found: Findings, region: Region) -> Path:
    """Write a part that fails alone as a reproducer, and return its folder as it was given.

    Raises ParityError where that is impossible, or the reproducer does not show the fault; then there is no folder.
    """
    target = Target(found.target.backend, region.precision)
    folder = context.reproducer or Path("reports") / file_name(context.subject.name, str(found.target), "reproducer")
    with Run(region.subject, context.settings).target(target) as opened, temporary_folder() as scratch:
        prepared, plan = opened.run.prepared, opened.plan
        graph = scratch / "graph.onnx"
        write_graph(prepared, plan, graph)
        spec = Spec(
            title=f"{target.backend} {target.precision_name}: wrong result in {len(region.names)} operations",
            backend=target.backend,
            tf32=plan.tf32,
            precision=target.precision_name,
            graph=graph,
            inputs=prepared.inputs[CASE],
            expected=(expected := prepared.valid.counted(CASE, prepared.references.reference(CASE, "fp32"))),
            valid=prepared.valid.of(CASE, expected),
            limits={output.name: _allowed(output) for output in region.result.outputs},
            finding=found.finding,
            notes=(*(f"the whole model: {q.question} {q.answer}: {q.detail}" for q in found.questions), *found.notes),
            environment=environment(context.settings),
            weights=context.subject.weights,
            inputs_kind=context.subject.inputs,
            full_model=f"{context.subject.as_typed}, {len(order(context.prepared.program.model))} values",
        )
        if target.backend in RUNTIMES:  # the script builds an engine; for another backend none is written
            context.budget.spend()
        write(folder, spec, progress=context.settings.progress)
    return folder


def _allowed(output: OutputResult) -> float:
    """Return the relative L2 error an output may have; where the verdict used no limit, FACTOR times its floor.

    Decisions may not differ at all: the inputs are those that the engine decides wrongly.
    """
    if output.decisions is not None:
        return 0.0
    if "relative_l2" in output.allowed:
        return output.allowed["relative_l2"]
    return FACTOR * output.floor.relative_l2 if output.floor is not None else math.nan

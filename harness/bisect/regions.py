"""Parts of a graph, each built alone and run on the reference's values: an error in such a part was made there.

A part also shows a fault that disappears while values are observed. It is fused differently than the whole, so some
faults show only in a larger part.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bisect.context import Budget
from harness.bisect.dataflow import Dataflow
from harness.errors import NotJudged, ParityError
from harness.graph import boundary, extract, load_plan, save_model, write_plan
from harness.lazy import onnx_ir as ir
from harness.records import Result
from harness.sentences import Sentence
from harness.subject import Subject, Target
from harness.verify import Outcome, Run, value_dtypes, verify_case

CASE = "region"
"""The one case of a region's subject."""
COVER = "_negated"
"""What is added to the name of an output that is covered."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of a graph as a subject."""

    names: tuple[str, ...]
    """The values it computes, in dataflow order."""
    subject: Subject
    precision: str
    """A plain precision, or the plan file of this part."""
    outcome: Outcome
    """The verdict on it, with its outputs."""
    covered: bool = False
    """Whether its outputs are negated, so that none of its values is an output."""

    @property
    def result(self) -> Result:
        """The verdict."""
        return self.outcome.result


class Regions:
    """Builds and judges parts of one subject's graph on one target; each part once.

    ``shows`` says whether a verdict, pass or fail, is the fault in question. ``folder`` takes the parts' files.
    """

    def __init__(
        self, run: Run, case: str, target: Target, *, folder: Path, shows: Callable[[Result], bool], budget: Budget
    ) -> None:
        self.run, self.case, self.target, self.folder = run, case, target, folder
        self.shows, self.budget = shows, budget
        self.plan = load_plan(target.precision)
        self.model = run.prepared.program.model
        self.flow = Dataflow(self.model)
        self.covered = False
        self._results: dict[tuple[str, ...], Result | None] = {}
        """The verdict on every part that was tried; None for one that could not be judged."""
        self._failed: dict[tuple[str, ...], Region] = {}
        """Those that failed; of the others the inputs need not be held."""
        self._refused: list[tuple[str, ...]] = []

    def showing(self, shows: Callable[[Result], bool]) -> Regions:
        """Return the same parts with another fault in question; what one of the two builds, the other has too."""
        other = copy.copy(self)
        other.shows = shows
        return other

    def covering(self) -> Regions:
        """Return the same parts with every output negated: a kernel may be wrong only where its result stays inside.

        A sign is exact in every format, and no builder drops it.
        """
        other = copy.copy(self)
        other.covered, other._results, other._failed = True, {}, {}
        return other

    @property
    def refused(self) -> bool:
        """Whether a part was not built because the budget was spent."""
        return bool(self._refused)

    @property
    def failing(self) -> dict[tuple[str, ...], Region]:
        """Every part that showed the fault."""
        return {part: region for part, region in self._failed.items() if self.shows(region.result)}

    def fails(self, names: Collection[str]) -> bool | None:
        """Return whether the part that computes these values shows the fault; None when that cannot be known."""
        part = tuple(self.flow.in_order(names))
        if part not in self._results:
            if not self.budget.left:
                self._refused.append(part)
                return None
            self._results[part] = self._result(part)
        result = self._results[part]
        return None if result is None or result.verdict == "not_judged" else self.shows(result)

    def region(self, names: Collection[str]) -> Region:
        """Return a part that showed the fault."""
        return self._failed[tuple(self.flow.in_order(names))]

    def judge(self, names: Sequence[str]) -> Region:
        """Build the part that computes these values, feed it with the reference's values and judge it.

        Raises NotJudged for a part that cannot be cut out.
        """
        subject = self._subject(names)
        self.run.settings.progress(f"building {len(names)} of {len(self.flow.order)} values alone: {_span(names)}")
        precision = self._precision(names)
        run = Run(subject, self.run.settings)
        self.budget.count(run.engines)
        with run.target(Target(self.target.backend, precision)) as opened:
            outcome = verify_case(opened, CASE)
        return Region(names=tuple(names), subject=subject, precision=precision, outcome=outcome, covered=self.covered)

    def _result(self, part: tuple[str, ...]) -> Result | None:
        try:
            region = self.judge(part)
        except ParityError as error:
            self.run.settings.progress(Sentence("part_not_judged", count=len(part), error=error))
            return None
        if region.result.verdict == "fail":
            self._failed[part] = region
        return region.result

    def _subject(self, names: Sequence[str]) -> Subject:
        entering, leaving = boundary(self.model, names)
        if not leaving:
            raise NotJudged(Sentence("nothing_leaves", span=_span(names)))
        folder = (
            self.folder
            / ("covered" if self.covered else "plain")
            / hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "region.onnx"
        model = extract(self.model, entering, leaving)
        save_model(_cover(model) if self.covered else model, path)
        values = {name: tensor.cpu() for name, tensor in self.run.prepared.values(self.case, entering).items()}
        valid = self.run.prepared.valid.given(self.case)
        full = self.run.subject
        return Subject(
            name=f"{full.name}-region", onnx=path, cases={CASE: lambda: dict(values)}, targets=(self.target,),
            weights=full.weights, weights_source=full.weights_source, inputs=full.inputs,
            valid={name: mask for name, mask in valid.items() if name in leaving and not self.covered},
        )  # fmt: skip

    def _precision(self, names: Sequence[str]) -> str:
        """Return the precision, or a plan file where the plan keeps values of this part in FP32."""
        dtypes = value_dtypes(self.run.prepared.graph, self.plan)
        kept = [name for name in names if dtypes.get(name) == "float32"]
        if not self.plan.keep_fp32 or self.plan.dtype == "fp32":
            return self.plan.computes_in
        if not kept:
            return self.plan.dtype
        path = self.folder / f"{hashlib.sha256(repr(kept).encode()).hexdigest()[:16]}.toml"
        write_plan(path, self.plan.dtype, [f"value:{name}" for name in kept], comment=())
        return str(path)


def _cover(model: ir.Model) -> ir.Model:
    """Negate the float outputs of a model, in place, and return it."""
    for place, value in enumerate(model.graph.outputs):
        if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            name = f"{value.name}{COVER}"
            negated = ir.Value(name=name, shape=value.shape, type=value.type)
            model.graph.append(ir.Node("", "Neg", [value], outputs=[negated], name=name))
            model.graph.outputs[place] = negated
    return model


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"

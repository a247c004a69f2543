"""Parts of a graph, each built and judged as a subject of its own and fed with the reference's values.

What goes wrong inside such a part was made there. It is how a fault is found that shows only while nobody looks, and
what a reproducer is made of. A part is fused differently than the whole, so a fault may need a larger part to show.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from harness import graph
from harness.compare import relative_l2
from harness.errors import NotJudged, ParityError
from harness.graph import Plan, save_model, write_plan
from harness.records import Result, is_nonfinite
from harness.reference import NodeRunner, OnnxEvaluator
from harness.subject import Subject, Target
from harness.verify import Prepared, Run, is_tf32, value_dtypes, verify_case

CASE = "region"
_LARGEST_START = 4
"""Values on either side of a suspect in the smallest part that is tried after the suspect's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """A part of a graph as a subject."""

    names: tuple[str, ...]
    """The values it computes, in dataflow order."""
    subject: Subject
    precision: str
    """A plain precision, or the plan file of this part."""
    result: Result

    @property
    def precision_name(self) -> str:
        """The precision in words."""
        return Target("", self.precision).precision_name


class Regions:
    """Builds and judges parts of one subject's graph on one target."""

    def __init__(self, run: Run, case: str, target: Target, plan: Plan, folder: Path) -> None:
        self.run, self.case, self.target, self.plan, self.folder = run, case, target, plan, folder
        self.model = run.prepared.program.model
        self.order = graph.order(self.model)
        self.nonfinite_only = False
        """Count a part as failing only when its outputs are not finite: the fault that is looked for is no other."""
        self.beyond_tf32 = False
        """Do not count a part that merely computes FP32 in TF32: the fault that is looked for is larger."""
        self.built = 0
        """Engines built for this; those from the cache do not count."""
        self.may_build: Callable[[], bool] = lambda: True
        """Asked before a part is built."""
        self.failing: dict[tuple[str, ...], Region] = {}
        """Every part that was seen to fail."""
        self._judged: dict[tuple[tuple[str, ...], bool], bool | None] = {}

    def fails(self, names: Collection[str]) -> bool | None:
        """Return whether the part that computes these values fails on its own; None when it cannot be judged."""
        wanted = set(names)
        part = tuple(name for name in self.order if name in wanted)
        if (part, self.nonfinite_only) not in self._judged and not self.may_build():
            return None
        if (part, self.nonfinite_only) not in self._judged:
            try:
                region = self.judge(part)
                verdict = region.result.verdict
                self._judged[part, self.nonfinite_only] = (
                    None if verdict == "not_judged" else self._shows(region.result)
                )
                if self._judged[part, self.nonfinite_only]:
                    self.failing[part] = region
            except ParityError as error:
                self.run.settings.progress(f"a part of {len(part)} values cannot be judged: {error}")
                self._judged[part, self.nonfinite_only] = None
        return self._judged[part, self.nonfinite_only]

    def _shows(self, result: Result) -> bool:
        """Return whether a verdict is the fault that is looked for."""
        if self.nonfinite_only:
            return is_nonfinite(result)
        return result.verdict == "fail" and not (self.beyond_tf32 and is_tf32(result.outputs))

    def fails_between(self, start: int, stop: int) -> bool | None:
        """Return the same for the values at positions ``start`` up to ``stop`` of the dataflow order."""
        return self.fails(self.order[start:stop])

    def judge(self, names: Sequence[str]) -> Region:
        """Build the part that computes these values, feed it with the reference's values and judge it."""
        subject = self._subject(names)
        self.run.settings.progress(f"building {len(names)} of {len(self.order)} values alone: {_span(names)}")
        precision = self._precision(names)
        run = Run(subject, self.run.settings)
        try:
            with run.target(Target(self.target.backend, precision)) as opened:
                result = verify_case(opened, CASE).result
        finally:
            self.built += run.engines.built
        return Region(names=tuple(names), subject=subject, precision=precision, result=result)

    def upstream(self, name: str, known: Collection[str]) -> list[str]:
        """Return the values between ``name`` and the known ones before it, with ``name``: where its error was made."""
        producers = {str(value.name): node for node in self.model.graph for value in node.outputs}
        found, pending = set(), [name]
        while pending:
            value = pending.pop()
            node = producers.get(value)
            if node is None or value in found:
                continue
            found.add(value)
            reads = [str(read.name) for read in node.inputs if read is not None]
            pending += [read for read in reads if read in producers and read not in known]
        return [value for value in self.order if value in found]

    def around(self, names: Sequence[str]) -> Region | None:
        """Return the smallest part around these values that fails alone, growing until one does."""
        positions = sorted(self.order.index(name) for name in names)
        start, stop, width = positions[0], positions[-1] + 1, 0
        while True:
            low, high = max(0, start - width), min(len(self.order), stop + width)
            part = names if width == 0 else self.order[low:high]
            if self.fails(part):
                return self.failing[tuple(name for name in self.order if name in set(part))]
            if width and (low, high) == (0, len(self.order)):
                return None
            width = width * 4 or _LARGEST_START

    def _subject(self, names: Sequence[str]) -> Subject:
        entering, leaving = graph.boundary(self.model, names)
        if not leaving:
            raise NotJudged(f"nothing leaves the part {_span(names)}")
        model = graph.extract(self.model, entering, leaving)
        folder = self.folder / hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "region.onnx"
        save_model(model, path)
        values = {name: tensor.cpu() for name, tensor in self.run.prepared.values(self.case, entering).items()}
        full = self.run.subject
        return Subject(
            name=f"{full.name}-region", onnx=path, cases={CASE: lambda: dict(values)}, targets=(self.target,),
            weights=full.weights, weights_source=full.weights_source, inputs=full.inputs,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFault:
    """The operation whose ONNX form gives something else than PyTorch, both in FP32 on the same inputs."""

    name: str
    error: float
    """Relative L2 error of its value."""


def export_fault(prepared: Prepared, case: str, *, limit: float) -> ExportFault | None:
    """Return the first value that ONNX Runtime computes otherwise than PyTorch from PyTorch's own inputs, or None."""
    program = prepared.program
    depths = prepared.program.depths()
    computed = graph.order(program.model)
    shared = sorted((name for name in computed if _shared(name, program.values)), key=depths.__getitem__)
    expected = prepared.values(case, shared)
    inputs = {name: tensor.cpu() for name, tensor in prepared.inputs[case].items()}
    evaluator = OnnxEvaluator(program.model, inputs, keep=shared, runner=NodeRunner())
    for name in shared:
        found, wanted = evaluator.value(name), expected[name].cpu()
        if found is None or not wanted.is_floating_point():
            continue
        error = relative_l2(found, wanted) if found.shape == wanted.shape else float("inf")
        if error > limit:
            return ExportFault(name=name, error=error)
        evaluator.observe(name, wanted)
        evaluator.done(name)
    return None


def _shared(name: str, values: Mapping[str, object]) -> bool:
    value = values.get(name)
    return value is not None and not str(getattr(value, "op", "")).startswith("onnx.")


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"

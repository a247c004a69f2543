"""Whether the export is wrong: the ONNX graph against the exported program, both computed in FP64.

There they differ by the rounding of constants to FP32 alone, so that the smallest fault shows. Whether it matters is
seen at the outputs: those of the whole ONNX graph are judged as if an engine had given them. Only where they fail is
the graph searched, value by value on the program's own inputs. What is found there, a second computation confirms.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from harness.bisect.context import Context
from harness.bisect.dataflow import Dataflow
from harness.compare import UNIT_ROUNDOFF, distance, error_shape, total_error
from harness.errors import EngineFailed, NotJudged, ParityError, first_line
from harness.graph import Value, boundary, extract, load_plan, save_model
from harness.lazy import onnx_ir as ir
from harness.records import Culprit, Diagnosis, OutputResult, overall
from harness.reference import (
    CANNOT_RUN,
    Evaluator,
    ProgramEvaluator,
    RunNotes,
    onnx_run_graph,
    run_onnx_reference,
    run_onnxruntime,
)
from harness.sentences import Sentence
from harness.subject import Target
from harness.tensors import Tensors
from harness.verify import FACTOR, OpenTarget, Prepared, Run, confidence_factor, judged_by

MOST = 16
"""Values whose effect on the outputs is computed: those that differ most against what FP32 loses there."""


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """What the exported graph gives, judged as if it were an engine."""

    judged: tuple[OutputResult, ...]
    """The verdicts on its outputs."""
    error: float
    """The largest error of an output."""
    diagnosis: Diagnosis | None = None
    """What makes them wrong; None where they are right."""
    undecided: tuple[Value, ...] = ()
    """Values that differ, where nothing can say whether the graph is wrong or the library that computed it here."""

    @property
    def right(self) -> bool:
        """Whether an engine that computes this graph exactly would pass."""
        return overall(output.verdict for output in self.judged) == "pass"


def check_exported_graph(opened: OpenTarget, case: str) -> ExportCheck:
    """Return what is wrong with the graph that a target's engine is built from.

    Computed in FP64, or in FP32 where an operator has no FP64. Raises NotJudged where neither is possible.
    """
    try:
        return _check(opened, case, torch.float64)
    except NotJudged:
        return _check(opened, case, torch.float32)


def computes_its_graph(context: Context, target: Target) -> bool:
    """Return whether an engine passes when it is held against the exported graph instead of the program.

    Nothing is built: the graph becomes a subject of its own, and the outputs of the engine are judged again.
    """
    path = context.folder / "exported" / "graph.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(context.prepared.program.model, path)
    subject = replace(
        context.subject,
        build=None,
        onnx=path,
        cases={context.case: lambda: dict(context.prepared.inputs[context.case])},
        valid=context.prepared.valid.given(context.case),
        dynamic={},
        ranges={},
        options={},
        weights_files=None,
    )
    try:
        outputs = context.judge(target).repeats
        with Run(subject, context.settings, limit=context.limit).target(target) as own:
            judged = judged_by(own, context.case, actual=outputs.worst) if outputs is not None else ()
    except ParityError:
        return False  # whether the engine is wrong too, its own search tells
    return overall(output.verdict for output in judged) == "pass"


def _check(opened: OpenTarget, case: str, dtype: torch.dtype) -> ExportCheck:
    prepared = opened.run.prepared
    graphs = _Graphs(prepared, case, dtype)
    counted = partial(prepared.valid.counted, case)
    expected = counted(prepared.references.reference(case, "fp64"))

    def judged(outputs: Tensors) -> ExportCheck:
        error = total_error(counted(outputs), expected)
        try:
            return ExportCheck(judged=judged_by(opened, case, actual=outputs), error=error)
        except EngineFailed as failure:  # an output of another shape
            return ExportCheck(judged=(OutputResult(name="", verdict="fail", reason=str(failure)),), error=error)

    try:
        check = judged(outputs := graphs.outputs({}))
        if check.right:
            return check
        found = {kept.name: (kept, graphs.whose(kept)) for kept in graphs.differences()}
        # What only the library gets wrong is put right, and the rest judged again.
        right = {name: kept.expected for name, (kept, whose) in found.items() if whose == "library" and kept.fits}
        if right and (check := judged(outputs := graphs.outputs(right))).right:
            return check
        culprits = graphs.culprits([kept for kept, whose in found.values() if whose == "export"], outputs, check.judged)
        fit = {it.value: found[it.value][0].expected for it in culprits if found[it.value][0].fits}
        left = judged(graphs.outputs(right | fit))
    except CANNOT_RUN as error:
        raise NotJudged(Sentence("onnx_not_run_in", dtype=dtype, said=first_line(error))) from error
    first = min((graphs.shared.index(culprit.value) for culprit in culprits), default=0)
    diagnosis = Diagnosis(
        culprits=culprits, right_before=first, compared=len(graphs.shared), left=share(left.error, check.error),
        complete=left.right,
    )  # fmt: skip
    values = prepared.program.values
    undecided = tuple(values[name] for name, (_, whose) in found.items() if not whose)
    return replace(check, diagnosis=diagnosis, undecided=undecided)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A value that the two graphs compute differently from the same inputs."""

    name: str
    found: torch.Tensor
    """What the ONNX graph gives."""
    expected: torch.Tensor
    """What the program gives."""
    error: float
    floor: float
    limit: float
    """What the rounding of constants to FP32 may make of it: FACTOR times what FP32 loses there."""
    elsewhere: bool
    """Whether an operator of it has no implementation here, so that ONNX Runtime computed it."""

    @property
    def fits(self) -> bool:
        """Whether one can stand in the place of the other."""
        floats = self.found.is_floating_point(), self.expected.is_floating_point()
        return self.found.numel() == self.expected.numel() and floats[0] == floats[1]

    @property
    def ratio(self) -> float:
        return self.error / self.limit if self.limit else math.inf


class _Graphs:
    """The ONNX graph of one subject and its program, computed in one precision on the inputs of one case."""

    def __init__(self, prepared: Prepared, case: str, dtype: torch.dtype) -> None:
        self.prepared, self.inputs, self.dtype = prepared, prepared.inputs[case], dtype
        self.counted = partial(prepared.valid.counted, case)
        self.model = prepared.program.model
        self.graph = onnx_run_graph(self.model)
        self.flow = Dataflow(self.model)
        values, depths = prepared.program.values, prepared.program.depths()
        known = [name for name in self.flow.order if name in values and not values[name].op.startswith("onnx.")]
        self.shared = sorted(known, key=depths.__getitem__)
        """The values that PyTorch has too, and not only the ONNX graph."""

    def outputs(self, given: Tensors) -> Tensors:
        """Return the outputs of the ONNX graph, with these values in the place of its own."""
        evaluator = self._onnx(asked=[*given])
        for name in self.flow.in_order(given):
            evaluator.observe(name, given[name])
        return evaluator.outputs()

    def differences(self) -> list[_Kept]:
        """Return the values that differ most against what FP32 loses there, each from the program's own inputs."""
        notes = RunNotes()
        onnx, low = self._onnx(self.shared, notes), self.prepared.graph.evaluator(self.inputs, asked=self.shared)
        exact, canonical = self._program(self.shared)
        kept: list[tuple[float, int, _Kept]] = []
        for place, name in enumerate(self.shared):
            notes.elsewhere.clear()
            found, expected, rounded = onnx.value(name), exact.value(canonical(name)), low.value(canonical(name))
            if found is None or expected is None or rounded is None:
                continue
            error, floor, limit = _difference(found, expected, rounded)
            if error > 0:
                difference = _Kept(
                    name=name, found=found, expected=expected, error=error, floor=floor, limit=limit,
                    elsewhere=bool(notes.elsewhere),
                )  # fmt: skip
                heapq.heappush(kept, (difference.ratio, -place, difference))
                if len(kept) > MOST:
                    heapq.heappop(kept)
                if not difference.fits:  # what is computed from it is no longer the same graph
                    break
            onnx.observe(name, expected)
            low.observe(canonical(name), expected)
            for evaluator, own in ((onnx, name), (low, canonical(name)), (exact, canonical(name))):
                evaluator.done(own)
        return [difference for _, _, difference in sorted(kept, key=lambda entry: -entry[1])]

    def whose(self, kept: _Kept) -> str:
        """Return whose a difference is by a second computation of the ONNX operators: ``export`` or ``library``.

        Empty where that cannot be told and the first one was ONNX Runtime's, which may be the engine's own library.
        """
        part = self.flow.upstream(kept.name, set(self.shared) - {kept.name})
        entering, _ = boundary(self.model, part)
        try:
            given = {name: self._given(name) for name in entering}
            model = extract(self.model, entering, [kept.name])
            run = run_onnx_reference if kept.elsewhere else _first_run
            second = run(model, given)[kept.name].to(kept.found.device)
        except NotJudged:
            return "" if kept.elsewhere else "export"
        to_graph, to_program = distance(second, kept.found), distance(second, kept.expected)
        if to_program < to_graph / 2:
            return "library"
        return "export" if to_graph < to_program / 2 or not kept.elsewhere else ""

    def culprits(self, kept: Sequence[_Kept], outputs: Tensors, judged: Sequence[OutputResult]) -> tuple[Culprit, ...]:
        """Return the differences that make the outputs wrong, the one that explains the most first.

        Those are the ones that FP32 constants do not explain, and that are not too small to change a verdict. Where
        none is, a single one that gives more than all others together.
        """
        exact, canonical = self._program([difference.name for difference in kept])
        expected, outputs = self.counted(exact.fork().outputs()), self.counted(outputs)
        worst = max(expected, key=lambda name: distance(outputs[name], expected[name]))
        whole = distance(outputs[worst], expected[worst])
        floors = [output.floor.relative_l2 for output in judged if output.floor is not None]
        harmless = min(floors, default=0.0) / FACTOR
        counting: list[Culprit] = []
        others: list[Culprit] = []
        for difference in kept:
            exact.value(name := canonical(difference.name))
            disturbed = exact.fork()
            if difference.fits:
                disturbed.observe(name, difference.found)
            after = self.counted(disturbed.outputs()) if difference.fits else {}
            value = self.prepared.program.values[difference.name]
            culprit = Culprit(
                value=value.name, op=value.op, module=value.module, source=value.source, folded=value.folded,
                made_by="export",
                error=difference.error if math.isfinite(difference.error) else None, floor=difference.floor,
                looks_like=error_shape(difference.found, difference.expected, precision="fp32"),
                explains=share(distance(after[worst], expected[worst]), whole) if after else None,
                reason="" if difference.fits else _other_kind(difference.found, difference.expected),
            )  # fmt: skip
            counts = difference.ratio > 1 and (not after or total_error(after, expected) > harmless)
            (counting if counts else others).append(culprit)
        chosen = counting or [culprit for culprit in others if (culprit.explains or 0.0) > 0.5]
        return tuple(sorted(chosen, key=lambda culprit: -(culprit.explains or 0.0)))

    def _onnx(self, asked: Sequence[str], notes: RunNotes | None = None) -> ProgramEvaluator:
        device = self.prepared.graph.device
        return ProgramEvaluator(self.graph, self.inputs, dtype=self.dtype, device=device, asked=asked, notes=notes)

    def _program(self, asked: Sequence[str]) -> tuple[Evaluator, Callable[[str], str]]:
        """Return an evaluator of the program in FP64, and its names for those of the ONNX graph."""
        evaluators = self.prepared.graph.evaluators(self.inputs, load_plan("fp32"), asked)
        return evaluators.reference, evaluators.canonical

    def _given(self, name: str) -> torch.Tensor:
        """Return what enters a part, as ONNX takes it. Raises NotJudged for what the program does not compute."""
        exact, canonical = self._program([name])
        value = self.inputs[name] if name in self.inputs else exact.value(canonical(name))
        if value is None:
            raise NotJudged(Sentence("only_onnx_computes", name=name))
        return value.float() if value.dtype == torch.float64 else value


def _first_run(model: ir.Model, inputs: Tensors) -> Tensors:
    return run_onnxruntime(model, inputs)[0]


def _difference(found: torch.Tensor, expected: torch.Tensor, rounded: torch.Tensor) -> tuple[float, float, float]:
    """Return how far two computations of a value are apart, what FP32 loses there, and what may come of constants.

    Of discrete values what FP32 itself decides otherwise does not count.
    """
    if expected.is_complex():
        found, expected, rounded = (torch.view_as_real(tensor) for tensor in (found, expected, rounded))
    if not expected.is_floating_point():
        if found.shape == expected.shape == rounded.shape:
            found = torch.where(rounded == expected, found.to(expected.dtype), expected)
        return distance(found, expected), 0.0, 0.0
    floor = distance(rounded, expected)
    rounding = max(floor * confidence_factor(expected.numel()), UNIT_ROUNDOFF["fp32"])
    return distance(found, expected), floor, FACTOR * rounding


def _other_kind(found: torch.Tensor, expected: torch.Tensor) -> str:
    return Sentence("in_pytorch", kind=_kind(found), kind_2=_kind(expected))


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def share(effect: float, whole: float) -> float:
    """Return the share of a squared error that an effect gives; of one that is not finite all or nothing."""
    if not math.isfinite(effect) or not math.isfinite(whole):
        return 0.0 if math.isfinite(effect) else 1.0
    return min(1.0, (effect / whole) ** 2) if whole else 0.0

"""Look into an engine: every value it makes, held against PyTorch, and where its error was made."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from harness import compare, graph
from harness.backends import TapSession, read_kernels
from harness.compare import relative_l2, total_error
from harness.errors import EngineFailed, NotJudged, ParityError, UsageError
from harness.graph import matching
from harness.layers.kernel_taps import KernelTaps
from harness.layers.makers import Makers
from harness.layers.observer import Observer, local_ratio, worst_first
from harness.records import MARKS, LayerReport, ModuleFinding, OutputEffect, OutputResult, Result, ValueFinding
from harness.reference import Evaluator
from harness.tensors import Tensors
from harness.verify import FACTOR, OpenTarget, next_step, value_dtypes, verify_case

GROUP_BYTES = 2**30
"""Values that are made outputs of one engine hold at most this many bytes."""


def look(opened: OpenTarget, case: str, *, mode: str = "") -> LayerReport:
    """Return what every value of a target's engine is, for one case.

    ``mode`` is ``unfused`` (the tensors between kernels, which leaves the engine as it is), ``outputs`` (values as
    outputs of further engines) or ``outputs:PATTERN`` (only these; as in a precision plan). Without one, the first mode
    the backend has. Raises NotJudged when the engine cannot be looked into, UsageError for an unknown mode.
    """
    started, spent = time.perf_counter(), dict(opened.steps.spent_s)
    chosen, pattern = choose_mode(opened, mode)
    outcome = verify_case(opened, case)
    if outcome.repeats is None:
        raise NotJudged(outcome.result.reason)
    opened.free()  # the engine under test is freed before the one to look into is loaded
    looker = _Looker(opened, case, outcome.result, outcome.repeats.worst)
    if opened.is_pytorch:
        chosen = "values"
        looker.look_at_pytorch()
    elif chosen == "unfused":
        looker.look_unfused()
    else:
        looker.look_at_outputs(pattern)
    report = looker.report(chosen)
    timings_s = {"layers": time.perf_counter() - started, **opened.steps.since(spent)}
    return dataclasses.replace(report, timings_s=timings_s)


def judge_and_look(opened: OpenTarget, case: str, *, mode: str = "") -> Result:
    """Return a verdict with the report on every value, or with a note why there is none.

    Raises UsageError for an unknown mode, before anything is built.
    """
    with contextlib.suppress(NotJudged):  # that becomes a note, beside a verdict
        choose_mode(opened, mode)
    result = verify_case(opened, case).result
    try:
        return dataclasses.replace(result, layers=look(opened, case, mode=mode))
    except UsageError:
        raise
    except ParityError as error:
        return dataclasses.replace(result, notes=(*result.notes, f"no layers: {error}"))


def choose_mode(opened: OpenTarget, mode: str) -> tuple[str, str]:
    """Return the tap mode and its pattern. Raises UsageError for one that does not exist or the backend has not."""
    kind, colon, pattern = mode.partition(":")
    known = opened.backend.tap_modes
    if mode and (kind not in ("unfused", "outputs") or (colon and kind != "outputs")):
        raise UsageError(f"unknown --layers mode {mode!r}; give unfused, outputs, or outputs:PATTERN")
    if not known:
        raise NotJudged(f"the {opened.backend.name} backend cannot be looked into")
    if not mode:
        return known[0], ""
    if kind not in known:
        raise NotJudged(f"the {opened.backend.name} backend has no {kind} taps; use --layers {known[0]}")
    return kind, pattern


class _Looker:
    """One look into one engine."""

    def __init__(self, opened: OpenTarget, case: str, result: Result, untapped: Tensors) -> None:
        self.opened, self.case, self.result, self.untapped = opened, case, result, untapped
        self.prepared, self.plan = opened.run.prepared, opened.plan
        self.values, self.depths = self.prepared.program.values, self.prepared.program.depths()
        self.notes: list[str] = []
        self.tapped: list[Tensors] = []
        self.fused: dict[str, str] = {}
        """Values that no tap shows, with what they are fused into."""
        self.observer: Observer
        self._say = opened.run.settings.progress

    def _start(self, asked: Collection[str]) -> Observer:
        evaluators = self.prepared.graph.evaluators(self.prepared.inputs[self.case], self.plan, asked)
        device = self.prepared.graph.device
        self.observer = Observer(evaluators, self.values, self.depths, precision=self.plan.computes_in, device=device)
        return self.observer

    def _progress(self, words: str) -> None:
        self._say(f"{self.prepared.subject.name}/{self.case} [{self.opened.target}]: {words}")

    def look_unfused(self) -> None:
        """Observe the tensors between the kernels of an engine whose fusion is as without."""
        with self.opened.observed(taps=True) as session:
            tapped: Any = session
            if not isinstance(tapped, TapSession):
                raise NotJudged(f"the {self.opened.backend.name} engine cannot be tapped; use --layers outputs")
            kernels = self.opened.steps.run("tapping", lambda: read_kernels(tapped.kernels()))
            typed = graph.apply(
                self.prepared.program.model,
                value_dtypes(self.prepared.graph, self.plan),
                default=self.plan.compute_dtype,
            )
            makers = Makers(typed.model, self.values, kernels)
            asked = {name for candidates in makers.candidates for name in candidates.names}
            taps = KernelTaps(makers, self._start(asked))
            inputs = self.prepared.inputs[self.case]
            self._progress(f"looking at the tensors between {len(kernels)} kernels")
            outputs = self.opened.steps.run("tapping", lambda: tapped.tap(inputs, taps.on_tensor))
            self.opened.steps.run("tapping", taps.flush)
        self.tapped.append(self._like(outputs))
        self._check_inputs(taps.inputs)
        self.fused = makers.fused()

    def look_at_outputs(self, pattern: str) -> None:
        """Observe values that are made outputs, in as many engines as their size asks for."""
        names = self._markable(pattern)
        groups = list(self._groups(names)) or [[]]  # a graph may compute nothing but its outputs
        self._start(names)
        for number, group in enumerate(groups, start=1):
            self._progress(f"looking at {len(group)} values as outputs, engine {number} of {len(groups)}")
            outputs = self._run_marked(group)
            for name in group:
                self.observer.see(name, outputs.pop(name), mapped_by="exact")
                self.observer.evaluators.done([name])
            self.tapped.append(self._like(outputs))
        for name in () if pattern else self.untapped:
            self.observer.see(name, self.tapped[-1][name], mapped_by="exact")
        if len(groups) > 1:
            self.notes.append(f"{len(groups)} engines were looked into, each with other values as outputs")

    def _run_marked(self, names: Sequence[str]) -> Tensors:
        inputs = self.prepared.inputs[self.case]
        with self.opened.observed(marked=names) as session:
            outputs: Tensors = self.opened.steps.run("running", lambda: session.run(inputs))
        return outputs

    def look_at_pytorch(self) -> None:
        """Observe every value of the floor: the backend is PyTorch itself."""
        names = [name for name in self.values if name in self.depths and self._is_evaluated_value(name)]
        observer = self._start(names)
        floor = observer.evaluators.floor
        for name in sorted(names, key=self.depths.__getitem__):
            tensor = floor.value(name)
            if tensor is not None:
                observer.see(name, tensor, mapped_by="exact")
            observer.evaluators.done([name])
        self.tapped.append(self.untapped)

    def _is_evaluated_value(self, name: str) -> bool:
        value = self.values[name]
        return value.shape is not None and name == value.origin and name not in self.prepared.program.outputs

    def _markable(self, pattern: str) -> list[str]:
        """Return the computed values of the graph, in dataflow order, that a pattern names; all for no pattern."""
        computed = set(graph.order(self.prepared.program.model)) - set(self.prepared.program.outputs)
        names = [name for name in self.values if name in computed]
        if pattern:
            kept = matching(pattern, self.values)
            names = [name for name in names if name in kept]
            if not names:
                raise UsageError(f"--layers outputs:{pattern} names no value that the graph computes")
        return sorted(names, key=self.depths.__getitem__)

    def _groups(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Yield the names in groups whose values, as the case has them, hold at most GROUP_BYTES."""
        group: list[str] = []
        held = 0
        for name in names:
            shape = self.values[name].shape
            size = 4 * math.prod(n if isinstance(n, int) else 1024 for n in shape) if shape is not None else GROUP_BYTES
            if group and held + size > GROUP_BYTES:
                yield group
                group, held = [], 0
            group.append(name)
            held += size
        if group:
            yield group

    def _like(self, outputs: Mapping[str, torch.Tensor]) -> Tensors:
        own = self.untapped
        return {name: tensor.to(own[name].device) for name, tensor in outputs.items() if name in own}

    def _check_inputs(self, seen: Mapping[str, torch.Tensor]) -> None:
        given = self.prepared.inputs[self.case]
        for name, tensor in seen.items():
            if name in given and not compare.bitwise_equal(tensor.to(given[name].device), given[name]):
                raise EngineFailed(f"the engine's input {name!r} is not what was given to it")

    def report(self, mode: str) -> LayerReport:
        """Put everything together."""
        effects = self._observer_effects()
        values = self._with_effects()
        values = self._account_for_all(values)
        first = next((v for v in values if v.mark == "nonfinite" and v.status == "compared"), None)
        provenance = self.result.provenance
        trusted = all(effect.identical or effect.difference < effect.error / 2 for effect in effects)
        return LayerReport(
            subject=self.result.subject,
            case=self.case,
            backend=self.result.backend,
            precision=self.result.precision,
            mode=mode,
            values=tuple(values),
            modules=tuple(_modules(values, self._output_error())),
            observer=effects,
            trusted=trusted,
            first_nonfinite=first.name if first else "",
            weights=provenance.weights if provenance else "",
            inputs=provenance.inputs if provenance else "",
            device=provenance.device if provenance else "",
            notes=(*self.result.notes, *self.notes, *self._trust_notes(effects, trusted)),
        )

    def _observer_effects(self) -> tuple[OutputEffect, ...]:
        errors = {output.name: _error(output) for output in self.result.outputs}
        effects = []
        for name, untapped in self.untapped.items():
            same = all(compare.bitwise_equal(tapped[name], untapped) for tapped in self.tapped)
            differences = [_difference(tapped[name], untapped) for tapped in self.tapped]
            difference = 0.0 if same else max(differences, default=math.inf)
            effects.append(OutputEffect(name=name, identical=same, difference=difference, error=errors[name]))
        return tuple(effects)

    def _trust_notes(self, effects: Sequence[OutputEffect], trusted: bool) -> list[str]:
        if trusted:
            return []
        hidden = [e.name for e in effects if math.isinf(e.error) and not e.identical]
        command = next_step(self.opened, self.case)
        if hidden:
            return [
                f"{', '.join(hidden)} is wrong only while nobody looks, so this is not the run that fails; {command} "
                "finds it with separately built parts of the graph"
            ]
        return [
            "looking changes the outputs by as much as the error that is looked for, so this observation cannot be "
            f"trusted; {command} uses separately built parts of the graph instead"
        ]

    def _with_effects(self) -> list[ValueFinding]:
        """Return the findings in dataflow order, with the effect on the outputs of the largest local errors."""
        findings = dict(self.observer.findings)
        # In dataflow order what comes before them all is computed once; of two errors of one value the larger is last.
        errors = sorted(self.observer.errors, key=lambda entry: (self.depths[entry[2]], entry[0]))
        if errors:
            self._progress(f"propagating the {len(errors)} largest local errors to the outputs")
        evaluator = self.prepared.graph.evaluator(self.prepared.inputs[self.case])
        expected = evaluator.fork().outputs() if errors else {}
        for _, _, name, error in errors:
            effect = self._effect(evaluator, name, error, expected)
            mark = findings[name].mark
            if mark == "suspect" and effect <= self._harmless():
                mark = "healed"
            findings[name] = dataclasses.replace(findings[name], effect=effect, mark=mark)
        self._explain_decisions(expected)
        if self.result.verdict == "pass":
            for name, finding in findings.items():
                if finding.mark == "nonfinite":
                    reason = f"{finding.reason}; it does not reach the outputs, which are right"
                    findings[name] = dataclasses.replace(finding, mark="healed", reason=reason)
        return sorted(findings.values(), key=lambda finding: finding.depth)

    def _effect(self, evaluator: Evaluator, name: str, error: torch.Tensor, expected: Tensors) -> float:
        name = self.observer.evaluators.canonical(name)
        value = evaluator.value(name)
        if value is None:  # what only the ONNX graph has may be computed from what PyTorch has freed
            return math.nan
        disturbed = evaluator.fork()
        disturbed.observe(name, value + error.reshape(value.shape).to(value.dtype))
        return total_error(disturbed.outputs(), expected)

    def _harmless(self) -> float:
        """Return an effect that no verdict depends on: the floor of the output that is most exact."""
        floors = [output.floor.relative_l2 for output in self.result.outputs if output.floor is not None]
        return min(floors, default=0.0) / FACTOR

    def _explain_decisions(self, expected: Tensors) -> None:
        """Note how far the engine is from a reference that decides as the engine did."""
        if not self.observer.decisions:
            return
        evaluator = self.prepared.graph.evaluator(self.prepared.inputs[self.case])
        for name, decision in self.observer.decisions.items():
            evaluator.observe(self.observer.evaluators.canonical(name), decision)
        apart, together = total_error(self.untapped, evaluator.outputs()), self._output_error()
        flipped = ", ".join(self.observer.decisions)
        self.notes.append(
            f"discrete decisions fall otherwise ({flipped}): the outputs are {together:.3g} from the reference, and "
            f"{apart:.3g} from the reference with the engine's decisions"
        )

    def _output_error(self) -> float:
        return max((_error(output) for output in self.result.outputs), default=math.inf)

    def _account_for_all(self, findings: list[ValueFinding]) -> list[ValueFinding]:
        """Add what was not seen: strays of the engine, and values that no tap shows."""
        seen = {finding.name for finding in findings}
        seen |= {self.observer.evaluators.canonical(name) for name in seen}
        rest = []
        for name, value in self.values.items():
            if name not in self.depths or {name, self.observer.evaluators.canonical(name)} & seen:
                continue
            where = self.fused.get(name, "")
            reason = "inside a kernel" if where else "no tap shows it"
            if value.dtype and "float" not in value.dtype:
                reason = f"{value.dtype}; {reason}"
            rest.append(
                ValueFinding(
                    name=name, op=value.op, module=value.module, source=value.source, depth=self.depths[name],
                    status="not_delivered", reason=reason, kernel=where,
                )
            )  # fmt: skip
        return [*sorted([*findings, *rest], key=lambda finding: finding.depth), *self.observer.strays]


def _modules(values: Sequence[ValueFinding], output_error: float) -> list[ModuleFinding]:
    """Return one finding per module, worst first."""
    groups: dict[str, list[ValueFinding]] = {}
    for value in values:
        if value.status == "compared":
            groups.setdefault(value.module, []).append(value)
    modules = []
    for module, members in groups.items():
        worst, last = worst_first(members)[0], members[-1]
        effects = [v.effect for v in members if v.effect is not None and math.isfinite(v.effect)]
        share = sum(e * e for e in effects) / output_error**2 if effects and 0 < output_error < math.inf else None
        modules.append(
            ModuleFinding(
                module=module, values=len(members), worst=worst.name, op=worst.op, local=worst.local,
                local_floor=worst.local_floor, propagated=last.stats.relative_l2 if last.stats else None,
                floor=last.floor, share=share, mark=min((v.mark for v in members), key=MARKS.index),
            )
        )  # fmt: skip
    ratios = {value.name: local_ratio(value) for value in values}
    return sorted(modules, key=lambda module: (MARKS.index(module.mark), -ratios[module.worst]))


def _error(output: OutputResult) -> float:
    stats = output.stats
    return math.inf if stats is None or stats.mismatched_nonfinite else stats.relative_l2


def _difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return relative_l2(actual, expected) if actual.shape == expected.shape else math.inf

"""Part after part of a model is built, run on what the reference gives it, and judged by what it loses itself."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from harness.bringup.calls import Call, Model
from harness.bringup.parts import Found, Part, alone, check_masks, cut, find_parts
from harness.errors import NotJudged, ParityError, UsageError
from harness.graph import assign
from harness.ledger import UPTO, Entry, Ledger, as_known, is_launched, not_launched
from harness.records import BringUp, ModelPart, OutputResult, Result, ResultVerdict, overall, times_limit
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.verify import OpenTarget, Run, case_inputs, verify_case

_MODELS: WeakKeyDictionary[Run, Model] = WeakKeyDictionary()
"""The model of each run that was asked for its parts: tests of several cases and targets build it once."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which parts of a model are asked for."""

    prefix: str = ""
    """The module whose children are the parts; empty for that of the subject, or the first level of several."""
    upto: str = ""
    """The module after which the last model is cut; empty to build each part alone."""
    keep_going: bool = False
    """Whether to go on behind a part that fails."""


@dataclass(kw_only=True)
class _Line:
    """One case of one target, part by part."""

    target: Target
    case: str
    plan_source: str
    parts: list[ModelPart] = field(default_factory=list)
    device: str = ""
    results: list[Result] = field(default_factory=list)


class BringingUp:
    """The parts of a subject and what became of them so far."""

    def __init__(
        self, model: Model, targets: Sequence[Target], cases: Sequence[str], settings: Settings, request: Request,
        ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        """Raises UsageError for a module that is not there, and where none runs."""
        self.model, self.targets, self.settings, self.request = model, targets, settings, request
        subject = model.subject
        check_masks(model)
        self._cases = [*subject.cases, *(case for case in subject.range_cases if _is_had(model, case))]
        prefix = request.prefix or ("" if request.upto else subject.parts)
        self.found: Found = find_parts(model, self._cases, prefix, request.upto)
        root = settings.root
        self._lines = [
            _Line(target=target, case=case, plan_source=target.plan_source(root))
            for target in targets
            for case in cases
        ]
        self._stopped: dict[Target, str] = {}
        self._ledger = ledger or Ledger()
        paths = [path for path, _ in model.module.named_modules(remove_duplicate=False) if path]
        self._ledger.check_parts(subject.name, subject.source, paths)
        self._entries = {
            (line.target, line.case, call.name): self._entry(line, call)
            for line in self._lines
            for call in self.found.calls
        }

    def run(self) -> Iterator[ModelPart]:
        """Judge part after part; each target stops behind the first that fails, unless it is to go on."""
        for place, call in enumerate(self.found.calls, start=1):
            going = [target for target in self.targets if target not in self._stopped]
            if not going:
                return
            self._say(f"part {place} of {len(self.found.calls)}: {call.name}")
            for part, run in self._engines_of(call):
                yield from self._judged(part, run, call, going)

    def _engines_of(self, call: Call) -> Iterator[tuple[Part, Run]]:
        """Yield a call of a module as what can be verified; sizes that are bound to each other each by itself."""
        if self.request.upto:
            for part in cut(self.model, call):
                yield part, Run(part.subject, self.settings)
            return
        for part in alone(self.model, call, self._cases, dynamic=bool(self.model.subject.dynamic)):
            run = Run(part.subject, self.settings)
            if not (why := _not_traced(run) if part.subject.dynamic else ""):
                yield part, run
                continue
            note = Sentence("engine_for_each_size", why=why)
            for one in alone(self.model, call, list(part.subject.cases), dynamic=False):
                yield replace(one, notes=(*one.notes, note)), Run(one.subject, self.settings)

    def _judged(self, part: Part, run: Run, call: Call, going: Sequence[Target]) -> Iterator[ModelPart]:
        for target in going:
            lines = [line for line in self._lines if line.target == target and _has(part, line.case)]
            if not lines:
                continue
            with run.target(target) as opened:
                keep_what_is_here(opened)
                for line in lines:
                    one = self._judge(opened, part, call, line)
                    line.parts.append(one)
                    self._say(f"{line.case} [{target}] {call.name}: {one.verdict.replace('_', ' ')}{_floors(one)}")
                    if one.verdict == "fail" and not (self.request.keep_going or _passes_now(one)):
                        self._stopped.setdefault(target, call.name)
                    yield one

    def _judge(self, opened: OpenTarget, part: Part, call: Call, line: _Line) -> ModelPart:
        kind = type(self.model.module.get_submodule(call.path)).__name__
        shapes: dict[str, tuple[int, ...]] = {}
        entry, subject = self._entries[line.target, line.case, call.name], self.model.subject
        if not (is_launched(entry) or self._ledger.launches_all):
            assert entry is not None
            result = not_launched(subject, line.target, line.case, self._ledger, entry, line.plan_source)
            line.results.append(result)
            return _recorded(result, module=call.name, kind=kind, shapes=shapes, notes=part.notes, next_step="")
        try:
            if not part.takes_tensors:
                raise NotJudged(Sentence("takes_no_tensor"))
            shapes = {name: tuple(one.shape) for name, one in case_inputs(part.subject, line.case).items()}
            result = verify_case(opened, line.case).result
        except (UsageError, NotJudged) as error:  # about this module, and no wrong request
            return ModelPart(module=call.name, kind=kind, verdict="not_judged", reason=str(error), shapes=shapes)
        failed = result.verdict == "fail"
        if entry is not None:
            result = as_known(result, self._ledger, entry, owner=subject.owner)
        line.results.append(result)
        if result.provenance is not None and result.engine is not None:
            line.device = result.provenance.device
        return _recorded(result, module=call.name, kind=kind, shapes=shapes, notes=part.notes,
                         next_step=self._next_step(call, line) if failed else "")  # fmt: skip

    def _entry(self, line: _Line, call: Call) -> Entry | None:
        """Return the entry of the ledger about a part. Raises UsageError where there are two."""
        subject, name = self.model.subject, f"{UPTO if self.request.upto else ''}{call.name}"
        return self._ledger.entry_of(subject.name, str(line.target), line.case, source=subject.source, part=name)

    def _next_step(self, call: Call, line: _Line) -> str:
        """Return the command that looks into a part that fails."""
        subject, module = self.model.subject, self.model.module.get_submodule(call.path)
        options = ["-b", line.target.backend, "-p", line.target.precision]
        if len(self.model.subject.cases) > 1 or line.case in subject.range_cases:
            options += ["--case", line.case]
        if any(True for _ in module.children()):
            return f"parity parts {subject.as_typed} {shlex.join([*options, '--prefix', call.path])}"
        return f"parity verify {subject.as_typed} {shlex.join([*options, '--layers', f'outputs:{call.path}'])}"

    @property
    def results(self) -> list[Result]:
        """The verdicts on the engines so far, each with its part as the subject."""
        return [result for line in self._lines for result in line.results]

    def records(self) -> list[BringUp]:
        """Return what was found so far, one record per target and case; what was not reached is named as such."""
        return [self._record(line) for line in self._lines]

    def _record(self, line: _Line) -> BringUp:
        subject, known = self.model.subject, {part.module for part in line.parts}
        stopped = self._stopped.get(line.target, "")
        why = Sentence("not_reached_since", stopped=stopped) if stopped else Sentence("not_reached")
        behind = [call for call in self.found.calls if call.name not in known] if stopped else []
        parts = (*line.parts, *(self._not_reached(call, why) for call in behind))
        verdict = _overall(part.verdict for part in parts)
        worst = next((part for part in parts if part.verdict == verdict), None)
        passed = sum(part.verdict == "pass" for part in parts)
        reason = Sentence("parts_passed", passed=passed, count=len(parts))
        if verdict != "pass" and worst is not None:
            reason += Sentence("module_reason", module=worst.module, reason=worst.reason)
        return BringUp(
            subject=subject.name, case=line.case, backend=line.target.backend, precision=line.target.precision_name,
            source=subject.source, plan_source=line.plan_source, prefix=self.found.prefix, upto=self.request.upto,
            verdict=verdict, reason=reason, weights=subject.weights, inputs=subject.inputs, device=line.device,
            parts=parts, not_run=self.found.not_run, owner=subject.owner,
        )  # fmt: skip

    def _not_reached(self, call: Call, why: str) -> ModelPart:
        kind = type(self.model.module.get_submodule(call.path)).__name__
        return ModelPart(module=call.name, kind=kind, verdict="not_judged", reason=why, reached=False, shapes={})

    def _say(self, words: str) -> None:
        self.settings.progress(Sentence("of", name=self.model.subject.name, reason=words))


def bring_up(
    subject: Subject, *, targets: Sequence[Target], cases: Sequence[str], settings: Settings, request: Request,
    ledger: Ledger | None = None,
) -> BringingUp:  # fmt: skip
    """Return the parts of a subject, ready to be judged; those of ``ledger`` may fail as it says.

    Raises UsageError and NotJudged where there are none, and UsageError for an entry of the ledger that names none.
    """
    return BringingUp(Model(subject, settings), targets, cases, settings, request, ledger)


def bring_up_opened(opened: OpenTarget, case: str, request: Request, ledger: Ledger | None = None) -> BringUp:
    """Return what became of the parts of an opened target's subject in one case. Raises UsageError and NotJudged."""
    run = opened.run
    if run not in _MODELS:
        _MODELS[run] = Model(run.subject, run.settings)
    found = BringingUp(_MODELS[run], [opened.target], [case], run.settings, request, ledger)
    for _ in found.run():
        pass
    return found.records()[0]


def keep_what_is_here(opened: OpenTarget) -> None:
    """Leave out what a plan keeps in FP32 in other parts of the model."""
    if not opened.plan.keep_fp32:
        return
    try:
        values = opened.run.prepared.program.values
    except ParityError:  # the verdict says why
        return

    def is_here(pattern: str) -> bool:
        try:
            return bool(assign(replace(opened.plan, keep_fp32=(pattern,)), values))
        except UsageError:
            return False

    opened.plan = replace(opened.plan, keep_fp32=tuple(filter(is_here, opened.plan.keep_fp32)))


def _is_had(model: Model, case: str) -> bool:
    """Return whether a generated case can be made of this model's inputs, and run."""
    try:
        model.order(case)
    except (UsageError, NotJudged):
        return False
    return True


def _not_traced(run: Run) -> str:
    """Return why PyTorch cannot trace a subject; empty where it can, and where the request is wrong."""
    try:
        run.prepared  # noqa: B018
    except NotJudged as error:
        return str(error)
    except UsageError:  # the verdict says why
        pass
    return ""


def _overall(verdicts: Iterable[ResultVerdict]) -> ResultVerdict:
    """Return the verdict on a model by its parts; what is known to fail hides no part that was not judged."""
    seen = list(verdicts)
    found = overall("pass" if one == "known" else one for one in seen)
    return "known" if found == "pass" and "known" in seen else found


def _passes_now(part: ModelPart) -> bool:
    """Return whether a part fails for its entry in the ledger alone, which says that it would."""
    return part.known is not None and part.known.verdict == "pass"


def _has(part: Part, case: str) -> bool:
    return case in part.subject.cases or case in part.subject.range_cases


def _recorded(
    result: Result, *, module: str, kind: str, shapes: dict[str, tuple[int, ...]], notes: tuple[str, ...],
    next_step: str,
) -> ModelPart:  # fmt: skip
    bare = (result.known and result.known.verdict) or result.verdict
    deciding = [one for one in result.outputs if one.verdict == bare and one.stats]
    times = times_limit(result.to_json()) if bare == "fail" else math.inf
    worst = max(deciding, key=_excess, default=None)
    return ModelPart(
        module=module, kind=kind, verdict=result.verdict,
        reason=result.reason, failure=result.failure, output=worst.name if worst else "",
        error=worst.stats.relative_l2 if worst and worst.stats else None,
        floor=worst.floor.relative_l2 if worst and worst.floor else None, ratio=_ratio(worst) if worst else None,
        times_limit=times if math.isfinite(times) else None, known=result.known,
        shapes=shapes, engine_sha256=result.engine.sha256 if result.engine else "",
        seconds=result.timings_s.get("judge", 0.0), notes=(*notes, *result.notes), next_step=next_step,
    )  # fmt: skip


def _ratio(output: OutputResult) -> float | None:
    floor = output.floor.relative_l2 if output.floor else 0.0
    return output.stats.relative_l2 / floor if output.stats and floor else None


def _excess(output: OutputResult) -> tuple[float, float]:
    """Return what puts outputs in order: how far beyond its limit the worst part is, then the error."""
    parts = [abs(part.error) / part.allowed for part in output.parts if part.allowed]
    return max(parts, default=0.0), output.stats.relative_l2 if output.stats else 0.0


def _floors(part: ModelPart) -> str:
    return f", {part.ratio:.3g} floors" if part.ratio is not None else ""

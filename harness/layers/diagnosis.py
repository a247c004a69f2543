"""From the errors that were seen in an engine to the places that make its outputs wrong: all of them, and no others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from harness.compare import total_error
from harness.errors import NotJudged
from harness.layers.explaining import REAL, Explaining
from harness.layers.inside import Step, steps_inside
from harness.layers.local_error import Reached
from harness.layers.observation import Unobserved
from harness.layers.observer import KeptError, Observer
from harness.layers.propagation import Propagation
from harness.records import HARMLESS, MADE_HERE, Culprit, Diagnosis, ErrorShape, Mark, ValueFinding
from harness.sentences import Sentence, joined
from harness.verify import FACTOR

PROPAGATED, SUSPECTS = 16, 64
"""The effect on the outputs is computed for the PROPAGATED largest local errors, and for suspects among the SUSPECTS
largest; where the outputs are wrong, for every culprit."""


@dataclass(kw_only=True)
class _Looked:
    """What is known of the local errors of one engine."""

    findings: dict[str, ValueFinding]
    errors: dict[str, KeptError]
    """The largest kept error of each value."""
    effects: dict[str, float | None] = field(default_factory=dict)
    """On the outputs, of those that were propagated alone; None where that was impossible."""
    explains: dict[str, float] = field(default_factory=dict)
    """Of the squared error of the wrong output that it explains most of: alone, or what is left more without it."""
    hidden: set[str] = field(default_factory=set)
    """Culprits that cannot explain anything, since the outputs are no numbers."""
    inside: dict[str, ValueFinding] = field(default_factory=dict)
    """Operations inside a kernel that were replayed, and lose what the kernel's value lost."""
    reached: dict[str, Reached] = field(default_factory=dict)
    """Where values leave the range of the format."""
    replaced: dict[str, ErrorShape] = field(default_factory=dict)
    """The outputs that hold something else: only the verdict knows what the others should hold."""

    def finding(self, name: str) -> ValueFinding:
        """Return what is known of a value that was observed, or of an operation inside a kernel."""
        return self.inside.get(name) or self.findings[name]

    @property
    def made_here(self) -> list[KeptError]:
        """The kept errors above their limits."""
        return [kept for name, kept in self.errors.items() if self.findings[name].mark in MADE_HERE]


def diagnose(before: Unobserved, observer: Observer) -> tuple[list[ValueFinding], Diagnosis | None]:
    """Return the findings in dataflow order, with effects and final marks, and where the error of the outputs is made.

    There is no diagnosis of outputs that are right.
    """
    errors: dict[str, KeptError] = {}
    for kept in sorted(observer.errors):
        errors[kept.name] = kept  # of two errors of one value the larger is last
    shapes = {output.name: output.looks_like for output in before.result.outputs}
    looked = _Looked(
        findings=dict(observer.findings), errors=errors, reached=dict(observer.reached),
        replaced={name: shape for name, shape in shapes.items() if shape and shape.kind in ("swapped", "stale")},
    )  # fmt: skip
    right = before.result.verdict == "pass"
    if not errors and right:
        return _in_order(looked), None
    before.opened.say(f"propagating the largest of {len(errors)} local errors to the outputs", before.case)
    harmless = _harmless_effect(before)
    try:
        propagation = Propagation(before, observer)
        explaining = None if right else Explaining(before, propagation)
        _measure(looked, propagation, explaining, _largest(looked))
        if explaining is not None and explaining.wrong:
            return _explained(looked, before, observer, propagation, explaining)
    except NotJudged as error:  # the effects are not known then; what was made here stays what it is
        before.opened.say(Sentence("no_effects", error=error), before.case)
    names = (
        [] if right else [f.name for f in looked.findings.values() if f.mark in MADE_HERE and f.status == "compared"]
    )
    _mark_harmless(looked, names, harmless, right=right)
    return _in_order(looked), None if right else _record(looked, names, None, False)


def _explained(
    looked: _Looked, before: Unobserved, observer: Observer, propagation: Propagation, explaining: Explaining
) -> tuple[list[ValueFinding], Diagnosis]:
    """Return the findings and the diagnosis of outputs of which it can be measured how far they are explained."""
    harmless = _harmless_effect(before)
    found, complete = _culprits(looked, explaining, harmless)
    shown = [kept.name for kept in found]
    errors = looked.errors.values()
    found = _go_inside(looked, explaining, found, lambda name: steps_inside(before, observer, name, errors))
    _measure(looked, propagation, explaining, [kept for kept in found if kept.name not in looked.effects])
    left = explaining.left(found)
    for name, needed in explaining.needed(found).items():
        looked.explains[name] = max(looked.explains.get(name, 0.0), needed)
    names = [kept.name for kept in found]
    if not complete:
        names += [name for name in _unpropagated(looked) if name not in names]
    _mark_harmless(looked, [*names, *shown], math.inf if complete else harmless, right=False)
    return _in_order(looked), _record(looked, names, left, complete)


def _largest(looked: _Looked) -> list[KeptError]:
    """Return the errors whose effect is always computed."""
    errors = sorted(looked.errors.values(), reverse=True)
    suspects = [kept for kept in errors[PROPAGATED:SUSPECTS] if looked.findings[kept.name].mark in MADE_HERE]
    return [*errors[:PROPAGATED], *suspects]


def _measure(
    looked: _Looked, propagation: Propagation, explaining: Explaining | None, errors: Sequence[KeptError]
) -> None:
    """Propagate each of these errors alone."""
    for kept, outputs in propagation.alone(errors):
        effect = None if outputs is None else total_error(outputs, propagation.expected)
        looked.effects[kept.name] = effect
        if kept.name not in looked.inside:
            looked.findings[kept.name] = replace(looked.findings[kept.name], effect=effect)
        if explaining is not None and outputs is not None:
            looked.explains[kept.name] = explaining.explained(outputs)


def _culprits(looked: _Looked, explaining: Explaining, harmless: float) -> tuple[list[KeptError], bool]:
    """Return the errors that together explain what is wrong, and whether they explain all of it."""

    def most_first(errors: Sequence[KeptError]) -> list[KeptError]:
        return sorted(errors, key=lambda kept: _rank(looked, kept.name))

    suspects = most_first([kept for kept in looked.made_here if looked.effects.get(kept.name, 0.0) is not None])
    rest = [kept for kept in looked.errors.values() if all(kept is not other for other in suspects)]
    chosen, complete = explaining.smallest(suspects)
    if not complete:
        chosen = [kept for kept in suspects if not _is_at_most(looked.effects.get(kept.name), harmless)]
        more, complete = explaining.more(chosen, sorted(rest, key=lambda kept: looked.findings[kept.name].depth))
        # Where much is left all the same, the little that rounding here and there takes away of it says nothing.
        chosen += more if complete else [kept for kept in more if explaining.alone(kept) >= REAL]
        if complete:
            chosen, complete = explaining.smallest(most_first(chosen))
    if explaining.hides_others:  # behind NaN nothing else is seen: other errors that would reach the outputs stay
        left_out = [kept for kept in suspects if all(kept is not other for other in chosen)]
        hidden = [kept for kept in left_out if not _is_at_most(looked.effects.get(kept.name), harmless)]
        looked.hidden = {kept.name for kept in hidden}
        chosen += hidden
    return chosen, complete


def _go_inside(
    looked: _Looked, explaining: Explaining, found: list[KeptError], steps_of: Callable[[str], list[Step]]
) -> list[KeptError]:
    """Return the culprits, with operations inside a kernel in the place of its value where their rounding explains it.

    That is so where PyTorch loses as much in this format as the engine, or gives no number either.
    """
    for value in list(found):
        finding = looked.findings[value.name]
        if finding.mark in ("suspect", "flip") or not (steps := steps_of(value.name)):
            continue
        others = [kept for kept in found if kept is not value]
        inner = explaining.instead(value, [step.kept for step in steps], others)
        if inner and finding.mark == "nonfinite":  # behind the one that is enough the others are not seen
            also = [step.kept for step in steps if step.nonfinite and all(step.kept is not kept for kept in inner)]
            looked.hidden |= {kept.name for kept in also}
            inner = sorted([*inner, *also], key=lambda kept: -kept.number)
        if not inner or inner == [steps[-1].kept]:
            continue
        found = [*others, *inner]
        kernel = finding.kernel or value.name
        looked.findings[value.name] = replace(
            finding, reason=joined((finding.reason, Sentence("made_inside", names=[kept.name for kept in inner])))
        )  # fmt: skip
        for step in (step for step in steps if any(step.kept is kept for kept in inner)):
            it = step.value
            looked.inside[it.name] = ValueFinding(
                name=it.name, op=it.op, module=it.module, source=it.source, folded=it.folded, depth=step.depth,
                status="not_delivered", kernel=kernel, local=step.error, local_floor=step.error,
                mark="nonfinite" if step.nonfinite else "suspect",
            )  # fmt: skip
            if step.reached is not None:
                looked.reached[it.name] = step.reached
    return found


def _rank(looked: _Looked, name: str) -> tuple[bool, float, int]:
    """Return the order of culprits: what is no number in dataflow order, then what explains most.

    Of what explains as much the first in dataflow order comes first.
    """
    depth, explains = looked.finding(name).depth, looked.explains.get(name)
    if looked.finding(name).mark == "nonfinite":
        return False, 0.0, depth
    return True, 0.0 if explains is None or name in looked.hidden else -round(explains, 2), depth


def _unpropagated(looked: _Looked) -> list[str]:
    """Return the values that are wrong here, of which it is not known what they do to the outputs."""
    found = [finding for finding in looked.findings.values() if finding.mark in MADE_HERE]
    return [f.name for f in found if f.status == "compared" and looked.effects.get(f.name) is None]


def _mark_harmless(looked: _Looked, culprits: Sequence[str], harmless: float, *, right: bool) -> None:
    """Let marks say what was found: culprits are made here; what reaches no output by more than this is harmless."""
    for name, finding in looked.findings.items():
        if name in culprits:
            mark: Mark = finding.mark if finding.mark in MADE_HERE else "suspect" if finding.stats else "flip"
            looked.findings[name] = replace(finding, mark=mark)
        elif finding.status == "compared" and finding.mark in MADE_HERE and not (right and finding.mark == "flip"):
            effect = looked.effects.get(name, harmless if name in looked.errors and not right else None)
            if finding.mark == "nonfinite" and (right or effect == 0):
                why = Sentence("no_outputs_right") if right else Sentence("no_outputs")
                reason = joined((finding.reason, why))
                looked.findings[name] = replace(finding, mark=HARMLESS, reason=reason)
            elif finding.mark != "nonfinite" and _is_at_most(effect, harmless):
                looked.findings[name] = replace(finding, mark=HARMLESS)


def _record(looked: _Looked, names: Sequence[str], left: float | None, complete: bool) -> Diagnosis:
    ordered = sorted(names, key=lambda name: _rank(looked, name))
    compared = [finding for finding in looked.findings.values() if finding.status == "compared"]
    first = min((looked.finding(name).depth for name in names), default=math.inf)
    return Diagnosis(
        culprits=tuple(_culprit(looked, name) for name in ordered),
        right_before=sum(f.depth < first and f.mark in ("ok", HARMLESS) for f in compared) if names else 0,
        wrong_later=sum(f.depth > first and f.mark == "passed_on" for f in compared),
        compared=len(compared),
        left=left,
        complete=complete,
    )


def _culprit(looked: _Looked, name: str) -> Culprit:
    finding, beyond = looked.finding(name), looked.reached.get(name)
    measured = finding.local is not None and math.isfinite(finding.local) and finding.mark != "nonfinite"
    return Culprit(
        value=name, op=finding.op, module=finding.module, source=finding.source, folded=finding.folded,
        error=finding.local if measured else None, floor=finding.local_floor,
        explains=None if name in looked.hidden else looked.explains.get(name),
        looks_like=looked.replaced.get(name, finding.looks_like),
        inside=finding.kernel if name in looked.inside else "",
        reason=beyond.words if beyond else finding.reason,
    )  # fmt: skip


def _is_at_most(effect: float | None, limit: float) -> bool:
    """Return whether an effect is known to be no larger."""
    return effect is not None and effect <= limit


def _harmless_effect(before: Unobserved) -> float:
    """Return an effect too small to change a verdict: the smallest floor of the outputs over FACTOR."""
    floors = [output.floor.relative_l2 for output in before.result.outputs if output.floor is not None]
    return min((floor for floor in floors if math.isfinite(floor)), default=0.0) / FACTOR


def _in_order(looked: _Looked) -> list[ValueFinding]:
    return sorted(looked.findings.values(), key=lambda finding: finding.depth)

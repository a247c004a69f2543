"""Which errors of an engine, together, explain what is wrong with its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.layers.observation import Unobserved
from harness.layers.observer import KeptError
from harness.layers.propagation import Propagation
from harness.layers.wrong_outputs import WrongOutput, holds, judge_against, wrong_outputs
from harness.records import OutputResult
from harness.tensors import Tensors

# How far the next three and SAME matter: python -m benchmarks.diagnosis --only several --with REAL=0.1
LEFT = 0.05
"""Share of the squared error that may be left where PyTorch loses as much in this precision, so that no floor says what
is allowed."""
REAL = 0.05
"""Share of what is left that an error which is no suspect must explain: rounding is everywhere, a little of it each."""
LITTLE = 0.05
"""A suspect that explains less than this is left out to see whether it is needed."""
MOST_RUNS = 96
"""How often the whole graph is computed to find out what explains an error, at most."""
MOST_ROUNDS = 3
MOST_NEEDED = 32
"""Culprits of which each is left out once, to see what is left more without it."""


class Explaining:
    """Holds an engine's outputs against those of PyTorch with errors added."""

    def __init__(self, before: Unobserved, propagation: Propagation) -> None:
        self._before, self._propagation = before, propagation
        expected = propagation.expected
        self.wrong = wrong_outputs(before.result.outputs, before.outputs, expected)
        """What is wrong; empty where none of it can be measured."""
        _, low = propagation.with_floor(())
        judged = self._judged(expected, low)
        failed = {output.name for output in judged if output.verdict == "fail"}
        self._by_verdict = holds(low, expected) and any(wrong.name in failed for wrong in self.wrong)
        """Whether PyTorch in this precision says what is allowed. It does not where it loses as much as the engine."""

    @property
    def hides_others(self) -> bool:
        """Whether what is wrong is no number, behind which no other error can be seen."""
        return any(w.actual.is_floating_point() and not bool(w.actual.isfinite().all()) for w in self.wrong)

    def explained(self, outputs: Tensors) -> float:
        """Return the largest share of the squared error of a wrong output that these outputs show too, 0 to 1."""
        return max((min(max(1 - wrong.left(outputs), 0.0), 1.0) for wrong in self.wrong), default=0.0)

    def alone(self, kept: KeptError) -> float:
        """Return what one error alone explains."""
        outputs = next(self._propagation.alone([kept]))[1]
        return 0.0 if outputs is None else self.explained(outputs)

    def left(self, errors: Sequence[KeptError]) -> float:
        """Return the largest share of the squared error of a wrong output that these errors together do not explain."""
        outputs = self._propagation.together(errors)
        return max(wrong.left(outputs) for wrong in self.wrong)

    def needed(self, errors: Sequence[KeptError]) -> dict[str, float]:
        """Return of each of these errors what is left more without it, 0 to 1; of one of very many it is not known."""
        if not 1 < len(errors) <= MOST_NEEDED:
            return {}
        given, found = self._propagation.together(errors), {}
        for kept in errors:
            without = self._propagation.together([other for other in errors if other is not kept])
            found[kept.name] = max(min(wrong.left(without), 1.0) - wrong.left(given) for wrong in self.wrong)
        return found

    def complete(self, errors: Sequence[KeptError]) -> bool:
        """Return whether what these errors do not explain is no more than an engine may lose."""
        if not self._by_verdict:
            outputs = self._propagation.together(errors)
            return all(wrong.left(outputs) <= LEFT for wrong in self.wrong)
        return all(output.verdict == "pass" for output in self._judged(*self._propagation.with_floor(errors)))

    def smallest(self, ordered: Sequence[KeptError]) -> tuple[list[KeptError], bool]:
        """Return the fewest of these errors, the first ones first, that are complete; all and False where none are."""
        if not ordered or not self.complete(ordered):
            return list(ordered), False
        few, enough = 0, len(ordered)  # none are not enough, all are
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (few, middle) if self.complete(ordered[:middle]) else (middle, enough)
        chosen = list(ordered[:enough])
        for kept in ordered[: enough - 1]:
            without = [other for other in chosen if other is not kept]
            if self.alone(kept) < LITTLE and self._propagation.runs < MOST_RUNS and self.complete(without):
                chosen = without
        return chosen, True

    def instead(self, value: KeptError, steps: Sequence[KeptError], others: Sequence[KeptError]) -> list[KeptError]:
        """Return the fewest steps that, beside the other errors, explain as much as a value's own error; else none."""
        as_much = self.left([*others, value]) + REAL
        alone = {kept.number: self.explained(outputs) for kept, outputs in self._propagation.alone(steps) if outputs}
        ordered = sorted(steps, key=lambda kept: (-round(alone.get(kept.number, 0.0), 2), -kept.number))
        if self.left([*others, *ordered]) > as_much:
            return []
        chosen = list(ordered)
        for kept in reversed(ordered):  # those that explain least are left out first
            without = [other for other in chosen if other is not kept]
            if without and self._propagation.runs < MOST_RUNS and self.left([*others, *without]) <= as_much:
                chosen = without
        return sorted(chosen, key=lambda kept: -kept.number)

    def more(self, given: Sequence[KeptError], others: Sequence[KeptError]) -> tuple[list[KeptError], bool]:
        """Return which other errors, in dataflow order, explain what the given ones leave, and whether that is all."""
        found: list[KeptError] = []
        for _ in range(MOST_ROUNDS):
            known = [*given, *found]
            left = self._left_by(known)
            new = _Halving(self._propagation, left, known).among([kept for kept in others if kept not in found])
            found += new
            if not new or self.complete([*given, *found]):
                break
        return found, bool(found) and self.complete([*given, *found])

    def _left_by(self, errors: Sequence[KeptError]) -> list[WrongOutput]:
        """Return what is still wrong when the engine is held against PyTorch with these errors."""
        if self._by_verdict:
            outputs, low = self._propagation.with_floor(errors)
            return wrong_outputs(self._judged(outputs, low), self._before.outputs, outputs)
        outputs = self._propagation.together(errors)
        left = [(wrong, wrong.left(outputs)) for wrong in self.wrong]
        return [replace(wrong, total=wrong.total * share) for wrong, share in left if share > LEFT]

    def _judged(self, expected: Tensors, low: Tensors) -> list[OutputResult]:
        return judge_against(self._before.outputs, expected, low, precision=self._before.opened.plan.computes_in)


class _Halving:
    """Finds errors that explain a real share of what is wrong among many, half by half."""

    def __init__(self, propagation: Propagation, wrong: Sequence[WrongOutput], given: Sequence[KeptError]) -> None:
        self._propagation, self._wrong = propagation, wrong
        self._given = list(given)
        self._known: dict[frozenset[int], list[float]] = {}
        """What sets of errors leave of each output."""

    def among(self, errors: Sequence[KeptError]) -> list[KeptError]:
        """Return them, in the order given."""
        if not errors or not self._wrong or self._gain(errors, []) < REAL:
            return []
        return self._search(list(errors), [])

    def _search(self, errors: list[KeptError], given: list[KeptError]) -> list[KeptError]:
        if len(errors) == 1 or self._propagation.runs > MOST_RUNS:
            return errors if len(errors) == 1 else []
        half = len(errors) // 2
        first, second = errors[:half], errors[half:]
        gains = self._gain(first, given), self._gain(second, given)
        if max(gains) >= REAL:
            parts = [part for part, gain in zip((first, second), gains, strict=True) if gain >= REAL]
            return [kept for part in parts for kept in self._search(part, given)]
        if 2 * sum(gains) > self._gain(errors, given):
            return []  # spread over many
        found = self._search(second, [*given, *first])  # each is seen only where the other is too
        return [*self._search(first, [*given, *found]), *found]

    def _gain(self, errors: Sequence[KeptError], given: Sequence[KeptError]) -> float:
        """Return the largest share of what is wrong with an output that these errors take from what others leave."""
        left = zip(self._left(given), self._left([*given, *errors]), strict=True)
        return max(min(less, 1.0) - more for less, more in left)

    def _left(self, errors: Sequence[KeptError]) -> list[float]:
        key = frozenset(kept.number for kept in errors)
        if key not in self._known:
            outputs = self._propagation.together([*self._given, *errors])
            self._known[key] = [wrong.left(outputs) for wrong in self._wrong]
        return self._known[key]

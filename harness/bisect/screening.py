"""What to keep in FP32, searched in PyTorch before any engine is built: a plan takes milliseconds instead of minutes.

Modules are tried first, then the modules inside those that matter, then single values. They are ranked by the error of
the outputs with only that unit in low precision; the smallest set that makes the outputs right is searched along that
ranking. A plan that passes here is confirmed on the engine.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from functools import cached_property

from harness.bisect.search import smallest_set
from harness.bisect.units import FLOATS, Units, is_value
from harness.compare import total_error
from harness.errors import NotJudged
from harness.graph import Plan, Value, assign
from harness.records import Trial
from harness.tensors import Tensors
from harness.verify import Prepared

MOST_SUBSETS = 6
"""Units of the largest set of which every subset is tried."""
MOST_CALLS = 400
"""Plans tried in PyTorch per level."""
_PRODUCTS = re.compile(r"linear|mm\b|matmul|conv|attention|einsum|gemm|lstm|gru", re.IGNORECASE)
"""Operators that are slow in FP32: a module with one of them is split into its values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Screened:
    """What the search in PyTorch found."""

    region: tuple[str, ...] = ()
    """The smallest set of patterns that made the outputs right; empty where none did."""
    ranking: tuple[str, ...] = ()
    """The coarsest units, by the error of the outputs with only that unit in low precision, largest first."""
    trials: tuple[Trial, ...] = ()
    """Every plan that was tried."""
    interrupted: bool = False
    """Whether a KeyboardInterrupt ended the search."""


class Screen:
    """Tries plans in PyTorch for one case: which units, kept in FP32, make the outputs right.

    ``right`` says whether outputs would pass. Raises NotJudged for a program that computes no float value.
    """

    def __init__(self, prepared: Prepared, case: str, plan: Plan, right: Callable[[Tensors], bool]) -> None:
        self.prepared, self.case, self.plan, self.right = prepared, case, plan, right
        self.units = Units.of(prepared.program.values)
        if not self.units.values:
            raise NotJudged("the program computes no float value, so there is no precision to choose")
        self.expected = prepared.references.reference(case, "fp32")
        self.trials: list[Trial] = []
        self._passed: dict[frozenset[str], bool] = {}

    def search(self, say: Callable[[str], None]) -> Screened:
        """Search the smallest set of patterns that makes PyTorch's outputs right; interrupted, the smallest so far."""
        units = self.units.coarse()
        say(f"ranking {len(units)} modules and values in PyTorch")
        ranking: list[str] = []
        best: frozenset[str] | None = None
        interrupted = False
        try:
            ranking = self.rank(units)
            best = self.smallest(ranking)
            while best is not None and (finer := self._finer(best)) is not None:
                say(f"searching inside {', '.join(sorted(best))}")
                best = finer
        except KeyboardInterrupt:
            interrupted = True
            seen = [frozenset(trial.keep_fp32) for trial in self.trials if trial.passed]
            best = best or min(seen, key=len, default=None)
        return Screened(
            region=tuple(sorted(best or ())), ranking=tuple(ranking), trials=tuple(self.trials), interrupted=interrupted
        )

    def rank(self, units: Sequence[str]) -> list[str]:
        """Return the units by the error of the outputs with only that unit in low precision, largest first."""
        alone = {unit: self._error_alone(unit) for unit in units}
        return sorted(units, key=lambda unit: -alone[unit])

    def smallest(self, ranked: Sequence[str]) -> frozenset[str] | None:
        """Return the smallest set of these units that passes, or None. Raises KeyboardInterrupt."""
        found = smallest_set(ranked, lambda batch: [self.passes(patterns) for patterns in batch], max_calls=MOST_CALLS)
        if found.interrupted:
            raise KeyboardInterrupt
        return None if found.best is None else self._smaller_subset(found.best, ranked)

    def passes(self, patterns: frozenset[str]) -> bool:
        """Return whether PyTorch's outputs are right with these patterns in FP32."""
        kept = frozenset(name for pattern in patterns for name in self.units.members(pattern))
        if kept not in self._passed:
            outputs = self.prepared.references.typed(self.case, self._dtypes(patterns))
            self._passed[kept] = self.right(outputs)
            self.trials.append(
                Trial(
                    keep_fp32=tuple(sorted(patterns)), where="pytorch", passed=self._passed[kept],
                    error=total_error(outputs, self.expected),
                )
            )  # fmt: skip
        return self._passed[kept]

    def _smaller_subset(self, best: frozenset[str], ranked: Sequence[str]) -> frozenset[str]:
        """Return a smaller set that passes although sets between the two fail: one FP32 unit can undo another.

        Every single unit is tried, and every subset of a small set.
        """
        sizes = range(2, len(best) if len(best) <= MOST_SUBSETS else 0)
        parts = (frozenset(part) for size in sizes for part in itertools.combinations(sorted(best), size))
        singles = (frozenset({unit}) for unit in ranked if len(best) > 1)
        return next((part for part in itertools.chain(singles, parts) if self.passes(part)), best)

    def _finer(self, best: frozenset[str]) -> frozenset[str] | None:
        """Return a finer set of patterns that passes as well; None where there is none, or it saves too little."""
        parts = {pattern: self.units.children(pattern) for pattern in best}
        split = [part for pattern in sorted(best) for part in (parts[pattern] or [pattern])]
        if len(split) == len(best) and set(split) == set(best):
            return None
        found = self.smallest(self.rank(split))
        if found is None:
            return None
        whole = frozenset(
            pattern for pattern in best if parts[pattern] and not self._worth_splitting(pattern, parts[pattern], found)
        )
        rest = frozenset(part for part in found if not any(part in parts[pattern] for pattern in whole))
        result = whole | rest
        return None if result == best or not self.passes(result) else result

    def _worth_splitting(self, pattern: str, parts: Sequence[str], found: frozenset[str]) -> bool:
        """Return whether the parts that were found replace their module: only where enough stays in low precision."""
        kept = {name for part in parts if part in found for name in self.units.members(part)}
        left = [self.units.values[name] for name in self.units.members(pattern) - kept]
        if not all(map(is_value, parts)):
            return bool(left)
        return any(_PRODUCTS.search(value.op) for value in left)

    def _error_alone(self, unit: str) -> float:
        low = self.plan.compute_dtype
        names = self.units.members(unit)
        dtypes = {name: low if value.origin in names else "float32" for name, value in self._rows}
        return total_error(self.prepared.references.typed(self.case, dtypes), self.expected)

    def _dtypes(self, patterns: frozenset[str]) -> dict[str, str]:
        kept = (*self.plan.keep_fp32, *sorted(patterns))
        return assign(dataclasses.replace(self.plan, keep_fp32=kept), self.prepared.program.values)

    @cached_property
    def _rows(self) -> list[tuple[str, Value]]:
        """The float values by their own names, then by those they come from."""
        floats = [(name, value) for name, value in self.prepared.program.values.items() if value.dtype in FLOATS]
        return floats + [(value.origin, value) for _, value in floats]

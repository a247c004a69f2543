"""What to keep in FP32, searched in PyTorch before any engine is built: a plan takes milliseconds instead of minutes.

Parts of the program are ranked by the error of the outputs with only that part in low precision, and split where it
matters. The values that are out of line say what a plan may lose; the fewest values that reach it are searched, and
confirmed on the engine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from harness.bisect.goals import Aim, with_floor
from harness.bisect.ranking import Group, beyond, out_of_line, ranked, together
from harness.bisect.search import smallest_set
from harness.bisect.units import FLOATS, MOST_PARTS, Candidates, Units
from harness.compare import UNIT_ROUNDOFF, total_error
from harness.errors import NotJudged
from harness.records import Kept, Trial
from harness.reference import KeptRun
from harness.sentences import Sentence
from harness.subject import Target
from harness.tensors import Tensors
from harness.verify import FACTOR, HOLDS, OpenTarget, Run, judged_by, value_dtypes

MOST_ALONE = 96
"""Runs with only some values in low precision after which no group is split any more."""
MOST_CALLS = 256
"""Plans tried in PyTorch by one search along the ranking."""
EXHAUSTED = 14
"""Values of which sets are tried that are smaller than the best one found."""
MOST_SUBSETS = 512
"""How many of those sets: all of up to three values."""
FEWER_SUBSETS = 128
"""The same for a program of more values, whose runs take longer: all of up to two values."""
MOST_SHARES = 32
"""Values of a region of which each is taken out of FP32 once."""
MOST_TRIALS = 8
"""Plans tried in PyTorch that are kept: those that were tried last decided."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """What the search in PyTorch found."""

    region: tuple[str, ...] = ()
    """Modules and values, the fewest that made the outputs right; empty where none did."""
    aim: Aim | None = None
    """What the outputs of a plan may lose; None where the search did not come so far."""
    few: bool = True
    """Whether a few values are out of line; False where all lose alike."""
    culprits: tuple[str, ...] = ()
    """Patterns of all values that are out of line, or that the goal was derived from."""
    rest: tuple[str, ...] = ()
    """The other values as patterns, by what they cost."""
    by_values: tuple[Kept, ...] = ()
    """What PyTorch loses with more and more values in FP32."""
    shares: Mapping[str, float | None] = field(default_factory=dict)
    """The values of the region: the share of the squared error that comes back where one alone is not in FP32; None
    where that is not known."""
    left: float | None = None
    """The share that is left with the region in FP32; None without a region."""
    trials: tuple[Trial, ...] = ()
    """The last plans that were tried; that of the region comes last."""
    interrupted: bool = False
    """Whether a KeyboardInterrupt ended the search."""

    @property
    def candidates(self) -> Candidates:
        """What is tried on engines: the region, all culprits with it, and then more by what it costs."""
        both = tuple(dict.fromkeys([*self.region, *self.culprits]))
        return Candidates(first=tuple(dict.fromkeys([self.region, both])), rest=self.rest)


@dataclass(frozen=True, kw_only=True)
class _Tried:
    error: float
    reason: str | None
    """Why it did not pass; empty where it did, None where it was not judged."""


class Screen:
    """Tries plans in PyTorch for one case of a target whose precision is at fault.

    ``aim`` is the goal before anything is known of the values: a limit, or what the plain precision loses. Raises
    NotJudged for a program that computes no float value.
    """

    def __init__(self, run: Run, case: str, precision: str, aim: Aim) -> None:
        self.run, self.case, self.aim, self.plan = run, case, aim, aim.plain
        prepared = run.prepared
        self.units = Units.of(prepared.program.values)
        self._base = value_dtypes(prepared.graph, self.plan)
        low = self.plan.compute_dtype
        self.free = tuple(name for name in self.units.values if self._base.get(name, low) == low)
        if not self.free:
            raise NotJudged(Sentence("no_float_value"))
        self._counted = partial(prepared.valid.counted, case)
        self.expected = self._counted(prepared.references.reference(case, "fp32"))
        self.roundoff = UNIT_ROUNDOFF[self.plan.computes_in]
        self.few = True
        self.tried: dict[frozenset[str], _Tried] = {}
        self._target = Target("torch", precision)
        self._kept_low, self._kept_high = KeptRun(), KeptRun()
        self._rows: dict[str, list[str]] = {name: [name] for name in self.units.values}
        for name, value in prepared.program.values.items():
            if value.dtype in FLOATS and value.origin in self._rows:
                self._rows[value.origin].append(name)

    def search(self, say: Callable[[str], None]) -> Screened:
        """Search the fewest values that make PyTorch's outputs right; interrupted, the fewest so far."""
        with self.run.target(self._target) as opened:
            return self._search(opened, say)

    def _search(self, opened: OpenTarget, say: Callable[[str], None]) -> Screened:
        culprits: frozenset[str] = frozenset()
        order: list[str] = []
        best: frozenset[str] | None = None
        rows: tuple[Kept, ...] = ()
        shares: dict[str, float | None] = {}
        interrupted = False
        try:
            say(f"ranking {len(self.free)} values in PyTorch")
            groups = self.rank()
            order = _by_cost(groups)
            culprits = self.culprits(opened, groups)
            say(f"searching the fewest of {len(culprits) or len(order)} values in PyTorch")
            best = self.smallest(opened, culprits, order)
            rows = self.by_values(order, best)
            shares = {name: self.share(best, name) for name in sorted(best)[:MOST_SHARES]} if best else {}
        except KeyboardInterrupt:
            interrupted = True
            best = min((kept for kept, tried in self.tried.items() if tried.reason == ""), key=len, default=None)
        region = best or frozenset()
        return Screened(
            region=self.units.patterns(region, operators=False), aim=self.aim, few=self.few,
            culprits=self.units.patterns(culprits, operators=False),
            rest=tuple(f"value:{name}" for name in order if name not in region), by_values=rows,
            trials=self._trials(best), interrupted=interrupted, shares=shares,
            left=None if best is None or interrupted else self.share(best),
        )  # fmt: skip

    def share(self, region: frozenset[str], without: str = "") -> float | None:
        """Return the share of the squared error that is left with a region in FP32, or more without one of it."""
        plain, left = self.error(frozenset()), self.error(region)
        more = self.error(region - {without}) if without else left
        if not math.isfinite(plain):  # of what is no number there are no shares, but all and nothing
            return 1.0 if not math.isfinite(more) else None if without else 0.0
        taken = more**2 - (left**2 if without else 0.0)
        return min(max(taken / plain**2, 0.0), 1.0) if plain else None

    def rank(self) -> list[Group]:
        """Return groups of values by their errors, largest first; those that matter are split into values."""
        parts = [self.free]
        while len(parts) < MOST_PARTS and len(largest := max(parts, key=len)) > 1:
            at = parts.index(largest)
            parts[at : at + 1] = self.units.split(largest)
        limits = self.aim.goal.limits.values()
        if self.aim.goal.source in ("limit", "declared") and limits:
            needed = partial(beyond, limit=min(limits))
        else:
            needed = partial(out_of_line, roundoff=self.roundoff)
        return ranked(parts, self.units.split, self.alone, needed, most=MOST_ALONE)

    def culprits(self, opened: OpenTarget, groups: Sequence[Group]) -> frozenset[str]:
        """Return the values that are out of line, and set the goal by what PyTorch loses with them in FP32.

        Where there is a limit, they are those whose errors exceed it together, and the goal is the limit.
        """
        if self.aim.goal.source in ("limit", "declared"):
            return _names(groups[: beyond(groups, limit=min(self.aim.goal.limits.values(), default=math.inf))])
        count = out_of_line(groups, roundoff=self.roundoff)
        found, rest = _names(groups[:count]), together(groups[count:])
        level = FACTOR * max(rest, self.roundoff)
        # Errors that grow from layer to layer have gaps too: that more than half stand out takes a clearer one.
        half, gap = len(self.free) // 2, groups[count - 1].error / max(rest, self.roundoff) if count else 0.0
        if not found or (len(found) > half and gap < FACTOR**2) or not self.error(found) <= level:
            # Values may be wrong only together; where all lose alike, no few of them make the outputs right.
            together_wrong = bool(found) or not self.error(frozenset()) <= level
            found = self._enough(groups, level) if together_wrong else frozenset()
            if not found or len(found) > half:
                self.few, found = False, self._enough(groups, HOLDS / FACTOR)
        if found:
            self._derive(opened, found, rest)
        return found

    def smallest(self, opened: OpenTarget, culprits: frozenset[str], order: Sequence[str]) -> frozenset[str] | None:
        """Return the fewest values that pass, or None; ``order`` has all of them, the likeliest first."""
        if self.aim.goal.source == "floor":
            return None  # nothing reached what the goal could be derived from

        def passes(kept: frozenset[str]) -> bool:
            return self.passes(opened, kept)

        if culprits and passes(culprits):
            return self._fewest([name for name in order if name in culprits], order, passes, {culprits: True})
        return self._fewest(order, order, passes, {})

    def _fewest(
        self,
        among: Sequence[str],
        order: Sequence[str],
        passes: Callable[[frozenset[str]], bool],
        known: dict[frozenset[str], bool | None],
    ) -> frozenset[str] | None:
        """Return a smallest set that passes of some values, or of any values where that is smaller still; or None.

        One FP32 value can undo another, so sets smaller than the best are tried though those between the two fail.
        Raises KeyboardInterrupt.
        """
        found = smallest_set(among, lambda batch: list(map(passes, batch)), max_calls=MOST_CALLS, known=known)
        if found.interrupted:
            raise KeyboardInterrupt
        if found.best is None:
            return None
        pool = list(dict.fromkeys([*(name for name in order if name in found.best), *among, *order]))[:EXHAUSTED]
        sizes = range(1, len(found.best))
        smaller = (frozenset(part) for size in sizes for part in itertools.combinations(pool, size))
        most = MOST_SUBSETS if len(order) <= EXHAUSTED else FEWER_SUBSETS
        return next((kept for kept in itertools.islice(smaller, most) if passes(kept)), found.best)

    def by_values(self, order: Sequence[str], best: frozenset[str] | None) -> tuple[Kept, ...]:
        """Return what PyTorch loses with 0, 1, 2, 4, ... values in FP32, up to half of them, and with the best."""
        first = best or frozenset()
        order = sorted(order, key=lambda name: name not in first)
        half = max(len(order) // 2, 1)
        sizes = {0, len(first), *(2**power for power in range(half.bit_length()))}
        rows = {size: self.error(frozenset(order[:size])) for size in sizes}
        return tuple(
            Kept(values=size, error=error if math.isfinite(error) else None) for size, error in sorted(rows.items())
        )

    def passes(self, opened: OpenTarget, kept: frozenset[str]) -> bool:
        """Return whether PyTorch's outputs reach the goal with these values in FP32."""
        tried = self.tried.get(kept)
        if tried is None or tried.reason is None:
            outputs = self.outputs(kept)
            error = total_error(outputs, self.expected)
            reason = self.aim.judge(opened, self.case, outputs) if math.isfinite(error) else Sentence("not_finite")
            tried = self.tried[kept] = _Tried(error=error, reason=reason)
        return not tried.reason

    def error(self, kept: frozenset[str]) -> float:
        """Return PyTorch's largest error of an output with these values in FP32."""
        if kept not in self.tried:
            self.tried[kept] = _Tried(error=total_error(self.outputs(kept), self.expected), reason=None)
        return self.tried[kept].error

    def outputs(self, kept: Iterable[str]) -> Tensors:
        """Return PyTorch's outputs with these values in FP32."""
        if self._kept_low.is_filling:
            self.run.prepared.references.typed(
                self.case, self._base, dtype=self.plan.compute_dtype, kept=self._kept_low
            )
        dtypes = {**self._base, **{row: "float32" for name in kept for row in self._rows[name]}}
        references, low = self.run.prepared.references, self.plan.compute_dtype
        return self._counted(references.typed(self.case, dtypes, dtype=low, kept=self._kept_low))

    def alone(self, names: Iterable[str]) -> float:
        """Return PyTorch's largest error of an output with only these values in low precision."""
        low = {row: self.plan.compute_dtype for name in names for row in self._rows[name]}
        references = self.run.prepared.references
        if self._kept_high.is_filling:
            references.typed(self.case, {}, kept=self._kept_high)
        return total_error(self._counted(references.typed(self.case, low, kept=self._kept_high)), self.expected)

    def _enough(self, groups: Sequence[Group], level: float) -> frozenset[str]:
        """Return few groups that leave no larger error than a level when they are in FP32; nothing where none do."""
        by_name = {group.names[0]: group for group in sorted(groups, key=lambda group: -group.per_value)}

        def reach(kept: frozenset[str]) -> bool:
            return self.error(_names([by_name[name] for name in kept])) <= level

        found = self._fewest(list(by_name), list(by_name), reach, {})
        return _names([by_name[name] for name in found or ()])

    def _derive(self, opened: OpenTarget, found: frozenset[str], rest: float) -> None:
        """Set the goal by what PyTorch loses with these values in FP32."""
        patterns = self.units.patterns(found)
        floor = replace(self.plan, keep_fp32=(*self.plan.keep_fp32, *patterns))
        low, loses = self.plan.computes_in, self.error(found)
        if self.few:
            why = Sentence("out_of_line_loses", loses=loses)
        else:
            why = Sentence("none_out_of_line", count=len(found), count_2=len(self.free), loses=loses)
        reason = Sentence("plan_may_lose", why=why, factor=FACTOR, low=low)
        judged = judged_by(opened, self.case, floor, actual=self.outputs(found))
        self.aim = with_floor(self.aim, floor, judged, reason, few=self.few)

    def _trials(self, best: frozenset[str] | None) -> tuple[Trial, ...]:
        judged = [kept for kept, tried in self.tried.items() if tried.reason is not None and kept != best]
        last = [*judged[-MOST_TRIALS:], *([best] if best in self.tried else [])]
        return tuple(
            Trial(
                keep_fp32=self.units.patterns(kept), where="pytorch", passed=not self.tried[kept].reason,
                error=self.tried[kept].error, reason=self.tried[kept].reason or "", values=len(kept),
            )
            for kept in last
            if kept is not None
        )  # fmt: skip


def _names(groups: Iterable[Group]) -> frozenset[str]:
    return frozenset(name for group in groups for name in group.names)


def _by_cost(groups: Sequence[Group]) -> list[str]:
    """Return all values, those first that cost most each."""
    return [name for group in sorted(groups, key=lambda group: -group.per_value) for name in group.names]

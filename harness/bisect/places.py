"""Where a wrong engine goes wrong: for every culprit the smallest part of the graph that shows it alone.

Where values were observed, parts are made around the culprits of that look: the values nearest in the graph, in the
same kernel first. Where they were not, or where looking hides the fault, the graph is halved. What is found is taken
away, and the search goes on in the rest until that is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.bisect.context import Context
from harness.bisect.questions import computes_in_tf32, is_only_tf32
from harness.bisect.regions import Region, Regions
from harness.bisect.search import smallest_interval, smallest_part
from harness.graph import is_fp32, load_plan
from harness.records import Diagnosis, LayerReport, Result, is_nonfinite
from harness.subject import Target

NEAREST = 64
"""Values around a culprit that its part may consist of; a fault that needs more is found by halving the graph."""
MOST_CALLS = 24
"""Parts that are tried for one place."""
_FUSED = 2
"""Operations from which on a part is tried with none of its values as an output: one may only be what hides that."""
_FEW = 8
"""Operations from which on such a part is halved first."""
_FOR_PLAN = 4
"""Builds that are kept for a plan while the first part is made smaller."""
MOST_OVERLAPPING = 4
"""Parts that are tried of an engine whose kernels overlap that must not."""
_MOST_UNSHOWN = 3
"""Culprits whose surroundings are searched before the graph is halved, where none of them shows alone."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A part that shows a fault alone."""

    region: Region
    culprit: str = ""
    """The culprit of the look that it shows; empty for a fault that the look did not name."""
    instead: bool = False
    """Whether it does so without the culprit's own value: the error is made before that, inside the same kernel."""
    smallest: bool = True
    """False where the search ended before it was known that no smaller part shows it."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a search among parts of a graph found."""

    found: tuple[Place, ...] = ()
    """That of the first culprit first."""
    rest_right: bool | None = None
    """Whether the graph without all of these parts is right; None where that was not asked or cannot be known."""
    complete: bool = True
    """False when a part was not built because the budget was spent."""
    interrupted: bool = False
    """Whether a KeyboardInterrupt ended the search."""


def search_places(
    context: Context,
    target: Target,
    result: Result,
    report: LayerReport | None,
    look: Diagnosis,
    *,
    overlapping: bool = False,
) -> Places:
    """Return the smallest parts of the graph that show the faults of a wrong engine.

    ``result`` is the verdict on the whole engine, ``report`` and ``look`` what was seen inside it, if anything.
    The first place may take all builds that are left, the others half of them: a plan needs some too. Where its kernels
    are ``overlapping``, which part fails is chance: MOST_OVERLAPPING are tried, for a reproducer.
    """
    larger_than_tf32 = is_fp32(load_plan(target.precision)) and not is_only_tf32(target, result.outputs)

    def shows_fault(found: Result) -> bool:
        return found.verdict == "fail" and not (larger_than_tf32 and computes_in_tf32(target, found.outputs))

    regions = Regions(
        context.run, context.case, target, folder=context.folder / "regions", shows=shows_fault, budget=context.budget
    )
    hidden = report is not None and not look.culprits
    search = _Search(regions, report, hidden=hidden, say=lambda words: context.say(target, words))
    interrupted = False
    try:
        if overlapping:
            search.halve(search.order, among=search.covered, most=MOST_OVERLAPPING)
        elif search.hidden:
            covered = search.covered
            search.halve(
                search.order, among=covered.showing(is_nonfinite) if is_nonfinite(result) else covered, share=2
            )
        if not search.places and not overlapping:
            search.around([culprit.value for culprit in look.culprits])
        if not search.places and not overlapping:
            search.halve(search.order)
        if search.places and not look.complete and not overlapping:
            search.go_on()
    except KeyboardInterrupt:
        interrupted = True
        search.keep_smallest()
    ranks = {culprit.value: rank for rank, culprit in enumerate(look.culprits)}
    found = sorted(search.places, key=lambda place: ranks.get(place.culprit, len(ranks)))
    return Places(
        found=tuple(found), rest_right=search.rest_right, complete=search.complete and not regions.refused,
        interrupted=interrupted,
    )  # fmt: skip


class _Search:
    """Collects places; whatever ends it, what it holds is what was seen to fail."""

    def __init__(
        self, regions: Regions, report: LayerReport | None, *, hidden: bool, say: Callable[[str], None]
    ) -> None:
        self.regions, self.covered, self.say = regions, regions.covering(), say
        self.hidden = hidden
        """Whether looking at values hides the fault: then no value of a part is made an output."""
        self.order = regions.flow.order
        self.places: list[Place] = []
        self.rest_right: bool | None = None
        compared = [value for value in report.values if value.status == "compared"] if report else []
        self._known = {value.name for value in compared}
        """Values that were compared themselves: an error seen in one was made behind the others."""
        self._kernels = {value.name: value.kernel for value in report.values if value.kernel} if report else {}
        self.complete = True
        """False when something was left out to keep builds for the plan."""
        plan = regions.plan
        self._reserve = 1 if is_fp32(plan) or plan.tf32 else regions.budget.left // 2
        """Builds that are kept for the plan and the reproducer once there is a place."""

    def _may_build(self) -> bool:
        allowed = self.regions.budget.left > self._reserve
        self.complete = self.complete and allowed
        return allowed

    def around(self, culprits: Sequence[str]) -> None:
        """Find the smallest part around each culprit: within what the look cannot tell apart, then around that."""
        pending = [name for name in culprits if name in self.regions.flow]
        for farther in (False, True):
            for number, name in enumerate(pending):
                enough = not self._may_build() if self.places else farther and number == _MOST_UNSHOWN
                if enough:
                    return
                self._around(name, others=set(pending) - {name}, farther=farther)

    def _around(self, name: str, *, others: set[str], farther: bool) -> None:
        """Find the part that shows this culprit; what shows another fault is kept, and passed around from then on."""
        while not any(place.culprit == name for place in self.places):
            without = self._found()
            if name in without:
                return
            inside = set(self.regions.flow.upstream(name, self._known - {name})) - without
            mates = {value for value, kernel in self._kernels.items() if kernel == self._kernels.get(name)}
            ranked = self.regions.flow.nearest(name, first=inside | mates, without=without)
            region = self._smallest([value for value in ranked if farther or value in inside][:NEAREST])
            if region is None:
                return
            region = self._inside(region)
            shown = self.regions.flow.in_order(others & set(region.names))
            if name in region.names:
                self.places.append(Place(region=region, culprit=name))
            elif not shown and set(region.names) <= inside:
                self.places.append(Place(region=region, culprit=name, instead=True))
            else:
                self.places.append(Place(region=region, culprit=shown[0] if shown else ""))

    def halve(
        self, names: Sequence[str], *, among: Regions | None = None, share: int = 1, most: int | None = None
    ) -> bool:
        """Find a part of these values, which are known to fail, by halving; return whether there is one to name.

        It may take that share of the builds that are left; with ``most`` no more than so many, and then it is done.
        """
        self.say("looking for the smallest part of the graph that fails on its own")
        among = among or self.regions
        before = among.budget.left
        part, complete = self._interval(names, among, before // share if most is None else min(most, before // 2))
        if most is not None:
            if len(part) < len(self.order):
                self.places.append(Place(region=among.region(part), smallest=False))
            return bool(self.places)
        self.complete = self.complete and complete
        if len(part) == len(self.order):
            return False  # nothing smaller fails: that the whole does is no news
        pieces = [value for piece in among.flow.pieces(part) for value in piece]
        allowed = among.budget.left - before + before // share
        region = self._smallest(pieces, among=among, most=allowed, whole=True) or among.region(part)
        self.places.append(Place(region=self._inside(region), smallest=complete))
        return True

    def go_on(self) -> None:
        """Search what is left, fed with the reference's values, until that is right or the builds are spent."""
        while self._may_build():
            found = self._found()
            rest = [name for name in self.order if name not in found]
            among = self.covered if self.hidden else self.regions
            fails = among.fails(rest) if rest else False
            self.rest_right = None if fails is None else not fails
            if not fails or not self.halve(rest, among=among, share=2):
                return

    def keep_smallest(self) -> None:
        """Keep the smallest part that was seen to fail where the search ended before there was a place."""
        failing = [*self.regions.failing.values(), *self.covered.failing.values()]
        if not self.places and failing:
            self.places.append(Place(region=min(failing, key=lambda region: len(region.names)), smallest=False))

    def _found(self) -> set[str]:
        return {name for place in self.places for name in place.region.names}

    def _smallest(
        self, ranked: Sequence[str], *, among: Regions | None = None, most: int = MOST_CALLS, whole: bool = False
    ) -> Region | None:
        among = among or self.regions
        found = smallest_part(ranked, among.fails, max_calls=max(0, min(most, MOST_CALLS)), whole=whole)
        if found.interrupted:
            raise KeyboardInterrupt
        return among.region(found.best) if found.best else None

    def _inside(self, region: Region) -> Region:
        """Return a smaller part that shows the fault where no value of it is an output, or the same part.

        A kernel that is wrong only while its result stays inside shows in a part only with what reads that.
        """
        part = list(region.names)
        if len(part) < _FUSED or region.covered or self._left() < _FUSED or not self.covered.fails(part):
            return region
        if len(part) > _FEW:
            part, _ = self._interval(part, self.covered, self._left())
        smaller = self._smallest(part, among=self.covered, most=self._left(), whole=True)
        return smaller if smaller is not None and len(smaller.names) < len(region.names) else region

    def _left(self) -> int:
        """Return the builds that may go into making the first part smaller."""
        return max(0, self.regions.budget.left - min(self._reserve, _FOR_PLAN))

    def _interval(self, names: Sequence[str], among: Regions, most: int) -> tuple[list[str], bool]:
        """Return the smallest interval of these values that shows the fault, and whether it is known to be that."""
        found = smallest_interval(len(names), lambda a, b: among.fails(names[a:b]), max_calls=max(1, most))
        if found.interrupted:
            raise KeyboardInterrupt
        return list(names[found.start : found.stop]), found.complete

"""What every step of a bisection works with: the request, the subject, and the engines that may still be built."""

from __future__ import annotations

from dataclasses import dataclass

from harness.backends import EngineCache
from harness.bisect.request import Request
from harness.subject import Target
from harness.verify import Outcome, Prepared, Run, verify_case


class Budget:
    """Counts the engines that are built, and says how many the search may still build.

    Engines that are found in the cache cost nothing.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        """Engines that the search may build."""
        self._caches: list[EngineCache] = []
        self._before_search: int | None = None

    def count(self, engines: EngineCache) -> None:
        """Count what is built through this cache from now on."""
        self._caches.append(engines)

    def begin_search(self) -> None:
        """Let the budget begin here: what was built so far was for the questions."""
        self._before_search = self.built

    @property
    def built(self) -> int:
        """Engines built so far."""
        return sum(cache.built for cache in self._caches)

    @property
    def for_questions(self) -> int:
        """Those built before the search began."""
        return self.built if self._before_search is None else self._before_search

    @property
    def left(self) -> int:
        """Engines that the search may still build."""
        return max(0, self.most - (self.built - (self._before_search or 0)))


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every step works with."""

    request: Request
    run: Run
    """The subject made ready, and the engines of the whole of it."""
    budget: Budget
    """Counts those engines, and those of parts of the graph."""

    @classmethod
    def of(cls, request: Request) -> Context:
        """Return the context of a request. Nothing is computed yet."""
        run, budget = Run(request.subject, request.settings, limit=request.limit), Budget(request.max_builds)
        budget.count(run.engines)
        return cls(request=request, run=run, budget=budget)

    @property
    def prepared(self) -> Prepared:
        """The subject made ready. Raises UsageError or NotJudged where that is impossible."""
        return self.run.prepared

    def judge(self, target: Target) -> Outcome:
        """Return the verdict on a target, with its outputs. Raises UsageError only."""
        with self.run.target(target) as opened:
            return verify_case(opened, self.request.case)

"""One bisection: its options, the prepared subject, and the number of engines that may still be built."""

from __future__ import annotations

import shlex
import threading
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.backends import EngineCache
from harness.errors import NotJudged, UsageError
from harness.sentences import Sentence
from harness.settings import Settings, check_limit
from harness.subject import Subject, Target
from harness.verify import Outcome, Prepared, Run, verify_case


class Budget:
    """Counts the builds of a bisection, whatever they are for, and refuses more of them than were allowed.

    Engines that are found in the cache cost nothing; a build that is refused or fails costs as much as another.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        """Engines that may be built, all together."""
        self._begun = 0
        self._elsewhere = 0
        self._caches: list[EngineCache] = []
        self._before_search: int | None = None
        self._lock = threading.Lock()

    def count(self, engines: EngineCache) -> None:
        """Count what is built through this cache from now on."""
        self._caches.append(engines)
        engines.before_build = self._begin

    def spend(self) -> None:
        """Count an engine that is built elsewhere, such as by a reproducer. Raises NotJudged when none is left."""
        self._begin()
        self._elsewhere += 1

    def _begin(self) -> None:
        with self._lock:  # engines are built several at a time
            if not self.left:
                raise NotJudged(Sentence("builds_spent", most=self.most))
            self._begun += 1

    @property
    def built(self) -> int:
        """Engines built so far."""
        return self._elsewhere + sum(cache.built for cache in self._caches)

    def begin_search(self) -> None:
        """Note that what was built so far was for the questions."""
        self._before_search = self.built

    @property
    def for_questions(self) -> int:
        """Those built before the search began."""
        return self.built if self._before_search is None else self._before_search

    @property
    def left(self) -> int:
        """Engines that may still be built."""
        return self.most - self._begun


@dataclass(frozen=True, kw_only=True)
class Context:
    """The options of one bisection, its subject and its budget; every step reads it.

    Raises UsageError for limits that are out of range.
    """

    subject: Subject
    target: Target
    """The engine in question."""
    case: str
    settings: Settings
    folder: Path
    """For the plans and parts of the graph that are tried; the caller deletes it."""
    max_builds: int
    """Engines that may be built, all together."""
    limit: float | None = None
    """The relative L2 error that outputs may have, in place of the limits derived or declared."""
    plan_file: Path | None = None
    """Where the smallest plan that passes is written."""
    reproducer: Path | None = None
    """The folder of the reproducer; None for one below ``reports``."""
    executor: Executor | None = None
    """Builds engines of candidate plans at the same time."""
    width: int = 1
    """How many of them at a time."""

    def __post_init__(self) -> None:
        if self.max_builds < 1:
            raise UsageError(f"--max-builds {self.max_builds} leaves nothing to confirm a plan with; give at least 1")
        check_limit(self.limit)

    @cached_property
    def run(self) -> Run:
        """The subject, and the engines of the whole of it. Nothing is computed before it is used."""
        run = Run(self.subject, self.settings, limit=self.limit)
        self.budget.count(run.engines)
        return run

    @cached_property
    def budget(self) -> Budget:
        """Counts those engines, and those of parts of the graph."""
        return Budget(self.max_builds)

    @property
    def prepared(self) -> Prepared:
        """The prepared subject. Raises UsageError or NotJudged where that is impossible."""
        return self.run.prepared

    def judge(self, target: Target) -> Outcome:
        """Return the verdict on a target, with its outputs. Raises UsageError only."""
        with self.run.target(target) as opened:
            return verify_case(opened, self.case)

    def command(self, name: str, precision: str) -> str:
        """Return a ``parity`` command for the subject, the backend and the case in a precision, as a shell reads it."""
        limit = [] if self.limit is None else ["--limit", str(self.limit)]
        options = ["-b", self.target.backend, "-p", precision, "--case", self.case, *limit]
        return f"parity {name} {self.subject.as_typed} {shlex.join(options)}"

    def say(self, target: Target, words: str) -> None:
        """Print a line of progress on a target."""
        self.settings.progress(f"{self.subject.name}/{self.case} [{target}]: {words}")

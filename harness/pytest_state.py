"""What one pytest run of suites knows: its options, the results that arrived, and the JSON they are kept in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import limit_options, stopping, watcher
from harness.arrivals import Arrivals, only_shows, read_manifest
from harness.checks import LatencyTiming
from harness.errors import CannotWrite, UsageError
from harness.junit import JUnit
from harness.machine import command_line
from harness.pytest_ledger import RunLedger
from harness.pytest_shards import parameters
from harness.records import DIED, merged, with_missing
from harness.repository import folders, repository_root
from harness.settings import GIVEN, Settings, print_progress
from harness.subject import Subject
from harness.watching import is_recorded, watch

Json = dict[str, Any]
STARTED = "parity_started"
"""When the run began, as the workers of xdist are told."""


class State:
    """What one pytest process knows; lives in ``config.stash``."""

    settings: Settings
    """These and the next ones are there once the options were read."""
    backends: list[str]
    precisions: list[str]
    require: list[str]
    require_verdict: bool | None
    expect: tuple[Path, Json] | None
    """A manifest of what is to be judged, and where it lies."""
    allowed: dict[str, Any]
    """How long things may take, as ``limits.allowed`` takes it."""
    timing: LatencyTiming
    records_accuracy: bool
    fail_on_creep: bool

    def __init__(self, config: pytest.Config) -> None:
        records = not is_worker(config) and not only_shows(config)
        json = config.getoption("parity_json")
        self.json: Path | None = json if records and isinstance(json, Path) else None
        """Where this process writes the results; None also where what was given is no path, which ends the run."""
        self.junit = JUnit(config, writes=records)
        self.command = command_line("pytest", map(str, config.invocation_params.args))
        self.cases = ""
        """The pattern of the files that are the cases of every suite; empty where the suites' own are."""
        self._with_files: dict[str, Subject] = {}
        self.subjects: dict[str, tuple[Subject, str]] = {}
        """By name, with the file of its suite."""
        self.asked = 0
        """Tests with a target that ran."""
        self.results: dict[tuple[str, ...], Json] = {}
        """Results that arrived, by subject, case, backend and precision."""
        self.latencies: dict[int, Json] = {}
        """Latencies that arrived, by the place of their test in the collection."""
        self.parts: dict[int, Json] = {}
        """Models that were brought up part by part, likewise."""
        self.order: dict[tuple[str, ...], int] = {}
        """The place of each result's test in the collection."""
        self.remarks: list[str] = []
        """What is said about the run as a whole, and is no fault of it."""
        self.wrong_requests: set[str] = set()
        """The ids of tests whose request is wrong."""
        self.said: dict[str, str] = {}
        """What is wrong with requests, in sentences, with the id of the first test that it is said of."""
        self.is_unwritten = False
        """Whether a file that was asked for could not be written at the end."""
        self.uncollected: list[str] = []
        """The modules that could not be collected."""
        self.problems: list[str] = []
        """What is wrong with the run as a whole."""
        self.ended = ""
        """What ended the run before its end; empty where nothing did."""
        self.why_missing = ""
        """Why tests did not run, where the run was stopped."""
        self.saved = 0.0
        """When the JSON was last written, in seconds of the monotonic clock."""
        self.arrivals = Arrivals()
        """What is to be judged, and what of it arrived."""
        self.died: dict[str, list[Json]] = {}
        """Attempts at tests whose process died, by the ids of the tests."""
        self.over_budget: list[str] = []
        """The ids of tests that the budget did not reach."""
        self.deselected: dict[str, str] = {}
        """By test module: what is said about targets that ``--backend`` and ``--precision`` left out."""
        self.environment: Json | None = None
        self.trends: list[Json] = []
        """What the history says of every output of this run."""
        self.parameters: Json = {}
        """What the run was asked for, as all shards of it must be."""
        self.known = RunLedger(self.arrivals)

    def read(self, config: pytest.Config) -> None:
        """Read the options, whose values were checked. Raises UsageError for what cannot be used."""
        from harness.backends import check_remote

        option = config.getoption
        given = {name: value for name in GIVEN if (value := option(f"parity_{name}"))}
        where: Any = folders(_root(config)) | given
        self.settings = Settings(
            **where,
            engine_cache=not option("parity_no_engine_cache"),
            update_references=option("parity_update_references"),
            runs=option("parity_runs"),
            seed_random=option("parity_seed_random"),
            rebuild=bool(option("parity_require")) or option("parity_require_verdict"),
            limit=option("parity_limit"),
            retries=option("parity_retries"),
            retry_on=option("parity_retry_on"),
            progress=_progress(config),
        )
        check_remote(self.settings)
        self.backends = option("parity_backend")
        self.precisions = option("parity_precision")
        self.cases = option("parity_cases")
        if self.cases:
            from harness.case_files import case_files

            case_files(self.cases)  # a pattern of no file is a wrong request of the run
        self.require = option("parity_require")
        self.require_verdict = option("parity_require_verdict")
        manifest: Path | None = option("parity_expect")
        self.expect = (manifest, read_manifest(manifest)) if manifest else None
        self.allowed = limit_options.given_or_defaults(
            {name: option(f"parity_{name}") for name in limit_options.OPTIONS}
        )
        self.allowed |= {"started": _started(config), "spent_s": {}}
        self.timing = LatencyTiming(
            processes=option("parity_latency_processes"),
            record=not option("parity_no_latency_record"),
        )
        self.fail_on_creep = option("parity_fail_on_creep")
        off: bool = option("parity_no_accuracy_record")
        self.records_accuracy = is_recorded(off=off, fail_on_creep=self.fail_on_creep)
        self.parameters = parameters(vars(config.option))
        self.known.configure(config, self.settings.root)

    def with_cases(self, subject: Subject) -> Subject:
        """Return a suite's subject with the cases of ``--cases`` in the place of its own."""
        if not self.cases:
            return subject
        if subject.name not in self._with_files:
            from harness.case_files import with_case_files

            self._with_files[subject.name] = with_case_files(subject, self.cases)
        return self._with_files[subject.name]

    def add(self, data: Json, place: int) -> None:
        """Keep a result; what several tests found on one target and case becomes one result."""
        names = ("subject", "case", "backend", "precision", "source", "plan_source")
        key = tuple(data.get(name, "") for name in names)
        self.results[key] = merged(self.results[key], data) if key in self.results else data
        self.order[key] = min(place, self.order.get(key, place))

    def ordered_results(self) -> list[Json]:
        """Return the results as collected; under xdist they arrive in any order."""
        return [self.results[key] for key in sorted(self.results, key=lambda key: self.order[key])]

    def ordered_latencies(self) -> list[Json]:
        """Return the latencies as collected."""
        return [self.latencies[place] for place in sorted(self.latencies)]

    @property
    def count(self) -> int:
        """How many records arrived."""
        return len(self.results) + len(self.latencies) + len(self.parts)

    def ordered_parts(self) -> list[Json]:
        """Return the models that were brought up part by part, as collected."""
        return [self.parts[place] for place in sorted(self.parts)]

    def start(self) -> None:
        """Put records that say so in the place of those of an earlier run. Raises UsageError where that fails."""
        from harness import files, records

        if self.json:
            files.check_writable(self.json)
            records.save_json(self._document(environment={}), self.json)
        self.junit.start()

    def fail(self, problem: str) -> None:
        """Write what keeps the run from starting."""
        from harness import records

        self.problems.append(problem)
        if self.json:
            with contextlib.suppress(UsageError):
                records.save_json(self._document(environment={}), self.json)

    def cannot_write(self, error: UsageError) -> None:
        """Note that a file that was asked for is not written."""
        self.problems.append(str(error))
        self.is_unwritten = True

    def expect_tests(self) -> None:
        """Write what is to be judged, all of it as if its process had died: that is true until something arrives.

        What cannot be written now is said at the end, when it is written again.
        """
        if self.arrivals.expected:
            with contextlib.suppress(CannotWrite):
                self.save()
            with contextlib.suppress(CannotWrite):
                self.junit.start(self.arrivals.expected)

    def judged(self) -> list[Json]:
        """Return the results as collected, with one for each that died, and with what the ledger makes of each.

        Of a run that was stopped the rest is known.
        """
        stopped = self.why_missing not in ("", DIED) or stopping.received()
        missing = {} if stopped else self.arrivals.missing
        asked = [{**one, "attempts": self.died.get(test, [])} for test, one in missing.items()]
        return [self.known.applied(one) for one in with_missing(self.ordered_results(), asked, DIED)]

    def _document(self, *, environment: Json, complete: bool = False) -> Json:
        from harness import records

        results = self.judged()
        data = records.document(
            results, environment=environment, command=self.command, complete=complete, error="; ".join(self.problems)
        )
        data |= {"parameters": self.parameters, "known": self.standings(results)}
        return {**data, **self.arrivals.to_json(self.why_missing)}

    def standings(self, results: Sequence[Json]) -> list[Json]:
        """Return how the entries of the ledger came out."""
        return self.known.standings(results, self.ordered_latencies(), self.ordered_parts())

    def save(self, *, complete: bool = False) -> None:
        """Write the JSON, where one was asked for. Raises UsageError when it cannot be written."""
        from harness import records

        if self.json:
            data = self._document(environment=self.machine(), complete=complete)
            if self.latencies:
                data["bench"] = self.ordered_latencies()
            if self.parts:
                data["parts"] = self.ordered_parts()
            if self.trends:
                data["accuracy_history"] = self.trends
            records.save_json(data, self.json)
            watcher.keep_record(self.json, data)
            self.saved = time.monotonic()

    def watch_accuracy(self) -> None:
        """Record what was found, and say what rises. A run that a signal stopped has no time to wait for a database."""
        if self.records_accuracy and not stopping.received():
            record = {"results": self.judged(), **self.arrivals.to_json(self.why_missing)}
            watched = watch(record, self.machine, folder=self.settings.history)
            self.trends = list(watched.trends)
            self.remarks += watched.notes
            (self.problems if self.fail_on_creep else self.remarks).extend(watched.said)

    def machine(self) -> Json:
        """Return this machine, asked once."""
        if self.environment is None:
            if stopping.received():  # it imports torch, which an interruption may have left half imported
                return {}
            from harness.backends import environment

            self.environment = environment(self.settings)
        return self.environment


STATE = pytest.StashKey[State]()
"""Where it lives."""


def _progress(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that says what a long step is doing while it runs: pytest would show it only at the end."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if is_worker(config) or capture is None:
        return print_progress

    def say(message: str) -> None:
        with capture.global_and_fixture_disabled():
            print_progress(message)

    return say


def _started(config: pytest.Config) -> float:
    """Return when the run began, by the monotonic clock, which the workers of xdist on this machine share."""
    started: float = getattr(config, "workerinput", {}).get(STARTED, time.monotonic())
    return started


def _root(config: pytest.Config) -> Path:
    """Return pytest's rootdir; where nothing says what it is, pytest takes the folder of its arguments."""
    known = config.inipath or config.getoption("rootdir")
    return config.rootpath if known else repository_root(config.rootpath)


def is_worker(config: pytest.Config) -> bool:
    """Return whether this is a worker of xdist, which runs tests and prints nothing."""
    return hasattr(config, "workerinput")

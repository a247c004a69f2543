"""What one pytest run of suites knows: its options, the results as they arrive, and the JSON they are kept in.

Results travel in ``user_properties`` as plain data, so xdist carries them to the process that reports.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import xml_key

from harness import limits, stopping
from harness.arrivals import SHOWN, Arrivals, missing_words, only_shows, short_of, start_junit, why_missing
from harness.checks import LATENCY_PROPERTY, PROPERTY, LatencyTiming
from harness.errors import UsageError, few, without_passwords
from harness.records import DIED, name_of, overall, run_id, with_missing, words_of
from harness.repository import folders, repository_root
from harness.settings import Settings, print_progress
from harness.subject import Subject

Json = dict[str, Any]
WRONG_REQUEST = 2
"""The exit status of a run in which a request is wrong, as the command has it; pytest has it for what it cannot run."""
TARGET_PROPERTY = "parity-target"
"""The name under which a test that has a target says so, to the process that reports."""
_EARLY_ENDS: dict[int, str] = {
    pytest.ExitCode.INTERRUPTED: "interrupted", pytest.ExitCode.INTERNAL_ERROR: "pytest itself failed",
}  # fmt: skip
SAVE_EVERY_S = 10.0
"""The JSON is written this often while tests run, and at the end."""


class State:
    """What one pytest process knows; lives in ``config.stash``."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.getoption
        given = {name: folder for name in ("engines", "references") if (folder := option(f"parity_{name}"))}
        where: Any = folders(_root(config)) | given
        self.settings = Settings(
            **where,
            engine_cache=not option("parity_no_engine_cache"),
            update_references=option("parity_update_references"),
            runs=option("parity_runs"),
            seed_random=option("parity_seed_random"),
            limit=option("parity_limit"),
            progress=_progress(config),
        )
        self.backends: list[str] = option("parity_backend")
        self.precisions: list[str] = option("parity_precision")
        self.require: list[str] = option("parity_require")
        self.require_verdict: bool | None = option("parity_require_verdict")
        self.json: Path | None = option("parity_json")
        timeout: float | None = option("parity_timeout")
        self.timeout_s = limits.default_timeout() if timeout is None else timeout
        self.timing = LatencyTiming(
            processes=option("parity_latency_processes"),
            record=not option("parity_no_latency_record"),
            beside_others=is_worker(config),
        )
        self.command = without_passwords(shlex.join(["pytest", *map(str, config.invocation_params.args)]))
        self.subjects: dict[str, tuple[Subject, str]] = {}
        """By name, with the file of its suite."""
        self.asked = 0
        """Tests with a target that ran."""
        self.results: dict[tuple[str, ...], Json] = {}
        """Results that arrived, by subject, case, backend and precision."""
        self.latencies: dict[int, Json] = {}
        """Latencies that arrived, by the place of their test in the collection."""
        self.order: dict[tuple[str, ...], int] = {}
        """The place of each result's test in the collection."""
        self.remarks: list[str] = []
        """What is said about the run as a whole, and is no fault of it."""
        self.wrong_requests: set[str] = set()
        """The ids of tests whose request is wrong."""
        self.said: dict[str, str] = {}
        """What is wrong with requests, in sentences, with the id of the first test that it is said of."""
        self.problems: list[str] = []
        """What is wrong with the run as a whole."""
        self.why_missing = ""
        """Why tests did not run, where the run was stopped."""
        self.saved = 0.0
        """When the JSON was last written, in seconds of the monotonic clock."""
        self.arrivals = Arrivals()
        """What is to be judged, and what of it arrived."""
        self.expect: Path | None = option("parity_expect")
        self.junit: Path | None = Path(junit) if (junit := getattr(config.option, "xmlpath", None)) else None
        self.deselected: dict[str, str] = {}
        """By test module: what is said about targets that ``--backend`` and ``--precision`` left out."""
        self.environment: Json | None = None

    def add(self, data: Json, place: int) -> None:
        """Keep a result; what several tests found on one target and case becomes one result."""
        names = ("subject", "case", "backend", "precision", "source", "plan_source")
        key = tuple(data.get(name, "") for name in names)
        self.results[key] = _merged(self.results[key], data) if key in self.results else data
        self.order[key] = min(place, self.order.get(key, place))

    def ordered_results(self) -> list[Json]:
        """Return the results as collected; under xdist they arrive in any order."""
        return [self.results[key] for key in sorted(self.results, key=lambda key: self.order[key])]

    def ordered_latencies(self) -> list[Json]:
        """Return the latencies as collected."""
        return [self.latencies[place] for place in sorted(self.latencies)]

    def start(self) -> None:
        """Put records that say so in the place of those of an earlier run. Raises UsageError where that fails."""
        from harness import files, records

        if self.json:
            files.check_writable(self.json)
            records.save_json(self._document(environment={}), self.json)
        if self.junit:
            start_junit(self.junit, {})

    def fail(self, problem: str) -> None:
        """Write what keeps the run from starting."""
        from harness import records

        self.problems.append(problem)
        if self.json:
            with contextlib.suppress(UsageError):
                records.save_json(self._document(environment={}), self.json)

    def expect_tests(self) -> None:
        """Write what is to be judged, all of it as if its process had died: that is true until something arrives."""
        if self.arrivals.expected:
            self.save()
            if self.junit:
                start_junit(self.junit, self.arrivals.expected)

    def judged(self) -> list[Json]:
        """Return the results as collected, with one for each that died; of a run that was stopped the rest is known."""
        stopped = self.why_missing not in ("", DIED) or stopping.received()
        missing = () if stopped else self.arrivals.missing.values()
        return with_missing(self.ordered_results(), missing, DIED)

    def _document(self, *, environment: Json, complete: bool = False) -> Json:
        from harness import records

        data = records.document(
            self.judged(), environment=environment, command=self.command, complete=complete,
            error="; ".join(self.problems),
        )  # fmt: skip
        left_out = list(self.arrivals.left_out.values())
        return {**data, "expected": self.arrivals.to_json(), "left_out": left_out}

    def save(self, *, complete: bool = False) -> None:
        """Write the JSON, where one was asked for. Raises UsageError when it cannot be written."""
        from harness import records

        if self.json:
            data = self._document(environment=self.machine(), complete=complete)
            if self.latencies:
                data["bench"] = self.ordered_latencies()
            records.save_json(data, self.json)
            self.saved = time.monotonic()

    def machine(self) -> Json:
        """Return this machine, asked once."""
        if self.environment is None:
            if stopping.received():  # it imports torch, which an interruption may have left half imported
                return {}
            from harness.backends import environment

            self.environment = environment(self.settings)
        return self.environment


IS_USAGE = "parity_usage"
"""The attribute of a test's report that says that the request is wrong, and no engine; xdist carries it."""
STATE = pytest.StashKey[State]()


class Collector:
    """Takes results out of test reports as they arrive; registered only in the process that prints."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.failed: dict[str, str] = {}
        """Why a test that still runs has failed, by its id."""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Name a module that could not be imported: it may be a suite, and then its results are missing."""
        if report.failed:
            self.state.problems.append(f"{report.nodeid} could not be collected")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep each test's result; JUnit XML, which prints properties as text, gets one readable line of it."""
        from harness.report.text import latency_line, result_line

        if report.failed:
            self.failed.setdefault(report.nodeid, _first_line(report))
        if hasattr(report, IS_USAGE):
            self.state.wrong_requests.add(report.nodeid)
        if report.when != "teardown" or report.outcome == "rerun":  # type: ignore[comparison-overlap]
            return
        self.state.arrivals.arrived.add(report.nodeid)
        self.state.asked += any(name == TARGET_PROPERTY for name, _ in report.user_properties)
        place = getattr(report, "item_index", len(self.state.results) + len(self.state.latencies))
        properties: list[tuple[str, Any]] = []
        self._note_unrecorded(report)
        for name, value in report.user_properties:
            if name == TARGET_PROPERTY:
                continue
            if name == PROPERTY and isinstance(value, dict):
                self.state.add(value, place)
                properties.append((name, result_line(value)))
            elif name == LATENCY_PROPERTY and isinstance(value, dict):
                self.state.latencies[place] = value
                properties.append((name, latency_line(value)))
            else:
                properties.append((name, value))
        report.user_properties = properties
        found = self.state.results or self.state.latencies
        if found and time.monotonic() - self.state.saved > SAVE_EVERY_S:
            with contextlib.suppress(UsageError):  # said at the end, when it is written again
                self.state.save()  # a crash of the process must not lose hours of results

    def _note_unrecorded(self, report: pytest.TestReport) -> None:
        """Record a test that failed although its result passed: the results alone would hide it."""
        why = self.failed.pop(report.nodeid, None)
        found: dict[str, Any] = dict(report.user_properties)
        recorded = LATENCY_PROPERTY in found or found.get(PROPERTY, {"verdict": "pass"})["verdict"] != "pass"
        if why is not None and TARGET_PROPERTY in found and not recorded:
            self.state.problems.append(f"{report.nodeid} failed: {why}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which a required backend gave no verdict, and write the JSON."""
        state = self.state
        if only_shows(session.config):
            return
        stopped = session.shouldstop or session.shouldfail  # with -x and --maxfail the other tests did not run
        interrupted = _EARLY_ENDS.get(session.exitstatus, "")
        if interrupted and not stopping.received():
            state.problems.append(interrupted)
        if missing := state.arrivals.missing:
            state.why_missing = why_missing(stopped, interrupted)
            state.problems.append(missing_words(missing, len(state.arrivals.expected), state.why_missing))
            if state.why_missing == DIED:
                self._report_dead(session, missing)
        # A test without a teardown report ran in an xdist worker that crashed.
        state.problems += [f"{name} failed: {why}" for name, why in self.failed.items()]
        judged = {result["backend"] for result in state.results.values() if result["verdict"] != "not_judged"}
        judged |= {one["session"]["backend"] for one in state.ordered_latencies() if not _invalid(one)}
        state.problems += [f"required backend {name} gave no verdict" for name in state.require if name not in judged]
        if not judged and (state.asked or state.require_verdict):
            nothing = f"nothing was judged: of {state.asked} tests of engines none gave a verdict"
            fails = limits.in_ci() if state.require_verdict is None else state.require_verdict
            (state.problems if fails else state.remarks).append(nothing)
        if state.expect is not None:
            state.problems += short_of(state.expect, state.judged())
        names = Counter(map(name_of, state.results.values()))
        state.problems += [f"{words_of(name)} is the name of {n} models or plans" for name, n in names.items() if n > 1]
        if stopping.received():
            state.problems.append(stopping.words())
            session.exitstatus = stopping.exit_status()
        if stopped:
            state.problems.append(f"not all tests ran: {stopped}")
        try:
            state.save(complete=not (interrupted or state.problems))
        except UsageError as error:
            state.problems.append(str(error))
        if stopping.received():
            _stop_workers(session.config)
        wrong = [one for one in state.results.values() if one["verdict"] == "fail"]
        if session.exitstatus == pytest.ExitCode.OK:  # a rerun, or a mark of pytest's, changes no verdict
            state.remarks += [f"{words_of(name_of(one))} failed, whatever became of its test" for one in wrong]
        if (wrong or state.problems) and session.exitstatus in (
            pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED,
        ):  # fmt: skip
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if state.wrong_requests and session.exitstatus == pytest.ExitCode.TESTS_FAILED:
            session.exitstatus = WRONG_REQUEST

    def _report_dead(self, session: pytest.Session, missing: Mapping[str, Json]) -> None:
        """Let the terminal and JUnit have each test that died, as a failure; xdist reported some of them."""
        for test in missing.keys() - self.failed.keys():
            report = pytest.TestReport(
                test, (test.partition("::")[0], None, test.rpartition("::")[2]), {}, "failed", DIED, "call"
            )
            session.config.hook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Let JUnit say which run it is of."""
        if (junit := session.config.stash.get(xml_key, None)) is not None:
            junit.add_global_property("parity-run", run_id())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the result table, and what is wrong with the run as a whole."""
        from harness.report.text import latency_table, results_table

        state = self.state
        said = tuple(f"{name} failed: " for name in state.wrong_requests)  # among the errors above
        problems = [problem for problem in state.problems if not problem.startswith(said)]
        left_out = list(state.arrivals.left_out)
        remarks = [*state.deselected.values(), *state.remarks, *problems]
        if left_out:
            remarks.append(f"left out by -k, --lf, --deselect or the like: {len(left_out)}: {few(left_out, SHOWN)}")
        if not state.results and not state.latencies and not remarks:
            return
        terminalreporter.section("parity")
        if judged := state.judged():
            terminalreporter.write_line(results_table(judged))
        if state.latencies:
            terminalreporter.write_line(latency_table(state.ordered_latencies()))
        for remark in remarks:
            terminalreporter.write_line(f"parity: {remark}", yellow=True)


def _stop_workers(config: pytest.Config) -> None:
    """Pass the signal on to the workers of xdist, which would wait ten seconds for tests that go on."""
    nodes = getattr(config.pluginmanager.getplugin("dsession"), "nodemanager", None)
    for gateway in nodes.group if nodes is not None else ():
        with contextlib.suppress(AttributeError, OSError):  # a gateway to another machine has no process here
            gateway._io.popen.terminate()


def _merged(known: Json, data: Json) -> Json:
    """Return one result of two on the same target and case: the worse verdict, all metrics, and the layers."""
    metrics: dict[str, Json] = {}
    for metric in (*known["metrics"], *data["metrics"]):
        metrics[metric["name"]] = _worse(metrics.get(metric["name"], metric), metric)
    layers = known["layers"] or data["layers"]  # only test_layers records them
    return {**_worse(known, data), "metrics": list(metrics.values()), "layers": layers}


def _worse(known: Json, data: Json) -> Json:
    """Return the one with the worse verdict; the known one where they are alike."""
    return known if overall([known["verdict"], data["verdict"]]) == known["verdict"] else data


def _invalid(measured: Json) -> bool:
    return any(run["invalid"] for run in measured["session"]["runs"])


def _progress(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that says what a long step is doing while it runs: pytest would show it only at the end."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if is_worker(config) or capture is None:
        return print_progress

    def say(message: str) -> None:
        with capture.global_and_fixture_disabled():
            print_progress(message)

    return say


def _root(config: pytest.Config) -> Path:
    """Return pytest's rootdir; where nothing says what it is, pytest takes the folder of its arguments."""
    known = config.inipath or config.getoption("rootdir")
    return config.rootpath if known else repository_root(config.rootpath)


def is_worker(config: pytest.Config) -> bool:
    """Return whether this is a worker of xdist, which runs tests and prints nothing."""
    return hasattr(config, "workerinput")


def _first_line(report: pytest.TestReport) -> str:
    """Return the first line of what a test failed with."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)  # longreprtext begins with xdist's heading
    return next(iter(text.strip().splitlines()), "no reason given").removeprefix("Failed: ")

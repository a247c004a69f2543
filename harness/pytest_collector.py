"""Takes the results of a pytest run of suites as they arrive, and says at its end what became of it.

Results travel in ``user_properties`` as plain data, so xdist carries them to the process that reports.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from functools import reduce
from typing import Any

import pytest
from _pytest.junitxml import xml_key

from harness import limit_options, stopping
from harness.arrivals import SHOWN, missing_words, only_shows, short_of
from harness.checks import LATENCY_PROPERTY, PARTS_PROPERTY, PROPERTY
from harness.errors import UsageError, few, first_line
from harness.junit import figures
from harness.pytest_state import STATE
from harness.records import DIED, merged, name_of, with_earlier, words_of
from harness.sentences import with_sentences

Json = dict[str, Any]
WRONG_REQUEST = 2
"""The exit status of a run in which a request is wrong, as the command has it; pytest has it for what it cannot run."""
NOT_JUDGED = 3
"""The exit status of a run that something ended early as if all had passed."""
IS_USAGE = "parity_usage"
"""The attribute of a report that says that the request is wrong, and no engine; xdist carries it."""
OWNER_PROPERTY = "parity-owner"
TARGET_PROPERTY = "parity-target"
"""The name under which a test that has a target says so, to the process that reports."""
_OURS = (PROPERTY, LATENCY_PROPERTY, PARTS_PROPERTY, TARGET_PROPERTY)
_CRASHED = "???"
"""What xdist has for the phase of a test whose worker died."""
SAVE_EVERY_S = 10.0
"""The JSON is written this often while tests run, and at the end."""


class Collector:
    """Takes results out of test reports as they arrive; registered only in the process that prints."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.state = config, config.stash[STATE]
        self.failed: dict[str, str] = {}
        """Why a test that still runs has failed, by its id."""

        self.has_started = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Name a module that could not be imported: it may be a suite, and then its results are missing."""
        if report.failed and report.nodeid not in self.state.uncollected:  # each worker of xdist may say so
            self.state.uncollected.append(report.nodeid)
            self.state.problems.append(f"{report.nodeid} could not be collected")
            self.state.known.collects_less = True
        if hasattr(report, IS_USAGE):
            self.state.wrong_requests.add(report.nodeid)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep what ended the run before its end: a signal, ``pytest.exit``, ``-x`` under xdist, failed collections."""
        error = excinfo.value
        if isinstance(error, pytest.exit.Exception):
            self._end(f"pytest.exit: {first_line(error)}")
        elif self.state.uncollected:
            self._end(f"{few(self.state.uncollected, SHOWN)} could not be collected")
        else:
            self._end(str(error) or "interrupted")

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep how pytest, or a plugin, failed itself."""
        lines = excinfo.exconly().splitlines()  # of xdist: what a worker said, and its own "assert False"
        said = [line.strip() for line in lines if line.strip() and not line.startswith("assert ")]
        self._end(f"pytest itself failed: {said[-1] if said else lines[0]}")

    def _end(self, why: str) -> None:
        why = stopping.words() if stopping.received() else why
        self.state.ended = self.state.ended or why  # what follows the first comes of it
        if not self.has_started:  # nothing else is called at its end
            self.state.fail(self.state.ended)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        """Keep each test's result, before others see the report; in JUnit XML let its type be the class of failure."""
        failure = _failure_of(report, self.state.died.get(report.nodeid, ()))
        self._take(report)
        result = yield
        if (junit := self.config.stash.get(xml_key, None)) is not None:
            _correct(junit, report, failure)
        return result

    def _take(self, report: pytest.TestReport) -> None:
        """Keep a test's result; JUnit XML gets one readable line of it, and its figures one by one."""
        given = [(name, with_sentences(value)) for name, value in report.user_properties]
        self._describe(report, given)
        self.state.arrivals.spent(report.nodeid, report.duration)
        if report.failed:
            self.failed.setdefault(report.nodeid, _first_line(report))
        if hasattr(report, IS_USAGE):
            self.state.wrong_requests.add(report.nodeid)
            sentence = str(report.longrepr)
            if (first := self.state.said.setdefault(sentence, report.nodeid)) != report.nodeid:
                report.longrepr = f"the same as of {first}"
        if report.when != "teardown" or report.outcome == "rerun":  # type: ignore[comparison-overlap]
            return
        self.state.arrivals.arrived.add(report.nodeid)
        self.state.asked += any(name == TARGET_PROPERTY for name, _ in given)
        place = getattr(report, "item_index", self.state.count)
        self._note_unrecorded(report.nodeid, dict(given))
        for name, value in given:
            if name == PROPERTY and isinstance(value, dict):
                earlier = self.state.died.get(report.nodeid, ())
                value = with_earlier(value, earlier, self.state.settings.retries + 1) if earlier else value
                self.state.add(value, place)
                if value["limit"] == "--budget":
                    self.state.over_budget.append(report.nodeid)
            elif name == LATENCY_PROPERTY and isinstance(value, dict):
                self.state.latencies[place] = value
            elif name == PARTS_PROPERTY and isinstance(value, dict):
                self.state.parts[place] = value
        if self.state.count and time.monotonic() - self.state.saved > SAVE_EVERY_S:
            with contextlib.suppress(UsageError):  # said at the end, when it is written again
                self.state.save()  # a crash of the process must not lose hours of results

    def _describe(self, report: pytest.TestReport, given: Sequence[tuple[str, Any]]) -> None:
        """Put text in the place of what a test found; where it was run again, the worse of its results counts."""
        from harness.report.text import latency_line, result_line

        found = [value for name, value in given if name == PROPERTY and isinstance(value, dict)]
        result = self.state.known.applied(reduce(merged, found)) if found else None
        latency = next((value for name, value in reversed(given) if name == LATENCY_PROPERTY), None)
        asked = self.state.arrivals.expected.get(report.nodeid)
        lines = [(PROPERTY, result_line(result)), *_owner(result)] if result else []
        lines += [("parity-failure", result["failure"])] if result and result.get("failure") else []
        lines += [(LATENCY_PROPERTY, latency_line(latency)), *_owner(latency)] if latency else []
        parts = next((value for name, value in reversed(given) if name == PARTS_PROPERTY), None)
        lines += [(PARTS_PROPERTY, parts["reason"]), *_owner(parts)] if parts else []
        report.user_properties = [one for one in given if one[0] not in _OURS]
        self.state.junit.describe(report, dict(lines) | (figures(asked, result, latency) if asked else {}))

    def _note_unrecorded(self, test: str, found: Mapping[str, Any]) -> None:
        """Record a test that failed although its result passed: the results alone would hide it."""
        why = self.failed.pop(test, None)
        others = {LATENCY_PROPERTY, PARTS_PROPERTY} & found.keys()
        recorded = others or found.get(PROPERTY, {"verdict": "pass"})["verdict"] != "pass"
        if why is not None and TARGET_PROPERTY in found and not recorded:
            self.state.problems.append(f"{test} failed: {why}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which a required backend gave no verdict, and write the JSON."""
        state = self.state
        if only_shows(session.config):
            return
        state.junit.leave_out_nameless()
        refused = "pytest cannot use its arguments" if session.exitstatus == pytest.ExitCode.USAGE_ERROR else ""
        ended = state.ended or refused or str(session.shouldfail or session.shouldstop or "")  # the last two: -x
        if missing := state.arrivals.missing:
            state.why_missing = f"not judged: {ended}" if ended else DIED
            state.problems.append(missing_words(missing, len(state.arrivals.expected), state.why_missing))
            if state.why_missing == DIED:
                self._report_dead(session, missing)
        # A test without a teardown report ran in an xdist worker that crashed.
        state.problems += [f"{name} failed: {why}" for name, why in self.failed.items()]
        state.known.is_over = True
        results = state.judged()
        state.known.report_passing(session, results)
        if stale := state.known.stale(session):
            state.problems += stale
            state.wrong_requests.add(state.known.ledger.file)
        judged = {one["backend"] for one in state.results.values() if one["verdict"] not in ("not_judged", "known")}
        judged |= {one["backend"] for one in state.ordered_parts() if _has_run(one)}
        judged |= {one["session"]["backend"] for one in state.ordered_latencies() if not _invalid(one)}
        lacking = [name for name in state.require if name not in judged and not state.arrivals.is_elsewhere(name)]
        state.problems += [f"required backend {name} gave no verdict" for name in lacking]
        known = any(one["verdict"] == "known" for one in (*results, *state.ordered_parts()))
        if not judged and not known and (state.asked or state.require_verdict) and not state.arrivals.is_empty_shard:
            nothing = f"nothing was judged: of {state.asked} tests of engines none gave a verdict"
            fails = limit_options.in_ci() if state.require_verdict is None else state.require_verdict
            (state.problems if fails else state.remarks).append(nothing)
        if late := list(dict.fromkeys(state.over_budget)):
            spent = f"the budget of {state.allowed['budget']:g} s was spent (--budget)"
            state.problems.append(f"{spent}: {len(late)} tests of engines were not judged: {few(late, SHOWN)}")
        if state.expect is not None:
            state.problems += short_of(*state.expect, results, state.arrivals.elsewhere)
        names = Counter(map(name_of, state.results.values()))
        state.problems += [f"{words_of(name)} is the name of {n} models or plans" for name, n in names.items() if n > 1]
        if ended and not (missing or state.uncollected):
            state.problems.append(f"not all tests ran: {ended}")
        state.watch_accuracy()
        try:
            state.save(complete=not state.problems)
        except UsageError as error:
            state.cannot_write(error)
        if stopping.received():
            _stop_workers(session.config)
        wrong = [one for one in (*results, *state.ordered_parts()) if one["verdict"] == "fail"]
        if session.exitstatus == pytest.ExitCode.OK:  # a rerun, or a mark of pytest's, changes no verdict
            state.remarks += [f"{words_of(name_of(one))} failed, whatever became of its test" for one in wrong]
        parts = [part for found in state.ordered_parts() for part in found["parts"]]
        new = any(one["verdict"] == "fail" and not one["known"] for one in (*results, *parts))
        state.remarks += [state.known.ledger.offer(state.json)] if new else []
        session.exitstatus = exit_status(session, has_failed=bool(wrong))

    def _report_dead(self, session: pytest.Session, missing: Mapping[str, Json]) -> None:
        """Let the terminal and JUnit have each test that died, as a failure; xdist reported some of them."""
        for test in missing.keys() - self.failed.keys():
            self.state.died.setdefault(test, [{"verdict": "not_judged", "failure": "crash", "reason": DIED}])
            report = pytest.TestReport(
                test, (test.partition("::")[0], None, test.rpartition("::")[2]), {}, "failed", DIED, "call"
            )
            session.config.hook.pytest_runtest_logreport(report=report)
        self.state.junit.describe_dead(missing)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Let JUnit say which run it is of."""
        self.has_started = True
        self.state.junit.name_run()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the result table, and what is wrong with the run as a whole."""
        from harness.report.text import known_text, latency_table, parts_text, results_table

        state = self.state
        said = tuple(f"{name} failed: " for name in state.wrong_requests)  # among the errors above
        problems = [problem for problem in state.problems if not problem.startswith(said)]
        left_out = list(state.arrivals.left_out)
        remarks = [*filter(None, [state.arrivals.shard_words]), *state.deselected.values(), *state.remarks, *problems]
        if left_out:
            remarks.append(f"left out by -k, --lf, --deselect or the like: {len(left_out)}: {few(left_out, SHOWN)}")
        if not (state.count or remarks):
            return
        terminalreporter.section("parity")
        if results := state.judged():
            terminalreporter.write_line(results_table(results))
        if state.parts:
            terminalreporter.write_line(parts_text(state.ordered_parts()))
        if state.latencies:
            terminalreporter.write_line(latency_table(state.ordered_latencies()))
        if known := known_text(state.standings(results)):
            terminalreporter.write_line(known)
        for remark in remarks:
            terminalreporter.write_line(f"parity: {remark}", yellow=True)


def _has_run(found: Json) -> bool:
    """Return whether the parts of a model were judged: not where all of them are known to crash and none was run."""
    launched = any(part["known"] is None or part["known"]["verdict"] for part in found["parts"])
    return found["verdict"] != "not_judged" and launched


def exit_status(session: pytest.Session, *, has_failed: bool = False) -> int:
    """Return pytest's status, or ours where it would say that all passed, or where a request is wrong."""
    state, status = session.config.stash[STATE], int(session.exitstatus)
    if stopping.received():
        return stopping.exit_status()
    most = session.config.getoption("maxfail")
    if status == pytest.ExitCode.INTERRUPTED and most and session.testsfailed >= most and not state.uncollected:
        status = pytest.ExitCode.TESTS_FAILED  # -x, which has another status under xdist
    if status == pytest.ExitCode.NO_TESTS_COLLECTED and state.arrivals.is_empty_shard:
        status = pytest.ExitCode.OK
    if status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and (has_failed or state.problems):
        status = NOT_JUDGED if state.ended and not has_failed else pytest.ExitCode.TESTS_FAILED
    is_wrong = bool(state.wrong_requests or state.uncollected) or state.is_unwritten
    return WRONG_REQUEST if is_wrong and status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else status


def _stop_workers(config: pytest.Config) -> None:
    """Pass the signal on to the workers of xdist, which would wait ten seconds for tests that go on."""
    nodes = getattr(config.pluginmanager.getplugin("dsession"), "nodemanager", None)
    for gateway in nodes.group if nodes is not None else ():
        with contextlib.suppress(AttributeError, OSError):  # a gateway to another machine has no process here
            gateway._io.popen.terminate()


def _owner(value: Json) -> list[tuple[str, str]]:
    """Return who answers for a result, as a property of its test."""
    return [(OWNER_PROPERTY, value["owner"])] if value["owner"] else []


def _failure_of(report: pytest.TestReport, died: Sequence[Json]) -> str:
    """Return the class of failure that a report is about; empty where there is none, or no result."""
    found = [value for name, value in report.user_properties if name == PROPERTY and isinstance(value, dict)]
    return str([*died, *found][-1]["failure"]) if found or died else ""


def _correct(junit: Any, report: Any, failure: str) -> None:
    """Let the type of what went wrong be its class in JUnit XML, and a test that runs again be there once."""
    if report.outcome in ("failed", "skipped") and report.when != "teardown" and failure:
        for node in junit.node_reporter(report).nodes[-1:]:
            node.set("type", failure)
    if report.outcome == "rerun" and report.when == _CRASHED:
        junit.node_reporters_ordered.remove(junit.node_reporter(report))


def _invalid(measured: Json) -> bool:
    return any(run["invalid"] for run in measured["session"]["runs"])


def _first_line(report: pytest.TestReport) -> str:
    """Return the first line of what a test failed with."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)  # longreprtext begins with xdist's heading
    return next(iter(text.strip().splitlines()), "no reason given").removeprefix("Failed: ")

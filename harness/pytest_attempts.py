"""Tests of engines that took too long, or whose process died: what is recorded of them, and which run again.

A process that dies takes its test along; xdist starts another, and ``--retries`` lets the test run there once more.
What ended it is known where its time did: the process that ends a worker then leaves that in a file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from harness import limits, watcher
from harness.checks import PROPERTY
from harness.errors import TookTooLong
from harness.pytest_state import STARTED, STATE, State, is_worker
from harness.records import DIED, Result
from harness.repository import source_of
from harness.subject import Target
from harness.temporary import temporary_folder

Json = dict[str, Any]
_FOLDER = "parity_last_words"


@contextlib.contextmanager
def in_time(item: pytest.Item) -> Iterator[None]:
    """Skip a test of an engine that is not over in the time of its subject, or of the run, and record that."""
    ended: TookTooLong | None = None
    try:
        with limits.work(item.module.SUBJECT.name, "running its test"):  # type: ignore[attr-defined]
            yield
    except TookTooLong as error:
        ended = error
    if ended is not None:  # outside of the handler, or pytest would show the chain of errors
        _not_in_time(item, ended)


def _not_in_time(item: pytest.Item, error: TookTooLong) -> None:
    """Record that a test took too long, and skip it, or fail it where its backend is required."""
    state, parameters = item.config.stash[STATE], item.callspec.params  # type: ignore[attr-defined]
    target: Target = parameters["parity_target"]
    subject = item.module.SUBJECT  # type: ignore[attr-defined]
    root = state.settings.root
    result = Result(
        subject=subject.name, case=parameters["parity_case"], backend=target.backend, precision=target.precision_name,
        source=source_of(root, item.path), plan_source=target.plan_source(root), verdict="not_judged",
        reason=str(error), failure=error.failure, limit=error.option,
    )  # fmt: skip
    item.user_properties.append((PROPERTY, result.to_json()))
    is_generated = parameters["parity_case"] in subject.range_cases
    if target.backend in state.require and not is_generated:
        pytest.fail(f"required backend {target.backend} gave no verdict: {error}", pytrace=False)
    pytest.skip(f"not judged: {error}")


def name_test(item: pytest.Item) -> None:
    """Let the last words of a worker be about this test."""
    if is_worker(item.config):
        worker: dict[str, str] = item.config.workerinput  # type: ignore[attr-defined]
        folder = Path(worker.get(_FOLDER, ""))
        if worker.get(_FOLDER) and folder.is_dir():  # not on another machine
            watcher.keep_record(folder / f"{worker['workerid']}.json", {"test": item.nodeid})


class Deaths:
    """Knows how workers of xdist ended; registered only in the process that reports."""

    def __init__(self, state: State, ending: ExitStack) -> None:
        """``ending`` is closed at the end of the run."""
        self.state, self._ending = state, ending

    @cached_property
    def folder(self) -> Path:
        """Where workers leave why they were ended."""
        return self._ending.enter_context(temporary_folder())

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where its last words go, should its time end it, and when the run began."""
        node.workerinput[_FOLDER] = str(self.folder)
        node.workerinput[STARTED] = self.state.allowed["started"]

    @pytest.hookimpl(optionalhook=True, trylast=True)  # after that of pytest-rerunfailures
    def pytest_handlecrashitem(self, report: Any, sched: Any) -> None:
        """Note how a test ended with its worker, and let it run again where that may be tried again."""
        test, settings = report.nodeid, self.state.settings
        if test not in self.state.arrivals.expected:
            return
        why = self._last_words(report)
        attempts = self.state.died.setdefault(test, [])
        attempts.append({"verdict": "not_judged", **why})
        if report.outcome == "rerun" or why["failure"] not in settings.retry_on or len(attempts) > settings.retries:
            return
        with contextlib.suppress(NotImplementedError):  # --dist loadscope, loadfile and loadgroup cannot
            sched.mark_test_pending(test)
            report.outcome = "rerun"

    def _last_words(self, report: Any) -> Json:
        """Return what class of failure ended the process of a test, and why."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = json.loads((self.folder / f"{report.node.gateway.id}.json").read_text(encoding="utf-8"))
            if said["test"] == report.nodeid:
                return {"failure": said["failure"], "reason": said["error"]}
        return {"failure": "crash", "reason": DIED}

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Show a test that runs again as such."""
        return ("rerun", "R", "RERUN") if report.outcome == "rerun" else None

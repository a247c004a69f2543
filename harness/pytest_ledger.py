"""The ledger of known failures in a pytest run: checked, engines that are not launched, what became of each entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import ledger as ledgers
from harness.arrivals import Arrivals, judged_by, only_shows
from harness.checks import PROPERTY
from harness.errors import UsageError
from harness.ledger import Ledger
from harness.pytest_endings import expected
from harness.records import name_of, words_of
from harness.repository import source_of
from harness.subject import Subject

Json = dict[str, Any]
SUITES = "suites"


class RunLedger:
    """The ledger of one run."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.ledger = Ledger()
        self.arrivals = arrivals
        self.is_over = False
        """Whether all results arrived that will."""
        self.root = Path()
        self.launches_all = False
        self.collects_less = False
        """Whether a module could not be collected: its subject is not known."""

    def configure(self, config: pytest.Config, root: Path) -> None:
        """Read the ledger of a repository. Raises UsageError where it is none."""
        self.launches_all = config.getoption("parity_run_known")
        self.root = root
        self.ledger = replace(ledgers.read(root, config.getoption("parity_known")), launches_all=self.launches_all)
        config.pluginmanager.register(self, "parity-ledger")

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Hold the entries of a subject against what it declares."""
        subject = getattr(metafunc.module, "SUBJECT", None)
        if "parity" not in metafunc.fixturenames or not isinstance(subject, Subject):
            return
        subject = replace(subject, source=source_of(self.root, metafunc.module.__file__))
        declared = self.arrivals.declared[subject.name] = ledgers.declared_by(subject)
        try:
            self.ledger.check(subject.name, declared)
        except UsageError as error:
            raise pytest.Collector.CollectError(str(error)) from error

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Launch no engine that is known to crash: it would take the process with it."""
        judged = judged_by(item)
        if self.launches_all or judged is None:
            return
        target, case = judged
        subject = replace(item.module.SUBJECT, source=source_of(self.root, item.path))  # type: ignore[attr-defined]
        entry = self.ledger.entry_of(subject.name, str(target), case, source=subject.source)
        if entry is None or ledgers.is_launched(entry):
            return
        result = ledgers.not_launched(subject, target, case, self.ledger, entry, target.plan_source(self.root))
        item.user_properties.append((PROPERTY, result.to_json()))
        if result.verdict == "fail":
            pytest.fail(f"{result.reason}\nowner: {result.owner}" if result.owner else result.reason, pytrace=False)
        raise expected(result.reason)

    def applied(self, result: Json) -> Json:
        """Return a result with the verdict that the ledger leaves.

        That one passes is known when all tests of its target and case have ended, and none of them was left out.
        """
        name = name_of(result)
        subject, case, backend, precision = name
        if result["known"]:  # it was not launched
            return result
        entry = self.ledger.entry_of(subject, f"{backend}-{precision}", case, source=result["source"])
        arrivals = self.arrivals
        lacking = (*arrivals.missing.values(), *arrivals.left_out.values(), *arrivals.elsewhere)
        whole = self.is_over and not any("case" in one and name_of(one) == name for one in lacking)
        if entry is None or (result["verdict"] == "pass" and not whole):
            return result
        return ledgers.judged(result, self.ledger, entry, owner=result["owner"])

    def standings(self, results: Sequence[Json], latencies: Sequence[Json], models: Sequence[Json]) -> list[Json]:
        """Return how the entries came out."""
        return ledgers.standings(self.ledger, self.arrivals.declared, results, latencies, models)

    def stale(self, session: pytest.Session) -> list[str]:
        """Return a sentence for each entry whose subject no suite declares, where all suites were collected."""
        config = session.config
        narrowed = self.collects_less or getattr(config.option, "lf", False) or only_shows(config)
        ignored = any(config.getoption(name, None) for name in ("ignore", "ignore_glob"))
        if (narrowed and not self.arrivals.declared) or ignored or not self._collects_all(config):
            return []
        return ledgers.unknown_subjects(self.ledger, self.arrivals.declared)

    def _collects_all(self, config: pytest.Config) -> bool:
        """Return whether a run collects the whole repository, or the folder of suites that ``parity list`` shows."""
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            return True
        given = {(config.invocation_params.dir / arg).resolve() for arg in config.args}
        return bool(given & {self.root.resolve(), (self.root / SUITES).resolve()})

    def report_passing(self, session: pytest.Session, results: Sequence[Json]) -> None:
        """Let the terminal and JUnit have what passes although an entry says that it fails, as a failure."""
        for result in results:
            if result["known"] and result["known"]["verdict"] == "pass":
                name = words_of(name_of(result))
                owner = f"\nowner: {result['owner']}" if result["owner"] else ""
                report = pytest.TestReport(
                    f"{self.ledger.file}::{name}", (self.ledger.file, None, name), {}, "failed",
                    f"{name}: {result['reason']}{owner}", "call",
                )  # fmt: skip
                session.config.hook.pytest_runtest_logreport(report=report)

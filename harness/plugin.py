"""The pytest plugin: every subject, case and target of ``pytest suites`` is a test of its own.

A repository uses it with one line in its root conftest.py: ``pytest_plugins = ["harness.plugin"]``. A suite defines
``SUBJECT`` and imports its tests from ``harness.checks``; a test that takes the ``parity`` fixture runs once per target
and case. Results travel in ``user_properties`` as plain data, so xdist carries them to the process that reports.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.checks import LATENCY_PROPERTY, PROPERTY, Opened, Parity, Timing
from harness.errors import ParityError, UsageError
from harness.settings import Settings, print_progress
from harness.subject import PLAIN_PRECISIONS, Subject, Target

if TYPE_CHECKING:
    from harness.verify import Run

Json = dict[str, Any]

SAVE_EVERY_S = 10.0
"""The JSON is written this often while tests run, and at the end."""


def _progress(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that says what a long step is doing while it runs: a build takes longer than patience."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if _is_worker(config) or capture is None:
        return print_progress

    def say(message: str) -> None:
        with capture.global_and_fixture_disabled():
            print_progress(message)

    return say


class State:
    """What one pytest process knows; lives in ``config.stash``."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.getoption
        defaults = Settings()
        self.settings = replace(
            defaults,
            engines=option("parity_engines") or defaults.engines,
            references=option("parity_references") or defaults.references,
            engine_cache=not option("parity_no_engine_cache"),
            update_references=option("parity_update_references"),
            progress=_progress(config),
        )
        self.backends: list[str] = option("parity_backend")
        self.precisions: list[str] = option("parity_precision")
        self.require: list[str] = option("parity_require")
        self.json: Path | None = option("parity_json")
        self.timing = Timing(
            processes=option("parity_latency_processes"),
            record=not option("parity_no_latency_record"),
            beside_others=_is_worker(config),
        )
        self.command = shlex.join(["pytest", *config.invocation_params.args])
        self.results: dict[tuple[str, ...], Json] = {}
        """Results that arrived, by subject, case, backend and precision."""
        self.latencies: dict[int, Json] = {}
        """Latencies that arrived, by the place of their test in the collection."""
        self.order: dict[tuple[str, ...], int] = {}
        """The place of each result's test in the collection."""
        self.problems: list[str] = []
        """What is wrong with the run as a whole."""
        self.saved = 0.0
        """When the JSON was last written, in seconds of the monotonic clock."""
        self.deselected: dict[str, str] = {}
        """By test module: what is said about targets that ``--backend`` and ``--precision`` left out."""
        self.environment: Json | None = None

    def add(self, data: Json, place: int) -> None:
        """Keep a result; what several tests found on one target and case becomes one result."""
        key = (data["subject"], data["case"], data["backend"], data["precision"])
        self.results[key] = _merged(self.results[key], data) if key in self.results else data
        self.order[key] = min(place, self.order.get(key, place))

    def ordered(self) -> list[Json]:
        """Return the results as collected; under xdist they arrive in any order."""
        return [self.results[key] for key in sorted(self.results, key=lambda key: self.order[key])]

    def timed(self) -> list[Json]:
        """Return the latencies as collected."""
        return [self.latencies[place] for place in sorted(self.latencies)]

    def save(self, *, complete: bool = False) -> None:
        """Write the JSON, where one was asked for. Raises UsageError when it cannot be written."""
        from harness import report

        if self.json:
            data = report.document(
                self.ordered(), environment=self.machine(), command=self.command, complete=complete,
                error="; ".join(self.problems),
            )  # fmt: skip
            if self.latencies:
                data["bench"] = self.timed()
            report.save_json(data, self.json)
            self.saved = time.monotonic()

    def machine(self) -> Json:
        """Return this machine, asked once."""
        if self.environment is None:
            from harness import environment

            self.environment = environment.gather(self.settings)
        return self.environment


STATE = pytest.StashKey[State]()


# Fixtures. The first two are parametrised by pytest_generate_tests; pytest orders tests by module-scoped parameters, so
# all tests of a target run before the next target's engine is opened.


@pytest.fixture(scope="module")
def parity_target(request: pytest.FixtureRequest) -> Target:
    """The backend and precision of this test."""
    target: Target = request.param
    return target


@pytest.fixture
def parity_case(request: pytest.FixtureRequest) -> str:
    """The name of the case of this test."""
    case: str = request.param
    return case


@pytest.fixture(scope="module")
def parity_run(request: pytest.FixtureRequest) -> Run:
    """The module's subject: exported once, its references computed once."""
    from harness import verify

    return verify.Run(request.module.SUBJECT, request.config.stash[STATE].settings)


@pytest.fixture(scope="module")
def parity_engine(parity_run: Run, parity_target: Target) -> Iterator[Opened]:
    """The target's engine: built or loaded once, freed before the next one."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(parity_run.target(parity_target))
        except ParityError as error:
            pytest.fail(str(error), pytrace=False)
        yield Opened(opened)


@pytest.fixture
def parity(request: pytest.FixtureRequest, parity_engine: Opened, parity_case: str, parity_target: Target) -> Parity:
    """One case on one target: ``.check()``, ``.check_metric(...)``, ``.result``, ``.actual``, ``.expected``."""
    state = request.config.stash[STATE]
    required = parity_target.backend in state.require
    return Parity(parity_engine, parity_case, request.node, required=required, timing=state.timing)


# Options and selection


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; their names are those of the command line."""
    group = parser.getgroup("parity", "engines against PyTorch")
    names = {"action": "append", "default": []}
    switch = {"action": "store_true", "default": False}
    add = group.addoption
    add("--backend", dest="parity_backend", metavar="NAME", help="only this backend; repeatable", **names)
    add("--precision", dest="parity_precision", metavar="NAME", help="only this precision; repeatable", **names)
    add("--require", dest="parity_require", metavar="BACKEND", help="fail unless this backend was judged", **names)
    add("--update-references", dest="parity_update_references", help="write stored references first", **switch)
    add("--no-engine-cache", dest="parity_no_engine_cache", help="build every engine afresh", **switch)
    add("--parity-json", dest="parity_json", type=Path, metavar="FILE", help="write the results (docs/json.md)")
    add(
        "--latency-processes", dest="parity_latency_processes", type=int, default=5, metavar="N",
        help="fresh processes per latency; default: 5",
    )  # fmt: skip
    add("--no-latency-record", dest="parity_no_latency_record", help="compare latencies, record none", **switch)
    add("--engines", dest="parity_engines", type=Path, metavar="DIR", help="the engine cache (PARITY_ENGINES)")
    add("--references", dest="parity_references", type=Path, metavar="DIR", help="references (PARITY_REFERENCES)")


def pytest_configure(config: pytest.Config) -> None:
    """Read the options once and register a marker per backend and precision."""
    from harness import discovery, report
    from harness.backends import BACKENDS

    state = config.stash[STATE] = State(config)
    for name in (*BACKENDS, *PLAIN_PRECISIONS):
        config.addinivalue_line("markers", f"{name}: runs on this backend or in this precision")
    try:
        discovery.check_backends([*state.backends, *state.require])
        discovery.check_precisions(state.precisions)
        if state.timing.processes < 2:
            raise UsageError(f"--latency-processes {state.timing.processes} tells no spread; give at least 2")
        if state.json and not _is_worker(config):
            report.check_writable(state.json)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    if not _is_worker(config):
        config.pluginmanager.register(Collector(state), "parity-collector")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test that takes ``parity`` its targets and cases."""
    if "parity" not in metafunc.fixturenames:
        return
    subject = _subject(metafunc.module)
    targets = [
        pytest.param(target, id=str(target), marks=_marks(metafunc.config, target)) for target in subject.targets
    ]
    metafunc.parametrize("parity_target", targets, indirect=True, scope="module")
    metafunc.parametrize("parity_case", list(subject.cases), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what ``--backend`` and ``--precision`` do not name, and remember subjects that have nothing left."""
    state = config.stash[STATE]
    ours = [(item, target) for item in items if (target := _target_of(item)) is not None]
    left_out = {item for item, target in ours if not _is_selected(state, target)}
    if not left_out:
        return
    config.hook.pytest_deselected(items=[item for item, _ in ours if item in left_out])
    items[:] = [item for item in items if item not in left_out]
    kept = {_module_of(item) for item in items}
    for module in dict.fromkeys(_module_of(item) for item, _ in ours):
        if module not in kept:
            has = dict.fromkeys(str(target) for item, target in ours if _module_of(item) == module)
            state.deselected[module] = f"{module}: no target matches {_selection(state)}; it has {', '.join(has)}"


def _subject(module: Any) -> Subject:
    from harness import discovery

    try:
        return discovery.subject_of(vars(module), module.__file__)
    except UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from error


def _marks(config: pytest.Config, target: Target) -> list[pytest.MarkDecorator]:
    """Return marks for backend and precision; a plan's name is registered here, when it is first met."""
    known = {line.partition(":")[0] for line in config.getini("markers")}
    names = (target.backend, target.precision_name)
    for name in names:
        if name not in known:
            config.addinivalue_line("markers", f"{name}: runs on this backend or with this precision plan")
    return [getattr(pytest.mark, name) for name in names]


def _target_of(item: pytest.Item) -> Target | None:
    callspec = getattr(item, "callspec", None)
    target = callspec.params.get("parity_target") if callspec else None
    return target if isinstance(target, Target) else None


def _module_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _is_selected(state: State, target: Target) -> bool:
    by_backend = not state.backends or target.backend in state.backends
    precisions = [Path(name) for name in state.precisions]  # a plan file may be spelled ./plan.toml
    return by_backend and (not precisions or Path(target.precision) in precisions)


def _selection(state: State) -> str:
    parts = [f"--backend {name}" for name in state.backends] + [f"--precision {name}" for name in state.precisions]
    return " ".join(parts)


# Reporting, in the process that prints


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Show every backend, and what was left out, once it is known that a suite was collected."""
    state = config.stash[STATE]
    if not state.deselected and not any(_target_of(item) for item in items):
        return []  # asking the backends imports torch: not for a run that has no suite
    return _header(state)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Show the backends under xdist, where collection happens in the workers."""
    from harness.backends import BACKENDS

    state: State = node.config.stash[STATE]
    ours = re.compile(rf"\[({'|'.join(map(re.escape, BACKENDS))})-")
    reporter = node.config.pluginmanager.get_plugin("terminalreporter")
    if state.environment is None and reporter is not None and any(ours.search(name) for name in ids):
        reporter.ensure_newline()
        for line in _header(state):
            reporter.write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over from an xdist worker what it left out."""
    output = getattr(node, "workeroutput", None) or {}
    node.config.stash[STATE].deselected.update(output.get("parity_deselected", {}))


def _header(state: State) -> list[str]:
    from harness.report import text

    return [f"parity: {line}" for line in text.backend_lines(state.machine())] + [
        f"parity: {line}" for line in state.deselected.values()
    ]


class Collector:
    """Takes results out of test reports as they arrive; registered only in the process that prints."""

    def __init__(self, state: State) -> None:
        self.state = state

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep each test's result; JUnit XML, which prints properties as text, gets one readable line of it."""
        from harness.report import latency, text

        if report.when != "teardown":
            return
        place = getattr(report, "item_index", len(self.state.results) + len(self.state.latencies))
        properties: list[tuple[str, Any]] = []
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                self.state.add(value, place)
                properties.append((name, text.short(value)))
            elif name == LATENCY_PROPERTY and isinstance(value, dict):
                self.state.latencies[place] = value
                properties.append((name, latency.short(value)))
            else:
                properties.append((name, value))
        report.user_properties = properties
        found = self.state.results or self.state.latencies
        if found and time.monotonic() - self.state.saved > SAVE_EVERY_S:
            self.state.save()  # a crash of the process must not lose hours of results

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which a required backend gave no verdict, and write the JSON."""
        state = self.state
        if session.config.option.collectonly:
            return
        judged = {result["backend"] for result in state.results.values() if result["verdict"] != "not_judged"}
        judged |= {one["session"]["backend"] for one in state.timed() if not _invalid(one)}
        state.problems += [f"required backend {name} gave no verdict" for name in state.require if name not in judged]
        complete = session.exitstatus not in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        try:
            state.save(complete=complete)
        except UsageError as error:
            state.problems.append(str(error))
        if state.problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the result table, and what is wrong with the run as a whole."""
        from harness.report import latency, text

        state = self.state
        remarks = [*state.deselected.values(), *state.problems]
        if not state.results and not state.latencies and not remarks:
            return
        terminalreporter.section("parity")
        if state.results:
            terminalreporter.write_line(text.table(state.ordered()))
        if state.latencies:
            terminalreporter.write_line(latency.table(state.timed()))
        for remark in remarks:
            terminalreporter.write_line(f"parity: {remark}", yellow=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over to the controlling process what an xdist worker left out."""
    if _is_worker(session.config):
        # xdist adds the attribute; it holds only builtins.
        session.config.workeroutput["parity_deselected"] = session.config.stash[STATE].deselected  # type: ignore[attr-defined]


def _invalid(measured: Json) -> bool:
    return any(run["invalid"] for run in measured["session"]["runs"])


def _merged(known: Json, data: Json) -> Json:
    """Return one result of two on the same target and case: the worse verdict, and all metrics."""
    rank = ("pass", "not_judged", "fail").index
    worse = data if rank(data["verdict"]) > rank(known["verdict"]) else known
    metrics = {metric["name"]: metric for metric in (*known["metrics"], *data["metrics"])}
    return {**worse, "metrics": list(metrics.values())}

"""The pytest plugin: every subject, case and target of ``pytest suites`` is a test of its own.

A repository uses it with one line in its root conftest.py: ``pytest_plugins = ["harness.plugin"]``. A suite defines
``SUBJECT`` and imports its tests from ``harness.checks``; a test that takes ``parity`` runs once per target and
case, with ``parity_engine`` alone once per target. Results travel in ``user_properties`` as plain data.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.junitxml import xml_key

from harness import limits, locks, reads, stopping, watcher
from harness.arrivals import judged_by, only_shows, target_of
from harness.checks import Parity, test_outputs
from harness.errors import CannotWrite, UsageError, no_exit, same_name, visible
from harness.junit import junit_apart
from harness.pytest_attempts import Deaths, in_time, name_test
from harness.pytest_collector import (
    IS_USAGE,
    NOT_JUDGED,
    TARGET_PROPERTY,
    WRONG_REQUEST,
    Collector,
    exit_status,
)
from harness.pytest_endings import failing_in_one_sentence, having_a_verdict
from harness.pytest_options import add_options, check_options
from harness.pytest_shards import Shards
from harness.pytest_state import STATE, State, is_worker
from harness.pytest_workers import Turns, Workers, timing_of
from harness.repository import source_of
from harness.shards import LATENCY
from harness.subject import NAMED_PRECISIONS, Subject, Target
from harness.temporary import temporary_folder

if TYPE_CHECKING:
    from harness.verify import OpenTarget, Run

_ENDING = pytest.StashKey[ExitStack]()

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

    state = request.config.stash[STATE]
    subject = state.with_cases(request.module.SUBJECT)
    file = state.subjects[subject.name][1]
    return verify.Run(replace(subject, source=source_of(state.settings.root, file)), state.settings)


@pytest.fixture(scope="module")
def parity_engine(parity_run: Run, parity_target: Target) -> Iterator[OpenTarget]:
    """The target's engine: built or loaded once, freed before the next one."""
    with ExitStack() as stack:
        with failing_in_one_sentence():
            opened = stack.enter_context(parity_run.target(parity_target))
        yield opened


@pytest.fixture
def parity(
    request: pytest.FixtureRequest, parity_engine: OpenTarget, parity_case: str, parity_target: Target
) -> Parity:
    """One case on one target: ``.check()``, ``.check_metric(...)``, ``.result``, ``.actual``, ``.expected``."""
    state = request.config.stash[STATE]
    required = parity_target.backend in state.require and parity_case not in parity_engine.run.subject.range_cases
    timing, ledger = timing_of(request.node, state.timing), state.known.ledger
    return Parity(parity_engine, parity_case, request.node, required=required, timing=timing, ledger=ledger)


# Options and selection


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    add_options(parser)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, int, int]:
    """End a run whose request is wrong with our status for it; one that something ended early is none that passed."""
    try:
        status = yield
    except pytest.UsageError as error:
        if not isinstance(error.__cause__, UsageError):  # pytest's own
            raise
        print(f"ERROR: {visible(str(error))}", file=sys.stderr)
        return WRONG_REQUEST
    state = config.stash.get(STATE, None)
    return NOT_JUDGED if status == pytest.ExitCode.OK and state is not None and state.ended else status


def pytest_configure(config: pytest.Config) -> None:
    """Read the options once and register a marker per backend and precision."""
    config.stash[_ENDING] = ExitStack()
    config.stash[_ENDING].enter_context(stopping.stoppable())
    try:
        _configure(config)
    except KeyboardInterrupt:
        pytest.exit(stopping.words(), returncode=stopping.exit_status())


def _configure(config: pytest.Config) -> None:
    from harness import discovery
    from harness.backends import BACKENDS

    for name in (*BACKENDS, *NAMED_PRECISIONS):
        config.addinivalue_line("markers", f"{name}: runs on this backend or in this precision")
    config.addinivalue_line("markers", f"{LATENCY}: measures latency: nothing else runs beside it")
    state = config.stash[STATE] = State(config)
    try:
        state.start()
        check_options(config)
        state.read(config)
        _register(config, state)
        discovery.check_backends([*state.backends, *state.require])
        discovery.check_precisions(state.precisions)
    except UsageError as error:
        state.fail(str(error))
        raise pytest.UsageError(str(error)) from error
    capture = config.pluginmanager.getplugin("capturemanager")
    with nullcontext() if capture is None else capture.global_and_fixture_disabled():
        watcher.speak_here()
    if is_worker(config):
        stopping.end_with_parent()
    else:
        config.pluginmanager.register(Collector(config), "parity-collector")
        config.pluginmanager.register(Deaths(state, config.stash[_ENDING]), "parity-deaths")
        config.stash[_ENDING].enter_context(stopping.last_words(partial(_end_early, config)))


def _register(config: pytest.Config, state: State) -> None:
    """Register what shards and the workers of xdist need."""
    gpu = ""
    if is_worker(config):
        config.pluginmanager.register(Turns(config), "parity-turns")
    elif not only_shows(config):
        folder = config.stash[_ENDING].enter_context(temporary_folder())  # whose own lock says that it is ours
        workers = Workers(config, folder / "turns")
        config.pluginmanager.register(workers, "parity-workers")
        gpu = workers.gpu
    config.pluginmanager.register(Shards(config, state.arrivals, state.settings, gpu=gpu), "parity-shards")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let signals do again what they did before."""
    config.stash.get(_ENDING, ExitStack()).close()


def _end_early(config: pytest.Config) -> None:
    """Write what was found, where a test does not come back from a library although a signal ends the run."""
    state = config.stash[STATE]
    state.problems.append(stopping.words())
    state.save()
    if (junit := config.stash.get(xml_key, None)) is not None:
        with junit_apart(junit):
            junit.pytest_sessionfinish()


@pytest.hookimpl(wrapper=True, trylast=True)  # within the wrapper of --lf, which leaves tests out
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, Any]:
    """Let no suite end the run while it is imported: status 0 would say that everything passed. Note its tests.

    What is wrong with its SUBJECT is one sentence.
    """
    watched = reads.importing(collector.path) if isinstance(collector, pytest.Module) else contextlib.nullcontext()
    with no_exit(), watched:
        report = yield
    excinfo = getattr(getattr(report, "call", None), "excinfo", None)
    if report.failed and excinfo is not None and isinstance(excinfo.value, UsageError):
        from harness.discovery import raised_in

        report.longrepr = f"{excinfo.value} ({raised_in(excinfo.value)})"
        setattr(report, IS_USAGE, True)
    collector.config.stash[STATE].arrivals.collected(collector, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a wrong request as an error in one sentence, and no failure: no engine is wrong."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, UsageError) and target_of(item) is not None:
        report.when, report.longrepr = "setup", str(call.excinfo.value)
        setattr(report, IS_USAGE, True)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Let no test end the run, and no step take longer than is allowed."""
    allowed = item.config.stash[STATE].allowed
    name_test(item)
    with no_exit(), limits.allowed(**allowed), locks.patience(item.config.getoption("parity_lock_timeout")):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    """Let a test of an engine that gives no verdict, or not in time, be none that passed, nor a traceback."""
    if (target := target_of(item)) is None:
        return (yield)
    required = target.backend in item.config.stash[STATE].require
    with having_a_verdict(required=required), in_time(item) if judged_by(item) else nullcontext():
        return (yield)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test that takes an engine its targets, and its cases where it takes one."""
    if "parity_target" not in metafunc.fixturenames:
        return
    from harness.discovery import target_in

    subject, state = _subject(metafunc.module), metafunc.config.stash[STATE]
    _check_name(state, subject, metafunc.module.__file__)
    subject, root = state.with_cases(subject), state.settings.root
    targets = [
        pytest.param(target_in(root, target), id=str(target), marks=_marks(metafunc.config, target))
        for target in subject.targets
    ]
    metafunc.parametrize("parity_target", targets, indirect=True, scope="module")
    if "parity_case" not in metafunc.fixturenames:
        return
    # A suite's own tests and latencies are about its own cases.
    generated = subject.range_cases if metafunc.function is test_outputs else ()
    metafunc.parametrize("parity_case", [*subject.cases, *generated], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what ``--backend`` and ``--precision`` do not name, and remember subjects that have nothing left."""
    state = config.stash[STATE]
    ours = [(item, target) for item in items if (target := target_of(item)) is not None]
    for item, target in ours:
        if judged_by(item):
            item.user_properties.append((TARGET_PROPERTY, str(target)))
    left_out = {item for item, target in ours if not _is_selected(state, target)}
    if not left_out:
        return
    config.hook.pytest_deselected(items=[item for item, _ in ours if item in left_out])
    state.arrivals.unselected |= left_out
    items[:] = [item for item in items if item not in left_out]
    kept = {_module_of(item) for item in items}
    for module in dict.fromkeys(_module_of(item) for item, _ in ours):
        if module not in kept:
            has = dict.fromkeys(str(target) for item, target in ours if _module_of(item) == module)
            state.deselected[module] = f"{module}: no target matches {_selection(state)}; it has {', '.join(has)}"


@pytest.hookimpl(tryfirst=True)  # before xdist says that the worker has collected
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write what is to be judged, before any of it is; a worker of xdist tells the controlling process."""
    state = session.config.stash[STATE]
    state.arrivals.finish(session.items, state.settings.root)
    if is_worker(session.config):
        state.arrivals.hand_over(session.config)
    elif not only_shows(session.config):
        state.expect_tests()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of xdist a channel for what it collects."""
    node.config.stash[STATE].arrivals.open_channel(node)


def _subject(module: Any) -> Subject:
    from harness import discovery

    try:
        return discovery.subject_of(vars(module), module.__file__)
    except UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from error


def _check_name(state: State, subject: Subject, file: str) -> None:
    """Raise CollectError where a subject of another suite has this name; suites may share one subject."""
    known, other = state.subjects.setdefault(subject.name, (subject, file))
    if known is not subject:
        raise pytest.Collector.CollectError(str(same_name(subject.name, other, file)))


def _marks(config: pytest.Config, target: Target) -> list[pytest.MarkDecorator]:
    """Return marks for backend and precision; a plan's name is registered here, when it is first met."""
    known = {line.partition(":")[0] for line in config.getini("markers")}
    names = (target.backend, target.precision_name)
    for name in names:
        if name not in known:
            config.addinivalue_line("markers", f"{name}: runs on this backend or with this precision plan")
    return [getattr(pytest.mark, name) for name in names]


def _module_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _is_selected(state: State, target: Target) -> bool:
    by_backend = not state.backends or target.backend in state.backends
    precisions = [Path(name).resolve() for name in state.precisions]  # a plan file may be spelled ./plan.toml
    return by_backend and (not precisions or Path(target.precision).resolve() in precisions)


def _selection(state: State) -> str:
    parts = [f"--backend {name}" for name in state.backends] + [f"--precision {name}" for name in state.precisions]
    return " ".join(parts)


# Reporting, in the process that prints


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Show every backend and what was deselected, where a suite was collected."""
    state = config.stash[STATE]
    if not state.deselected and not any(target_of(item) for item in items):
        return []  # asking the backends imports torch: not for a run that has no suite
    return _header(state)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Show the backends under xdist, where collection happens in the workers; of it only the ids of tests come here."""
    from harness.backends import BACKENDS

    state: State = node.config.stash[STATE]
    ours = re.compile(rf"\[({'|'.join(map(re.escape, BACKENDS))})-")
    reporter = node.config.pluginmanager.get_plugin("terminalreporter")
    if state.environment is None and reporter is not None and any(ours.search(name) for name in ids):
        reporter.ensure_newline()
        for line in _header(state):
            reporter.write_line(line)
    try:
        if state.arrivals.take_over(node.gateway.id):
            state.expect_tests()
    except UsageError as error:
        state.problems.append(str(error))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what an xdist worker deselected into this process."""
    output = getattr(node, "workeroutput", None) or {}
    node.config.stash[STATE].deselected.update(output.get("parity_deselected", {}))


def _header(state: State) -> list[str]:
    from harness.report.text import backend_lines

    return [f"parity: {line}" for line in backend_lines(state.machine())] + [
        f"parity: {line}" for line in state.deselected.values()
    ]


@pytest.hookimpl(wrapper=True, trylast=True)  # within the wrapper that prints the summary
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Send what an xdist worker deselected to the controlling process; there, let no JUnit file be half written."""
    state = session.config.stash[STATE]
    if is_worker(session.config):
        # xdist adds the attribute; it holds only builtins.
        session.config.workeroutput["parity_deselected"] = state.deselected  # type: ignore[attr-defined]
    try:
        with junit_apart(session.config.stash.get(xml_key, None)):
            return (yield)
    except CannotWrite as error:
        state.cannot_write(error)
        session.exitstatus = exit_status(session)
        return None
    except pytest.exit.Exception as error:  # of another plugin: no summary follows
        state.ended = f"pytest.exit: {error}"
        raise

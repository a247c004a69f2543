"""Tests of the harness itself: on the CPU, except those marked ``gpu``, shown as not run elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import operator_table
import pytest
from hypothesis import HealthCheck, settings

import harness

if TYPE_CHECKING:
    from forked import Forks
    from stopped.scene import Scene

for number in (signal.SIGHUP, signal.SIGINT):  # nohup and & let them be ignored, and what is ignored stays so
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# The tensors of most tests are tiny, and tests run in several processes: threads of theirs only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Under tox, pytest keeps its cache where this says: every pytest that a test starts would share one, and what failed
# last in one repository of a test would be what --lf runs in another.
os.environ.pop("TOX_ENV_DIR", None)
# How long an example takes is no fact of the code: machines that run tests are busy.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
NOT_RUN = "needs an NVIDIA GPU: not run"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of ``test_golden.py``."""
    parser.addoption("--rewrite-golden", action="store_true", help="write tests/golden anew from what is rendered")


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a person has set: their history, caches and checkpoints are not those of a test."""
    for name in [name for name in os.environ if name.startswith("PARITY_") or name == "CI"]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def one_operator_table() -> None:
    """Let PyTorch's exporter make its table of operators once, from the first test on that finds it imported."""
    if "torch.onnx._internal.exporter._core" in sys.modules:
        operator_table.share()


@pytest.fixture(scope="session")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Make a folder in which every command has run."""
    from stopped.scene import Commands, Scene

    scene = Scene(Commands(forks), tmp_path_factory.mktemp("stopped") / "whole")
    scene.prepare()
    return scene


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Return what starts Python processes that have imported everything."""
    from forked import Forks

    started = Forks()
    yield started
    started.close()


@pytest.fixture(scope="session")
def kept_modules() -> None:
    """Import what a run of ``pytester`` in this process may import, before it does.

    At its end it forgets every module that it was the first to import. The package above would keep the old one, and
    what a later test patches there would not be what is imported.
    """
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in ("onnx", "onnx_ir", "onnxscript", "scipy.special", "sqlalchemy"):  # imported when they are first used
        importlib.import_module(name)


@pytest.fixture
def project(
    kept_modules: None, forks: Forks, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Return a folder for suites whose targets are pretended, as ``fake.CONFTEST`` does; its subprocesses are forks."""
    import fake

    import harness.backends

    checkout = Path(__file__).parents[1]
    monkeypatch.setattr(harness.backends, "environment", harness.backends.environment)  # ``fake.NO_MACHINE`` changes it
    monkeypatch.setenv("PYTHONPATH", str(checkout))  # for subprocesses, from a plain checkout
    monkeypatch.setattr(pytester, "_getpytestargs", lambda: (*forks.command, "-m", "pytest"))
    pytester.makeconftest(fake.CONFTEST)
    pytester.makeini(fake.INI)
    return pytester


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bisection try few of the sets in PyTorch that are smaller than the best one found: none is enough."""
    monkeypatch.setattr("harness.bisect.screening.MOST_SUBSETS", 8)
    monkeypatch.setattr("harness.bisect.screening.FEWER_SUBSETS", 8)


@pytest.hookimpl(trylast=True)  # behind pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` with a reason where there is no GPU; put groups, which one worker runs, first."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=NOT_RUN))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what did not run for want of a GPU, so that nobody takes a green run for more than it is."""
    skipped = [report for report in terminalreporter.getreports("skipped") if NOT_RUN in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests marked gpu were not run: they need an NVIDIA GPU")

"""Processes of one run side by side: each has a GPU of its own, and none runs while another measures latency."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import stopping
from harness.checks import LatencyTiming
from harness.machine import VISIBLE, gpu_for, take_gpu
from harness.sentences import writable
from harness.shards import LATENCY, Shard

_TURNS = "parity_turns"
"""What the controlling process tells a worker on this machine: the folder whose lock they take turns by."""


def timing_of(item: pytest.Item, timing: LatencyTiming) -> LatencyTiming:
    """Return how a test measures latency: in a worker of xdist only where nothing else of the run goes on meanwhile."""
    worker: dict[str, Any] | None = getattr(item.config, "workerinput", None)
    if worker is None:
        return timing
    if _TURNS not in worker or item.get_closest_marker(LATENCY) is None:
        return replace(timing, beside_others=True)
    others = tuple(sorted(int(path.name) for path in Path(worker[_TURNS]).iterdir()))
    return replace(timing, neighbours=others)


class Workers:
    """In the process that was started: a GPU for it or for each worker of xdist, and how workers take turns."""

    def __init__(self, config: pytest.Config, turns: Path) -> None:
        """``turns`` becomes an empty folder. Raises UsageError for a GPU that is hidden."""
        turns.mkdir()
        self._gpus: Sequence[str] | None = config.getoption("parity_gpus")
        self._shard: Shard | None = config.getoption("parity_shard")
        self._turns = turns
        self.gpu = ""
        """What CUDA_VISIBLE_DEVICES was set to, in a run of one process."""
        if self._gpus == ():
            return
        has_workers = config.getoption("dist", "no") != "no" and bool(config.getoption("tx", None))
        variables = gpu_for(self._place(0, 1), self._gpus)  # raises
        if not has_workers and (self._gpus or self._shard):
            take_gpu(variables)
            self.gpu = variables.get(VISIBLE, "")

    def _place(self, worker: int, workers: int) -> int:
        """Return the place of a worker among those of all shards, which may be of one machine."""
        return (self._shard.index - 1 if self._shard else 0) * workers + worker

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Give each worker its GPU, before it starts; one that takes the place of another has that one's."""
        if self._gpus == ():
            return
        for number, spec in enumerate(specs):
            if self._gpus or spec.popen:  # which GPUs another machine has is not known here
                spec.env.update(gpu_for(self._place(number, len(specs)), self._gpus))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker on this machine how turns are taken."""
        if node.gateway.spec.popen:
            node.workerinput[_TURNS] = str(self._turns)


class Turns:
    """In a worker: tests of latency come last, in one group, and each waits until no other test runs; how it ends."""

    def __init__(self, config: pytest.Config) -> None:
        self._folder: str = config.workerinput.get(_TURNS, "")  # type: ignore[attr-defined]
        self._needed = False
        if self._folder:
            (Path(self._folder) / str(os.getpid())).touch()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, Any, Any]:
        """Put them last, and into one group for ``--dist loadgroup``, before xdist names that."""
        for item in items:
            if item.get_closest_marker(LATENCY):
                item.add_marker(pytest.mark.xdist_group(f"parity-{LATENCY}"))
        result = yield
        items.sort(key=lambda item: item.get_closest_marker(LATENCY) is not None)
        self._needed = bool(items) and items[-1].get_closest_marker(LATENCY) is not None
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_to_serializable(self, report: Any) -> None:
        """Send sentences as text with their table: xdist takes plain data alone."""
        if isinstance(report, pytest.TestReport):
            report.user_properties = [(name, writable(value)) for name, value in report.user_properties]
            report.longrepr = writable(report.longrepr)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End where a signal stopped this worker alone: its test died, and a new worker has the others.

        xdist would take the worker's own words for it, a keyboard interrupt, as the end of the whole run.
        """
        if stopping.received():
            stopping.end(f"a worker of xdist was {stopping.words()}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # a time limit of another plugin begins after the wait
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Run a test of latency while no other runs."""
        if not self._needed or not self._folder:
            return (yield)
        with _turn(self._folder, alone=item.get_closest_marker(LATENCY) is not None):
            return (yield)


@contextmanager
def _turn(folder: str, *, alone: bool) -> Iterator[None]:
    """Hold the lock of a folder, alone or with others; the system lets go of it when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)

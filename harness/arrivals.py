"""What a pytest run is to judge, known when its tests are collected, and which of these tests have ended since.

Under xdist the workers collect; each sends what it found through a channel of its connection, from whatever machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError, few
from harness.records import name_of, not_judged_of, words_of
from harness.repository import source_of
from harness.subject import Target

Json = dict[str, Any]
_CHANNEL = "parity_arrivals"
HAND_OVER_S = 10.0
"""How long the answer of a worker may take once it has collected; it is sent first, so it is there."""
_HANDED_OVER = ("expected", "left_out", "elsewhere", "shard", "shard_words", "declared")
TEST = pytest.StashKey[str]()
"""A test's id as it was collected: xdist may add a group to it."""
SHOWN = 8
"""Names that are printed of tests that are missing or left out; the JSON has all."""


class Arrivals:
    """Tests of engines by id, each with its subject, case, backend and precision."""

    def __init__(self) -> None:
        self.expected: dict[str, Json] = {}
        self.left_out: dict[str, Json] = {}
        """What ``-k``, ``--lf``, ``--deselect`` and the like left out; not what ``--backend`` did."""
        self.seen: list[pytest.Item] = []
        """All tests that were collected, before anything was left out."""
        self.unselected: set[pytest.Item] = set()
        """What ``--backend``, ``--precision`` and ``--shard`` left out."""
        self.elsewhere: list[Json] = []
        """What ``--shard`` left to other runs, each with the number of its shard."""
        self.shard: Json | None = None
        """Which shard this is, and by what the tests were split."""
        self.shard_words = ""
        self.arrived: set[str] = set()
        self._seconds: dict[str, float] = {}
        self._channels: dict[str, Any] = {}
        """To the workers of xdist, by their names."""
        self.declared: dict[str, Json] = {}
        """What each subject declares, whatever was left out of it: as ``harness.ledger.declared_by`` gives it."""

    @property
    def missing(self) -> dict[str, Json]:
        """The tests that have not ended."""
        return {test: asked for test, asked in self.expected.items() if test not in self.arrived}

    def spent(self, test: str, seconds: float) -> None:
        """Add to the time that a test took, all its phases and attempts."""
        self._seconds[test] = self._seconds.get(test, 0.0) + seconds

    def to_json(self, why: str) -> Json:
        """Return what is expected and what was left out, as keys of a record.

        Each test says whether it arrived, how long it took, and ``why`` it did not arrive, where that is known.
        """
        missing = {"arrived": False, "why": why} if why else {"arrived": False}
        expected = [
            {**asked, **({"arrived": True, "seconds": self._took(test)} if test in self.arrived else missing)}
            for test, asked in self.expected.items()
        ]
        left_out = list(self.left_out.values())
        return {"expected": expected, "left_out": left_out, "shard": self.shard, "elsewhere": self.elsewhere}

    def _took(self, test: str) -> float:
        return round(self._seconds.get(test, 0.0), 3)

    @property
    def is_empty_shard(self) -> bool:
        """Whether other shards have all tests of engines."""
        return bool(self.elsewhere) and not self.expected

    def is_elsewhere(self, backend: str) -> bool:
        """Whether other shards have the tests of a backend, and this one has none."""
        mine = {asked["backend"] for asked in self.expected.values()}
        return backend not in mine and any(asked["backend"] == backend for asked in self.elsewhere)

    def collected(self, collector: pytest.Collector, report: pytest.CollectReport) -> None:
        """Note what a module holds; one that pytest's cache skipped (``--lf``) is known by its name alone."""
        items = [item for item in report.result or () if isinstance(item, pytest.Item)]
        self.seen += items
        only_failed = getattr(collector.config.option, "lf", False)
        if only_failed and isinstance(collector, pytest.File) and report.passed and not report.result:
            self.left_out[collector.nodeid] = {"test": collector.nodeid}

    def finish(self, items: Sequence[pytest.Item], root: Path) -> None:
        """Note which tests are to run, and with that which were left out."""
        self.expected |= asked_of(items, root)
        known = self.unselected.union(items)
        self.left_out |= asked_of((item for item in self.seen if item not in known), root)

    def hand_over(self, config: pytest.Config) -> None:
        """Send what a worker collected to the controlling process; one without this plugin gave no channel."""
        channel = config.workerinput.get(_CHANNEL)  # type: ignore[attr-defined]
        if channel is not None:
            channel.send(json.dumps({name: getattr(self, name) for name in _HANDED_OVER}))

    def open_channel(self, node: Any) -> None:
        """Give a worker of xdist a channel, before it starts, for what it collects."""
        node.workerinput[_CHANNEL] = self._channels[node.gateway.id] = node.gateway.newchannel()

    def take_over(self, worker: str) -> bool:
        """Take what a worker collected; return whether that was new: all collect the same.

        Raises UsageError where it sent nothing: then nobody knows what is missing.
        """
        channel = self._channels[worker]
        try:
            found = json.loads(channel.receive(timeout=HAND_OVER_S))
        except (channel.TimeoutError, channel.RemoteError, EOFError, OSError) as error:
            raise UsageError(
                f"the worker {worker} of xdist did not say what it is to judge; install there the version of parity "
                "that runs here"
            ) from error
        new = bool(found["expected"].keys() - self.expected.keys())
        self.expected |= found.pop("expected")
        self.left_out |= found.pop("left_out")
        vars(self).update(found)
        return new


def target_of(item: pytest.Item) -> Target | None:
    """Return the target of a test that takes an engine."""
    target = getattr(getattr(item, "callspec", None), "params", {}).get("parity_target")
    return target if isinstance(target, Target) else None


def judged_by(item: pytest.Item) -> tuple[Target, str] | None:
    """Return target and case of a test that judges outputs; one that takes ``parity_engine`` alone has no case."""
    target = target_of(item)
    case = item.callspec.params.get("parity_case") if target is not None else None  # type: ignore[attr-defined]
    return None if target is None or case is None else (target, case)


def asked_of(items: Iterable[pytest.Item], root: Path) -> dict[str, Json]:
    """Return what tests are to judge, by their ids."""
    found = {}
    for item in items:
        if judged := judged_by(item):
            target, case = judged
            found[item.nodeid] = {
                "test": item.stash.get(TEST, item.nodeid),
                "subject": item.module.SUBJECT.name,  # type: ignore[attr-defined]
                "case": case,
                "backend": target.backend,
                "precision": target.precision_name,
                "source": source_of(root, item.path),
                "owner": item.module.SUBJECT.owner,  # type: ignore[attr-defined]
            }
    return found


def only_shows(config: pytest.Config) -> bool:
    """Return whether pytest runs no test: ``--collect-only``, ``--help``, ``--fixtures``."""
    shows = ("collectonly", "help", "version", "showfixtures", "show_fixtures_per_test", "markers", "cacheshow")
    return any(getattr(config.option, name, None) for name in shows)


def read_manifest(path: Path) -> Json:
    """Return what ``parity list --json`` wrote. Raises UsageError for anything else."""
    try:
        manifest: Json = json.loads(path.read_text(encoding="utf-8"))
        not_judged_of(manifest, ())
    except (OSError, ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"--expect: {path} cannot be used: {error}") from error
    return manifest


def short_of(path: Path, manifest: Json, results: Sequence[Json], elsewhere: Iterable[Json] = ()) -> list[str]:
    """Return a sentence where less was judged than a manifest expects and other shards have not got."""
    theirs = {words_of(name_of(asked)) for asked in elsewhere}
    lacking = [name for name in not_judged_of(manifest, results) if name not in theirs]
    return [f"{path} expects {len(lacking)} that were not judged: {few(lacking, SHOWN)}"] if lacking else []


def missing_words(missing: Mapping[str, Json], expected: int, why: str) -> str:
    """Return how many tests did not arrive, why, and the first of them."""
    return f"{len(missing)} of {expected} tests of engines were {why}: {few(list(missing), SHOWN)}"

"""``pytest --shard I/N``: the part of the tests that this run has, and the stage that measures latency."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.arrivals import TEST, Arrivals, asked_of
from harness.errors import UsageError
from harness.repository import content_of
from harness.settings import Settings
from harness.shards import LATENCY, Durations, split_sha256, split_tests

Json = dict[str, Any]
_OF_ONE_PROCESS = (
    "json", "shard", "durations_from", "gpus", "engines", "engines_remote", "engines_remote_mode", "references",
    "lock_timeout",
)  # fmt: skip
"""Options that the shards of a run may have each for itself."""


def parameters(options: Mapping[str, Any]) -> Json:
    """Return what a run was asked for, which all shards of a run share; a file goes by its content."""
    names = [name for name in options if name.startswith("parity_")]
    found = {short: _plain(options[f"parity_{short}"]) for name in names if (short := name[7:]) not in _OF_ONE_PROCESS}
    return {**found, "-k": options.get("keyword", ""), "-m": options.get("markexpr", "")}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(map(str, value))
    if isinstance(value, Path):
        return content_of(value.parent, value) if value.is_file() else value.name
    return value


class Shards:
    """Leaves to other runs what is theirs; registered in every process that collects."""

    def __init__(self, config: pytest.Config, arrivals: Arrivals, settings: Settings, *, gpu: str = "") -> None:
        """Read the durations. Raises UsageError for options that exclude each other, and for a file that is none."""
        self._arrivals, self._root, self._gpu = arrivals, settings.root, gpu
        self._shard = config.getoption("parity_shard")
        path: Path | None = config.getoption("parity_durations_from")
        json: Path | None = config.getoption("parity_json")
        self._durations = Durations()
        if self._shard is None:
            if path is not None:
                raise UsageError("--durations-from splits tests; give --shard I/N as well")
            return
        for option in ("lf", "stepwise"):
            if getattr(config.option, option, False):
                raise UsageError(f"--{option} goes by what this machine remembers, and --shard by what all share")
        if path is not None and json is not None and path.resolve() == json.resolve():
            raise UsageError(f"--durations-from {path} is the file that --parity-json replaces; give a copy of it")
        from harness.history import durations_from

        self._durations = durations_from(path, folder=settings.history)
        self._note(split_sha256="", stage="")

    def _note(self, **found: str) -> None:
        shard, split_by = self._shard, self._durations.sha256
        self._arrivals.shard = {"index": shard.index, "of": shard.of, "durations": split_by, "gpu": self._gpu, **found}

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # what it does after all others is done to what they have left
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, Any, Any]:
        """Leave out the tests of other shards, when everything else has left out what it does."""
        for item in items:
            item.stash[TEST] = item.nodeid  # xdist adds a group to it
        result = yield
        if self._shard is not None:
            self._leave_out(config, items)
        return result

    def _leave_out(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        asked: dict[str, Json | None] = {item.stash[TEST]: None for item in items}
        asked |= {one["test"]: one for one in asked_of(items, self._root).values()}
        timed = {item.stash[TEST] for item in items if item.get_closest_marker(LATENCY)}
        stage = LATENCY if timed and timed == asked.keys() else ""
        here = {test: one for test, one in asked.items() if stage or test not in timed}
        shards = split_tests(here, self._shard.of, self._durations)
        self._note(split_sha256=split_sha256(shards), stage=stage)
        theirs = {test: one for test, one in asked.items() if one and shards.get(test) != self._shard.index}
        self._arrivals.elsewhere = [
            {**one, "shard": shards[test], "stage": stage} if test in shards else {**one, "shard": 0, "stage": LATENCY}
            for test, one in theirs.items()
        ]
        others = [item for item in items if shards.get(item.stash[TEST]) != self._shard.index]
        self._arrivals.unselected |= set(others)
        items[:] = [item for item in items if shards.get(item.stash[TEST]) == self._shard.index]
        config.hook.pytest_deselected(items=others)
        words = f"shard {self._shard}: {len(items)} of {len(asked)} tests, split {self._durations.words}"
        later = f"; {len(timed)} tests of latency are left to a stage of their own: -m {LATENCY}"
        self._arrivals.shard_words = words + (later if timed and not stage else "")

"""A run in shards, in real processes: every test is in exactly one, and what does not arrive is named."""

from __future__ import annotations

import pytest

from harness import cli, records

TWO = "def test_task(parity):\n    parity.check()\n\n\ndef test_plain():\n    pass\n"
TIMED = "import pytest\n\n\n@pytest.mark.latency\ndef test_timed(parity):\n    parity.check()\n"
NAMES = ("clip", "unet", "vae")


@pytest.fixture
def three(repository, monkeypatch):
    for name in NAMES:
        repository.suite(name, TWO)
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("PARITY_RUN", "r1")
    return repository


def shards(repository, *options, ways=((), (), ()), **environment):
    return [
        repository.pytest("--shard", f"{n}/{len(ways)}", *options, *way, stem=f"shard-{n}", **environment)
        for n, way in enumerate(ways, start=1)
    ]


def merged(*names):
    status = cli.main(["merge", *names, "-o", "whole.json"])
    (document,) = records.load([cli_path("whole.json")]).documents
    return status, document


def cli_path(name):
    from pathlib import Path

    return Path(name)


@pytest.mark.parametrize("selection", [(), ("-k", "short or plain", "--precision", "fp16")])
def test_every_test_is_in_exactly_one_shard_and_merging_gives_the_whole_run(three, selection):
    whole = three.pytest(*selection)
    ways = ((), ("-n", "2", "--dist", "loadgroup"), ("-p", "randomly"))
    parts = shards(three, *selection, ways=ways)
    assert [part.status for part in (whole, *parts)] == [0, 0, 0, 0]
    assert sorted(name for part in parts for name in part.ran) == sorted(whole.ran)
    assert all(part.ran for part in parts)
    for part in parts:  # who shares an engine is in one shard, and each knows what the others have
        mine, theirs = (
            {(one["subject"], one["precision"]) for one in part.data[key]} for key in ("expected", "elsewhere")
        )
        assert not mine & theirs
        assert len(part.data["expected"]) + len(part.data["elsewhere"]) == len(whole.data["expected"])
        assert part.data["left_out"] == whole.data["left_out"]
    status, document = merged("shard-2.json", "shard-1.json", "shard-3.json")
    assert (status, document.complete, document.error, document.run) == (0, True, "", "r1")
    found = {(one["subject"], one["case"], one["precision"], one["verdict"]) for one in document.results}
    assert found == {(one["subject"], one["case"], one["precision"], one["verdict"]) for one in whole.data["results"]}

"""A run in shards, in real processes: every test is in exactly one, and what does not arrive is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness import cli, records
from harness.records import DIED
from harness.report import badge

CODE = """
def test_task(parity):
    if os.environ.get("DIES"):
        os.kill(os.getpid(), 9)
    parity.check()


def test_plain():
    pass
"""


@pytest.fixture
def three(repository, monkeypatch):
    for name in ("clip", "unet", "vae"):
        repository.suite(name, CODE)
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("PARITY_RUN", "r1")
    return repository


def merged(*names):
    """Return the status of ``parity merge``, its record and its badge."""
    status = cli.main(["merge", *names, "-o", "whole.json"])
    whole = Path("whole.json")
    return status, json.loads(whole.read_text()), badge(records.load([whole]))["color"]


def names(data, verdict="pass"):
    return {(one["subject"], one["case"], one["precision"]) for one in data["results"] if one["verdict"] == verdict}


def test_every_test_is_in_exactly_one_shard_and_merging_gives_the_whole_run(three):
    whole = three.pytest("-k", "not unet")
    ways = (("--reruns", "2"), ("-n", "2", "--dist", "loadgroup"), ("-p", "randomly"))
    parts = [three.pytest("--shard", f"{n}/3", "-k", "not unet", *way, stem=f"{n}") for n, way in enumerate(ways, 1)]
    assert [part.status for part in (whole, *parts)] == [0, 0, 0, 0]
    assert sorted(name for part in parts for name in part.ran) == sorted(whole.ran)
    assert all(part.ran for part in parts)
    for part in parts:  # who shares an engine is in one shard, and each knows what the others have
        data = part.data
        mine, theirs = ({(one["subject"], one["precision"]) for one in data[key]} for key in ("expected", "elsewhere"))
        assert not mine & theirs
        assert len(data["expected"]) + len(data["elsewhere"]) == len(whole.data["expected"])
        assert data["left_out"] == whole.data["left_out"]
    status, data, colour = merged("2.json", "1.json", "3.json")
    assert (status, data["complete"], data["error"], data["run"], colour) == (0, True, "", "r1", "brightgreen")
    assert names(data) == names(whole.data)


def test_a_killed_shard_is_named_and_the_run_is_whole_when_it_ran_again(three):
    one, two = (three.pytest("--shard", f"{n}/2", stem=f"{n}", DIES="1" * (n - 1)) for n in (1, 2))
    assert one.status == 0
    assert two.status < 0, "a signal ended it"
    status, data, colour = merged("1.json", "2.json")
    assert (status, data["complete"], colour) == (1, False, "yellow")
    assert "shard 2 of 2: " in data["error"]
    lost = {one["reason"] for one in data["results"] if one["verdict"] == "not_judged"}
    assert lost == {DIED}
    assert names(data) | names(data, "not_judged") == {
        (subject, case, precision)
        for subject in ("clip", "unet", "vae") for case in ("short", "long") for precision in ("fp16", "bf16")
    }  # fmt: skip
    status, data, colour = merged("1.json")
    assert (status, data["error"], colour) == (1, "shard 2 of 2 is missing", "yellow")
    shutil.copy("1.json", "again.json")
    status, data, colour = merged("1.json", "2.json", "again.json")
    assert (status, colour) == (1, "yellow")
    assert "shard 1 of 2 is there 2 times" in data["error"]
    assert three.pytest("--shard", "2/2", "-n", "1", stem="2").status == 0
    status, data, colour = merged("1.json", "2.json")
    assert (status, data["error"], colour, len(names(data))) == (0, "", "brightgreen", 12)


def test_what_one_machine_remembers_splits_no_run(three):
    for option in ("--lf", "--stepwise"):
        ended = three.pytest("--shard", "1/2", option)
        assert (ended.status, ended.data["complete"]) == (2, False)
        assert option in ended.data["error"]

"""``parity parts``: what it prints, writes and returns."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from planted import Fault, PlantedBackend, scaled

from harness.backends import BACKENDS
from harness.cli import commands as cli
from harness.ledger import today

SUITE = """
from bringup.conftest import subject
SUBJECT = subject(name="blocks", parts="blocks")
"""


@pytest.fixture
def suite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PlantedBackend:
    """Add a suite whose second block is wrong on its backend."""
    (folder / "suites" / "test_blocks.py").write_text(SUITE)
    backend = PlantedBackend(Fault(value="softmax", change=scaled(1.1)))
    monkeypatch.setitem(BACKENDS, "planted", backend)
    return backend


def parts(*options: str) -> int:
    return cli.main(["parts", "blocks", *options, "--device", "cpu"])


def test_a_wrong_part_exits_1_and_is_written(suite: PlantedBackend, capsys: pytest.CaptureFixture[str]):
    assert parts("--json", "out.json") == 1
    shown = capsys.readouterr()
    assert "blocks.1: output_0: relative error" in shown.out
    assert "next: parity parts blocks -b planted -p fp16 --prefix blocks.1" in shown.out
    assert "part 2 of 2: blocks.1" in shown.err
    data = json.loads(Path("out.json").read_text())
    assert (data["schema"], data["complete"], data["results"]) == ("parity/1", True, [])
    (found,) = data["parts"]
    assert (found["subject"], found["prefix"], found["verdict"]) == ("blocks", "blocks", "fail")
    assert [(part["module"], part["verdict"]) for part in found["parts"]] == [
        ("blocks.0", "pass"),
        ("blocks.1", "fail"),
    ]
    assert parts() == 1
    assert suite.builds == 2, "engines come from the cache"


def test_a_right_part_exits_0(suite: PlantedBackend, capsys: pytest.CaptureFixture[str]):
    suite.faults = ()
    assert parts("--upto", "blocks.1", "--require", "planted") == 0
    assert "2 parts: 2 passed" in capsys.readouterr().out


def test_what_could_not_be_judged_is_no_pass_where_it_is_required(suite: PlantedBackend):
    suite.faults = ()
    suite.load = lambda engine: None  # type: ignore[assignment]
    suite.cannot_run = lambda: "no GPU"  # type: ignore[method-assign]
    assert parts("--require", "planted") == 3
    assert parts() == 3, "nothing was judged"


def test_a_wrong_request_exits_2(suite: PlantedBackend, capsys: pytest.CaptureFixture[str]):
    assert parts("--prefix", "block") == 2
    assert "blocks" in capsys.readouterr().err


def test_a_known_part_exits_0_and_is_counted_as_judged(suite: PlantedBackend, capsys: pytest.CaptureFixture[str]):
    assert parts("--json", "out.json") == 1
    assert "parity known add out.json" in capsys.readouterr().err
    adding = [
        "--reason",
        "tactic 7",
        "--issue",
        "https://example.com/7",
        "--expires",
        str(today() + timedelta(days=30)),
    ]
    assert cli.main(["known", "add", "out.json", "--part", "blocks.1", *adding]) == 0
    assert parts("--json", "out.json", "--require", "planted") == 0
    shown = capsys.readouterr().out
    assert "2 parts: 1 passed, 1 known" in shown
    assert "known.toml: 1 entry: 1 as known" in shown
    data = json.loads(Path("out.json").read_text())
    assert (data["known"][0]["part"], data["parts"][0]["verdict"]) == (["blocks.1"], "known")
    suite.faults = ()
    assert parts("--no-engine-cache") == 1
    assert "passes now" in capsys.readouterr().out

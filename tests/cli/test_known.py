"""``parity known``, and what ``parity verify`` and ``parity bench`` make of the ledger."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import latencies
import pytest
from fake import giving

import harness.latency
from harness.cli import commands as cli
from harness.ledger import today

LATER = today() + timedelta(days=40)


def write(folder: Path, expires: date = LATER, **fields: Any) -> None:
    given = {"subject": "wrong_kernel", "target": "planted *", "reason": "kernel 7", "issue": "https://example.com/7"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**given, **fields}.items()]
    (folder / "known.toml").write_text("\n".join(["[[known]]", *lines, "at_most = inf", f"expires = {expires}"]))


def verify(*options: str) -> tuple[int, Any]:
    arguments = ["verify", "wrong_kernel", "-b", "planted", "-p", "fp16", "--device", "cpu", "--json", "r.json"]
    return cli.main([*arguments, *options]), json.loads(Path("r.json").read_text())


def test_verify_says_what_is_known_and_ends_well(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("wrong_kernel")
    status, data = verify()
    assert (status, data["known"]) == (1, [])
    assert "parity known add r.json" in capsys.readouterr().err
    write(folder, owner="team-x")
    status, data = verify()
    assert (status, {one["verdict"] for one in data["results"]}, data["known"][0]["status"]) == (0, {"known"}, "known")
    shown = capsys.readouterr().out
    for words in ("0 passed, 0 failed, 1 known to fail", "known until", "owner: team-x", "1 as known"):
        assert words in shown
    write(folder, expires=today() - timedelta(days=1), owner="team\nx")
    assert verify()[0] == 1
    said = capsys.readouterr()
    assert "parity known add" not in said.err, "it has an entry"
    assert "was not recorded" not in said.err, "a known failure goes into the history, too"
    assert cli.main(["known"]) == 0
    assert "team\\nx" in capsys.readouterr().out
    assert verify("--known", "none.toml")[0] == 2


def test_verify_refuses_an_entry_that_names_nothing(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("wrong_kernel")
    write(folder, target="planted fp61")
    assert verify()[0] == 2
    assert "known.toml, entry 1 (wrong_kernel): unknown target 'planted-fp61'" in capsys.readouterr().err


def test_the_list_names_what_is_expired_and_what_names_nothing(
    plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["known", "--check"]) == 0
    plant("wrong_kernel")
    write(folder)
    assert cli.main(["known", "--check", "--json", "k.json"]) == 0
    (row,) = json.loads(Path("k.json").read_text())["known"]
    assert (row["matched"] > 0, row["days_left"]) == (True, 40)
    assert "in 40 days" in capsys.readouterr().out
    for fields, words in (
        ({"expires": today() - timedelta(days=3)}, "expired on"),
        ({"subject": "right_kernel"}, "no suite declares a subject 'right_kernel'"),
        ({"target": "rtx fp16"}, "unknown target 'rtx-fp16'"),
        ({"source": "none.onnx"}, "there is no"),
    ):
        write(folder, **fields)
        assert cli.main(["known"]) == 0
        assert cli.main(["known", "--check"]) == 1
        assert words in capsys.readouterr().err


BENCH = """
from harness import Subject, targets

SUBJECT = Subject(
    name="clip", build=object, cases={"short": dict}, weights="random",
    targets=targets("ort-cpu", "rtx", precisions=("fp16",)), owner="team-y",
)
"""


@pytest.mark.parametrize(
    ("fields", "verdict", "status", "words"),
    [
        ({}, "regressed", 1, "REGRESSED"),
        ({"kind": "regressed", "at_most": 1.2}, "regressed", 0, "known until"),
        ({"kind": "regressed", "at_most": 1.05}, "regressed", 1, "1.1 times as long as the baseline"),
        ({"kind": "regressed"}, "equivalent", 1, "it is not slower any more"),
        ({"kind": "crash", "target": "rtx fp16"}, "equivalent", 0, "not launched: known crash"),
    ],
)
def test_bench_knows_what_got_slower_and_what_crashes(
    folder: Path, monkeypatch, capsys: pytest.CaptureFixture[str], fields, verdict, status, words
):
    (folder / "suites" / "test_clip.py").write_text(BENCH)
    given = {
        "subject": "clip",
        "target": "ort-cpu fp16",
        "reason": "kernel 7",
        "issue": "https://example.com/7",
        **fields,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
    if fields:
        (folder / "known.toml").write_text("\n".join(["[[known]]", *lines, f"expires = {LATER}"]))
    compared = latencies.comparison(verdict, 1.1, baseline=("a",), repeated=verdict == "regressed", p_value=1e-9)
    calls = giving(monkeypatch, harness.latency, "bench", latencies.measured(comparison=compared))
    assert cli.main(["bench", "clip", "--json", "b.json"]) == status
    assert words in capsys.readouterr().out
    data = json.loads(Path("b.json").read_text())
    launched = [str(target) for target in calls[0]["targets"]]
    assert launched == (["ort-cpu-fp16"] if fields.get("kind") == "crash" else ["ort-cpu-fp16", "rtx-fp16"])
    assert [one["known"]["kind"] for one in data["not_measured"]] == ["crash"] * (len(launched) == 1)
    assert data["bench"][0]["owner"] == "team-y"

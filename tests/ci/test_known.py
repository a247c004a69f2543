"""Known failures in real runs: never a pass, never something worse, no longer than until a day."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from harness import cli
from harness.ledger import today

ISSUE = "https://example.com/issues/7"
WRONG = {f"rtx-fp16-{case}": ("fail", "relative error 0.003", 3.0) for case in ("short", "long")}
CRASHES = """
def test_task(parity, parity_target):
    if str(parity_target) == "rtx-fp16":
        os.kill(os.getpid(), 9)
    parity.check()
"""


def entry(days: int = 30, **fields: Any) -> str:
    """Return an entry of the ledger as TOML."""
    given = {"subject": "clip", "target": "rtx fp16", "reason": "tactic 7", "issue": ISSUE, "owner": "team-x", **fields}
    lines = [f"{key} = {json.dumps(value)}" for key, value in given.items() if value is not None]
    return "\n".join(["[[known]]", *lines, f"expires = {today() + timedelta(days=days)}", ""])


@pytest.fixture
def ledger(repository):
    """Return a function that writes the ledger."""
    return lambda *entries: (repository.folder / "known.toml").write_text("\n".join(entries))


@pytest.mark.parametrize("options", [("--lf",), ("-n", "2", "--reruns", "2")])
def test_a_known_failure_is_known_and_no_pass(repository, ledger, options):
    repository.suite("clip", "def test_task(parity):\n    parity.check()\n", WRONG)
    ledger(entry())
    ended = repository.pytest(*options)
    assert (ended.status, ended.data["complete"], ended.badge) == (0, True, "yellow")
    assert {name: v for name, v in ended.verdicts.items() if v != "pass"} == {
        "clip/short rtx-fp16": "known", "clip/long rtx-fp16": "known",
    }  # fmt: skip
    known = [one for one in ended.data["results"] if one["verdict"] == "known"]
    assert {(ISSUE in one["reason"], one["owner"], one["known"]["verdict"]) for one in known} == {
        (True, "team-x", "fail")
    }
    assert [(one["status"], one["matched"], one["reached"]) for one in ended.data["known"]] == [("known", 2, 2)]
    assert {mark for name, mark in ended.junit.items() if "fp16" in name} == {"skipped"}
    assert "2 known to fail" in ended.said
    assert "1 as known" in ended.said


def test_a_run_of_known_failures_alone_ends_well_and_says_so(repository, ledger):
    repository.suite("clip", verdicts=WRONG)
    ledger(entry())
    ended = repository.pytest("-m", "fp16", "--require", "rtx", CI="true")
    assert (ended.status, set(ended.verdicts.values()), ended.badge) == (0, {"known"}, "lightgrey")
    assert "0 passed, 0 failed, 2 known to fail" in ended.said
    assert "was not recorded" not in ended.said, "a known failure goes into the history, too"


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_one_that_passes_fails(repository, ledger, options):
    repository.suite("clip", verdicts={"rtx-fp16-short": WRONG["rtx-fp16-short"]})
    ledger(entry())
    ended = repository.pytest(*options)
    assert (ended.status, ended.badge) == (1, "red")
    assert (ended.verdicts["clip/short rtx-fp16"], ended.verdicts["clip/long rtx-fp16"]) == ("known", "fail")
    assert "passes now" in ended.said
    assert "parity known add" not in ended.said, "it has an entry"
    assert ended.junit["clip/long [rtx-fp16]"] == "failure"
    ledger(entry(case="short"))
    assert repository.pytest(*options).status == 0


TASK = """
def test_task(parity, parity_target):
    parity.check_metric("mean", lambda out: out["y"].mean(), at_most=0.2)
"""


def test_a_metric_that_fails_is_its_failure_too(repository, ledger):
    repository.suite("clip", TASK)
    ledger(entry())
    whole = repository.pytest("--backend", "rtx", "--precision", "fp16")
    assert (whole.status, set(whole.verdicts.values())) == (0, {"known"})
    part = repository.pytest("-k", "test_outputs and fp16")  # whether it fails is not known without its other test
    assert (part.status, set(part.verdicts.values())) == (0, {"pass"})
    assert part.data["known"][0]["status"] == "not_reached"


@pytest.mark.parametrize(
    ("fields", "verdict", "words"),
    [
        ({}, ("fail", "worse", 30.0), "30 times its limit, at most 10 are known"),
        ({"at_most": 2.5}, ("fail", "worse", 3.0), "3 times its limit, at most 2.5 are known"),
        ({"kind": "refused"}, ("fail", "wrong", 3.0), "known as refused build, it fails now by wrong answer"),
    ],
)
def test_something_worse_or_else_fails(repository, ledger, fields, verdict, words):
    verdicts = {f"rtx-fp16-{case}": verdict for case in ("short", "long")}
    repository.suite("clip", verdicts=verdicts)
    ledger(entry(**fields))
    ended = repository.pytest()
    assert words in ended.said
    assert (ended.status, ended.verdicts["clip/short rtx-fp16"], ended.badge) == (1, "fail", "red")
    assert "owner: team-x" in ended.said


@pytest.mark.parametrize("kind", ["wrong answer", "crash"])
def test_one_whose_day_is_over_fails(repository, ledger, kind):
    repository.suite("clip", verdicts=WRONG)
    ledger(entry(days=-1, kind=kind))
    ended = repository.pytest()
    assert (ended.status, ended.verdicts["clip/short rtx-fp16"]) == (1, "fail")
    assert "known only until" in ended.said
    assert ("judge rtx-fp16" in (repository.folder / "log.txt").read_text()) == (kind != "crash")


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_what_is_known_to_crash_is_not_launched(repository, ledger, options):
    repository.suite("clip", CRASHES)
    ledger(entry(kind="crash"))
    ended = repository.pytest(*options)
    assert (ended.status, ended.data["complete"], ended.badge) == (0, True, "yellow")
    assert ended.verdicts["clip/short rtx-fp16"] == "known"
    assert "judge rtx-fp16" not in (repository.folder / "log.txt").read_text()
    assert "not launched" in ended.said


def test_what_crashes_is_launched_on_demand(repository, ledger):
    repository.suite("clip", CRASHES)
    ledger(entry(kind="crash"))
    ended = repository.pytest("-n", "1", "--run-known")
    assert ended.status == 1
    assert ended.verdicts["clip/short rtx-fp16"] in ("not_judged", "known")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subject": "clop"}, "no suite declares a subject 'clop'"),
        ({"target": "rtx fp23"}, "unknown target 'rtx-fp23'; did you mean rtx-fp16"),
        ({"subject": "*"}, "name one subject"),
    ],
)
@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_an_entry_that_is_none_is_an_error(repository, ledger, change, words, options):
    repository.suite("clip")
    ledger(entry(**change))
    ended = repository.pytest(*options)
    assert ended.status == 2
    assert "known.toml, entry 1" in ended.said
    assert words in ended.said
    assert ended.badge != "brightgreen"


def test_an_entry_of_what_was_not_reached_is_left_alone_and_listed(repository, ledger):
    repository.suite("clip", verdicts=WRONG)
    repository.suite("vae")
    ledger(entry(days=-1), entry(subject="vae", target="rtx *"))
    ended = repository.pytest("test_vae.py", "-k", "bf16")
    assert (ended.status, [one["status"] for one in ended.data["known"]]) == (1, ["not_reached", "failed"])
    ended = repository.pytest("test_clip.py", "-k", "bf16")
    assert (ended.status, [one["status"] for one in ended.data["known"]]) == (0, ["not_reached", "not_reached"])
    assert "2 not reached" in ended.said


def test_marks_of_pytest_change_no_verdict_but_the_ledger_does(repository, ledger):
    mark = "import pytest\n\npytestmark = pytest.mark.xfail(reason='known')\n"
    repository.suite("clip", mark, WRONG)
    assert repository.pytest().status == 1
    ledger(entry())
    ended = repository.pytest()
    assert (ended.status, ended.verdicts["clip/short rtx-fp16"]) == (0, "known")


def test_owners_stand_beside_what_fails(repository, ledger):
    repository.suite("clip", verdicts=WRONG, owner="team-y")
    ended = repository.pytest()
    assert "owner: team-y" in ended.said
    assert {one["owner"] for one in ended.data["results"]} == {"team-y"}
    owners = ElementTree.parse(ended.folder / "junit.xml").getroot().findall(".//property[@name='parity-owner']")
    assert {owner.get("value") for owner in owners} == {"team-y"}


def test_an_entry_is_written_from_what_failed(repository, monkeypatch, capsys):
    repository.suite("clip", verdicts={**WRONG, "rtx-bf16-short": ("fail", "worse", 3.0)}, owner="team-y")
    (repository.folder / "known.toml").write_text("# kept\n")
    ended = repository.pytest()
    assert (ended.status, "parity known add out.json" in ended.said) == (1, True)
    monkeypatch.chdir(repository.folder)
    given = ["--reason", 'a "tactic"\n', "--issue", ISSUE, "--expires", str(today() + timedelta(days=9))]
    command = ["known", "add", "out.json", *given]
    assert cli.main(command) == 2
    assert "2 things failed" in capsys.readouterr().err
    assert cli.main([*command, "-p", "fp16"]) == 0
    text = (repository.folder / "known.toml").read_text()
    assert text.startswith("# kept\n")
    assert "at_most = 4.5" in text
    assert repository.pytest("-m", "fp16", json=False).status == 0
    assert cli.main([*command, "--all"]) == 2
    assert "both about" in capsys.readouterr().err
    assert cli.main([*command, "-p", "bf16", "--owner", "team-z"]) == 0
    assert repository.pytest().status == 0
    assert cli.main(["known", "--suites", ".", "--check"]) == 0
    shown = capsys.readouterr()
    assert ("team-z" in shown.out, "expires on" in shown.err) == (True, True)

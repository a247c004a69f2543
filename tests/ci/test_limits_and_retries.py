"""Times that are over, processes that die, and attempts: what they leave in JSON, JUnit, badge and exit status."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from harness.records import DIED

ALL = {f"clip/{case} rtx-{precision}" for case in ("short", "long") for precision in ("fp16", "bf16")}
ENDLESS = """
def test_task(parity, parity_case, parity_target):
    if (str(parity_target), parity_case) == ("rtx-fp16", "short"):
        while True:
            time.sleep(0.01)
    parity.check()
"""
IN_C = ENDLESS.replace("while True:\n            time.sleep(0.01)", "sum(__import__('itertools').repeat(1))")
DIES_ONCE = """
def test_task(parity, parity_case, parity_target):
    if (str(parity_target), parity_case) == ("rtx-fp16", "short") and attempt("task") == 1:
        os.kill(os.getpid(), 9)
    parity.check()
"""
DIES = DIES_ONCE.replace(' and attempt("task") == 1', "")


def types_of(ended: Any) -> dict[str, list[str | None]]:
    """Return the types of what JUnit says went wrong, by the names of the tests."""
    cases = ElementTree.parse(ended.folder / "junit.xml").getroot().iter("testcase")
    return {str(case.get("name")): [one.get("type") for one in case if one.tag != "properties"] for case in cases}


def result_of(ended: Any, name: str) -> dict[str, Any]:
    """Return the result of ``clip/short rtx-fp16``."""
    (found,) = (
        one for one in ended.data["results"]
        if f"{one['subject']}/{one['case']} {one['backend']}-{one['precision']}" == name
    )  # fmt: skip
    return dict(found)


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_what_the_budget_does_not_reach_is_not_judged_and_named(repository, workers):
    repository.suite("clip", ENDLESS)
    ended = repository.pytest("--budget", "4", "-p", "no:randomly", *workers)
    data = ended.data
    late = [one for one in data["results"] if one["limit"] == "--budget"]
    assert ended.status == 1
    assert set(ended.verdicts) == ALL
    assert result_of(ended, "clip/short rtx-fp16") in late
    assert {(one["verdict"], one["failure"]) for one in late} == {("not_judged", "timeout")}
    assert all(one["reason"].startswith("the budget of 4 s was spent (--budget)") for one in late)
    assert (data["complete"], ended.badge) == (False, "yellow" if len(late) < len(ALL) else "lightgrey")
    assert "the budget of 4 s was spent (--budget): " in data["error"]
    assert "test_task[rtx-fp16-short]" in data["error"]
    assert types_of(ended)["test_task[rtx-fp16-short]"] == ["timeout"]


def test_a_subject_that_takes_too_long_leaves_the_others_alone(repository):
    repository.suite("clip", ENDLESS)
    repository.suite("vit")
    ended = repository.pytest("--run-timeout", "1", "-p", "no:randomly")
    one = result_of(ended, "clip/short rtx-fp16")
    assert (one["verdict"], one["failure"], one["limit"]) == ("not_judged", "timeout", "--run-timeout")
    assert one["reason"].startswith("clip took longer than 1 s (--run-timeout)")
    assert {verdict for name, verdict in ended.verdicts.items() if name.startswith("vit/")} == {"pass"}
    assert repository.pytest("--run-timeout", "1", "-p", "no:randomly", "--require", "rtx").status == 1


def test_a_worker_that_its_time_ends_is_no_crash(repository):
    repository.suite("clip", IN_C)
    ended = repository.pytest("--run-timeout", "1", "-n", "1", "--retries", "1", "-p", "no:randomly")
    one = result_of(ended, "clip/short rtx-fp16")
    assert (one["verdict"], one["failure"], one["attempts"]) == ("not_judged", "timeout", [])
    assert "took longer than 1 s (--run-timeout)" in one["reason"]
    assert set(ended.verdicts) == ALL


def test_a_process_that_its_time_ends_says_so_in_its_record(repository):
    repository.suite("clip", IN_C)
    ended = repository.pytest("--run-timeout", "1", "-p", "no:randomly")
    assert (ended.status, ended.data["complete"], ended.data["failure"]) == (3, False, "timeout")
    assert "--run-timeout" in ended.data["error"]
    assert ended.badge != "brightgreen"


@pytest.mark.parametrize("options", [("--retries", "1"), ("--reruns", "1"), ("--retries", "1", "--reruns", "1")])
def test_a_test_whose_worker_died_passes_in_another_attempt_and_says_so(repository, options):
    repository.suite("clip", DIES_ONCE)
    ended = repository.pytest("-n", "1", *options, "-p", "no:randomly")
    one = result_of(ended, "clip/short rtx-fp16")
    assert (ended.status, ended.data["complete"], ended.badge) == (0, True, "brightgreen")
    assert [(it["verdict"], it["failure"]) for it in one["attempts"]] == [("not_judged", "crash"), ("pass", "")]
    assert one["notes"][0].startswith("passed at attempt 2 of 2; attempt 1: crash")
    assert "passed at attempt 2 of 2" in ended.said
    assert set(ended.junit.values()) == {"passed"}
    assert len(ended.junit) == len(types_of(ended)) == 8


@pytest.mark.parametrize("options", [(), ("--retries", "1", "--retry-on", "device")])
def test_a_test_whose_worker_died_is_not_tried_again_unless_that_is_asked(repository, options):
    repository.suite("clip", DIES_ONCE)
    ended = repository.pytest("-n", "1", *options, "-p", "no:randomly")
    one = result_of(ended, "clip/short rtx-fp16")
    assert (one["verdict"], one["failure"], one["reason"], one["attempts"]) == ("not_judged", "crash", DIED, [])
    assert ended.status == 1
    assert "crash" in types_of(ended)["test_task[rtx-fp16-short]"]


def test_attempts_that_all_died_are_recorded(repository):
    repository.suite("clip", DIES)
    ended = repository.pytest("-n", "1", "--retries", "1", "-p", "no:randomly")
    one = result_of(ended, "clip/short rtx-fp16")
    assert [it["failure"] for it in one["attempts"]] == ["crash", "crash"]
    assert (ended.status, one["verdict"]) == (1, "not_judged")


def test_a_wrong_answer_is_not_tried_again(repository):
    repository.suite("clip", verdicts={"rtx-fp16-short": ("fail", "wrong")})
    ended = repository.pytest("--retries", "3", "--retry-on", "crash,device,timeout,memory,refused")
    assert (ended.status, result_of(ended, "clip/short rtx-fp16")["attempts"]) == (1, [])
    assert types_of(ended)["test_outputs[rtx-fp16-short]"] == ["wrong_answer"]


@pytest.mark.parametrize("classes", ["wrong_answer", "device,wrong", "nonsense", ""])
def test_what_cannot_be_tried_again_is_a_wrong_request(repository, classes):
    repository.suite("clip")
    ended = repository.pytest("--retries", "1", "--retry-on", classes)
    assert ended.status == 2
    assert ended.said.count("--retry-on") == 1
    assert "Traceback" not in ended.said

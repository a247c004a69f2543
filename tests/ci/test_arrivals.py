"""What was expected arrived, or is named: workers and whole runs that die, tests that are left out, manifests."""

from __future__ import annotations

import json

import pytest

from harness import cli
from harness.records import DIED

ALL = {f"clip/{case} rtx-{precision}" for case in ("short", "long") for precision in ("fp16", "bf16")}
DIES = """
def test_task(parity, parity_case, parity_target):
    if str(parity_target) == "rtx-bf16":
        os.kill(os.getpid(), 9)
    parity.check()
"""


def test_all_that_was_expected_arrives_in_any_order(repository):
    repository.suite("clip", "def test_task(parity):\n    parity.check()\n")
    ended = repository.pytest("-n", "2", "-p", "randomly", "--reruns", "2")
    assert (ended.status, ended.data["complete"], ended.data["error"]) == (0, True, "")
    assert set(ended.verdicts) == ALL
    assert (len(ended.data["expected"]), ended.data["left_out"], ended.badge) == (8, [], "brightgreen")
    assert set(ended.junit.values()) == {"passed"}


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (9, ("-n", "2")),
        (15, ("-n", "2")),
        (9, ("-n", "2", "--reruns", "2")),
        (9, ("-n", "1", "--max-worker-restart", "0")),
    ],
)
def test_tests_that_died_with_their_worker_are_named_and_counted(repository, number, options):
    repository.suite("clip", DIES.replace("9", str(number)))
    ended = repository.pytest(*options, "--require", "rtx")
    data = ended.data
    dead = {name for name, verdict in ended.verdicts.items() if verdict == "not_judged"}
    assert ended.status == 1
    assert set(ended.verdicts) == ALL
    assert dead >= {"clip/short rtx-bf16", "clip/long rtx-bf16"}
    assert {one["reason"] for one in data["results"] if one["verdict"] == "not_judged"} == {DIED}
    assert (data["complete"], ended.badge) == (False, "yellow" if dead < ALL else "lightgrey")
    for case in ("short", "long"):
        assert f"test_task[rtx-bf16-{case}]" in data["error"]
        assert ended.junit[f"test_task[rtx-bf16-{case}]"] in ("failure", "error")
    assert DIED in ended.said


@pytest.mark.parametrize("dies", [False, True])
def test_workers_that_share_no_folder_hand_over_what_they_collected(repository, dies, tmp_path_factory):
    repository.suite("clip", DIES if dies else "")
    elsewhere = tmp_path_factory.mktemp("elsewhere")  # the files are copied there, as to another machine
    ended = repository.pytest(
        "--parity-json=out.json", "--junitxml=junit.xml",  # with "=", or xdist takes them for files of the workers
        "--dist", "load", "--tx", f"2*popen//chdir={elsewhere}", f"--rsyncdir={repository.folder}",
        "-k", "not outputs or short", str(repository.folder), json=False,
    )  # fmt: skip
    assert list(elsewhere.rglob("test_clip.py"))
    data = ended.data
    assert {one["case"] for one in data["left_out"]} == {"long"}
    if dies:
        assert (ended.status, data["complete"]) == (1, False)
        assert {one["reason"] for one in data["results"] if one["verdict"] == "not_judged"} == {DIED}
        assert all(f"test_task[rtx-bf16-{case}]" in data["error"] for case in ("short", "long"))
        assert all(ended.junit[f"test_task[rtx-bf16-{case}]"] in ("failure", "error") for case in ("short", "long"))
    else:
        assert (ended.status, data["complete"], ended.badge) == (0, True, "brightgreen")
        assert [one["arrived"] for one in data["expected"]] == [True, True]


def test_a_worker_that_does_not_say_what_it_is_to_judge_fails_the_run(repository):
    repository.suite("clip")
    with (repository.folder / "conftest.py").open("a") as file:
        file.write(
            "\nimport os\nimport harness.arrivals\n\nharness.arrivals.HAND_OVER_S = 0.1\n"
            "if 'PYTEST_XDIST_WORKER' in os.environ:\n"
            "    harness.arrivals.Arrivals.hand_over = lambda self, config: None\n"
        )
    ended = repository.pytest("-n", "1")
    assert (ended.status, ended.data["complete"], ended.badge) == (1, False, "yellow")
    assert "gw0 of xdist did not say what it is to judge" in ended.data["error"]


PHASES = {
    "while it is imported": "os.kill(os.getpid(), 9)\n",
    "before the first result": (
        "import pytest\n\n@pytest.fixture(autouse=True, scope='module')\ndef dies():\n    os.kill(os.getpid(), 9)\n"
    ),
    "after a result": "def test_task(parity):\n    os.kill(os.getpid(), 9)\n",
    "by a time limit": (
        "import pytest\n\n@pytest.mark.timeout(0.2, method='thread')\ndef test_task(parity):\n    time.sleep(60)\n"
    ),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_that_dies_leaves_no_record_of_the_run_before(repository, phase):
    repository.suite("clip")
    before = repository.pytest()
    assert (before.status, before.badge) == (0, "brightgreen")
    run = before.data["run"]
    repository.suite("clip", PHASES[phase])
    ended = repository.pytest("-p", "no:randomly")
    assert (ended.data["complete"], bool(ended.data["error"])) == (False, True)
    assert ended.data["run"] != run
    assert ended.badge != "brightgreen"
    assert "error" in ended.junit.values()
    if phase != "while it is imported":
        assert set(ended.verdicts) == ALL
        assert DIED in {one["reason"] for one in ended.data["results"]}


def test_what_keeps_a_run_from_starting_is_in_its_record(repository):
    repository.suite("clip")
    repository.pytest()
    ended = repository.pytest("--backend", "nonsense")
    assert ended.status == 2
    assert (ended.data["complete"], ended.data["results"]) == (False, [])
    assert "nonsense" in ended.data["error"]
    assert ended.badge == "lightgrey"


def test_a_look_at_the_tests_leaves_the_record(repository):
    repository.suite("clip")
    before = repository.pytest().data
    for option in ("--collect-only", "--fixtures", "--help"):
        assert repository.pytest(option).data == before, option


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_what_is_left_out_is_listed(repository, workers):
    repository.suite("clip")
    ended = repository.pytest("-k", "short", "--deselect", "test_clip.py::test_outputs[rtx-fp16-short]", *workers)
    left_out = {(one["case"], one["precision"]) for one in ended.data["left_out"]}
    assert left_out == {("long", "fp16"), ("long", "bf16"), ("short", "fp16")}
    assert (ended.status, ended.data["complete"]) == (0, True)
    assert "left out" in ended.said
    only = repository.pytest("--precision", "fp16", *workers)
    assert (only.data["left_out"], len(only.verdicts)) == ([], 2)


def test_what_only_failed_tests_leave_out_is_listed(repository):
    repository.suite("clip", verdicts={"rtx-fp16-short": ("fail", "wrong")})
    assert repository.pytest().status == 1
    repository.suite("clip")
    ended = repository.pytest("--lf")
    assert (ended.status, len(ended.verdicts), len(ended.data["left_out"])) == (0, 1, 3)


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_run_that_judged_less_than_its_manifest_fails(repository, workers, monkeypatch, capsys):
    repository.suite("clip", verdicts={"rtx-bf16-long": ("not_judged", "no GPU")})
    monkeypatch.chdir(repository.folder)
    assert cli.main(["list", "--suites", ".", "--json", "manifest.json"]) == 0
    manifest = json.loads((repository.folder / "manifest.json").read_text())
    assert len(manifest["expected"]) == len(ALL)
    ended = repository.pytest("--expect", "manifest.json", *workers)
    assert (ended.status, ended.data["complete"]) == (1, False)
    assert "clip/long [rtx-bf16]" in ended.data["error"]
    repository.suite("clip")
    assert repository.pytest("--expect", "manifest.json", *workers).status == 0
    assert repository.pytest("--expect", "manifest.json", "-k", "short", *workers).status == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"expected": [{"subject": "clip"}]}'])
def test_a_manifest_that_is_none_is_a_wrong_request(repository, text):
    repository.suite("clip")
    (repository.folder / "manifest.json").write_text(text)
    ended = repository.pytest("--expect", "manifest.json")
    assert (ended.status, ended.data["complete"], ended.verdicts) == (2, False, {})
    assert "manifest.json" in ended.data["error"]


FLAKY = """
def test_task(parity, parity_case):
    tries = attempt(parity_case)
    parity.check_metric("mean", lambda out: 0.0 if tries > 1 else out["y"].mean(), at_most=0.1)
"""
XFAIL = "import pytest\n\npytestmark = pytest.mark.xfail(reason='known')\n"


@pytest.mark.parametrize(
    ("code", "verdicts", "options"),
    [
        (FLAKY, {}, ("--reruns", "2")),
        (FLAKY, {}, ("--reruns", "2", "-n", "1")),
        (XFAIL, {"rtx-fp16-short": ("fail", "wrong")}, ()),
    ],
)
def test_neither_reruns_nor_marks_make_a_wrong_answer_right(repository, code, verdicts, options):
    repository.suite("clip", code, verdicts)
    ended = repository.pytest(*options)
    assert "fail" in ended.verdicts.values()
    assert (ended.status, ended.badge) == (1, "red")


def test_a_rerun_after_something_else_went_wrong_is_whole(repository):
    repository.suite(
        "clip", "def test_task(parity, parity_case):\n    parity.check()\n    assert attempt(parity_case) > 1\n"
    )
    ended = repository.pytest("--reruns", "2")
    assert (ended.status, ended.data["complete"], ended.badge) == (0, True, "brightgreen")


def test_a_test_that_is_marked_and_passes_is_a_failure_where_pytest_says_so(repository):
    repository.suite("clip", XFAIL.replace("reason=", "strict=True, reason="))
    ended = repository.pytest()
    assert (ended.status, ended.data["complete"]) == (1, False)
    assert ended.badge == "yellow"


def test_a_record_of_another_run_is_no_record_of_this_one(repository, monkeypatch, capsys):
    repository.suite("clip")
    first = repository.pytest(PARITY_RUN="first")
    assert first.data["run"] == "first"
    monkeypatch.chdir(repository.folder)
    arguments = ["report", "out.json", "-o", "report", "--badge", "badge.json"]
    for run, status, colour in (("first", 0, "brightgreen"), ("second", 1, "yellow")):
        assert cli.main([*arguments, "--run", run]) == status
        assert json.loads((repository.folder / "badge.json").read_text())["color"] == colour
    assert "is of the run first, not of second" in capsys.readouterr().err
    monkeypatch.setenv("PARITY_RUN", "second")
    assert cli.main(arguments) == 1

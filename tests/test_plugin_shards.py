"""``pytest --shard``, ``--durations-from``, ``--gpus`` in test runs of their own, with engines that are pretended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fake
import pytest

from harness import cli
from harness.records import document

pytest_plugins = ["pytester"]

SUITE = """
import pytest

from harness import Subject, targets
from harness.checks import test_outputs

SUBJECT = Subject(
    name={name!r}, build=object, cases={{"short": dict, "long": dict}}, weights="random",
    targets=targets(*{backends!r}, precisions=("fp16",)), options={options!r},
)
"""
TIMED = """
@pytest.mark.latency
def test_timed(parity):
    parity.check()
"""


def suite(name: str, *backends: str, code: str = "", **verdicts: tuple[str, str]) -> str:
    options = {key.replace("_", "-"): verdict for key, verdict in verdicts.items()}
    return SUITE.format(name=name, backends=backends or ("rtx", "ort-cpu"), options=options) + code


@pytest.fixture
def two(project: pytest.Pytester) -> pytest.Pytester:
    project.makeconftest(fake.CONFTEST + fake.NO_MACHINE)
    project.makepyfile(test_clip=suite("clip"), test_vae=suite("vae", "rtx"))
    return project


def run(project: pytest.Pytester, *arguments: str, status: int = 0) -> dict[str, Any]:
    result = project.runpytest_inprocess(
        "-p", "no:xdist", "--parity-json", "out.json", *arguments, no_reraise_ctrlc=True
    )
    assert result.ret == status, result.stdout.str() + result.stderr.str()
    data: dict[str, Any] = json.loads((project.path / "out.json").read_text())
    return data


def targets_of(data: dict[str, Any], key: str = "expected") -> set[tuple[str, str]]:
    return {(one["subject"], one["backend"]) for one in data[key]}


def durations(path: Path, **seconds: float) -> Path:
    """Write the record of an earlier run, with the time of each target (``clip_rtx``)."""
    rows = [
        {"subject": name.partition("_")[0], "case": "short", "backend": name.partition("_")[2].replace("_", "-"),
         "precision": "fp16", "arrived": True, "seconds": took}
        for name, took in seconds.items()
    ]  # fmt: skip
    path.write_text(json.dumps({**document([], environment={}, command="pytest"), "expected": rows}))
    return path


@pytest.mark.parametrize("text", ["0/3", "4/3", "a/b", "2", "3/"])
def test_what_names_no_shard_is_a_wrong_request(two: pytest.Pytester, text: str):
    data = run(two, "--shard", text, status=2)
    assert "--shard" in data["error"]
    assert (data["complete"], data["results"]) == (False, [])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--durations-from", "last.json"),
        ("--shard", "1/2", "--durations-from", "out.json"),
        ("--shard", "1/2", "--durations-from", "test_clip.py"),
        ("--gpus", "0,0"),
        ("--gpus", ","),
    ],
)
def test_options_that_do_not_fit_are_wrong_requests(two: pytest.Pytester, arguments: tuple[str, ...]):
    data = run(two, *arguments, status=2)
    assert data["error"]
    assert not data["complete"]


def test_recorded_durations_split_the_tests(two: pytest.Pytester):
    record = durations(two.path / "last.json", clip_rtx=100.0, clip_ort_cpu=1.0, vae_rtx=2.0)
    shards = [run(two, "--shard", f"{n}/2", "--durations-from", str(record)) for n in (1, 2)]
    assert [targets_of(data) for data in shards] == [{("clip", "rtx")}, {("clip", "ort-cpu"), ("vae", "rtx")}]
    assert [targets_of(data, "elsewhere") for data in shards] == [targets_of(data) for data in shards[::-1]]
    assert {len(data["shard"]["durations"]) for data in shards} == {64}
    again = run(two, "--shard", "1/2", "--durations-from", str(record))
    assert again["shard"] == shards[0]["shard"]


def test_the_record_of_one_run_splits_the_next(two: pytest.Pytester):
    first = run(two)
    assert all(one["seconds"] >= 0 for one in first["expected"])
    (two.path / "out.json").rename(two.path / "last.json")
    data = run(two, "--shard", "1/2", "--durations-from", "last.json")
    assert data["shard"]["durations"]
    counted = run(two, "--shard", "1/2", "--durations-from", "none-yet.json")
    assert counted["shard"]["durations"] == ""


def test_the_history_of_one_run_splits_the_next(two: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    run(two)
    monkeypatch.setattr("harness.history.durations.run_id", lambda: "next")  # a process has one id, and this is one
    options = ("--durations-from", "history", "--no-accuracy-record")
    shards = [run(two, "--shard", f"{number}/2", *options)["shard"] for number in (1, 2)]
    assert shards[0]["durations"]
    assert shards[0]["durations"] == shards[1]["durations"]
    assert shards[0]["split_sha256"] == shards[1]["split_sha256"]


@pytest.mark.parametrize(
    "choice", [("-k", "short"), ("-m", "rtx"), ("--backend", "rtx"), ("--deselect", "test_vae.py")]
)
def test_what_else_chooses_tests_is_split(two: pytest.Pytester, choice: tuple[str, str]):
    whole = {one["test"] for one in run(two, *choice)["expected"]}
    found = [{one["test"] for one in run(two, *choice, "--shard", f"{n}/2")["expected"]} for n in (1, 2)]
    assert found[0] | found[1] == whole
    assert not found[0] & found[1]
    assert all(found)


def test_a_shard_with_nothing_left_to_run_passes_and_says_so(two: pytest.Pytester):
    data = run(two, "--shard", "4/4", "--require-verdict")
    assert (data["expected"], data["complete"], len(data["elsewhere"])) == ([], True, 6)
    run(two, "--shard", "1/2", "-k", "nothing", status=pytest.ExitCode.NO_TESTS_COLLECTED)


def test_a_required_backend_may_be_in_another_shard(two: pytest.Pytester):
    record = durations(two.path / "last.json", clip_rtx=1.0, clip_ort_cpu=100.0, vae_rtx=1.0)
    split = ("--durations-from", str(record), "--require", "ort-cpu")
    assert targets_of(run(two, "--shard", "1/2", *split)) == {("clip", "ort-cpu")}
    assert run(two, "--shard", "2/2", *split)["complete"]
    two.makepyfile(
        test_clip=suite("clip", ort_cpu_fp16_short=("not_judged", "no"), ort_cpu_fp16_long=("not_judged", "no"))
    )
    assert not run(two, "--shard", "1/2", *split, status=1)["complete"]
    assert not run(two, "--shard", "2/2", *split[:2], "--require", "trt", status=1)["complete"], "it is in none"


def test_a_manifest_is_held_against_the_own_part(two: pytest.Pytester):
    expected = [{key: one[key] for key in ("subject", "case", "backend", "precision")} for one in run(two)["expected"]]
    manifest = two.path / "manifest.json"
    manifest.write_text(json.dumps({"schema": "parity-manifest/1", "expected": expected}))
    for n in (1, 2):
        assert run(two, "--shard", f"{n}/2", "--expect", "manifest.json")["complete"]
    manifest.write_text(json.dumps({"expected": [*expected, {**expected[0], "case": "other"}]}))
    assert not run(two, "--shard", "1/2", "--expect", "manifest.json", status=1)["complete"]


def test_parameters_are_those_that_shards_share(two: pytest.Pytester):
    (two.path / "a.json").write_text('{"expected": []}')
    one = run(two, "--shard", "1/2", "--require", "rtx", "--expect", "a.json", "-k", "short")["parameters"]
    other = run(two, "--shard", "2/2", "--expect", "./a.json", "--require", "rtx", "--gpus", "7", "-k", "short")[
        "parameters"
    ]
    assert one == other
    (two.path / "a.json").write_text('{"expected":  []}')
    assert run(two, "--expect", "a.json", "--require", "rtx", "-k", "short")["parameters"] != one


def test_latency_is_left_to_a_stage_of_its_own(two: pytest.Pytester):
    two.makepyfile(test_clip=suite("clip", code=TIMED))
    shards = [run(two, "--shard", f"{n}/2") for n in (1, 2)]
    for data in shards:
        assert not any("test_timed" in one["test"] for one in data["expected"])
        later = [one for one in data["elsewhere"] if one.get("stage")]
        assert [(one["shard"], one["stage"]) for one in later] == [(0, "latency")] * 4
        assert data["left_out"] == []
    stage = run(two, "-m", "latency")
    assert len(stage["expected"]) == 4
    parts = [run(two, "-m", "latency", "--shard", f"{n}/2") for n in (1, 2)]
    assert [(len(data["expected"]), data["shard"]["stage"]) for data in parts] == [(2, "latency")] * 2


def test_a_shard_takes_a_gpu(two: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    for arguments, gpu in (
        (("--shard", "2/3"), "5"), (("--shard", "5/6"), "5"), (("--shard", "3/3", "--gpus", "6,4"), "6"),
        (("--gpus", "5"), "5"),
    ):  # fmt: skip
        data = run(two, *arguments)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu
        assert (data["shard"] or {"gpu": gpu})["gpu"] == gpu
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    for arguments in ((), ("--shard", "2/3", "--gpus", "all")):
        run(two, *arguments)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6"
    assert "--gpus 3" in run(two, "--gpus", "3", status=2)["error"]


TURNS = """
import os
import time


def during(kind):
    with open("turns", "a") as file:
        file.write(f"{kind} begins\\n")
    time.sleep(0.05)
    with open("turns", "a") as file:
        file.write(f"{kind} ends\\n")
    with open("gpus", "a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")


@pytest.mark.latency
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    during("alone")


@pytest.mark.parametrize("number", range(8))
def test_other(number):
    during("other")
"""


def test_workers_have_a_gpu_each_and_stand_still_while_latency_is_measured(
    two: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    two.makepyfile(test_turns=f"import pytest\n{TURNS}")
    result = two.runpytest_subprocess("-n", "3", "--dist", "loadgroup", "--max-worker-restart", "0", "test_turns.py")
    result.assert_outcomes(passed=11)
    lines = (two.path / "turns").read_text().splitlines()
    for number, line in enumerate(lines):
        if line == "alone begins":
            assert lines[number + 1] == "alone ends"
    found = dict(line.split() for line in (two.path / "gpus").read_text().splitlines())
    assert found == {name: {"gw0": "4", "gw1": "5", "gw2": "6"}[name] for name in found}


def test_shards_and_the_latency_stage_make_one_record(two: pytest.Pytester):
    two.makepyfile(test_clip=suite("clip", code=TIMED.replace("parity.check()", "pass")))
    for n in (1, 2):
        run(two, "--shard", f"{n}/2")
        (two.path / "out.json").rename(two.path / f"{n}.json")
    assert cli.main(["merge", "1.json", "2.json", "-o", "whole.json"]) == 1
    data = json.loads((two.path / "whole.json").read_text())
    assert data["error"].startswith("the latency stage is missing: ")
    assert len(data["not_measured"]) == 4
    run(two, "-m", "latency")
    assert cli.main(["merge", "1.json", "2.json", "out.json", "-o", "whole.json"]) == 0
    data = json.loads((two.path / "whole.json").read_text())
    assert (data["complete"], data["left_out"], len(data["expected"])) == (True, [], 10)

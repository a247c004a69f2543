"""Records of shards become that of one run; what is missing, doubled or of another run is named and never green."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace

import latencies
import pytest
from recorded import ENVIRONMENT, result

from harness import cli, records
from harness.records import DIED, document
from harness.report import badge
from harness.shards import merge

OF = 3


def asked(case, **changes):
    return {
        "test": f"test_net.py::test_outputs[rtx-fp16-{case}]", "subject": "net", "case": case, "backend": "rtx",
        "precision": "fp16", "source": "", **changes,
    }  # fmt: skip


def shard(index, *, verdict="pass", of=OF, **changes):
    """Return the record of a shard, which has the case of its number and leaves the others to others."""
    one = replace(result(verdict), case=str(index)).to_json()
    data = document([one], environment=ENVIRONMENT, command=f"pytest --shard {index}/{of}")
    return copy.deepcopy({
        **data, "recorded_at": f"2026-01-0{index}", "run": "r1", "parameters": {"require": ["rtx"], "-k": "", "-m": ""},
        "expected": [asked(str(index), arrived=True, seconds=1.5)],
        "elsewhere": [asked(str(n), shard=n, stage="") for n in range(1, of + 1) if n != index],
        "left_out": [], "shard": {"index": index, "of": of, "stage": "", "split_sha256": "s", "durations": "d"},
        **changes,
    })  # fmt: skip


def verdicts(merged):
    return {one["case"]: one["verdict"] for one in merged["results"]}


def test_shards_make_the_record_of_one_run():
    merged = merge([shard(2), shard(1, verdict="fail"), shard(3)])
    assert (merged["complete"], merged["error"], merged["run"]) == (True, "", "r1")
    assert verdicts(merged) == {"1": "fail", "2": "pass", "3": "pass"}
    assert [(one["case"], one["arrived"], one["shard"]) for one in merged["expected"]] == [
        ("1", True, 1), ("2", True, 2), ("3", True, 3),
    ]  # fmt: skip
    assert merged["environment"] == ENVIRONMENT
    assert [(one["index"], one["command"]) for one in merged["shards"]] == [
        (n, f"pytest --shard {n}/3") for n in (1, 2, 3)
    ]


def test_order_and_steps_change_nothing():
    parts = [shard(1), shard(2, complete=False, error="interrupted"), shard(3)]
    for some in (parts, parts[:2], parts[1:]):
        ways = [merge(copy.deepcopy(way)) for way in itertools.permutations(some)]
        assert all(json.dumps(way) == json.dumps(ways[0]) for way in ways)
        assert merge([ways[0]]) == ways[0]
        assert merge([merge([some[0]]), merge(some[1:])]) == ways[0]


def test_a_missing_shard_is_named_and_its_tests_are_not_judged():
    merged = merge([shard(1), shard(3)])
    assert (merged["complete"], merged["error"]) == (False, "shard 2 of 3 is missing")
    assert verdicts(merged) == {"1": "pass", "2": "not_judged", "3": "pass"}
    assert {one["reason"] for one in merged["results"] if one["case"] == "2"} == {"not judged: shard 2 of 3 is missing"}
    assert [one["arrived"] for one in merged["expected"]] == [True, False, True]
    assert merge([merged, shard(2)]) == merge([shard(1), shard(2), shard(3)])


FAULTS = {
    "another run": ([shard(1), shard(2, run="r2"), shard(3)], "of 2 runs (r1, r2)"),
    "another commit": (
        [shard(1), shard(2, environment={**ENVIRONMENT, "commit": "decade"}), shard(3)], "of 2 commits (c0ffee, decade)"
    ),
    "other parameters": (
        [shard(1), shard(2, parameters={"require": [], "-k": "", "-m": ""}), shard(3)],
        'require is ["rtx"] in shard 1 of 3, [] in shard 2 of 3',
    ),
    "another selection": (
        [shard(1), shard(2, parameters={"require": ["rtx"], "-k": "x", "-m": ""}), shard(3)], "-k is"
    ),
    "other durations": (
        [shard(1), shard(2, shard={**shard(2)["shard"], "durations": "e"}), shard(3)], "by different durations"
    ),
    "other tests": (
        [shard(1), shard(2, shard={**shard(2)["shard"], "split_sha256": "t"}), shard(3)], "collected different tests"
    ),
    "doubled": ([shard(1), shard(2), shard(2), shard(3)], "shard 2 of 3 is there 2 times"),
    "doubled for another": ([shard(1), shard(2), shard(2)], "shard 3 of 3 is missing; shard 2 of 3 is there 2 times"),
    "judged twice": (
        [shard(1), shard(2), shard(3, results=[*shard(2)["results"], *shard(3)["results"]])],
        "1 arrived more than once: net/2 [rtx-fp16]",
    ),
    "silent": ([shard(1), shard(2, results=[], expected=[asked("2", arrived=False)]), shard(3)], "1 did not arrive"),
    "unfinished": ([shard(1), shard(2, complete=False, error="interrupted"), shard(3)], "shard 2 of 3: interrupted"),
    "with a fault": ([shard(1), shard(2, error="a test failed"), shard(3)], "shard 2 of 3: a test failed"),
    "another number": ([shard(1), shard(2), shard(3), shard(1, of=2)], "there are shards of 2 and of 3"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_whole_run_is_never_green(fault, tmp_path):
    parts, words = FAULTS[fault]
    merged = merge(copy.deepcopy(parts))
    assert not merged["complete"]
    assert all(word in merged["error"] for word in words.split("; "))
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(merged))
    assert badge(records.load([path]))["color"] == "yellow"
    assert merge([merged]) == merged


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_results_the_worse_counts(order):
    parts = [shard(1), shard(2), shard(2, verdict="fail"), shard(3)]
    assert verdicts(merge(parts[::order]))["2"] == "fail"


def test_a_shard_that_died_before_its_tests_were_known():
    dead = shard(
        2, results=[], expected=[], elsewhere=[], complete=False, error=records.NOT_ENDED,
        shard={"index": 2, "of": 3, "durations": "d", "split_sha256": "", "stage": ""},
    )  # fmt: skip
    merged = merge([shard(1), dead, shard(3)])
    (lost,) = [one for one in merged["results"] if one["case"] == "2"]
    assert (lost["verdict"], lost["reason"]) == ("not_judged", f"not judged: shard 2 of 3: {records.NOT_ENDED}")
    assert merged["error"] == f"shard 2 of 3: {records.NOT_ENDED}"


def test_tests_that_died_in_a_shard_are_not_judged():
    dead = shard(2, results=[], expected=[asked("2", arrived=False)], complete=False, error=records.NOT_ENDED)
    merged = merge([shard(1), dead, shard(3)])
    assert {one["reason"] for one in merged["results"] if one["case"] == "2"} == {DIED}
    assert (merged["complete"], verdicts(merged)["2"]) == (False, "not_judged")


LATER = asked("1", test="test_net.py::test_latency[rtx-fp16-1]", shard=0, stage="latency")


def with_latency():
    return [shard(n, elsewhere=[*shard(n)["elsewhere"], LATER]) for n in (1, 2, 3)]


def stage(**changes):
    timed = latencies.measured(latencies.session()).to_json()
    data = document([], environment=ENVIRONMENT, command="pytest -m latency")
    data["recorded_at"] = "2026-01-04"
    mine = {key: LATER[key] for key in ("test", "subject", "case", "backend", "precision", "source")}
    return {
        **data, "run": "r1", "parameters": {"require": ["rtx"], "-k": "", "-m": "latency"}, "shard": None,
        "expected": [{**mine, "arrived": True, "seconds": 9.0}], "elsewhere": [], "bench": [timed],
        "left_out": [asked("1"), asked("2"), asked("4")], **changes,
    }  # fmt: skip


def test_the_latency_stage_belongs_to_the_run():
    merged = merge([*with_latency(), stage()])
    assert (merged["complete"], merged["error"], len(merged["bench"])) == (True, "", 1)
    assert len(merged["expected"]) == 4
    assert [one["case"] for one in merged["left_out"]] == ["4"], "what another shard judged is not left out"
    assert (merged["elsewhere"], merged["not_measured"]) == ([], [])


def test_a_missing_latency_stage_is_named():
    parts = with_latency()
    merged = merge(parts)
    assert not merged["complete"]
    assert merged["error"] == f"the latency stage is missing: {LATER['test']}"
    assert verdicts(merged) == {"1": "pass", "2": "pass", "3": "pass"}
    (lost,) = merged["not_measured"]
    assert (lost["case"], lost["reason"]) == ("1", "not judged: the latency stage is missing")
    assert merge([merged]) == merged
    assert merge([merged, stage()]) == merge([*parts, stage()])


def test_machines_are_shown_each(tmp_path):
    other = {**ENVIRONMENT, "gpus": [{**ENVIRONMENT["gpus"][0], "name": "NVIDIA L4"}]}
    merged = merge([shard(1), shard(2, environment=other), shard(3)])
    assert (merged["complete"], merged["environment"]) == (True, {})
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(merged))
    found = records.load([path]).environments
    assert [(one["gpus"][0]["name"], names) for one, names in found] == [
        ("NVIDIA H200", ("whole.json shard 1/3", "whole.json shard 3/3")), ("NVIDIA L4", ("whole.json shard 2/3",)),
    ]  # fmt: skip


def test_keys_of_others_are_kept():
    merged = merge([shard(1, seen=[1, 2], kind="a"), shard(2, seen=[2, 3], kind="a"), shard(3, seen=[])])
    assert (merged["seen"], merged["kind"]) == ([1, 2, 3], "a")


def test_a_report_of_some_shards_names_the_others(tmp_path):
    for n in (1, 3):
        (tmp_path / f"{n}.json").write_text(json.dumps(shard(n)))
    assert badge(records.load([tmp_path]))["color"] == "yellow"
    (tmp_path / "2.json").write_text(json.dumps(shard(2)))
    assert badge(records.load([tmp_path]))["color"] == "brightgreen"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in (1, 2, 3):
        (tmp_path / f"{n}.json").write_text(json.dumps(shard(n)))
    return tmp_path


def run(*arguments):
    return cli.main(["merge", *arguments, "-o", "whole.json"])


def test_the_command_merges(folder, capsys):
    assert run("3.json", "1.json", "2.json") == 0
    assert json.loads((folder / "whole.json").read_text()) == merge([shard(1), shard(2), shard(3)])
    assert run(".") == 0, "the record itself is none of those in the folder"
    assert run("1.json", "3.json") == 1
    assert "shard 2 of 3 is missing" in capsys.readouterr().err
    (folder / "2.json").write_text(json.dumps(shard(2, verdict="fail")))
    assert run(".") == 1
    assert json.loads((folder / "whole.json").read_text())["complete"]


def test_the_command_judges_as_pytest_does(folder):
    for n in (1, 2, 3):
        (folder / f"{n}.json").write_text(json.dumps(shard(n, verdict="not_judged")))
    assert run(".") == 3


@pytest.mark.parametrize("text", ["", "[", '{"schema": "parity/0"}', '{"schema": "parity/1", "results": 3}'])
def test_a_shard_that_cannot_be_read_leaves_no_green_record(folder, text, capsys):
    assert run(".") == 0
    (folder / "2.json").write_text(text)
    assert run(".") == 2
    left = json.loads((folder / "whole.json").read_text())
    assert (left["complete"], left["results"]) == (False, [])
    assert "2.json" in left["error"]


@pytest.mark.parametrize("given", [("1.json", "1.json"), ("1.json", "./1.json"), ("none.json",)])
def test_wrong_requests_are_named(folder, given, capsys):
    assert run(*given) == 2
    assert given[0] in capsys.readouterr().err


def test_the_record_to_write_is_none_to_read(folder):
    assert cli.main(["merge", "1.json", "2.json", "-o", "2.json"]) == 2
    assert json.loads((folder / "2.json").read_text()) == shard(2)


def test_other_records_are_no_shards(folder, capsys):
    (folder / "other.json").write_text(json.dumps(document([], environment={}, command="parity bench net")))
    assert run(".") == 2
    assert "parity bench net" in capsys.readouterr().err


def test_a_manifest_is_held_against_the_whole(folder, capsys):
    expected = [{key: value for key, value in asked(str(n)).items() if key != "test"} for n in (1, 2, 3)]
    (folder / "manifest.json").write_text(json.dumps({"schema": "parity-manifest/1", "expected": expected}))
    assert run(".", "--expect", "manifest.json") == 0
    assert run("1.json", "2.json", "--expect", "manifest.json") == 1
    more = [*expected, {**expected[0], "case": "4"}]
    (folder / "manifest.json").write_text(json.dumps({"schema": "parity-manifest/1", "expected": more}))
    assert run(".", "--expect", "manifest.json") == 1
    assert "net/4 [rtx-fp16]" in json.loads((folder / "whole.json").read_text())["error"]
    assert run(".", "--expect", "none.json") == 2

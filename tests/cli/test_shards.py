"""``parity verify --shard`` and what ``parity report`` makes of a merged record."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from recorded import result

import harness.verify
from harness import cli
from harness.records import run_id

SUITE = """
import torch
from harness import Subject, targets

SUBJECT = Subject(
    name="clip", build=torch.nn.Identity, cases={"short": dict, "long": dict}, weights="random",
    targets=targets("rtx", "ort-cpu", precisions=("fp32", "fp16")),
)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def verify(subject, *, targets, cases, settings, judge):
        for target in targets:
            for case in cases:
                names = {"case": case, "backend": target.backend, "precision": target.precision_name}
                yield result(subject=subject.name, source=subject.source, timings_s={"judge": 2.0}, **names)

    monkeypatch.setattr(harness.verify, "verify", verify)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_clip.py").write_text(SUITE)
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["verify", "test_clip.py", *arguments])


def names(path: str) -> list[tuple[str, ...]]:
    rows = json.loads(Path(path).read_text())["results"]
    return sorted((row["case"], row["backend"], row["precision"]) for row in rows)


def test_every_target_is_in_exactly_one_shard():
    assert run("--json", "all.json") == 0
    for n in (1, 2, 3):
        assert run("--shard", f"{n}/3", "--json", f"{n}.json", "--durations-from", "all.json") == 0
    assert sorted(names("1.json") + names("2.json") + names("3.json")) == names("all.json")
    assert cli.main(["merge", "3.json", "1.json", "2.json", "-o", "whole.json"]) == 0
    whole = json.loads(Path("whole.json").read_text())
    assert (names("whole.json"), whole["complete"]) == (names("all.json"), True)
    assert {row["durations"] for row in whole["shards"]} != {""}
    assert cli.main(["merge", "3.json", "1.json", "-o", "whole.json"]) == 1
    assert "shard 2 of 3 is missing" in json.loads(Path("whole.json").read_text())["error"]


def test_more_shards_than_targets_leave_some_empty(capsys):
    assert run("--shard", "5/5", "--json", "5.json", "--require", "rtx") == 0
    assert names("5.json") == []
    assert run("--shard", "5/5", "--json", "5.json", "--require", "trt") == 3


@pytest.mark.parametrize("arguments", [("--shard", "0/3"), ("--shard", "a/b"), ("--gpus", "0,0")])
def test_a_wrong_option_is_usage(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert arguments[0] in capsys.readouterr().err


def test_durations_need_a_shard_and_a_record(capsys):
    assert run("--durations-from", "all.json") == 2
    assert run("--shard", "1/2", "--durations-from", "test_clip.py") == 2
    assert "test_clip.py is no record" in capsys.readouterr().err


def test_a_shard_takes_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert run("--shard", "2/2", "--json", "2.json") == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    assert json.loads(Path("2.json").read_text())["shard"]["gpu"] == "5"


def test_junit_of_a_merged_record_has_every_verdict_and_fault():
    for n in (1, 2):
        assert run("--shard", f"{n}/3", "--json", f"{n}.json") == 0
    assert cli.main(["merge", "1.json", "2.json", "-o", "whole.json"]) == 1
    assert cli.main(["report", "whole.json", "-o", "out", "--junit", "whole.xml"]) == 0
    (suite,) = ElementTree.parse("whole.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("9", "0", "1")
    assert int(suite.get("skipped") or 0) == 8 - len(names("1.json")) - len(names("2.json"))
    assert [p.get("value") for p in suite.iter("property")] == [run_id()]
    assert {case.get("time") for case in suite.iter("testcase") if len(case) == 0} == {"2.000"}
    (error,) = suite.iter("error")
    assert "shard 3 of 3 is missing" in str(error.get("message"))

"""Recorded JSON read back: checked, completed, and what cannot be used named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import recorded

from harness.cli import commands as cli
from harness.errors import UsageError
from harness.records import Decisions, WrongDecision
from harness.records import reader as records

SUITE = """
import torch
from harness import Subject, targets

def build():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).eval()

SUBJECT = Subject(
    name="tiny", build=build, cases={"one": lambda: {"input": torch.ones(2, 4)}}, weights="random", inputs="random",
    targets=targets("torch", precisions=("fp32", "fp16")),
)
"""


def test_every_kind_of_record_is_read_back(tmp_path: Path):
    found = records.load([recorded.everything(tmp_path)])
    assert [entry.data["case"] for entry in found.results] == ["one", "two"]
    assert found.results[0].data == recorded.result().to_json()
    assert found.bench[0].data == recorded.sweep()[0].to_json()
    assert found.bisections[0].data == recorded.bisection().to_json()
    assert found.studies[0].data == recorded.study().to_json()
    assert found.studies[0].document.file("charts/pareto.png") == tmp_path / "charts" / "pareto.png"
    assert (found.weights, found.inputs, found.devices) == (("random",), ("random", "real"), ("NVIDIA H200",))
    assert found.commits == ("c0ffee",)
    assert found.broken == found.foreign == found.twice == found.layers == ()


def test_decisions_are_read_back_and_older_records_have_none(tmp_path: Path):
    wrong = WrongDecision(index=(3,), actual=900, expected=281, operator="ArgMax", value="ids", margin=float("inf"))
    counts = Decisions(shape=(64,), dtype="int64", elements=64, differ=3, ties=2, largest=619, wrong=wrong)
    decided = recorded.result(
        "fail", outputs=(recorded.output("ids", "fail", stats=None, floor=None, decisions=counts),)
    )
    older = recorded.result(case="older").to_json()
    del older["outputs"][0]["decisions"]
    document = {"schema": "parity/1", "results": [decided.to_json(), older]}
    (tmp_path / "run.json").write_text(json.dumps(document))
    first, second = (entry.data for entry in records.load([tmp_path]).results)
    assert first == decided.to_json()
    assert first["outputs"][0]["decisions"]["wrong"]["index"] == [3]
    assert first["outputs"][0]["decisions"]["wrong"]["margin"] is None
    assert second["outputs"][0]["decisions"] is None


def written_before(advice: list[Any], **changes: Any) -> dict[str, Any]:
    """Return a bisection as it was written when advice was text."""
    data = {**recorded.bisection().to_json(), "advice": advice, "finding": "engine: it goes wrong in gelu", **changes}
    questions = (("is the engine repeatable?", "yes"), ("is the engine wrong?", "yes"))
    data["gates"] = [{"question": question, "answer": answer, "detail": ""} for question, answer in questions]
    del data["commands"]
    return data


def read(bisection: Any, folder: Path) -> records.Records:
    (folder / "old.json").write_text(json.dumps({"schema": "parity/1", "bisect": bisection}))
    return records.load([folder])


def test_a_bisection_from_before_advice_was_a_record_is_read(tmp_path: Path):
    lines = [
        "4 values wrong | a kernel of rtx | keep op:aten.gelu.default in FP32", "The plan costs 2 %.",
        "parity verify net -b rtx -p fp16 --layers", "python reports/net-reproducer/reproduce.py",
    ]  # fmt: skip
    data = read(written_before(lines), tmp_path).bisections[0].data
    assert data["advice"] == [
        {"indicator": "4 values wrong", "meaning": "a kernel of rtx", "action": "keep op:aten.gelu.default in FP32"},
        {"indicator": "The plan costs 2 %.", "meaning": "", "action": ""},
    ]
    assert data["commands"] == lines[2:]
    assert data["finding"] == "it goes wrong in gelu"
    assert [(asked["answer"], asked["good"]) for asked in data["gates"]] == [("yes", "yes"), ("yes", "no")]


def test_a_bisection_of_today_is_read_as_it_is(tmp_path: Path):
    today = recorded.bisection(finding="engine: a sentence that begins like this").to_json()
    assert read(today, tmp_path).bisections[0].data == today
    assert read(written_before([]), tmp_path).bisections[0].data["commands"] == []


@pytest.mark.parametrize("changes", [{"advice": [1]}, {"advice": "text"}, {"finding": None}, {"gates": [1]}])
def test_an_old_bisection_that_holds_something_else_is_named(changes: dict[str, Any], tmp_path: Path):
    data = {**written_before(["a | b | c"]), **changes}
    with pytest.raises(UsageError, match=r"old\.json is not used: bisect\."):
        read(data, tmp_path)


def test_what_parity_verify_writes_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "test_tiny.py").write_text(SUITE)
    assert cli.main(["verify", "tiny", "--json", "r/tiny.json", "--device", "cpu", "--engines", "e", "--layers"]) == 0
    capsys.readouterr()
    found = records.load([tmp_path / "r"])
    assert [entry.data["precision"] for entry in found.results] == ["fp32", "fp16"]
    assert len(found.layers) == 2
    assert found.weights == ("random",)
    assert found.environments[0][1] == ("tiny.json",)
    assert found.commands[0].startswith("parity verify tiny")


def test_files_that_cannot_be_used_are_named(tmp_path: Path):
    recorded.document(tmp_path, "good.json", results=[recorded.result()])
    (tmp_path / "cut.json").write_text('{"schema": "parity/1", "results": [')
    (tmp_path / "nan.json").write_text('{"schema": "parity/1", "results": [NaN]}')
    (tmp_path / "foreign.json").write_text("[1]")
    (tmp_path / "engine.json").write_text('{"schema": "parity-engine/1"}')
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    found = records.load([tmp_path])
    assert [sentence.split()[0] for sentence in found.broken] == ["bytes.json", "cut.json", "nan.json"]
    assert "not a document of parity" in found.foreign[1]
    assert "its schema is 'parity-engine/1'" in found.foreign[0]
    assert len(found.results) == 1


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"verdict": "green"}, "results[0].verdict is 'green', but must be one of pass, fail, not_judged"),
        ({"subject": 3}, "results[0].subject is 3, but must be text"),
        ({"notes": "none"}, "results[0].notes is not a list"),
        ({"provenance": {}}, "results[0].provenance has no 'weights'"),
        ({"outputs": [{"name": "y"}]}, "results[0].outputs[0] has no 'verdict'"),
        ({"timings_s": {"build": "long"}}, "results[0].timings_s.build is 'long', but must be a number"),
    ],
)
def test_a_document_of_another_shape_is_broken(change: dict[str, Any], where: str, tmp_path: Path):
    row = {**recorded.result().to_json(), **change}
    recorded.document(tmp_path, "good.json")
    (tmp_path / "bad.json").write_text(json.dumps({"schema": "parity/1", "results": [row]}))
    assert where in records.load([tmp_path]).broken[0]


def test_keys_that_were_added_since_have_their_defaults(tmp_path: Path):
    row = recorded.result().to_json()
    for key in ("layers", "next_step", "repeatable"):
        del row[key]
    (tmp_path / "old.json").write_text(json.dumps({"schema": "parity/1", "results": [{**row, "later": 1}]}))
    found = records.load([tmp_path]).results[0].data
    assert (found["layers"], found["next_step"], found["repeatable"], found["later"]) == (None, "", None, 1)


def test_figures_that_are_not_finite_are_null_and_read_so(tmp_path: Path):
    bad = recorded.output(verdict="fail", stats=recorded.stats(float("nan"), mismatched_nonfinite=7))
    recorded.document(tmp_path, results=[recorded.result("fail", outputs=(bad,))])
    found = records.load([tmp_path]).results[0].data["outputs"][0]
    assert (found["relative_l2"], found["mismatched_nonfinite"]) == (None, 7)


def test_paths_are_sorted_counted_once_and_hidden_ones_left_out(tmp_path: Path):
    for name in ("b.json", "a/b.json", ".tmp.json", ".git/c.json"):
        recorded.document(tmp_path, name, results=[recorded.result(case=name)])
    found = records.load([tmp_path, tmp_path / "b.json"])
    assert [doc.name for doc in found.documents] == ["a/b.json", "b.json"]
    assert found.environments == ((recorded.ENVIRONMENT, ("a/b.json", "b.json")),)


def test_what_was_recorded_twice_is_said(tmp_path: Path):
    for name in ("a.json", "b.json"):
        recorded.document(tmp_path, name, results=[recorded.result()])
    assert records.load([tmp_path]).twice[0].startswith("net/one [rtx-fp16] was recorded 2 times (a.json, b.json)")


def test_a_session_that_two_files_hold_is_there_once(tmp_path: Path):
    for name in ("a.json", "old/a.json"):
        recorded.document(tmp_path, name, bench=[recorded.measured(id="one"), recorded.measured(id="two")])
    assert [entry.data["session"]["id"] for entry in records.load([tmp_path]).bench] == ["one", "two"]


def test_nothing_to_read_is_an_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(UsageError, match=r"it holds no .json file; record something with `parity verify"):
        records.load([tmp_path])
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UsageError, match=r"x.json is not used: it is not JSON"):
        records.load([tmp_path])
    with pytest.raises(UsageError, match=r"there is no .*gone.json"):
        records.load([tmp_path / "gone.json"])


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "", "gone.png"])
def test_a_document_names_only_files_below_its_own_folder(path: str, tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(b"")
    recorded.document(tmp_path / "r")
    with pytest.raises(UsageError, match=r"which is not (in its own folder|there)"):
        records.load([tmp_path / "r"]).documents[0].file(path)


@pytest.mark.parametrize("path", ["a\0b.png", "a" * 300])
def test_a_name_that_no_file_can_have_is_a_usage_error(path: str, tmp_path: Path):
    found = records.load([recorded.document(tmp_path)])
    with pytest.raises(UsageError, match=r"all.json names the file 'a.*, which is no file's name \("):
        found.documents[0].file(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "LARGEST", 10)
    recorded.document(tmp_path)
    with pytest.raises(UsageError, match="more than"):
        records.load([tmp_path])

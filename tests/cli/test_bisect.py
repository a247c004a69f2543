"""``parity bisect``: what it accepts, says, writes and returns."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from planted import PLANTED

from harness.cli import commands as cli
from harness.errors import NotJudged, UsageError


def parity(*arguments: str) -> int:
    return cli.main([*arguments, "--device", "cpu"])


def bisect(name: str, *options: str, backend: str = "planted") -> int:
    return parity("bisect", name, "-b", backend, "-p", "fp16", *options)


def test_a_finding_exits_1_and_writes_plan_and_json(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("overflow")
    assert bisect("overflow", "--json", "out/found.json", "-o", "new/deep/plan.toml") == 1
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert "culprit: fp16 itself, PyTorch loses as much" in words
    assert all(name in words for name in ("mean_5", "pow_5", "pow_6", "sub_4"))
    assert "a plan may lose: output 0.00959" in words
    assert "the plan keeps 4 values in FP32, by 4 patterns" in words
    assert "by values in FP32: 0: not finite, 1: not finite, 2: 1, 4: 0.00235" in words
    assert "next: parity verify suites/test_overflow.py" not in shown
    assert "next: parity verify overflow -b planted -p new/deep/plan.toml --case one" in shown.splitlines()
    data = json.loads(Path("out/found.json").read_text())
    assert (data["schema"], data["complete"], data["results"]) == ("parity/1", True, [])
    assert data["command"].startswith("parity bisect overflow -b planted -p fp16 ")
    found = data["bisect"]
    variance = ["value:mean_5", "value:pow_5", "value:pow_6", "value:sub_4"]
    assert (found["kind"], found["region"], found["plan"]) == ("precision", variance, variance)
    assert (found["plan_values"], found["goal"]["source"]) == (4, "region")
    assert found["plan_file"] == "new/deep/plan.toml"
    assert tomllib.loads(Path("new/deep/plan.toml").read_text())["keep_fp32"] == variance
    assert not list(folder.glob("reports/*"))
    assert parity("verify", "overflow", "-b", "planted", "-p", "new/deep/plan.toml") == 0


def test_json_is_written_before_anything_is_shown(plant: Any, monkeypatch: pytest.MonkeyPatch):
    plant("overflow")
    monkeypatch.setattr("harness.report.text.bisection_text", Mock(side_effect=KeyboardInterrupt))
    assert bisect("overflow", "--json", "found.json") == 130
    assert json.loads(Path("found.json").read_text())["complete"] is True


def test_commands_reach_the_same_subject_and_inputs(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("overflow")
    (folder / "suites").rename(folder / "my suites")
    np.savez(folder / "in.npz", **{name: x.numpy() for name, x in PLANTED["overflow"].subject.cases["one"]().items()})
    given = ["--suites", "my suites", "--inputs", "in.npz"]
    assert bisect("overflow", *given, "-o", "plan.toml") == 1
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("next: "))
    assert row.startswith("next: parity verify overflow --suites 'my suites' --inputs in.npz -b planted -p plan.toml ")
    assert parity(*shlex.split(row.removeprefix("next: parity "))) == 0
    assert "# Found by: parity bisect overflow --suites 'my suites' --inputs in.npz -b" in Path("plan.toml").read_text()


def test_a_command_about_an_onnx_file_gives_its_shapes_again(folder: Path, capsys: pytest.CaptureFixture[str]):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    weight = numpy_helper.from_array(np.linspace(0.1, 1.7, 16, dtype=np.float32).reshape(4, 4), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "m.onnx")
    assert parity("bisect", "m.onnx", "--shape", "n=8", "-b", "ort-cpu", "-p", "fp16", "--limit", "1e-6") == 1
    commands = [row for row in capsys.readouterr().out.splitlines() if row.startswith("next: parity ")]
    assert commands
    assert all(row.startswith("next: parity verify m.onnx --shape n=8 -b ort-cpu -p ") for row in commands)


def test_the_plan_goes_to_reports_unless_told_otherwise(plant: Any):
    plant("wrong_kernel")
    assert bisect("wrong_kernel") == 1
    plan = Path("reports/wrong_kernel-planted-fp16.toml")
    assert tomllib.loads(plan.read_text()) == {"precision": "fp16", "keep_fp32": ["blocks.1.linear"]}
    assert not Path("reports/wrong_kernel-planted-fp16-reproducer").exists(), "nothing can run it without the backend"


def test_nothing_to_repair_exits_0(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("masked_nan")
    assert bisect("masked_nan", "--json", "found.json") == 0
    assert "[planted fp16] right: " in capsys.readouterr().out
    assert json.loads(Path("found.json").read_text())["bisect"]["kind"] == "none"
    assert not (folder / "reports").exists()


def test_a_limit_makes_a_failure_of_what_passes(plant: Any):
    plant("swamping")
    assert bisect("swamping", "--limit", "0.02", "--json", "found.json") == 1
    commands = [shlex.split(it)[1:] for it in json.loads(Path("found.json").read_text())["bisect"]["commands"]]
    assert all(command[-2:] == ["--limit", "0.02"] or command[-1] == "--layers" for command in commands)
    assert [parity(*command) for command in commands] == [0, 1], "the plan, and the engine as it is"
    assert tomllib.loads(Path("reports/swamping-planted-fp16.toml").read_text())["keep_fp32"] == ["accumulate"]


def test_a_subject_that_is_not_repeatable_exits_3(plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("masked_nan")
    assert bisect("live", "--json", "found.json") == 3
    assert "[planted fp16] not judged: " in capsys.readouterr().out
    assert json.loads(Path("found.json").read_text())["bisect"]["gates"][-1]["answer"] == "no"


def test_a_backend_that_is_not_there_exits_3(plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("wrong_kernel").unavailable = lambda: "no GPU"  # type: ignore[method-assign]
    assert bisect("wrong_kernel") == 3
    assert "no GPU" in capsys.readouterr().out


@pytest.mark.usefixtures("short_search")
def test_few_builds_keep_the_finding_and_say_that_more_is_to_be_had(plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("growing_stream")
    assert bisect("growing_stream", "--limit", "0.0045", "--max-builds", "1", "--json", "found.json") == 1
    assert "the search was not finished" in capsys.readouterr().out
    data = json.loads(Path("found.json").read_text())
    assert (data["complete"], data["bisect"]["complete"]) == (False, False)
    assert "1 of 1 engines" in data["error"]
    assert bisect("growing_stream", "--limit", "0.0045", "--json", "found.json") == 1
    plan = json.loads(Path("found.json").read_text())["bisect"]["plan"]
    assert plan == ["blocks.2", "blocks.3", "blocks.4", "centre"]


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("number", [1, 5])
def test_interrupted_exits_130_and_keeps_what_was_found(
    number: int, plant: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    engine = plant("growing_stream")
    build = engine.build

    def interrupted(*arguments: Any) -> Any:
        if engine.builds == number - 1:
            raise KeyboardInterrupt
        return build(*arguments)

    engine.build = interrupted
    assert bisect("growing_stream", "--limit", "0.0045", "--json", "found.json") == 130
    assert "interrupted" in capsys.readouterr().out
    data = json.loads(Path("found.json").read_text())
    assert (data["complete"], data["bisect"]["interrupted"]) == (False, True)
    plan = Path("reports/growing_stream-planted-fp16.toml")
    assert plan.exists() == (number == 5)
    assert (data["bisect"]["plan"] is not None) == (number == 5)


def test_several_jobs_give_the_same_plan(plant: Any):
    plant("flipped_decision")
    assert bisect("flipped_decision", "--jobs", "2") == 1
    plan = tomllib.loads(Path("reports/flipped_decision-planted-fp16.toml").read_text())
    assert plan["keep_fp32"] == ["router"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["overfow", "-b", "planted", "-p", "fp16"], "unknown subject 'overfow'; did you mean overflow?"),
        (["overflow", "-b", "plantd", "-p", "fp16"], "unknown backend 'plantd'; did you mean planted?"),
        (["overflow", "-b", "planted", "-p", "fp61"], "unknown precision 'fp61'; did you mean fp16"),
        (["overflow", "-b", "planted", "-p", "none.toml"], "none.toml"),
        (["overflow", "-b", "planted", "-p", "fp16", "--case", "two"], "unknown case of overflow 'two'"),
        (["overflow", "-b", "planted", "-p", "fp16", "--case", "one", "--case", "one"], "bisect is about one case"),
        (["overflow", "-b", "planted", "-p", "fp16", "--max-builds", "0"], "--max-builds 0 leaves nothing"),
        (["overflow", "-b", "planted", "-p", "fp16", "--jobs", "0"], "--jobs 0 builds nothing"),
        (["overflow", "-b", "planted", "-p", "fp16", "--json", "suites"], "it is a folder"),
    ],
)
def test_usage_errors_of_bisect_are_one_sentence(
    arguments: list[str], words: str, plant: Any, capsys: pytest.CaptureFixture[str]
):
    engine = plant("overflow")
    assert parity("bisect", *arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("parity: ")
    assert shown.count("\n") == 1
    assert words in shown
    assert engine.builds == 0, "nothing is built before the request is known to be right"


@pytest.mark.parametrize("limit", ["-1", "nan"])
def test_a_limit_that_is_no_error_is_refused(limit: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        parity("bisect", "overflow", "--limit", limit)
    assert end.value.code == 2
    assert "is not a relative error" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["x", "-b", "planted"], ["x", "-p", "fp16"], ["x", "-b", "planted", "-p", "fp16", "--jobs", "two"]]
)
def test_bisect_without_its_arguments_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bisect", *arguments])
    assert ended.value.code == 2
    assert "usage: parity bisect" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), [(UsageError("the plan names nothing"), 2), (NotJudged("no room"), 3)])
def test_errors_of_a_search_are_one_sentence(
    error: Exception, status: int, plant: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plant("overflow")

    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr("harness.bisect.bisect", fail)
    assert bisect("overflow") == status
    assert str(error) in capsys.readouterr().err

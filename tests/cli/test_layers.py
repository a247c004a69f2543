"""``parity bisect``, ``parity verify --layers`` and the check ``test_layers``: what they accept, say, write, return."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake import quiet
from onnx import TensorProto, helper
from planted import PLANTED, PlantedBackend, install

from harness.cli import commands as cli
from harness.errors import NotJudged, UsageError
from harness.verify.prepare import prepare

pytest_plugins = ["pytester"]

SUITE = "import planted\nSUBJECT = planted.PLANTED[{name!r}].subject\n"
LIVE = """
import torch
from harness import Subject, Target


class Live(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, training=True)


SUBJECT = Subject(
    name="live", build=lambda: Live().eval(), cases={"one": lambda: {"x": torch.ones(64)}},
    targets=(Target("planted", "fp16"),), weights="random",
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder with ``suites`` the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARITY_ENGINES", raising=False)
    monkeypatch.delenv("PARITY_REFERENCES", raising=False)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "test_live.py").write_text(LIVE)
    # What a plan costs on this machine is not what is tested here.
    monkeypatch.setattr("harness.timing.median.WARM_UP_S", 0.0)
    monkeypatch.setattr("harness.timing.median.MEASURE_S", 0.01)
    return tmp_path


@pytest.fixture
def plant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that installs a plant and gives it a suite."""

    def plant(name: str) -> PlantedBackend:
        (folder / "suites" / f"test_{name}.py").write_text(SUITE.format(name=name))
        return install(monkeypatch, PLANTED[name])

    return plant


def parity(*arguments: str) -> int:
    return cli.main([*arguments, "--device", "cpu"])


def bisect(name: str, *options: str, backend: str = "planted") -> int:
    return parity("bisect", name, "-b", backend, "-p", "fp16", *options)


# parity bisect


def test_a_finding_exits_1_and_writes_plan_and_json(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("overflow")
    assert bisect("overflow", "--json", "out/found.json", "-o", "new/deep/plan.toml") == 1
    shown = capsys.readouterr().out
    assert "finding: Precision: " in shown
    assert "next: parity verify suites/test_overflow.py" not in shown
    assert shown.splitlines()[-1] == "next: parity verify overflow -b planted -p new/deep/plan.toml --case one"
    data = json.loads(Path("out/found.json").read_text())
    assert (data["schema"], data["complete"], data["results"]) == ("parity/1", True, [])
    assert data["command"].startswith("parity bisect overflow -b planted -p fp16 ")
    found = data["bisect"]
    assert (found["kind"], found["region"], found["plan"]) == ("precision", ["blocks.2.norm"], ["blocks.2.norm"])
    assert found["plan_file"] == "new/deep/plan.toml"
    assert tomllib.loads(Path("new/deep/plan.toml").read_text())["keep_fp32"] == ["blocks.2.norm"]
    assert not list(folder.glob("reports/*"))
    assert parity("verify", "overflow", "-b", "planted", "-p", "new/deep/plan.toml") == 0


def test_commands_reach_the_same_subject_and_inputs(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("overflow")
    (folder / "suites").rename(folder / "my suites")
    np.savez(folder / "in.npz", **{name: x.numpy() for name, x in PLANTED["overflow"].subject.cases["one"]().items()})
    given = ["--suites", "my suites", "--inputs", "in.npz"]
    assert bisect("overflow", *given, "-o", "plan.toml") == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next: parity verify overflow --suites 'my suites' --inputs in.npz -b planted -p plan.toml ")
    assert parity(*shlex.split(last.removeprefix("next: parity "))) == 0
    assert "# Found by: parity bisect overflow --suites 'my suites' --inputs in.npz -b" in Path("plan.toml").read_text()


def test_a_command_about_an_onnx_file_gives_its_shapes_again(folder: Path, capsys: pytest.CaptureFixture[str]):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "m.onnx")
    assert parity("bisect", "m.onnx", "--shape", "n=8", "-b", "ort-cpu", "-p", "fp16") == 0
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
    assert "finding: No fault" in capsys.readouterr().out
    assert json.loads(Path("found.json").read_text())["bisect"]["kind"] == "none"
    assert not (folder / "reports").exists()


def test_a_limit_makes_a_failure_of_what_passes(plant: Any):
    plant("swamping")
    assert bisect("swamping", "--limit", "0.02") == 1
    assert tomllib.loads(Path("reports/swamping-planted-fp16.toml").read_text())["keep_fp32"] == ["accumulate"]


def test_a_subject_that_is_not_repeatable_exits_3(plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("masked_nan")
    assert bisect("live", "--json", "found.json") == 3
    assert "finding: Not judged" in capsys.readouterr().out
    assert json.loads(Path("found.json").read_text())["bisect"]["gates"][-1]["answer"] == "no"


def test_a_backend_that_is_not_there_exits_3(plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("wrong_kernel").unavailable = lambda: "no GPU"  # type: ignore[method-assign]
    assert bisect("wrong_kernel") == 3
    assert "no GPU" in capsys.readouterr().out


def test_few_builds_keep_the_finding_and_say_that_more_is_to_be_had(plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("growing_stream")
    assert bisect("growing_stream", "--limit", "0.0045", "--max-builds", "1", "--json", "found.json") == 1
    assert "the search did not come to its end" in capsys.readouterr().out
    data = json.loads(Path("found.json").read_text())
    assert (data["complete"], data["bisect"]["complete"]) == (False, False)
    assert bisect("growing_stream", "--limit", "0.0045", "--json", "found.json") == 1
    plan = json.loads(Path("found.json").read_text())["bisect"]["plan"]
    assert plan == ["blocks.2", "blocks.3", "blocks.4", "centre"]


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
        (["overflow", "-b", "planted", "-p", "fp16", "--limit", "-1"], "--limit -1.0 is not a relative error"),
        (["overflow", "-b", "planted", "-p", "fp16", "--limit", "nan"], "--limit nan is not a relative error"),
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


# parity verify --layers


def verify(name: str, *options: str, backend: str = "planted") -> int:
    return parity("verify", name, "-b", backend, "-p", "fp16", "--json", "out/r.json", *options)


def layers_of(path: str = "out/r.json") -> Any:
    [result] = json.loads(Path(path).read_text())["results"]
    return result["layers"]


def test_layers_are_shown_recorded_and_drawn(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers") == 1
    shown = capsys.readouterr().out
    assert "parity bisect wrong_kernel -b planted -p fp16" in shown
    assert "SUSPECT" in shown
    report = layers_of()
    assert report["mode"] == "unfused"
    assert [value["name"] for value in report["values"] if value["mark"] == "suspect"] == ["linear_1"]
    assert report["modules"][0]["module"] == "blocks.1.linear"
    for kind in ("png", "svg"):
        picture = folder / "out" / f"wrong_kernel-planted-fp16-one-layers.{kind}"
        assert picture.stat().st_size > 1000
        assert str(picture.relative_to(folder)) in shown


def test_pictures_go_to_reports_without_a_json(plant: Any, folder: Path):
    plant("wrong_kernel")
    assert parity("verify", "wrong_kernel", "--layers") == 1
    assert sorted(path.suffix for path in (folder / "reports").iterdir()) == [".png", ".svg"]


def test_without_layers_nobody_looks(plant: Any, folder: Path):
    plant("wrong_kernel")
    assert verify("wrong_kernel") == 1
    assert layers_of() is None
    assert [path.name for path in (folder / "out").iterdir()] == ["r.json"]


def test_every_value_as_an_output(plant: Any):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers", "outputs") == 1
    report = layers_of()
    assert report["mode"] == "outputs"
    statuses = {value["name"]: value["status"] for value in report["values"]}
    assert len(statuses) >= 16
    assert set(statuses.values()) == {"compared"}


def test_some_values_as_outputs(plant: Any):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers", "outputs:blocks.1.linear") == 1
    statuses = {value["name"]: value["status"] for value in layers_of()["values"]}
    assert [name for name, status in statuses.items() if status == "compared"] == ["linear_1"]
    assert "not_delivered" in statuses.values()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("outputs:no.such.module", "no.such.module"),
        ("outputs:value:nothing", "nothing"),
        ("nonsense", "unknown --layers mode 'nonsense'; give unfused, outputs, or outputs:PATTERN"),
        ("unfused:linear", "unknown --layers mode 'unfused:linear'"),
    ],
)
def test_an_unknown_mode_exits_2(mode: str, words: str, plant: Any, capsys: pytest.CaptureFixture[str]):
    engine = plant("wrong_kernel")
    assert parity("verify", "wrong_kernel", "--layers", mode) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("parity: ")
    assert words in shown
    assert engine.builds == 0 or mode.startswith("outputs:"), "a pattern needs the graph, a mode needs nothing"


def test_an_unknown_mode_is_one_on_a_backend_that_cannot_be_looked_into_too(plant: Any):
    plant("masked_nan").tap_modes = ()
    assert parity("verify", "masked_nan", "--layers", "nonsense") == 2


@pytest.mark.parametrize("backend", ["ort-cpu", "torch"])
def test_a_mode_the_backend_has_not_is_a_note(backend: str, plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("masked_nan")
    assert verify("masked_nan", "--layers", "unfused", backend=backend) == 0, "the outputs decide"
    assert layers_of() is None
    [result] = json.loads(Path("out/r.json").read_text())["results"]
    assert any(f"{backend} backend has no unfused taps" in note for note in result["notes"])
    assert "has no unfused taps" in capsys.readouterr().out, "who asked is told on the terminal"


@pytest.mark.parametrize("backend", ["ort-cpu", "torch"])
def test_layers_of_a_backend_with_every_value(backend: str, plant: Any):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers", backend=backend) == 0
    report = layers_of()
    assert len([value for value in report["values"] if value["status"] == "compared"]) >= 16
    assert report["trusted"] or any("cannot be trusted" in note for note in report["notes"])


def test_a_backend_without_taps_is_a_note(plant: Any):
    plant("masked_nan").tap_modes = ()
    assert verify("masked_nan", "--layers") == 0
    [result] = json.loads(Path("out/r.json").read_text())["results"]
    assert result["layers"] is None
    assert any(note.startswith("no layers: the planted backend") for note in result["notes"])


def test_no_matplotlib_costs_only_the_picture(
    plant: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plant("wrong_kernel")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert verify("wrong_kernel", "--layers") == 1
    assert "no plot: " in capsys.readouterr().out
    assert layers_of() is not None


# test_layers and test_outputs in a suite


@pytest.fixture(scope="module")
def all_loaded(kept_modules: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load what an export loads late: a run in this process forgets its imports, and PyTorch's bear no repetition."""
    assert prepare(PLANTED["masked_nan"].subject, quiet(tmp_path_factory.mktemp("loaded"))).program.values


@pytest.fixture
def project(all_loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose runs in this process see the backend that is installed here."""
    pytester.makeconftest('pytest_plugins = ["harness.plugin"]')
    others = "-p no:randomly -p no:cacheprovider -p no:hypothesispytest -p no:benchmark"
    pytester.makeini(f"[pytest]\naddopts = --strict-markers {others}\n")
    monkeypatch.setenv("PARITY_ENGINES", "engines")
    monkeypatch.setenv("PARITY_REFERENCES", "references")
    return pytester


def suite(name: str, *checks: str) -> str:
    return f"from harness.checks import {', '.join(checks)}\n{SUITE.format(name=name)}"


def recorded(project: pytest.Pytester) -> Any:
    [result] = json.loads((project.path / "out.json").read_text())["results"]
    return result


def test_the_check_passes_and_records_every_value(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    engine = install(monkeypatch, PLANTED["masked_overflow"])
    project.makepyfile(test_it=suite("masked_overflow", "test_layers", "test_outputs"))
    project.runpytest_inprocess("--parity-json", "out.json").assert_outcomes(passed=2)
    report = recorded(project)["layers"]
    assert report["trusted"]
    assert [value for value in report["values"] if value["status"] == "compared"]
    assert engine.builds == 2, "one to be judged and one to be looked into"


def test_the_check_fails_with_the_table(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PLANTED["wrong_kernel"])
    project.makepyfile(test_it=suite("wrong_kernel", "test_layers"))
    result = project.runpytest_inprocess("--parity-json", "out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: wrong_kernel [[]planted fp16[]] output: relative error *",
            "*next: parity bisect * -b planted -p fp16",
            "*SUSPECT*blocks.1.linear*",
        ]
    )
    marks = {value["name"]: value["mark"] for value in recorded(project)["layers"]["values"]}
    assert [name for name, mark in marks.items() if mark == "suspect"] == ["linear_1"]


@pytest.mark.parametrize("order", [("outputs", "layers", "task"), ("task", "layers", "outputs")])
def test_the_layers_stay_beside_a_metric_that_fails(
    order: tuple[str, ...], project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, PLANTED["masked_overflow"])
    metric = "parity.check_metric('m', lambda out: out['output'] + next(COUNT), at_most=0.1)"
    checks = {
        "outputs": "\ndef test_outputs(parity):\n    parity.check()\n",
        "layers": "\ndef test_layers(parity):\n    parity.check_layers()\n",
        "task": f"\nimport itertools\nCOUNT = itertools.count()\n\ndef test_task(parity):\n    {metric}\n",
    }
    project.makepyfile(test_it=SUITE.format(name="masked_overflow") + "".join(checks[name] for name in order))
    project.runpytest_inprocess("--parity-json", "out.json").assert_outcomes(passed=2, failed=1)
    found = recorded(project)
    assert (found["verdict"], [metric["verdict"] for metric in found["metrics"]]) == ("fail", ["fail"])
    assert found["layers"]["values"]


def test_a_failing_check_of_outputs_prints_the_command_that_goes_on(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, PLANTED["wrong_kernel"])
    project.makepyfile(test_it=suite("wrong_kernel", "test_outputs"))
    result = project.runpytest_inprocess("--parity-json", "out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*next: parity bisect * -b planted -p fp16"])
    assert recorded(project)["layers"] is None


@pytest.mark.parametrize(("options", "outcome"), [((), "skipped"), (("--require", "planted"), "failed")])
@pytest.mark.parametrize("trouble", ["no engine", "no taps"])
def test_the_check_is_not_judged_where_nobody_can_look(
    trouble: str, options: tuple[str, ...], outcome: str, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    engine = install(monkeypatch, PLANTED["masked_nan"])
    if trouble == "no taps":
        engine.tap_modes = ()
        words = "cannot be looked into"
    else:
        engine.unavailable = lambda: words  # type: ignore[method-assign]
        words = "no GPU here"
    project.makepyfile(test_it=suite("masked_nan", "test_layers"))
    result = project.runpytest_inprocess("-ra", "--parity-json", "out.json", *options)
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines([f"*{words}*"])
    assert recorded(project)["layers"] is None


def test_an_observation_that_changes_the_engine_is_no_pass(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PLANTED["nan_unobserved"])
    project.makepyfile(test_it=suite("nan_unobserved", "test_layers"))
    result = project.runpytest_inprocess("--parity-json", "out.json")
    result.assert_outcomes(failed=1)
    report = recorded(project)["layers"]
    assert not report["trusted"]
    result.stdout.fnmatch_lines(["*elements are NaN*", "*wrong only while no values are observed*"])

"""Cases at the ends of a declared range: made of the suite's first case, judged, and said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from fake import quiet
from onnx import TensorProto, helper

from harness import NotJudged, Subject, Target, targets
from harness.cli import commands as cli
from harness.records import exit_status
from harness.verify import case_inputs, verify
from harness.verify.inputs import at_sizes, engine_shapes
from harness.verify.target import Run

pytest_plugins = ["pytester"]
TARGET = Target("ort-cpu", "fp32")


class Tokens(torch.nn.Module):
    """Embeds ids, and takes the mean over the tokens that a mask names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(10, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask.unsqueeze(-1).float()
        return (self.table(ids) * kept).sum(1) / kept.sum(1)


def given() -> dict[str, torch.Tensor]:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return {"ids": torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]]), "mask": mask}


def tokens(**changes: Any) -> Subject:
    dims = {0: "batch", 1: "tokens"}
    return Subject(**{
        "name": "tokens", "build": lambda: Tokens().eval(), "cases": {"two": given}, "targets": (TARGET,),
        "weights": "random", "dynamic": {"ids": dims, "mask": dims}, "ranges": {"batch": (1, 6), "tokens": (2, 12)},
        **changes,
    })  # fmt: skip


def test_the_ends_of_the_ranges_are_cases():
    assert tokens().range_cases == {"smallest": {"batch": 1, "tokens": 2}, "largest": {"batch": 6, "tokens": 12}}
    assert list(tokens(cases={"largest": given}).range_cases) == ["smallest"]
    assert tokens(dynamic={}, ranges={}).range_cases == {}


def test_generated_inputs_hold_what_the_case_holds():
    small, large = (case_inputs(tokens(), name) for name in ("smallest", "largest"))
    assert small["ids"].tolist() == [[1, 2]]
    assert small["mask"].tolist() == [[1, 1]]
    assert large["ids"].shape == large["mask"].shape == (6, 12)
    assert set(large["ids"].unique().tolist()) <= set(range(10))
    assert set(large["mask"].unique().tolist()) == {0, 1}
    assert (large["mask"].sum(1) > 0).all()
    assert len({tuple(row.tolist()) for row in large["ids"]}) == 6, "equal rows would hide that they are mixed up"


def test_inputs_are_cut_and_repeated_along_every_axis():
    x = torch.arange(6.0).reshape(2, 3)
    assert at_sizes({"x": x}, {"x": {0: "n"}}, {"n": 1})["x"].tolist() == [[0, 1, 2]]
    assert at_sizes({"x": x}, {"x": {0: "n"}}, {"n": 4})["x"].tolist() == [[0, 1, 2], [3, 4, 5], [2, 0, 1], [5, 3, 4]]
    assert at_sizes({"x": x, "y": x}, {"x": {1: "m"}}, {"m": 0})["x"].shape == (2, 0)
    assert torch.equal(at_sizes({"x": x}, {"x": {0: "n"}}, {"m": 4})["x"], x)
    with pytest.raises(NotJudged, match="'x' is empty in dimension 1"):
        at_sizes({"x": x[:, :0]}, {"x": {1: "m"}}, {"m": 3})


def test_an_engine_is_tuned_for_the_suites_own_cases(tmp_path: Path):
    prepared = Run(tokens(), quiet(tmp_path)).prepared
    assert list(prepared.inputs) == ["two"]
    shape = engine_shapes(prepared.inputs)["ids"]
    assert (shape.minimum, shape.optimum, shape.maximum) == ((1, 2), (2, 5), (6, 12))


def test_generated_cases_are_judged_and_said(tmp_path: Path):
    cases = ["two", "smallest", "largest"]
    found = list(verify(tokens(), targets=[TARGET], cases=cases, settings=quiet(tmp_path)))
    assert [(result.case, result.verdict) for result in found] == [(case, "pass") for case in cases]
    assert found[0].generated == ""
    assert "'two'" in found[1].generated
    assert "batch=6 tokens=12" in found[2].generated
    assert any(found[2].generated in note for note in found[2].notes)


def test_a_row_that_is_padded_on_the_left_keeps_a_token():
    subject = tokens(cases={"two": lambda: {**given(), "mask": torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 0, 0]])}})
    assert case_inputs(subject, "smallest")["mask"].tolist() == [[1, 1]]


def test_a_generated_case_that_cannot_be_judged_is_not_required(tmp_path: Path):
    subject = tokens(ranges={"batch": (1, 6), "tokens": (0, 12)})
    found = list(verify(subject, targets=[TARGET], cases=["two", "smallest"], settings=quiet(tmp_path)))
    assert [result.verdict for result in found] == ["pass", "not_judged"]
    assert "NaN" in found[1].reason, "a mean over nothing"
    assert exit_status(found, ["ort-cpu"]) == 0
    assert exit_status(found[1:], ["ort-cpu"]) == 3


SUITE = """
import torch
from harness import Subject, targets
from harness.checks import test_outputs

class Faulty(torch.nn.Module):
    def forward(self, x):
        return x * 2

SUBJECT = Subject(
    name="doubles", build=lambda: Faulty().eval(), cases={"one": lambda: {"x": torch.linspace(1, 2, 8).reshape(2, 4)}},
    dynamic={"x": {0: "batch"}}, ranges={"batch": (1, 5)}, weights="random",
    targets=targets("ort-cpu", precisions=("fp32",)),
)

def test_own(parity):
    assert parity.result.case == "one"
"""


def test_the_command_line_judges_them_unless_a_case_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_doubles.py").write_text(SUITE)
    assert cli.main(["verify", "doubles", "--suites", "."]) == 0
    shown = capsys.readouterr().out
    assert "3 verdicts: 3 passed" in shown
    assert "batch=5" in shown
    assert cli.main(["verify", "doubles", "--suites", ".", "--case", "one"]) == 0
    assert "1 verdict: 1 passed" in capsys.readouterr().out
    assert cli.main(["verify", "doubles", "--suites", ".", "--case", "largest"]) == 0
    assert "batch=5" in capsys.readouterr().out


def test_pytest_judges_them_and_leaves_a_suites_own_tests_alone(project: pytest.Pytester):
    project.makeconftest('pytest_plugins = ["harness.plugin"]')
    project.makepyfile(test_doubles=SUITE)
    result = project.runpytest_subprocess("-q", "-rA")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(
        ["*test_outputs?ort-cpu-fp32-smallest?*", "*test_outputs?ort-cpu-fp32-largest?*"]
    )


def test_a_file_says_at_which_sizes_it_was_run(tmp_path: Path):
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g", [port("x", TensorProto.FLOAT, ["rows", None, 4])],
        [port("y", TensorProto.FLOAT, ["rows", None, 4])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    subject = Subject(
        name="m", onnx=tmp_path / "m.onnx", cases={"one": lambda: {"x": torch.rand(3, 2, 4)}}, weights="file",
        targets=targets("ort-cpu", precisions=("fp32",)),
    )  # fmt: skip
    [result] = verify(subject, targets=subject.targets, cases=["one"], settings=quiet(tmp_path))
    assert result.verdict == "pass"
    assert [note for note in result.notes if "rows=3, x[1]=2" in note]

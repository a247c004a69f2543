"""Cases that files hold: which files, what is wrong with one, and outputs that come with the inputs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_inputs.row import model

from harness import Subject, UsageError, targets
from harness.case_files import case_files, with_case_files
from harness.cli.commands import main
from harness.discovery import find_subject
from harness.graph import load_plan
from harness.verify import Run

FP16 = targets("ort-cpu", precisions=("fp16",))


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, n: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": torch.relu(x) * 3, "after": n + 1}


SUBJECT = Subject(
    name="scaled", build=lambda: Scaled().eval(), weights="random", targets=FP16,
    cases={"own": lambda: {"x": torch.ones(2, 3), "n": torch.zeros(2, dtype=torch.int64)}},
    dynamic={"x": {0: "batch"}, "n": {0: "batch"}}, ranges={"batch": (1, 8)},
)  # fmt: skip


def save(path: Path, **arrays: Any) -> None:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    np.savez(path, **{"x": x, "n": np.arange(2)} | arrays)


def test_the_files_of_a_pattern_or_a_folder_are_cases_in_the_order_of_their_numbers(tmp_path: Path):
    for name in ("encoder-16-64", "encoder-1-64", "decoder-4-16"):
        save(tmp_path / f"{name}.npz")
    assert list(case_files(f"{tmp_path}/encoder-*.npz")) == ["encoder-1-64", "encoder-16-64"]
    assert list(case_files(str(tmp_path))) == ["decoder-4-16", "encoder-1-64", "encoder-16-64"]
    with pytest.raises(UsageError, match="no such file"):
        case_files(str(tmp_path / "none-*.npz"))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "same.npz")
    with pytest.raises(UsageError, match="both case 'same'"):
        case_files(f"{tmp_path}/*/same.npz")


@pytest.mark.parametrize(("arrays", "fact"), [
    ({"x": np.ones((2, 4), np.float32)}, r"\[2, 4\].*\[batch, 3\]"),
    ({"x": np.ones((2, 3))}, "'x' is float64.*float32"),
    ({"n": np.arange(2, dtype=np.int32)}, "'n' is int32.*int64"),
    ({"n": np.arange(3)}, "batch = 2"),
])  # fmt: skip
def test_inputs_that_do_not_fit_say_which_file(tmp_path: Path, arrays: dict[str, Any], fact: str):
    save(tmp_path / "one.npz", **arrays)
    with pytest.raises(UsageError, match=f"one.npz: .*{fact}"):
        with_case_files(SUBJECT, str(tmp_path)).cases["one"]()


def test_an_input_that_is_missing_is_named_with_what_the_file_holds(tmp_path: Path):
    np.savez(tmp_path / "one.npz", x=np.ones((2, 3), np.float32), m=np.arange(2))
    with pytest.raises(UsageError, match=r"one.npz has no input 'n' of scaled; it holds x, m"):
        with_case_files(SUBJECT, str(tmp_path)).cases["one"]()


def test_a_function_of_the_suite_gives_what_a_file_calls_otherwise(tmp_path: Path):
    save(tmp_path / "one.npz", n=np.arange(2, dtype=np.int32))
    subject = replace(SUBJECT, from_file=lambda arrays: {**arrays, "n": arrays["n"].long()})
    assert with_case_files(subject, str(tmp_path)).cases["one"]()["n"].tolist() == [0, 1]


def run_of(tmp_path: Path, subject: Subject = SUBJECT, **arrays: Any) -> Run:
    from fake import quiet

    save(tmp_path / "one.npz", **arrays)
    return Run(with_case_files(subject, str(tmp_path)), quiet(tmp_path))


def test_outputs_that_come_with_a_case_are_the_reference_where_pytorch_gives_the_same(tmp_path: Path):
    near = np.maximum(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), 0) * np.float32(3 + 1e-6)
    references = run_of(tmp_path, y=near).prepared.references
    expected = references.expected("one", load_plan("fp16"))
    assert torch.equal(expected["y"], torch.from_numpy(near))
    assert expected["after"].tolist() == [1, 2]
    assert "given" in references.words("one", "fp32")


@pytest.mark.parametrize(("arrays", "fact"), [
    ({"y": np.ones((2, 3), np.float32)}, "'y' differs"),
    ({"y": np.full((2, 3), np.nan, np.float32)}, "'y' differs"),
    ({"after": np.arange(2)}, "'after' differs"),
    ({"y": np.ones((3, 3), np.float32)}, r"float32 \[3, 3\], and the output float32 \[2, 3\]"),
    ({"y": np.ones((2, 3))}, "float64"),
    ({"afterr": np.arange(2)}, "did you mean after"),
])  # fmt: skip
def test_outputs_of_another_model_are_a_wrong_request(tmp_path: Path, arrays: dict[str, Any], fact: str):
    references = run_of(tmp_path, **arrays).prepared.references
    for precision in ("fp16", "fp32"):
        with pytest.raises(UsageError, match=fact):
            references.expected("one", load_plan(precision))


def test_what_does_not_count_is_not_held_against_what_is_given(tmp_path: Path):
    subject = replace(SUBJECT, valid={"y": lambda given: torch.tensor([[True], [False]])})
    y = np.array([[0, 0, 0], [7, 7, np.nan]], np.float32)
    references = run_of(tmp_path, subject, y=y).prepared.references
    assert bool(references.expected("one", load_plan("fp16"))["y"].isfinite().all())


def test_the_command_line_takes_the_files_of_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    model()()
    np.savez("in-1.npz", x=np.array([-1, 2], np.float32), y=np.array([0, 2], np.float32))
    assert main(["verify", "m.onnx", "--cases", "in-*.npz", "-b", "ort-cpu", "-p", "fp32", "--json", "r.json"]) == 0
    assert '"case": "in-1"' in Path("r.json").read_text()
    np.savez("in-2.npz", x=np.array([-1, 2], np.float32), y=np.array([1, 2], np.float32))
    assert main(["verify", "m.onnx", "--cases", "in-*.npz", "-b", "ort-cpu", "-p", "fp32"]) == 2
    for other in (["--inputs", "in-1.npz"], ["--shape", "x=2"]):
        with contextlib.suppress(SystemExit):
            assert main(["verify", "m.onnx", "--cases", "in-*.npz", *other]) == 2
    with pytest.raises(UsageError, match="exclude each other"):
        find_subject("m.onnx", cases="in-*.npz", inputs=Path("in-1.npz"))


def test_what_is_given_with_a_quantised_model_is_of_the_unquantised_one():
    given = {"own": lambda: {"y": torch.ones(2, 3)}}
    subject = replace(SUBJECT, given=given, quantised=lambda: Scaled().eval())
    assert subject.given == {}
    assert subject.against is not None
    assert subject.against.given == given

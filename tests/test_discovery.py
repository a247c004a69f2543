"""Finding subjects and targets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from harness import discovery
from harness.errors import NotJudged, UsageError
from harness.subject import Subject, Target, targets

SUITE = """
import torch
from harness import Subject, targets

SUBJECT = Subject(
    name={name!r}, build=torch.nn.Identity, cases={{"one": lambda: {{"input": torch.ones(2, 3)}}}},
    dynamic={{"input": {{0: "batch"}}}}, ranges={{"batch": (1, 8)}},
    targets=targets("rtx", "trt", precisions=("fp32", "fp16")), weights="random", weights_source="none",
)
"""


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    folder = tmp_path / "suites"
    (folder / "sd").mkdir(parents=True)
    (folder / "test_clip.py").write_text(SUITE.format(name="clip-vit-b32"))
    (folder / "sd" / "test_vae.py").write_text(SUITE.format(name="sd-vae"))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """x [batch, 3] float32 -> y."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [info("x", TensorProto.FLOAT, ["batch", 3])], [info("y", TensorProto.FLOAT, ["batch", 3])],
    )  # fmt: skip
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("text", "name"), [("clip", "clip-vit-b32"), ("clip-vit-b32", "clip-vit-b32"), ("sd/vae", "sd-vae")]
)
def test_suite_by_file_or_subject_name(suites: Path, text: str, name: str):
    assert discovery.find_subject(text, suites=suites).name == name


def test_suite_by_path(suites: Path):
    assert discovery.find_subject(str(suites / "test_clip.py")).name == "clip-vit-b32"


def test_unknown_name_gives_the_nearest(suites: Path):
    with pytest.raises(UsageError, match=r"unknown subject 'clap'; did you mean clip\?"):
        discovery.find_subject("clap", suites=suites)


def test_no_suites_folder_is_said(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no suites folder .*give --suites"):
        discovery.find_subject("clip", suites=tmp_path / "none")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1", "defines no SUBJECT"),
        ("SUBJECT = 1", "SUBJECT is a int"),
        (
            "import no_such_package_here",
            "cannot be loaded: ModuleNotFoundError: No module named 'no_such_package_here'",
        ),
        ("\n1 / 0", r"ZeroDivisionError.*test_bad.py, line 2"),
        ("def f(:", "SyntaxError"),
        ("\nraise SystemExit('no data')", r"cannot be loaded: SystemExit: no data \(.*test_bad.py, line 2\)"),
        ("\nimport pytest\npytest.importorskip('none_such')", r"Skipped: could not import .*test_bad.py, line 3\)"),
        ("import pytest\npytest.skip('later', allow_module_level=True)", r"Skipped: later \(.*test_bad.py, line 2\)"),
    ],
)
def test_bad_suite_is_one_sentence(suites: Path, source: str, words: str):
    (suites / "test_bad.py").write_text(source)
    with pytest.raises(UsageError, match=words):
        discovery.find_subject("bad", suites=suites)
    problems = {row["name"]: row["problem"] for row in discovery.list_subjects(suites)}
    assert problems["clip"] == ""
    assert "test_bad.py" in problems["bad"]
    assert discovery.find_subject("clip-vit-b32", suites=suites).name == "clip-vit-b32"


def test_an_interrupt_while_a_suite_is_imported_ends_the_program(suites: Path):
    (suites / "test_bad.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discovery.list_subjects(suites)


def test_list_shows_cases_targets_and_weights(suites: Path):
    row = next(row for row in discovery.list_subjects(suites) if row["name"] == "clip")
    assert row["cases"] == ["one"]
    assert row["targets"] == ["rtx-fp32", "rtx-fp16", "trt-fp32", "trt-fp16"]
    assert row["weights"] == "random"


def test_attribute_of_a_module_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "parity_probe_module.py").write_text(SUITE.format(name="probe") + "\nOTHER = 3\n")
    monkeypatch.chdir(tmp_path)
    assert discovery.find_subject("parity_probe_module:SUBJECT").name == "probe"
    with pytest.raises(UsageError, match="did you mean SUBJECT"):
        discovery.find_subject("parity_probe_module:SUBJEKT")
    with pytest.raises(UsageError, match="is a int"):
        discovery.find_subject("parity_probe_module:OTHER")
    with pytest.raises(UsageError, match="module 'parity_none' cannot be loaded"):
        discovery.find_subject("parity_none:SUBJECT")


def test_onnx_file_with_seeded_inputs(model: Path):
    subject = discovery.find_subject(str(model), shapes={"batch": (2,)})
    assert (subject.name, subject.weights, subject.inputs) == ("relu", "file", "random")
    inputs = subject.cases["default"]()
    assert inputs["x"].shape == (2, 3)
    assert torch.equal(inputs["x"], discovery.find_subject(str(model), shapes={"x": (2, 3)}).cases["default"]()["x"])
    assert all(target.backend != "torch" for target in subject.targets)
    assert {target.precision for target in subject.targets} == {"fp32", "fp16"}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [({}, "--shape x="), ({"bach": (2,)}, "did you mean batch"), ({"batch": (2, 3)}, "one dimension")],
)
def test_onnx_shape_errors(model: Path, shapes: dict[str, tuple[int, ...]], words: str):
    with pytest.raises(UsageError, match=words):
        discovery.find_subject(str(model), shapes=shapes)


def test_missing_onnx_file(tmp_path: Path):
    with pytest.raises(UsageError, match="does not exist"):
        discovery.find_subject(str(tmp_path / "none.onnx"))


def test_onnx_inputs_from_a_file(model: Path, tmp_path: Path):
    np.savez(tmp_path / "in.npz", x=np.full((4, 3), 2.0, dtype=np.float32))
    subject = discovery.find_subject(str(model), inputs=tmp_path / "in.npz")
    assert subject.inputs == "real"
    assert subject.cases["default"]()["x"].sum() == 24
    with pytest.raises(UsageError, match="exclude each other"):
        discovery.find_subject(str(model), inputs=tmp_path / "in.npz", shapes={"batch": (2,)})


def test_inputs_that_hold_nan_are_the_verdicts_business(model: Path, tmp_path: Path):
    np.savez(tmp_path / "in.npz", x=np.full((4, 3), np.nan, dtype=np.float32))
    case = discovery.find_subject(str(model), inputs=tmp_path / "in.npz").cases["default"]
    with pytest.raises(NotJudged, match="NaN"):
        case()


def test_inputs_replace_a_suites_cases(suites: Path, tmp_path: Path):
    np.savez(tmp_path / "in.npz", input=np.ones((5, 3), dtype=np.float32))
    subject = discovery.find_subject("clip", suites=suites, inputs=tmp_path / "in.npz")
    assert list(subject.cases) == ["inputs"]
    assert subject.cases["inputs"]()["input"].shape == (5, 3)
    np.savez(tmp_path / "bad.npz", imput=np.ones((5, 3), dtype=np.float32))
    with pytest.raises(UsageError, match="did you mean input"):
        discovery.find_subject("clip", suites=suites, inputs=tmp_path / "bad.npz")


NESTED = """
import torch
from harness import Subject, targets

SUBJECT = Subject(
    name="nested", build=torch.nn.Identity, weights="random", targets=targets("ort-cpu", precisions=("fp16",)),
    cases={"one": lambda: {"past": [{"key": torch.ones(1, 2)}, None], "x": torch.ones(3)}},
    dynamic={"past.0.key": {1: "past"}}, ranges={"past": (0, 8)},
)
"""


def test_inputs_of_a_file_go_by_path_and_are_nested_as_the_first_case_is(tmp_path: Path):
    (tmp_path / "test_nested.py").write_text(NESTED)
    arrays = {"past.0.key": np.zeros((1, 5), dtype=np.float32), "x": np.ones(3, dtype=np.float32)}
    np.savez(tmp_path / "in.npz", **arrays)
    subject = discovery.find_subject("nested", suites=tmp_path, inputs=tmp_path / "in.npz")
    given = subject.cases["inputs"]()
    assert given["past"][0]["key"].shape == (1, 5)
    assert given["past"][1] is None
    np.savez(tmp_path / "bad.npz", **arrays, **{"past.1.key": np.ones((1, 5), dtype=np.float32)})
    with pytest.raises(UsageError, match=r"'past\.1\.key'; did you mean past\.0\.key"):
        discovery.find_subject("nested", suites=tmp_path, inputs=tmp_path / "bad.npz")


def test_shape_is_for_onnx_files(suites: Path):
    with pytest.raises(UsageError, match="--shape is for ONNX files"):
        discovery.find_subject("clip", suites=suites, shapes={"batch": (2,)})


def a_subject(**changes: Any) -> Subject:
    subject = Subject(
        name="s", build=torch.nn.Identity, cases={"one": dict, "two": dict}, weights="random",
        targets=(*targets("rtx", precisions=("fp32", "fp16")), Target("trt", "plans/mixed.toml")),
    )  # fmt: skip
    return dataclasses.replace(subject, **changes)


@pytest.mark.parametrize(
    ("backends", "precisions", "expected"),
    [
        ([], [], "rtx-fp32 rtx-fp16 trt-mixed"),
        (["rtx"], [], "rtx-fp32 rtx-fp16"),
        (["ort-cpu"], [], "ort-cpu-fp32 ort-cpu-fp16 ort-cpu-mixed"),
        ([], ["fp16"], "rtx-fp16"),
        ([], ["mixed"], "trt-mixed"),
        ([], ["bf16"], "rtx-bf16 trt-bf16"),
        (["rtx", "trt"], ["bf16", "fp16"], "rtx-bf16 rtx-fp16 trt-bf16 trt-fp16"),
        (["rtx", "rtx"], ["fp16", "fp16"], "rtx-fp16"),
    ],
)
def test_select_targets(backends: list[str], precisions: list[str], expected: str):
    assert " ".join(map(str, discovery.select_targets(a_subject(), backends, precisions))) == expected


def test_inputs_for_a_suite_whose_own_case_raises(suites: Path, tmp_path: Path):
    (suites / "test_clip.py").write_text(SUITE.format(name="clip").replace("torch.ones(2, 3)", "1 / 0"))
    np.savez(tmp_path / "in.npz", input=np.ones((5, 3), dtype=np.float32))
    with pytest.raises(NotJudged, match="clip: case 'one' raised ZeroDivisionError: division by zero"):
        discovery.find_subject("clip", suites=suites, inputs=tmp_path / "in.npz")


def test_unknown_backend_precision_and_case(tmp_path: Path):
    with pytest.raises(UsageError, match="unknown backend 'rtz'; did you mean trt or rtx"):
        discovery.check_backends(["rtz"])
    with pytest.raises(UsageError, match="unknown precision 'fp61'; did you mean fp16"):
        discovery.check_precisions(["fp61"])
    with pytest.raises(UsageError, match="cannot be read"):
        discovery.check_precisions([str(tmp_path / "none.toml")])
    discovery.check_precisions(["fp32", "mixed"], also=["mixed"])
    with pytest.raises(UsageError, match="unknown case of s 'tow'; did you mean two"):
        discovery.check_cases(a_subject(), ["tow"])
    assert discovery.check_cases(a_subject(), []) == ("one", "two")
    assert discovery.check_cases(a_subject(), ["two"]) == ("two",)

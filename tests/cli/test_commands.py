"""The command line: what it accepts, prints, writes and returns."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fake
import pytest

import harness.verify
from harness.backends.base import BuildReport
from harness.backends.engine_file import Engine
from harness.cli import commands as cli
from harness.errors import EngineRefused, NotJudged, UsageError
from harness.records.accuracy import OutputResult, Result

SUITE = """
import torch
from harness import Subject, targets

SUBJECT = Subject(
    name="clip", build=torch.nn.Identity, cases={"short": dict, "long": dict}, weights="random",
    targets=targets("rtx", "ort-cpu", precisions=("fp32", "fp16")),
)
"""


@pytest.fixture(autouse=True)
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(harness.__file__).parents[1]))  # for subprocesses, from a plain checkout
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "suites"
    folder.mkdir()
    (folder / "test_clip.py").write_text(SUITE)
    return folder


def a_result(verdict: Any = "pass", reason: str = "fine", **changes: Any) -> Result:
    outputs = () if verdict == "not_judged" else (OutputResult(name="y", verdict=verdict, reason=reason),)
    named = {"subject": "clip", "case": "short", "backend": "rtx", "precision": "fp16", **changes}
    return Result(**named, verdict=verdict, reason=reason, outputs=outputs)


Give = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Make ``verify`` yield these results; what is an exception is raised. Returns what verify is called with."""
    return partial(fake.giving, monkeypatch, harness.verify, "verify")


def test_help_names_every_command_once():
    command = [sys.executable, "-m", "harness", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    listed = re.findall(r"^    ([a-z]+)(?: \(aa\))?(?: |$)", done.stdout, re.MULTILINE)
    assert listed == [
        "doctor", "list", "verify", "parts", "bisect", "calibrate", "known", "build",
        "reference", "clean", "bench", "accept", "history",
        "noise", "merge", "report", "study", "score",
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [[], ["verfy", "clip"], ["verify"], ["verify", "clip", "--shape", "x"]])
def test_bad_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: parity" in capsys.readouterr().err


def test_version_is_that_of_parity_and_of_torch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    versions = {"trt-parity": "1.2.3", "torch": None}
    monkeypatch.setattr("harness.machine.installed_version", versions.__getitem__)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert not stopped.value.code
    assert capsys.readouterr().out == "parity 1.2.3, torch not installed\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clap"], "unknown subject 'clap'; did you mean clip?"),
        (["clip", "-b", "rtz"], "unknown backend 'rtz'; did you mean"),
        (["clip", "--require", "rtz"], "unknown backend 'rtz'"),
        (["clip", "-p", "fp61"], "unknown precision 'fp61'; did you mean fp16"),
        (["clip", "--case", "shrt"], "unknown case of clip 'shrt'; did you mean short?"),
        (["none.onnx"], "none.onnx does not exist"),
        (["clip", "--inputs", "none.npz"], "none.npz"),
        (["clip", "--json", "suites"], "it is a folder"),
        (["clip", "--json", "suites/test_clip.py/x.json"], "cannot write suites/test_clip.py/x.json"),
    ],
)
def test_usage_errors_are_one_sentence(
    give: Give, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    calls = give(a_result())
    (Path("suites") / "test_clip.py").write_text(
        SUITE.replace('"short": dict', '"short": lambda: {"x": torch.ones(1)}')
    )
    assert cli.main(["verify", *arguments]) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.startswith("parity: ")
    assert shown.count("\n") == 1
    assert not calls, "nothing may run before the request is known to be right"


@pytest.mark.parametrize(
    ("results", "options", "status"),
    [
        ([a_result()], [], 0),
        ([a_result(), a_result("not_judged", backend="trt")], [], 0),
        ([a_result(), a_result("fail")], [], 1),
        ([a_result("not_judged")], [], 3),
        ([a_result(backend="ort-cpu"), a_result("not_judged")], ["--require", "rtx"], 3),
        ([a_result(backend="ort-cpu")], ["--require", "rtx"], 3),
        ([a_result()], ["--require", "rtx"], 0),
        ([a_result("fail"), a_result("not_judged")], ["--require", "rtx"], 1),
        ([a_result(), KeyboardInterrupt()], [], 130),
        ([a_result(), UsageError("no such input")], [], 2),
        ([a_result(), NotJudged("no weights")], [], 3),
    ],
)
def test_exit_status_and_json_whatever_happens(give: Give, results: list[Any], options: list[str], status: int):
    give(*results)
    assert cli.main(["verify", "clip", "--json", "out.json", *options]) == status
    data = json.loads(Path("out.json").read_text())
    found = [result for result in results if isinstance(result, Result)]
    assert data["results"] == [result.to_json() for result in found]
    unmet = "required backend rtx was not judged" if options and status else ""
    assert data["complete"] is (len(found) == len(results) and not unmet)
    assert unmet in data["error"]
    assert list(data)[:3] == ["schema", "recorded_at", "command"]
    assert data["environment"]["backends"]
    assert [path.name for path in Path.cwd().iterdir()].count("out.json") == 1
    assert not list(Path.cwd().glob("*.tmp"))


@pytest.mark.parametrize(("verdict", "status"), [("pass", 3), ("fail", 1)])
def test_what_the_budget_did_not_reach_is_no_pass(give: Give, verdict: str, status: int):
    late = replace(a_result("not_judged", backend="trt"), failure="timeout", limit="--budget")
    give(a_result(verdict), late)
    assert cli.main(["verify", "clip", "--json", "out.json", "--budget", "900"]) == status
    data = json.loads(Path("out.json").read_text())
    assert data["complete"] is False
    assert ": 1 not judged: clip" in data["error"]


@pytest.mark.parametrize("classes", ["wrong_answer", "crash,wrong", "nonsense"])
def test_what_cannot_be_tried_again_is_a_usage_error(give: Give, capsys: pytest.CaptureFixture[str], classes: str):
    give(a_result())
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", "clip", "--retries", "1", "--retry-on", classes])
    assert ended.value.code == 2
    assert "--retry-on" in capsys.readouterr().err


def test_json_is_complete_after_every_result(monkeypatch: pytest.MonkeyPatch):
    counts = []

    def verify(subject: Any, **options: Any) -> Iterator[Result]:
        for _ in range(3):
            yield a_result()
            counts.append(len(json.loads(Path("out.json").read_text())["results"]))

    monkeypatch.setattr(harness.verify, "verify", verify)
    assert cli.main(["verify", "clip", "--json", "out.json"]) == 0
    assert counts == [1, 2, 3]


@pytest.mark.parametrize(
    ("command", "shown"),
    [(["verify", "clip"], "results_table"), (["doctor"], "machine_text")],
    ids=["verify", "doctor"],
)
def test_json_is_complete_before_anything_is_shown(
    give: Give, monkeypatch: pytest.MonkeyPatch, command: list[str], shown: str
):
    give(a_result())
    monkeypatch.setattr(f"harness.report.text.{shown}", Mock(side_effect=KeyboardInterrupt))
    assert cli.main([*command, "--json", "out.json"]) == 130
    assert json.loads(Path("out.json").read_text())["complete"] is True


def test_crash_of_the_harness_keeps_the_json(give: Give, capsys: pytest.CaptureFixture[str]):
    give(a_result(), ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["verify", "clip", "--json", "out.json"])
    data = json.loads(Path("out.json").read_text())
    assert (len(data["results"]), data["complete"], data["error"]) == (1, False, "a bug")
    assert "1 verdict: 1 passed" in capsys.readouterr().out


def test_table_is_printed(give: Give, capsys: pytest.CaptureFixture[str]):
    give(a_result("fail", "relative error 0.5"), a_result("not_judged", "no GPU", case="long"))
    cli.main(["verify", "clip"])
    shown = capsys.readouterr()
    assert "y: relative error 0.5" in shown.out
    assert shown.out.splitlines()[-1].startswith("2 verdicts: ")
    assert "clip/long [rtx-fp16]: not judged" in shown.err


def test_options_reach_verify(give: Give):
    calls = give(a_result())
    arguments = ["-b", "trt", "-p", "bf16", "--case", "long", "--no-engine-cache", "--update-references"]
    cli.main(["verify", "clip", *arguments, "--engines", "e", "--references", "r", "--device", "cpu"])
    (call,) = calls
    assert [str(target) for target in call["targets"]] == ["trt-bf16"]
    assert call["cases"] == ("long",)
    settings = call["settings"]
    assert (settings.engine_cache, settings.update_references, settings.device) == (False, True, "cpu")
    assert (settings.engines, settings.references) == (Path("e"), Path("r"))


def test_defaults_are_the_subjects_targets_and_cases(give: Give, monkeypatch: pytest.MonkeyPatch):
    calls = give(a_result())
    monkeypatch.setenv("PARITY_ENGINES", "from-the-environment")
    cli.main(["verify", "clip"])
    assert [str(target) for target in calls[0]["targets"]] == ["rtx-fp32", "rtx-fp16", "ort-cpu-fp32", "ort-cpu-fp16"]
    assert calls[0]["cases"] == ("short", "long")
    assert calls[0]["settings"].engines == Path("from-the-environment")


def test_failing_onnx_file_prints_the_polygraphy_line(give: Give, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from harness.graph.input_files import load_inputs
    from harness.graph.onnx_file import open_onnx
    from harness.graph.onnx_inputs import input_specs

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [info("x", TensorProto.FLOAT, ["n", 3])], [info("y", TensorProto.FLOAT, ["n", 3])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "relu.onnx")
    np.savez(tmp_path / "in.npz", x=np.arange(6, dtype=np.float32).reshape(2, 3))
    give(a_result("fail", subject="relu", case="default", backend="trt"))
    assert cli.main(["verify", "relu.onnx", "--inputs", "in.npz", "--json", "out/r.json"]) == 1
    line = "polygraphy run relu.onnx --onnxrt --trt --fp16 --load-inputs out/relu-default-inputs.json"
    assert line in capsys.readouterr().out
    assert json.loads(Path("out/r.json").read_text())["results"][0]["next_step"].splitlines()[-1] == line
    written = load_inputs(Path("out/relu-default-inputs.json"), input_specs(open_onnx("relu.onnx")))
    assert written["x"].flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_list(capsys: pytest.CaptureFixture[str], suites: Path):
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "clip  (suites/test_clip.py)" in shown
    assert "cases:   short, long" in shown
    assert cli.main(["list", "--suites", "none"]) == 2


def test_doctor_prints_and_writes(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", "--json", "doctor.json"]) == 0
    shown = capsys.readouterr().out
    data = json.loads(Path("doctor.json").read_text())
    for name in data["environment"]["backends"]:
        assert f"  {name} " in shown
    assert data["results"] == []


class FakeTargetRun:
    def __init__(self, target: Any) -> None:
        self.target = target

    def build(self) -> Engine:
        if self.target.backend == "trt":
            raise EngineRefused("op Foo at node /a/Foo is not supported")
        return Engine(
            path=Path("engines/x.engine"),
            sha256="0",
            bytes=2**20,
            cached=False,
            build_s=1.5,
            report=BuildReport(),
            key={},
        )


class FakeRun:
    def __init__(self, subject: Any, settings: Any) -> None:
        self.subject = subject

    @contextlib.contextmanager
    def target(self, target: Any) -> Iterator[FakeTargetRun]:
        yield FakeTargetRun(target)


def test_build_prints_engines_and_goes_on_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.modules["harness.verify.verify"], "Run", FakeRun)
    assert cli.main(["build", "clip", "-b", "trt", "-b", "rtx", "-p", "fp16"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "trt-fp16: not built: op Foo at node /a/Foo is not supported",
        "rtx-fp16: engines/x.engine (1 MiB, built in 1.5 s)",
    ]
    assert cli.main(["build", "clip", "-b", "trt"]) == 3


def test_reference_prints_what_it_wrote(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked = []

    def update_references(subject: Any, cases: Any, settings: Any) -> list[Path]:
        asked.append((subject.name, cases))
        return [settings.references / "clip" / "short.safetensors"]

    monkeypatch.setattr(harness.verify, "update_references", update_references)
    assert cli.main(["reference", "clip", "--case", "short", "--references", "r"]) == 0
    assert asked == [("clip", ("short",))]
    assert capsys.readouterr().out == "wrote r/clip/short.safetensors\n"


def test_a_folder_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def update_references(*asked: Any) -> list[Path]:
        return [Path("suites/test_clip.py/x").write_text("")]  # type: ignore[list-item]

    monkeypatch.setattr(harness.verify, "update_references", update_references)
    assert cli.main(["reference", "clip"]) == 2
    shown = capsys.readouterr().err
    assert "suites/test_clip.py/x cannot be used: Not a directory" in shown
    assert "Errno" not in shown


def test_clean_empties_the_cache(capsys: pytest.CaptureFixture[str]):
    from harness.backends.cache import EngineCache

    def build(path: Path) -> BuildReport:
        path.write_bytes(b"x" * 2**20)
        return BuildReport()

    cache = EngineCache(Path("e"), limit_bytes=2**30)
    cache.get({"a": 1}, build, progress=lambda message: None)
    assert cli.main(["clean", "--engines", "e"]) == 0
    assert capsys.readouterr().out == "e: removed 1 engines, freed 1 MiB\n"
    assert cache.entries() == []


def test_clean_empties_the_shared_cache_when_told_to(capsys: pytest.CaptureFixture[str]):
    from harness.backends.cache import EngineCache
    from harness.backends.remote import Remote

    def build(path: Path) -> BuildReport:
        path.write_bytes(b"x" * 2**20)
        return BuildReport()

    shared = Remote("shared", "read-write")
    EngineCache(Path("e"), limit_bytes=2**30, remote=shared).get({"a": 1}, build, progress=lambda message: None)
    assert cli.main(["clean", "--engines", "e", "--older-than", "1"]) == 0
    assert cli.main(["clean", "--remote"]) == 2
    assert cli.main(["clean", "--remote", "--engines-remote", "shared"]) == 2
    writing = ["--engines-remote", "shared", "--engines-remote-mode", "read-write"]
    capsys.readouterr()
    assert cli.main(["clean", "--remote", "--older-than", "1", *writing]) == 0
    assert cli.main(["clean", "--remote", *writing]) == 0
    said = capsys.readouterr().out
    place = Path("shared").absolute()
    assert said == f"{place}: removed 0 engines, freed 0 MiB\n{place}: removed 1 engines, freed 1 MiB\n"
    assert len(EngineCache(Path("e"), limit_bytes=2**30).entries()) == 1


def test_the_shared_cache_is_an_option_or_a_variable(give: Give, monkeypatch: pytest.MonkeyPatch):
    calls = give(a_result())
    monkeypatch.setenv("PARITY_ENGINES_REMOTE", "memory://variable")
    cli.main(["verify", "clip"])
    cli.main(["verify", "clip", "--engines-remote", "memory://option", "--engines-remote-mode", "read-write"])
    found = [(one["settings"].engines_remote, one["settings"].engines_remote_mode) for one in calls]
    assert found == [("memory://variable", "read"), ("memory://option", "read-write")]
    with pytest.raises(SystemExit, match="2"):
        cli.main(["verify", "clip", "--engines-remote-mode", "write"])


def test_doctor_shows_the_shared_cache(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", "--engines-remote", "memory://key:s3cret@bucket"]) == 0
    said = capsys.readouterr().out
    assert "memory://bucket: read" in said
    assert "shared engine cache: 0 engines" in said
    assert "s3cret" not in said

"""Where references, engines and the history are: in the suites' repository, from wherever a run is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import Target, UsageError, cli
from harness.discovery import load_suite
from harness.repository import as_typed, folders, repository_root

SUITE = """
import torch
from harness import Subject, Target
from harness.checks import test_outputs

SUBJECT = Subject(
    name="net", build=lambda: torch.nn.Identity().eval(), cases={"one": lambda: {"input": torch.ones(2)}},
    targets=(Target("ort-cpu", "fp32"), Target("ort-cpu", "plans/mixed.toml")), weights="random",
)
"""


def repository(folder: Path, **files: str) -> Path:
    for name, text in {"suites/deep/test_net.py": SUITE, **files}.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


CONFIGURED = {
    "pytest__ini": "", "pyproject__toml": "[tool.pytest.ini_options]\n", "tox__ini": "[pytest]\n",
    "setup__cfg": "[tool:pytest]\n", "__git/HEAD": "", "conftest__py": "",
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_root_is_found_from_any_folder_of_it(name, tmp_path, monkeypatch):
    root = repository(tmp_path / "repository", **{name: CONFIGURED[name], "suites/conftest__py": ""})
    (tmp_path / "elsewhere").mkdir()
    for here in (root, root / "suites", tmp_path / "elsewhere"):
        monkeypatch.chdir(here)
        for start in (root, root / "suites", root / "suites" / "deep" / "test_net.py"):
            assert repository_root(start) == root


def test_a_file_without_a_section_for_pytest_is_no_mark(tmp_path, monkeypatch):
    root = repository(tmp_path / "repository", pyproject__toml="[tool.ruff]\n", pytest__ini="")
    inner = repository(root / "inner", pyproject__toml="[tool.ruff]\n", tox__ini="[tox]\n")
    assert repository_root(inner / "suites") == root


def test_without_a_mark_the_current_folder_is_the_root_of_what_is_in_it(tmp_path, monkeypatch):
    root = repository(tmp_path / "repository")
    monkeypatch.chdir(root)
    assert repository_root(root / "suites") == root
    assert folders(as_typed(root))["engines"] == Path("engines")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert repository_root(root / "suites") == root / "suites"


@pytest.mark.parametrize("here", [".", "suites", "../elsewhere"])
def test_the_command_line_and_the_doctor_use_the_repository(here, tmp_path, monkeypatch, capsys):
    root = repository(tmp_path / "repository", pytest__ini="", plans__mixed="")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(root / here)
    suite = str(root / "suites" / "deep" / "test_net.py")
    record = tmp_path / "record.json"
    assert cli.main(["verify", suite, "-b", "ort-cpu", "-p", "fp32", "--device", "cpu", "--json", str(record)]) == 0
    assert list((root / "engines").glob("net-ort-cpu-fp32-*.engine"))
    environment = json.loads(record.read_text())["environment"]
    names = {"engines": "engines", "references": "reference_outputs", "history": ".parity"}
    assert {name: environment[name] for name in names} == {name: str(root / folder) for name, folder in names.items()}
    if here != "../elsewhere":
        assert cli.main(["doctor"]) == 0
        shown = capsys.readouterr().out.replace("\n", "").replace(" ", "")
        assert all(str(root / folder) in shown for folder in names.values())
        assert cli.main(["list"]) == 0
        assert "deep/net" in capsys.readouterr().out


def test_a_stale_reference_is_seen_from_elsewhere(tmp_path, monkeypatch, capsys):
    root = repository(tmp_path / "repository", pytest__ini="")
    monkeypatch.chdir(root)
    suite = root / "suites" / "deep" / "test_net.py"
    assert cli.main(["reference", str(suite), "--device", "cpu"]) == 0
    suite.write_text(SUITE.replace("Identity()", "ReLU()"))
    arguments = [str(suite), "-b", "ort-cpu", "-p", "fp32", "--device", "cpu"]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify", *arguments]) == 1
    assert "stale" in capsys.readouterr().out


def test_a_reference_of_another_subject_of_that_name_is_not_overwritten(tmp_path, monkeypatch, capsys):
    other = SUITE.replace("Identity()", "ReLU()")
    root = repository(tmp_path / "repository", pytest__ini="", **{"suites/other/test_net__py": other})
    monkeypatch.chdir(root)
    first, second = (str(root / "suites" / name / "test_net.py") for name in ("deep", "other"))
    assert cli.main(["reference", first, "--device", "cpu"]) == 0
    assert cli.main(["reference", second, "--device", "cpu"]) == 2
    assert "suites/deep/test_net.py and in suites/other/test_net.py" in capsys.readouterr().err
    Path(first).unlink()
    assert cli.main(["reference", second, "--device", "cpu"]) == 0


def test_a_plan_that_a_suite_names_is_that_of_its_repository(tmp_path, monkeypatch):
    plan = 'precision = "fp16"\n'
    root = repository(tmp_path / "repository", pytest__ini="", **{"plans/mixed__toml": plan})
    other = repository(tmp_path / "elsewhere", **{"plans/mixed__toml": 'precision = "bf16"\n'})
    suite = root / "suites" / "deep" / "test_net.py"
    monkeypatch.chdir(other)
    assert load_suite(suite).targets[1].precision == str(root / "plans" / "mixed.toml")
    monkeypatch.chdir(root)
    assert load_suite(suite).targets[1].precision == "plans/mixed.toml"


def test_a_plan_with_the_name_of_a_precision_is_refused():
    with pytest.raises(UsageError, match=r"plans/fp16\.toml has the name of a precision"):
        Target("rtx", "plans/fp16.toml")

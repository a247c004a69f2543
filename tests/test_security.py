"""docs/security.md: each line of its table names a test that is there, and the guards that have no test elsewhere."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import result

import harness
from harness.backends import EngineCache
from harness.backends.base import BuildReport
from harness.cli import main
from harness.errors import UsageError, without_passwords
from harness.graph import InputSpec, load_inputs, load_plan
from harness.history import open_history
from harness.records import document, load, save_json
from harness.report import summary

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[1]
ROWS = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")][2:]
SPECS = (InputSpec(name="x", dtype="float32", shape=(2,)),)
HOSTILE = "</td><script>x</script> ![a](http://x) | `b` \x1b[31m\u202e ]]> &amp; \x00"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_line_names_a_test_that_is_there(row: str):
    what, guard, named = (cell.strip() for cell in row.strip("|").split("|"))
    file, _, name = named.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert what
    assert guard


def test_the_table_is_long_and_linked():
    assert len(ROWS) > 20
    assert "docs/security.md" in (ROOT / "README.md").read_text()


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch unpickled",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    np.savez("objects.npz", x=np.array([Evil()], dtype=object))
    Path("pickle.npz").write_bytes(pickle.dumps(Evil()))
    Path("torch.json").write_text('[{"x": {"tensor": "abc"}}]')
    for name in ("objects.npz", "pickle.npz", "torch.json"):
        with pytest.raises(UsageError):
            load_inputs(Path(name), SPECS)
    assert not Path("unpickled").exists()


def test_no_code_loads_pickles():
    """Every call that could unpickle says that it must not."""
    for path in Path(harness.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"} & set(names), path
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            text = ast.unparse(call)
            if text.startswith(("torch.load(", "np.load(", "numpy.load(", "np.lib.format.read_array(")):
                assert "weights_only=True" in text or "allow_pickle=False" in text, f"{path}: {text}"


@pytest.mark.parametrize("name", ["deep.json", "deep.toml"])
def test_brackets_without_end_are_refused(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_text("[" * 100_000 if name.endswith("json") else f"keep_fp32 = {'[' * 100_000}")
    with pytest.raises(UsageError):
        load_plan(str(path)) if name.endswith("toml") else load_inputs(path, SPECS)
    if name.endswith("json"):
        assert load([path, saved(tmp_path / "ok")]).broken


def saved(folder: Path) -> Path:
    """Save a record in a folder."""
    path = folder / "a.json"
    save_json(document([result().to_json()], environment={}, command="x", complete=True), path)
    return path


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_no_input(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "m.onnx" if kind == "pipe" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UsageError, match="pipe or a device"):
        load_inputs(path, SPECS)
    plan = tmp_path / "plan.toml"
    plan.symlink_to(path)
    with pytest.raises(UsageError, match="pipe or a device"):
        load_plan(str(plan))
    link = tmp_path / "model.onnx"
    link.symlink_to(path)
    assert main(["verify", str(link)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_names_in_the_summary_are_text(tmp_path: Path):
    hostile = result("fail", reason=HOSTILE, subject=HOSTILE, case=HOSTILE)
    save_json(document([hostile.to_json()], environment={}, command="x", complete=True), tmp_path / "a.json")
    text = summary(load([tmp_path]))
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "<script>" not in outside
    assert "![a](" not in outside
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\x00" not in text


def test_names_in_junit_are_text(project: pytest.Pytester):
    project.makepyfile(f"def test_fails():\n    raise AssertionError({HOSTILE!r})\n")
    project.runpytest_inprocess("--junitxml", "junit.xml")
    text = (project.path / "junit.xml").read_text()
    ElementTree.fromstring(text)  # it is XML
    assert "<script>" not in text
    assert "\x1b" not in text


def test_patterns_take_no_time():
    """Every pattern of the package meets texts that repeat what it repeats."""
    patterns = []
    for path in Path(harness.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    patterns.append(first.value)
    assert len(patterns) > 20
    texts = [
        piece * 1000 + end for piece in ("a", "1", " ", "-", "[", "a-", "d-", "\\", "(", "://", "é") for end in "!\n"
    ]
    started = time.process_time()
    for pattern in patterns:
        for text in texts:
            re.search(pattern, text)
    assert time.process_time() - started < 10, "seconds, where a pattern that backtracks takes years"


def engine(folder: Path, said: list[str]) -> Path:
    """Return an engine of a cache."""

    def build(path: Path) -> BuildReport:
        path.write_bytes(b"engine")
        return BuildReport(network_layers=1, notes=(), options={})

    cache = EngineCache(folder, limit_bytes=10**9)
    return cache.get({"graph": "a"}, build, progress=said.append, name="net").path


def test_an_entry_of_the_cache_that_is_a_link_is_not_written_through(tmp_path: Path):
    said: list[str] = []
    path = engine(tmp_path / "engines", said)
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(outside)
    assert engine(tmp_path / "engines", said).read_bytes() == b"engine"
    assert outside.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert any("does not match its checksum" in line for line in said)


def test_an_engine_folder_for_everybody_is_said(tmp_path: Path):
    said: list[str] = []
    folder = tmp_path / "engines"
    folder.mkdir()
    engine(folder, said)
    assert not any("everybody" in line for line in said)
    folder.chmod(0o777)
    engine(folder, said)
    engine(folder, said)
    assert sum("everybody" in line for line in said) == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://kim:s3cret@127.0.0.1:1/x?connect_timeout=1",
        "postgresql://127.0.0.1:1/x?user=kim&password=s3cret&connect_timeout=1",
        "http://kim:s3cret@127.0.0.1:1/x",
    ],
)
def test_a_password_is_neither_printed_nor_recorded(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    try:
        with open_history(url, folder=tmp_path) as history:
            notes = " ".join(history.notes)
    except UsageError as error:
        notes = str(error)
    assert "s3cret" not in notes
    assert "s3cret" not in without_passwords(f"parity bench x --history '{url}' --json out.json")
    assert main(["history", "tiny", "--history", url]) in (0, 2, 3)
    shown = capsys.readouterr()
    assert "s3cret" not in shown.out + shown.err
    assert "Traceback" not in shown.err


def test_the_recorded_command_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    main(["doctor", "--json", "out.json"])
    assert json.loads(Path("out.json").read_text())["command"] == "parity doctor --json out.json"
    assert "s3cret" not in without_passwords("x --engines-remote s3://s3cret@bucket/e y")
    assert "s3cret" not in without_passwords("x az://box/e?SharedAccessSignature=s3cret&x=1")
    assert without_passwords("a postgresql://kim@host/db") == "a postgresql://kim@host/db"

"""Node data for Model Explorer: its keys are the ids of nodes there, its figures those of the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import recorded
import report_fixtures as made
import torch

from harness.cli import commands as cli
from harness.errors import UsageError
from harness.graph import node_names
from harness.report.model_explorer import BEYOND, node_data, save_node_data


def report(values: int = 40, **changes: Any) -> dict[str, Any]:
    first_bad = 30 if values > 30 else None
    return {**made.layer_report(values, first_bad=first_bad).to_json(), **changes}


def onnx_report() -> dict[str, Any]:
    found = report(4)
    for value, name in zip(found["values"], ("x", "y", "z", "lost"), strict=False):
        value |= {"name": name, "op": "onnx.Split"}
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file whose first node makes two values, and whose last has no name."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[4] a) => (float[2] z) {
        [first] x, y = Split (a)
        z = Relu (x)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_value_has_its_error_over_its_floor_and_the_colour_of_its_mark():
    found = report()
    results = node_data(found)["results"]
    compared = {value["name"]: value for value in found["values"] if value["status"] == "compared"}
    assert set(results) == set(compared), "what was not compared has no figure"
    assert results["v_1"]["value"] == compared["v_1"]["local"] / compared["v_1"]["local_floor"]
    assert results["v_30"]["value"] == BEYOND, "JSON has no infinity"
    assert len({results[name]["bgColor"] for name in ("v_1", "v_30")}) == 2
    assert "NaN" not in json.dumps(results)


def test_the_keys_are_the_names_of_an_exported_programs_nodes():
    program = torch.export.export(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.GELU()), (torch.zeros(1, 2),))
    names = [node.name for node in program.graph.nodes if node.op == "call_function"]
    found = report(len(names))
    for value, name in zip(found["values"], names, strict=False):
        value["name"] = name
    assert list(node_data(found)["results"]) == names


def test_of_an_onnx_file_they_are_the_names_of_its_nodes_and_the_worst_value_counts(model: Path):
    found = onnx_report()
    names = node_names(model)
    assert names == {"x": "first", "y": "first"}
    ratios = [value["local"] / value["local_floor"] for value in found["values"][:2]]
    (name, result), *others = node_data(found, names)["results"].items()
    assert (name, result["value"], others) == ("first", max(ratios), [])


def test_several_engines_have_a_file_each(tmp_path: Path):
    both = [report(), report(precision="bf16")]
    paths = save_node_data(both, tmp_path / "nodes.json")
    assert len(set(paths)) == 2
    assert all(path.parent == tmp_path and json.loads(path.read_text())["results"] for path in paths)
    with pytest.raises(UsageError, match="newest"):
        save_node_data([report(), report()], tmp_path / "nodes.json")


@pytest.mark.parametrize(
    ("reports", "arguments", "words"),
    [
        ([], [], "hold no layer report"),
        ([onnx_report()], [], "give --onnx MODEL"),
        ([onnx_report()], ["--onnx", "missing.onnx"], "missing.onnx"),
        ([report()], ["--onnx", "net.onnx"], "nothing to show"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_sentence(
    reports: list[dict[str, Any]], arguments: list[str], words: str, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    results = [recorded.result()]
    path = recorded.document(tmp_path / "records", results=results)
    data = json.loads(path.read_text())
    data["results"] = [{**data["results"][0], "layers": found} for found in reports] or data["results"]
    path.write_text(json.dumps(data))
    assert cli.main(["report", "records", "--model-explorer", "nodes.json", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "nodes.json").exists()


def test_the_command_writes_it_and_says_what_is_not_to_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    path = recorded.document(tmp_path / "records", results=[recorded.result()])
    data = json.loads(path.read_text())
    data["results"][0]["layers"] = report(trusted=False)
    path.write_text(json.dumps(data))
    assert cli.main(["report", "records", "--model-explorer", "nodes.json"]) == 0
    printed = capsys.readouterr()
    assert "wrote nodes.json" in printed.out
    assert "do not trust its colours" in printed.err
    assert cli.main(["report", "records", "--onnx", "net.onnx"]) == 2

"""Whether the export is wrong, and in which operations; however small that is beside FP32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from fake import quiet
from planted import PLANTED, Healthy, Planted, PlantedBackend, install, linear, plant_of

from harness import NotJudged, Target
from harness.bisect import bisection, export_check
from harness.bisect.export_check import ExportCheck, check_exported_graph
from harness.graph.onnx_file import save_model
from harness.records.diagnosis import Diagnosis
from harness.reference import fallback, onnx_calls
from harness.verify.prepare import prepare
from harness.verify.target import Run


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Planted], ExportCheck]:
    """Return a function that checks the exported graph of a plant as its FP32 engine would be judged."""

    def checked(plant: Planted) -> ExportCheck:
        install(monkeypatch, plant)
        with Run(plant.subject, quiet(tmp_path)).target(Target("planted", "fp32")) as opened:
            return check_exported_graph(opened, "one")

    return checked


def named(check: ExportCheck) -> list[str]:
    assert check.diagnosis is not None
    return [culprit.value for culprit in check.diagnosis.culprits]


def known(check: ExportCheck) -> Diagnosis:
    assert check.diagnosis is not None
    return check.diagnosis


def with_epsilon(factor: float) -> Any:
    def edit(node: ir.Node) -> None:
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", factor * node.attributes["epsilon"].as_float())

    return edit


SLIGHT = plant_of(
    "slight",
    Healthy,
    kind="export",
    backend="planted",
    tamper=("layer_norm_1", with_epsilon(10)),
    why="the epsilon of block 1 is 1e-4",
)


@pytest.mark.parametrize("name", ["wrong_epsilon", "wrong_axis"])
def test_the_operation_that_the_export_gets_wrong(name: str, checked: Any):
    check = checked(PLANTED[name])
    assert not check.right
    [culprit] = known(check).culprits
    assert frozenset({culprit.value}) == PLANTED[name].answer
    assert culprit.error > 0.1
    assert culprit.made_by == "export"
    assert culprit.explains == pytest.approx(1.0)
    assert (known(check).complete, known(check).left) == (True, pytest.approx(0.0))


def test_a_right_export_is_right_to_the_last_bits_of_its_constants(checked: Any):
    check = checked(PLANTED["wrong_kernel"])
    assert check.right
    assert check.diagnosis is None
    assert check.error < 2.0**-24


def test_an_epsilon_of_1e_4_in_place_of_1e_5_is_an_export_fault(checked: Any):
    """It changes the outputs by less than one part in 2**14, and FP32 by 60 times its own error."""
    check = checked(SLIGHT)
    assert 2.0**-20 < check.error < 2.0**-14
    assert named(check) == ["layer_norm_1"]
    assert known(check).right_before > 0


@pytest.mark.parametrize("precisions", [("fp32", "fp16"), ("fp16",)])
def test_an_export_fault_is_found_before_parts_are_built(precisions: tuple[str, ...], bisected: Any):
    """Also where the backend has no FP32, and the fault shows in FP16."""
    plant = PLANTED["wrong_epsilon"]

    def only(engine: PlantedBackend) -> None:
        engine.precisions = precisions

    found, engine = bisected(plant, prepare_engine=only)
    assert (found.kind, found.region) == ("export", ("layer_norm_1",))
    assert engine.builds == len(precisions)


def test_a_slight_export_fault_is_not_the_engines(bisected: Any):
    found, engine = bisected(SLIGHT, precision="fp32")
    assert (found.kind, found.region, engine.builds) == ("export", ("layer_norm_1",), 1)
    asked = {question.question: question.answer for question in found.gates}
    assert asked["is the exported graph right?"] == "no"


def test_a_file_was_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plant = PLANTED["wrong_in_fp32"]
    install(monkeypatch, plant)
    path = tmp_path / "healthy.onnx"
    save_model(prepare(plant.subject, quiet(tmp_path)).program.model, path)
    file = dataclasses.replace(plant.subject, build=None, onnx=path)
    monkeypatch.setattr(bisection, "check_exported_graph", lambda *_: pytest.fail("there is no exporter"))
    found = bisection.bisect(file, Target("planted", "fp32"), "one", quiet(tmp_path))
    assert (found.kind, found.region) == ("engine", ("layer_norm_2",))


@pytest.mark.parametrize("reference_is_right", [True, False])
def test_what_one_library_computes_for_the_engine_and_here_is_not_the_exporters(
    reference_is_right: bool, checked: Any, monkeypatch: pytest.MonkeyPatch
):
    """ONNX Runtime computes GELU here as wrongly as the engine: ``onnx.reference`` says that the graph is right."""
    bind, load = onnx_calls.bind, fallback._loaded

    def without_gelu(node: ir.Node, **options: Any) -> Any:
        return None if node.op_type == "Gelu" else bind(node, **options)

    def wrong(serialized: bytes) -> Any:
        return lambda feeds: [1.05 * result for result in load(serialized)(feeds)]

    def refused(*_: Any) -> Any:
        raise NotJudged("it has no such operator")

    monkeypatch.setattr(onnx_calls, "bind", without_gelu)
    monkeypatch.setattr(fallback, "_loaded", wrong)
    if not reference_is_right:
        monkeypatch.setattr(export_check, "run_onnx_reference", refused)
    check = checked(PLANTED["wrong_kernel"])
    if reference_is_right:
        assert check.right
    else:
        assert named(check) == []
        assert {value.name for value in check.undecided} == {"gelu", "gelu_1", "gelu_2", "gelu_3"}


class Small(torch.nn.Module):
    """A quotient of small numbers, where the constant of 1e-8 counts that the exporter drops (torch 2.13)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = linear(0), linear(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x) * 1e-4
        return self.last(y / (y.abs().mean(-1, keepdim=True) + 1e-8))


def test_a_constant_of_1e_8_that_was_dropped_is_an_export_fault(checked: Any):
    check = checked(plant_of("dropped", Small, kind="export", backend="planted", why=""))
    assert 2.0**-20 < check.error < 2.0**-12
    assert named(check) == ["div"]


class Rows(torch.nn.Module):
    """A mean over an axis, of which the output has the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = linear(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x).mean(1) * 2.0


def test_a_value_of_another_shape_is_an_export_fault(checked: Any):
    def other_axis(node: ir.Node) -> None:
        axes = node.inputs[1]
        assert axes is not None
        axes.const_value = ir.tensor([0])

    check = checked(plant_of("rows", Rows, kind="export", backend="planted", tamper=("mean", other_axis), why=""))
    assert not check.right
    [culprit] = known(check).culprits
    assert (culprit.value, culprit.error, culprit.explains) == ("mean", None, None)
    assert "[8, 32]" in culprit.reason
    assert "[2, 32]" in culprit.reason
    assert not known(check).complete

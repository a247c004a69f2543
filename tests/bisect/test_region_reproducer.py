"""The part of a graph that fails alone as a reproducer: it shows the fault and only the fault, or there is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
import pytest
from bisecting import Bisect, with_faults
from fake import quiet
from planted import PLANTED, Experts, Fault, PlantedBackend, signed_rows

from harness import Target
from harness.backends.base import BuildRequest
from harness.bisect import region_reproducer
from harness.bisect.bisection import bisect
from harness.bisect.reproducer.folder import NotReproduced
from harness.bisect.reproducer.text import Spec
from harness.compare.norms import relative_l2
from harness.verify import target as verify_target


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Spec, bytes]]:
    """Keep what the writer of reproducers is given, with its graph, and write nothing."""
    given: list[tuple[Spec, bytes]] = []

    def write(folder: Path, spec: Spec, *, progress: Any) -> Any:
        given.append((spec, spec.graph.read_bytes()))
        raise NotReproduced("the script did not show the fault")

    monkeypatch.setattr(region_reproducer, "write", write)
    return given


@pytest.mark.parametrize("name", ["wrong_kernel", "wrong_when_fused", "nan_unobserved"])
def test_a_reproducer_shows_the_fault_and_only_the_fault(name: str, bisected: Bisect, specs: Any, tmp_path: Path):
    plant = PLANTED[name]
    found, _ = bisected(plant)
    [(spec, graph)] = specs
    assert (spec.backend, spec.precision, spec.finding) == ("planted", found.precision, found.finding)
    assert (spec.weights, spec.inputs_kind) == ("random", "random")
    asked = [note for note in spec.notes if note.startswith("the whole model: ")]
    assert len(asked) == len(found.gates), "what was found out about the whole model goes with its part"
    assert name in spec.full_model
    model = onnx.load_from_string(graph)
    assert {value.name for value in model.graph.input} == set(spec.inputs)
    assert {value.name for value in model.graph.output} == set(spec.expected) == set(spec.limits)
    assert errors(spec, graph, plant.faults, tmp_path) > max(spec.limits.values()) > 0
    assert all(math.isfinite(limit) and limit < 0.1 for limit in spec.limits.values())
    assert errors(spec, graph, (), tmp_path) <= min(spec.limits.values())


def errors(spec: Spec, graph: bytes, faults: tuple[Fault, ...], tmp_path: Path) -> float:
    """Return the largest relative L2 error of a reproducer's graph on a backend with these faults; NaN is infinite."""
    engine, path = PlantedBackend(*faults), tmp_path / "reproducer.onnx"
    path.write_bytes(graph)
    request = BuildRequest(onnx=path, tf32=False, shapes={})
    engine.build(request, tmp_path / "reproducer.engine", quiet(tmp_path))
    with engine.load(tmp_path / "reproducer.engine") as session:
        outputs = session.run(spec.inputs)
    found = [relative_l2(outputs[name], tensor) for name, tensor in spec.expected.items()]
    return max(error if math.isfinite(error) else math.inf for error in found)


def test_a_reproducer_that_does_not_reproduce_is_a_note(bisected: Bisect, specs: Any, tmp_path: Path):
    found, _ = bisected(PLANTED["wrong_kernel"])
    assert found.reproducer == ""
    assert "no reproducer: the script did not show the fault" in found.notes
    assert not (tmp_path / "reproducer").exists()
    assert not any("reproduce.py" in command for command in found.commands)


def wrong_norm(path: Path) -> None:
    """Give the second normalisation of a typed graph an epsilon of 0.5 where it computes in float16."""
    model = onnx.load(path)
    known = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*known.value_info, *known.output)}
    for node in model.graph.node:
        ours = node.op_type == "LayerNormalization" and node.output[0].startswith("layer_norm_1")
        if ours and types[node.output[0]] == onnx.TensorProto.FLOAT16:
            [epsilon] = [attribute for attribute in node.attribute if attribute.name == "epsilon"]
            epsilon.f = 0.5
    onnx.save(model, path)


@pytest.mark.parametrize("shown", [True, False])
def test_a_reproducer_on_onnx_runtime_is_run_before_it_is_kept(
    shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The typed graph is spoilt on its way into ONNX Runtime, and in one case on its way into the reproducer."""
    write_graph = verify_target.write_graph

    def spoilt(prepared: Any, plan: Any, path: Path, **options: Any) -> Any:
        notes = write_graph(prepared, plan, path, **options)
        wrong_norm(path)
        return notes

    monkeypatch.setattr(verify_target, "write_graph", spoilt)
    if shown:
        monkeypatch.setattr(region_reproducer, "write_graph", spoilt)
    monkeypatch.chdir(tmp_path)
    subject, folder = with_faults().subject, Path("reproducer")
    found = bisect(subject, Target("ort-cpu", "fp16"), "one", quiet(tmp_path), reproducer=folder)
    assert (found.kind, found.region) == ("engine", ("layer_norm_1",))
    assert found.plan in (("blocks.1.norm",), ("blocks.1",))
    if shown:
        assert found.reproducer == str(folder)
        assert (folder / "reproduce.py").is_file()
        assert found.commands[-1] == f"python {folder}/reproduce.py"
    else:
        assert found.reproducer == ""
        assert any(note.startswith("no reproducer: ") for note in found.notes)
        assert not folder.exists()


def test_decisions_that_are_wrong_may_not_differ_at_all(bisected: Bisect, specs: Any):
    fault = Fault(value="argmax", change=lambda decided: 1 - decided, only_dtype=None)
    bisected(with_faults(fault, build=Experts, inputs=signed_rows), precision="fp32")
    [(spec, _)] = specs
    assert spec.limits["argmax"] == 0.0

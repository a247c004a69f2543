"""The plants themselves: the answers hold, nothing smaller does, and no set is near the limit."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from fake import quiet
from planted import OPS, PLANTED, Planted, PlantedBackend, PlantedSession, install, named_values, ready

from harness import EngineRefused, Target
from harness.backends.base import BuildRequest
from harness.compare.norms import relative_l2
from harness.graph.plan import Plan, assign, load_plan
from harness.graph.subgraph import extract, with_outputs
from harness.graph.typed import apply
from harness.reference.interpreter import run_graph
from harness.reference.run_graph import exported_run_graph
from harness.verify.prepare import Prepared, prepare
from harness.verify.verify import verify

PRECISION = [name for name, plant in PLANTED.items() if plant.kind == "precision"]


def prepared(name: str) -> Prepared:
    """Return a plant's subject, exported without tampering; those with a wrong engine share one network."""
    return ready("wrong_kernel" if PLANTED[name].kind == "engine" else name)


@functools.cache
def error_with(name: str, keep: frozenset[str]) -> float:
    """Return the relative L2 error in PyTorch with these patterns in FP32; infinite where the output is not finite."""
    healthy = prepared(name)
    plan = Plan(name="trial", dtype="fp16", keep_fp32=tuple(sorted(keep)))
    dtypes = {value: getattr(torch, dtype) for value, dtype in assign(plan, healthy.program.values).items()}
    inputs = healthy.inputs["one"]
    actual = run_graph(exported_run_graph(healthy.program), inputs, dtype=torch.float16, dtypes=dtypes)
    expected = run_graph(exported_run_graph(healthy.program), inputs, dtype=torch.float32)
    return max(relative_l2(actual[output], expected[output]) for output in expected)


def right(plant: Planted, keep: frozenset[str]) -> bool:
    """Return whether an error is within the limit; one that is near it proves nothing."""
    limit = plant.limit or 0.25
    error = error_with(plant.name, keep)
    assert not limit / 1.3 < error < limit * 1.3, f"{sorted(keep)}: {error:.3g} is too near to {limit:.3g}"
    return error <= limit


def subsets(units: list[str]) -> list[frozenset[str]]:
    return [frozenset(part) for size in range(len(units) + 1) for part in itertools.combinations(units, size)]


def smallest(plant: Planted, units: list[str]) -> set[frozenset[str]]:
    """Return all sets of the smallest size that are right, of all sets there are."""
    found = [part for part in subsets(units) if right(plant, part)]
    return {part for part in found if len(part) == min(map(len, found))}


def modules(name: str) -> list[str]:
    values = prepared(name).program.values.values()
    return sorted({value.module for value in values if value.module and value.dtype == "float32"})


@pytest.mark.parametrize("name", PRECISION)
def test_the_answer_is_the_smallest_of_all_sets_of_modules(name):
    plant = PLANTED[name]
    assert smallest(plant, modules(name)) == {plant.answer, *plant.alternatives}


@pytest.mark.parametrize("name", [name for name in PRECISION if PLANTED[name].values])
def test_the_values_are_the_smallest_of_all_sets_of_values(name):
    plant = PLANTED[name]
    rows = prepared(name).program.values.values()
    units = {f"value:{row.origin}" for row in rows if row.module in plant.answer and row.dtype == "float32"}
    size = len(plant.values[0])
    tried = [part for part in subsets(sorted(units)) if len(part) <= size]
    assert {part for part in tried if right(plant, part)} == set(plant.values)


def test_one_more_layer_in_fp32_makes_the_non_monotonic_plant_worse():
    plant = PLANTED["non_monotonic"]
    assert right(plant, plant.answer)
    assert not right(plant, plant.answer | {"left"})
    assert not right(plant, plant.answer | {"right"})
    assert right(plant, plant.answer | {"left", "right"})


def test_the_stream_has_no_single_culprit():
    plant = PLANTED["growing_stream"]
    assert len(plant.answer) == 4
    assert not any(right(plant, plant.answer - {module}) for module in plant.answer)


@pytest.mark.parametrize(
    ("name", "value", "dtype"),
    [
        ("overflow", "sub_4", torch.float16),
        ("masked_overflow", "softmax", torch.float16),
        ("masked_nan", "sqrt", torch.float16),
        ("masked_nan", "sqrt", torch.float32),
    ],
)
def test_nan_is_made_where_the_plant_says(name, value, dtype):
    healthy = prepared(name)
    made_nan = []

    def note(made, tensor):
        if tensor.isnan().any():
            made_nan.append(made)

    outputs = run_graph(exported_run_graph(healthy.program), healthy.inputs["one"], dtype=dtype, on_value=note)
    assert made_nan[0] == value
    assert outputs["output"].isfinite().all() == (PLANTED[name].kind == "none")


def test_masked_nan_leaves_the_output_right():
    for name in ("masked_overflow", "masked_nan"):
        assert error_with(name, frozenset()) < 1e-3


def test_the_decision_flips_for_positive_rows_only():
    healthy = prepared("flipped_decision")
    chosen = {}
    for dtype in (torch.float16, torch.float32):
        seen: dict[str, torch.Tensor] = {}
        run_graph(exported_run_graph(healthy.program), healthy.inputs["one"], dtype=dtype, on_value=seen.__setitem__)
        chosen[dtype] = seen["argmax"]
    flips = chosen[torch.float16] != chosen[torch.float32]
    assert torch.equal(flips, healthy.inputs["one"]["x"][..., 0] > 0)


# The backend


class Engine:
    """A loaded session of a plant's typed graph, with values marked as outputs; a region of it where one is given."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.count = tmp_path, 0

    def __call__(
        self, name: str, *, precision="fp16", marked=(), taps=False, region=None, faults=None
    ) -> PlantedSession:
        self.count += 1
        plant, healthy = PLANTED[name], prepared(name)
        model = healthy.program.model if region is None else extract(healthy.program.model, *region)
        typed = apply(model, {}, default=load_plan(precision).compute_dtype).model
        made = {value.name: value for node in typed.graph for value in node.outputs}
        typed.graph.outputs.extend(made[value] for value in marked)
        graph, engine = self.folder / f"{self.count}.onnx", self.folder / f"{self.count}.engine"
        ir.save(typed, graph)
        backend = PlantedBackend(*(plant.faults if faults is None else faults))
        request = BuildRequest(onnx=graph, tf32=False, shapes={}, taps=taps)
        backend.build(request, engine, quiet(self.folder))
        graph.unlink()
        return backend.load(engine)


@pytest.fixture
def engine(tmp_path):
    """Return a function that builds a plant's engine and loads it."""
    return Engine(tmp_path)


def inputs(name: str) -> Any:
    return prepared(name).inputs["one"]


def reference(name: str) -> dict[str, torch.Tensor]:
    """Return every value in PyTorch FP32."""
    return named_values(prepared(name))


def judged(name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the harness's verdict on the ``planted`` backend, and the backend."""
    backend = install(monkeypatch, PLANTED[name])
    [result] = verify(
        PLANTED[name].subject, targets=[Target("planted", precision)], cases=["one"], settings=quiet(tmp_path)
    )
    assert backend.builds == 1
    assert backend.open_sessions == 0
    return result


@pytest.mark.parametrize("name", [name for name, plant in PLANTED.items() if plant.kind in ("precision", "none")])
def test_the_backend_without_faults_loses_what_pytorch_loses(name, engine):
    for precision in ("fp16", "fp32"):
        actual = engine(name, precision=precision).run(inputs(name))["output"]
        floor = error_with(name, frozenset()) if precision == "fp16" else 0.0
        error = relative_l2(actual, reference(name)["output"])
        assert error == floor if floor == float("inf") else error <= 3 * floor + 2e-6
        assert error >= floor / 3


@pytest.mark.parametrize("name", [name for name, plant in PLANTED.items() if plant.kind in ("engine", "export")])
def test_faults_in_fp32(name, tmp_path, monkeypatch):
    plant = PLANTED[name]
    in_fp32 = plant.kind == "export" or name == "wrong_in_fp32"
    assert judged(name, "fp32", tmp_path, monkeypatch).verdict == ("fail" if in_fp32 else "pass")


@pytest.mark.parametrize("name", [name for name, plant in PLANTED.items() if plant.kind == "engine"])
def test_faults_of_the_engine_show_in_fp16(name, tmp_path, monkeypatch):
    result = judged(name, "fp16", tmp_path, monkeypatch)
    assert result.verdict == "fail"
    assert result.repeatable


def errors(name: str, session: PlantedSession, given: Any = None) -> dict[str, float]:
    """Return the relative L2 error of every output of one run, against PyTorch FP32."""
    expected = reference(name)
    outputs = session.run(inputs(name) if given is None else given)
    return {output: relative_l2(tensor, expected[output]) for output, tensor in outputs.items()}


def test_a_wrong_kernel_is_wrong_from_its_value_on(engine):
    found = errors("wrong_kernel", engine("wrong_kernel", marked=("layer_norm_1", "linear_1", "add_1")))
    assert found["layer_norm_1"] < 1e-3
    assert found["linear_1"] == pytest.approx(0.05, rel=0.05)
    assert found["add_1"] > 0.01
    right_elsewhere = engine("wrong_kernel", precision="fp32", marked=("linear_1",))
    assert errors("wrong_kernel", right_elsewhere)["linear_1"] < 1e-6


def test_a_fault_of_fusion_goes_away_when_the_fused_value_is_an_output(engine):
    assert errors("wrong_when_fused", engine("wrong_when_fused"))["output"] > 0.01
    assert errors("wrong_when_fused", engine("wrong_when_fused", marked=("add_2",)))["add_2"] > 0.03
    separated = errors("wrong_when_fused", engine("wrong_when_fused", marked=("gelu_2", "add_2")))
    assert max(separated.values()) < 1e-3


@pytest.mark.parametrize(
    ("region", "wrong"),
    [
        ((["add_1", "linear_2"], ["add_2"]), True),
        ((["add_1", "gelu_2"], ["add_2"]), False),
        ((["linear_2"], ["gelu_2"]), False),
        ((["add_2"], ["output"]), False),
    ],
)
def test_a_fault_of_fusion_shows_in_a_region_that_holds_both_values(engine, region, wrong):
    values = reference("wrong_when_fused")
    session = engine("wrong_when_fused", region=region)
    [error] = errors("wrong_when_fused", session, {name: values[name] for name in region[0]}).values()
    assert (error > 0.03) == wrong


def test_an_unobserved_nan_hides_from_every_look(engine):
    for name in ("nan_unobserved", "nan_unobserved_here"):
        assert engine(name).run(inputs(name))["output"].isnan().all()
        session = engine(name, taps=True)
        assert session.run(inputs(name))["output"].isnan().all()
        assert session.tap(inputs(name), lambda made, tensor: None)["output"].isfinite().all()
    far = engine("nan_unobserved", marked=("add_2",)).run(inputs("nan_unobserved"))
    assert far["output"].isfinite().all()


def test_an_unobserved_nan_is_found_by_what_is_marked(engine):
    name = "nan_unobserved_here"
    assert engine(name, marked=("linear", "add_2")).run(inputs(name))["add_2"].isnan().all()
    assert engine(name, marked=("linear", "linear_1")).run(inputs(name))["output"].isfinite().all()


@pytest.mark.parametrize("name", ["nan_unobserved", "nan_unobserved_here"])
def test_an_unobserved_nan_shows_in_a_region_of_its_own(name, engine):
    values = reference(name)
    for value, wrong in (("linear_1", True), ("gelu_1", False)):
        reads = {"linear_1": "layer_norm_1", "gelu_1": "linear_1"}[value]
        outputs = engine(name, region=([reads], [value])).run({reads: values[reads]})
        assert outputs[value].isnan().all() == wrong


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_taps_deliver_what_the_kernels_write(precision, engine):
    session = engine("wrong_kernel", precision=precision, taps=True, faults=())
    seen: dict[str, torch.Tensor] = {}
    outputs = session.tap(inputs("wrong_kernel"), seen.__setitem__)
    assert torch.equal(outputs["output"], session.run(inputs("wrong_kernel"))["output"])
    layers = session.inspected()
    written = {tensor["Name"]: tensor for layer in layers for tensor in layer["Outputs"]}
    assert list(seen) == ["x", *written]
    assert all(list(seen[name].shape) == tensor["Dimensions"] for name, tensor in written.items())
    assert {tensor["Datatype"] for tensor in written.values()} >= {
        {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16"}[precision]
    }
    products = [layer for layer in layers if layer["LayerType"] == "gemm"]
    assert len(products) == 4
    assert all(layer["Outputs"][0]["Dimensions"] == [16, 32] for layer in products)
    assert "[ONNX Layer: node_gelu]\x1f[ONNX Layer: node_add]\x1f[ONNX Layer: node_layer_norm_1]" in [
        layer["Metadata"] for layer in layers
    ]
    assert len(written) < len(prepared("wrong_kernel").program.values)


def test_an_engine_without_taps_and_an_unknown_op_are_refused(engine, monkeypatch):
    with pytest.raises(EngineRefused, match="built without taps"):
        engine("wrong_kernel").tap(inputs("wrong_kernel"), lambda made, tensor: None)
    monkeypatch.delitem(OPS, "Gelu")
    with pytest.raises(EngineRefused, match=r"no kernel for op Gelu \(node node_gelu\)"):
        engine("wrong_kernel")


def test_what_a_tap_raises_comes_out(engine):
    def stop(made, tensor):
        raise KeyError(made)

    with pytest.raises(KeyError, match="x"):
        engine("wrong_kernel", taps=True).tap(inputs("wrong_kernel"), stop)


@pytest.mark.parametrize("name", [name for name, plant in PLANTED.items() if plant.kind == "export"])
def test_a_tampered_export_differs_from_its_answer_on(name, tmp_path, monkeypatch):
    install(monkeypatch, PLANTED[name])
    tampered = prepare(PLANTED[name].subject, quiet(tmp_path, engine_cache=False))
    names = [str(node.outputs[0].name) for node in tampered.program.model.graph if node.op_type != "Constant"]
    expected = reference(name)
    given = {key: tensor.numpy() for key, tensor in inputs(name).items()}
    model = with_outputs(tampered.program.model, names)
    onnx_session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    values = dict(zip(names, onnx_session.run(names, given), strict=True))
    wrong = [
        value
        for value in names
        if value in expected and relative_l2(torch.from_numpy(values[value]), expected[value]) > 1e-4
    ]
    assert wrong[0] in PLANTED[name].answer
    assert "output" in wrong

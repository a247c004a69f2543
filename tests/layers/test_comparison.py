"""Looking into engines: planted faults are found where they were planted, and nothing is left out of the account."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from fake import FakeBackend, quiet, subject
from planted import (
    PLANTED,
    WIDTH,
    Experts,
    Fault,
    GrowingStream,
    Healthy,
    Masked,
    Planted,
    PlantedBackend,
    PlantedSession,
    SquareRoot,
    all_nan,
    base_name,
    engine_plant,
    install,
    linear,
    named_values,
    plant_of,
    scaled,
    signed_rows,
)

from harness import EngineFailed, NotJudged, Subject, Target, UsageError
from harness.backends import BACKENDS
from harness.compare.norms import relative_l2
from harness.layers import observation
from harness.layers.comparison import choose_mode, compare_layers, judge_with_layers
from harness.layers.kernel_taps import KernelTaps
from harness.layers.observer import KEPT, Observer
from harness.records.accuracy import Result
from harness.records.layers import MARKS, LayerReport, ValueFinding
from harness.verify.target import OpenTarget, Run
from harness.verify.verify import verify_case

MODES = ("unfused", "outputs")


def _offset(tensor: torch.Tensor) -> torch.Tensor:
    return tensor + 0.1


def _half_of_the_positive(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(tensor > 0, tensor * 0.5, tensor)


def _other_expert(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0, 2] = 1 - tensor[0, 2]
    return tensor


def _backwards(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flip(-1)


def _nan_in_a_column(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.index_fill(-1, torch.tensor([3]), math.nan)


class Moved(torch.nn.Module):
    """A product that is only reshaped before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(linear(0).weight.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight).reshape(-1).abs()


MORE = {
    plant.name: plant
    for plant in (
        engine_plant("healthy", why="nothing is wrong", fault=Fault(value="no_such_value", change=scaled(1))),
        engine_plant("offset", why="a constant is added", fault=Fault(value="linear_1", change=_offset)),
        plant_of(
            "product", GrowingStream, kind="engine", backend="planted", why="a product before its bias",
            faults=(Fault(value="val_3", change=scaled(1.05)),),
        ),
        engine_plant("add_and_norm", why="the norm in its kernel follows", fault=Fault(value="add", change=_backwards)),
        plant_of(
            "moved", Moved, kind="engine", backend="planted", faults=(Fault(value="matmul", change=scaled(1.5)),),
            why="what follows reads it in another shape",
        ),
        plant_of(
            "rounds_otherwise", Healthy, kind="none", backend="planted", why="another rounding while it is looked at",
            faults=(Fault(value="layer_norm_3", change=scaled(1 + 1e-3), hidden=True),),
        ),
        plant_of(
            "nan_and_rounding", Healthy, kind="engine", backend="planted", why="NaN, and another rounding",
            faults=(
                Fault(value="layer_norm_1", change=scaled(1 + 1e-3), hidden=True),
                Fault(value="linear_3", change=_nan_in_a_column),
            ),
        ),
        engine_plant("twice", why="two kernels are wrong", fault=Fault(value="linear_1", change=scaled(1.05))),
        plant_of(
            "dies_out", lambda: Masked(SquareRoot(), rows=False), kind="none", backend="planted",
            faults=(Fault(value="mul", change=_half_of_the_positive),), why="torch.where drops what is wrong",
        ),
        plant_of(
            "flips", Experts, kind="engine", backend="planted", inputs=signed_rows,
            faults=(Fault(value="argmax", change=_other_expert, only_dtype=None),), why="one row flips",
        ),
    )
}  # fmt: skip
MORE["twice"] = dataclasses.replace(
    MORE["twice"], faults=(*MORE["twice"].faults, Fault(value="layer_norm_3", change=scaled(0.9)))
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What was found, and the truth."""

    result: Result
    report: LayerReport
    run: Run
    builds: int
    observer: Observer
    seen: list[tuple[str, torch.Tensor]]
    """What was shown to the observer, as it was mapped and laid out."""
    true: Mapping[str, torch.Tensor]
    """What the last engine made, by the graph's names."""

    def value(self, name: str) -> ValueFinding:
        [found] = [value for value in self.report.values if value.name == name]
        return found

    def marked(self, mark: str) -> list[str]:
        return [value.name for value in self.report.values if value.mark == mark and value.status == "compared"]


class Telling(PlantedBackend):
    """Keeps every value of its engines, in the shapes of the graph."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.made: dict[str, torch.Tensor] = {}

    def load(self, engine: Path) -> PlantedSession:
        return TellingSession(self, ir.load(engine, format="protobuf"))


class TellingSession(PlantedSession):
    def _compute(self, node: ir.Node, values: Mapping[ir.Value, torch.Tensor], *, tapped: bool) -> torch.Tensor:
        result = super()._compute(node, values, tapped=tapped)
        made: dict[str, torch.Tensor] = self.backend.made
        if node.op_type != "Cast":
            made[base_name(node.outputs[0])] = result
        return result


@contextlib.contextmanager
def opened(plant: Planted, precision: str = "fp16", backend: PlantedBackend | None = None) -> Iterator[OpenTarget]:
    """Open the target of a plant, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        install(patch, plant)
        if backend is not None:
            patch.setitem(BACKENDS, "planted", backend)
        run = Run(plant.subject, quiet(Path(folder)))
        with run.target(Target("planted", precision)) as target:
            yield target


@functools.cache
def looked(name: str, mode: str, precision: str = "fp16", group_bytes: int = observation.GROUP_BYTES) -> Look:
    plant = {**PLANTED, **MORE}[name]
    backend = Telling(*plant.faults)
    seen: list[tuple[str, torch.Tensor]] = []
    observers: list[Observer] = []

    class Watched(Observer):
        def add_value(self, name: str, tensor: torch.Tensor, *again: torch.Tensor | None, **record: str) -> None:
            observers[:] = [self]
            seen.append((name, tensor.clone()))
            super().add_value(name, tensor, *again, **record)
            assert len(self.errors) <= KEPT

    with opened(plant, precision, backend) as target, pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "Observer", Watched)
        patch.setattr(observation, "GROUP_BYTES", group_bytes)
        report = compare_layers(target, "one", mode=mode)
        result = verify_case(target, "one").result
    assert backend.open_sessions == 0
    return Look(
        result=result, report=report, run=target.run, builds=backend.builds, observer=observers[0], seen=seen,
        true=backend.made,
    )  # fmt: skip


def pytorch(found: Look, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return every value of PyTorch in one dtype, by name."""
    return named_values(found.run.prepared, dtype)


# Where the error is made


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_kernel_is_suspect_and_what_follows_is_passed_on(mode):
    found = looked("wrong_kernel", mode)
    wrong = found.value("linear_1")
    assert found.marked("suspect") == ["linear_1"]
    assert wrong.local == pytest.approx(0.05, rel=0.1)
    assert wrong.stats.relative_l2 == pytest.approx(0.05, rel=0.1)
    compared = [value for value in found.report.values if value.status == "compared"]
    assert {value.mark for value in compared if value.depth < wrong.depth} == {"ok"}
    assert {value.mark for value in compared if value.depth > wrong.depth} == {"passed_on"}
    assert all(value.local < 1e-3 for value in compared if value is not wrong)


def test_what_follows_a_wrong_value_is_computed_from_it_in_every_shape():
    """To find out what a tensor is, what becomes of it by a reshape is computed too; that must not be read later."""
    found = looked("moved", "unfused")
    assert found.marked("suspect") == ["matmul"]
    assert found.value("matmul").local == pytest.approx(0.5, rel=0.1)
    assert found.value("output").local < 1e-3


def test_a_wrong_product_inside_what_pytorch_computes_in_one_step_is_the_only_one_made_wrong():
    found = looked("product", "unfused")
    wrong = found.value("val_3")
    assert (wrong.op, wrong.mark) == ("onnx.MatMul", "healed")  # the stream rounds by far more than it
    assert wrong.local == pytest.approx(0.05, rel=0.1)
    assert wrong.effect == pytest.approx(0.02, rel=0.1)
    others = [value for value in found.report.values if value.status == "compared" and value is not wrong]
    assert {value.mark for value in others} <= {"ok", "passed_on", "suspect"}
    assert all(value.local == value.local_floor for value in others if value.mark == "suspect")
    assert all(value.local_floor > 0 for value in found.report.values if value.status == "compared")


class Attentive(torch.nn.Module):
    """A block of a transformer: values that only ONNX has, reshapes, residuals that are written beside a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out, self.up, self.down = (linear(seed, bias=0.1) for seed in range(6))
        self.before, self.between = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.before(x)
        heads = (layer(normed).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = torch.nn.functional.scaled_dot_product_attention(*heads)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(torch.nn.functional.gelu(self.up(self.between(x))))


@pytest.mark.parametrize(
    ("change", "precision"),
    [(scaled(1.05), "fp16"), (_backwards, "fp32"), (all_nan, "fp16")],
    ids=["5%", "order", "nan"],
)
def test_whichever_kernel_is_wrong_it_is_the_only_one_made_wrong(change, precision):
    plant = plant_of("attentive", Attentive, kind="engine", backend="planted", why="each of its kernels in turn")
    backend = Telling()
    found = {}
    with opened(plant, precision, backend) as target:
        report = judge_with_layers(target, "one", mode="unfused").layers
        assert report is not None
        values = [value.name for value in report.values if value.status == "compared"]
        assert {value.mark for value in report.values if value.status == "compared"} == {"ok"}
        for wrong in values:
            backend.faults = (Fault(value=wrong, change=change, only_dtype=None),)
            report = judge_with_layers(target, "one", mode="unfused").layers
            assert report is not None
            compared = [value for value in report.values if value.status == "compared"]
            found[wrong] = [value.name for value in compared if value.mark in ("suspect", "healed", "nonfinite")]
    assert len(values) > 12
    assert found == {wrong: [wrong] for wrong in values}


def test_of_two_wrong_tensors_of_a_kernel_the_one_that_explains_the_other_is_the_culprit():
    found = looked("add_and_norm", "unfused")
    assert found.marked("suspect") == ["add"]
    assert found.value("add").mapped_by == "name"
    assert found.value("layer_norm_1").mapped_by == "contents"
    assert found.value("add").kernel == found.value("layer_norm_1").kernel
    assert [value.name for value in found.report.values if value.status == "unmapped"] == []


@pytest.mark.parametrize("mode", MODES)
def test_the_effect_of_the_only_error_is_the_error_of_the_output(mode):
    found = looked("wrong_kernel", mode)
    [output] = found.result.outputs
    assert found.value("linear_1").effect == pytest.approx(output.stats.relative_l2, rel=0.2)
    harmless = [value.effect for value in found.report.values if value.effect is not None and value.mark == "ok"]
    assert harmless
    assert max(harmless) < output.stats.relative_l2 / 10


@pytest.mark.parametrize("mode", MODES)
def test_the_worst_module_comes_first_with_its_share(mode):
    worst, *others = looked("wrong_kernel", mode).report.modules
    assert (worst.module, worst.worst, worst.op, worst.mark) == (
        "blocks.1.linear",
        "linear_1",
        "aten.linear.default",
        "suspect",
    )
    assert worst.share == pytest.approx(1, abs=0.1)
    assert all(module.mark in ("ok", "passed_on") for module in others)
    marks = [MARKS.index(module.mark) for module in (worst, *others)]
    assert marks == sorted(marks)


@pytest.mark.parametrize("mode", MODES)
def test_two_wrong_kernels_are_two_suspects(mode):
    found = looked("twice", mode)
    assert found.marked("suspect") == ["linear_1", "layer_norm_3"]
    assert found.value("layer_norm_3").local == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_offset_is_a_bias(mode):
    assert looked("offset", mode).value("linear_1").local_bias == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_fp32_kernel_is_found_in_fp32(mode):
    found = looked("wrong_in_fp32", mode, "fp32")
    assert found.marked("suspect") == ["layer_norm_2"]
    assert found.value("layer_norm_2").local == pytest.approx(0.05, rel=0.1)
    assert found.value("linear").local < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_export_is_found(mode):
    assert looked("wrong_epsilon", mode).marked("suspect") == ["layer_norm_1"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_nothing_is_suspect_in_a_healthy_engine(mode, precision):
    found = looked("healthy", mode, precision)
    assert found.result.verdict == "pass"
    assert {value.mark for value in found.report.values if value.status == "compared"} == {"ok"}
    assert {module.mark for module in found.report.modules} == {"ok"}


@pytest.mark.parametrize("mode", MODES)
def test_what_pytorch_loses_as_well_is_named_where_it_is_lost(mode):
    found = looked("swamping", mode)
    [culprit] = found.report.diagnosis.culprits
    assert culprit.value == "add"  # inside the kernel that gives sub, where kernels are observed
    assert found.marked("suspect") == ["add" if mode == "outputs" else "sub"]
    assert culprit.error == culprit.floor
    assert found.value("sub").stats.relative_l2 > 0.2
    assert found.value("sub").floor > 0.2


# Figures


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["healthy", "wrong_kernel", "swamping"])
def test_floors_are_those_of_whole_runs(name, mode):
    found = looked(name, mode)
    reference, low = pytorch(found, torch.float32), pytorch(found, torch.float16)
    compared = [
        v for v in found.report.values if v.status == "compared" and v.name in reference and v.floor is not None
    ]
    assert len(compared) >= 3
    for value in compared:
        assert value.floor == pytest.approx(relative_l2(low[value.name], reference[value.name]), rel=1e-6), value.name


def test_local_floors_are_those_of_an_op_on_the_engines_inputs():
    found = looked("wrong_kernel", "outputs")
    tensor = found.true["linear_1"]
    high, low = torch.nn.functional.gelu(tensor.float()), torch.nn.functional.gelu(tensor)
    assert found.value("gelu_1").local_floor == pytest.approx(relative_l2(low, high), rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_accumulated_errors_are_against_the_reference(mode):
    found = looked("wrong_kernel", mode)
    reference = pytorch(found, torch.float32)
    for name, tensor in found.seen:
        error = relative_l2(tensor.reshape(reference[name].shape), reference[name])
        assert found.value(name).stats.relative_l2 == pytest.approx(error, rel=1e-5), name


# No mapping is wrong


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize(
    "name",
    [
        *("healthy", "wrong_kernel", "wrong_when_fused", "twice", "offset", "overflow", "group_norm", "two_culprits"),
        *("non_monotonic", "growing_stream", "masked_overflow", "flipped_decision", "dies_out"),
    ],
)
def test_every_mapped_tensor_is_the_value_it_is_said_to_be(name, precision):
    found = looked(name, "unfused", precision)
    assert len(found.seen) >= 2
    for value, tensor in found.seen:
        true = found.true[value]
        assert tensor.shape == true.shape, value
        assert torch.equal(tensor.nan_to_num(), true.nan_to_num()), value


# What dies out, and what is not finite


@pytest.mark.parametrize("mode", MODES)
def test_an_error_that_dies_out_is_healed(mode):
    found = looked("dies_out", mode)
    assert found.result.verdict == "pass"
    assert found.value("mul").mark == "healed"
    assert found.value("mul").local > 0.1
    assert found.value("mul").effect < 1e-4
    assert found.marked("suspect") == []


def test_nan_that_a_mask_hides_is_healed():
    found = looked("masked_overflow", "outputs")
    assert found.result.verdict == "pass"
    assert found.marked("healed") == ["mul_1"]
    assert found.value("mul_1").reason.endswith("it does not reach the outputs, which are right")
    assert found.report.first_nonfinite == ""
    assert found.marked("nonfinite") == []


@pytest.mark.parametrize(("mode", "first", "count"), [("outputs", "pow_5", 510), ("unfused", "mul_2", 512)])
def test_the_first_value_that_is_not_finite(mode, first, count):
    found = looked("overflow", mode)
    value = found.value(first)
    assert found.result.verdict == "fail"
    assert found.report.first_nonfinite == first
    assert value.mark == "nonfinite"
    assert value.reason.startswith(f"{count} of 512 elements are not finite, the first at [0, 0, 0]")
    later = [
        v for v in found.report.values if v.status == "compared" and v.mark == "nonfinite" and v.depth < value.depth
    ]
    assert later == []
    assert found.report.modules[0].module == "blocks.2.norm"
    assert found.report.modules[0].mark == "nonfinite"


def test_the_largest_magnitude_before_an_overflow_is_said():
    found = looked("overflow", "outputs")
    largest = pytorch(found, torch.float32)["pow_5"].max()
    assert f"{largest:.3g}"[:3] in found.value("pow_5").reason
    assert "fp16 ends at 65504" in found.value("pow_5").reason
    assert 65000 < found.value("pow_5").largest <= 65504


# Decisions


def test_flipped_decisions_are_counted_and_what_follows_is_explained():
    found = looked("flipped_decision", "outputs")
    assert found.value("argmax").reason.startswith("12 of its 16 decisions differ from the reference's, and 0 from")
    assert found.value("argmax").mark == "passed_on"
    [note] = [note for note in found.report.notes if "decisions" in note]
    together, apart = (float(word) for word in note.split() if word.replace(".", "").isdigit())
    assert together > 1
    assert apart < 1e-3


def test_a_decision_that_the_engine_gets_wrong_itself_is_a_flip():
    found = looked("flips", "outputs", "fp32")
    assert found.value("argmax").mark == "flip"
    assert found.value("argmax").reason.startswith("1 of its 16 decisions differ from the reference's, and 1 from")
    assert found.report.modules[0].module == "router"
    assert [note for note in found.report.notes if note.startswith("discrete decisions differ (argmax)")]


# Everything is accounted for


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["healthy", "overflow", "masked_nan", "flipped_decision", "two_culprits", "group_norm"]
)
def test_every_value_is_accounted_for_once(name, mode):
    found = looked(name, mode)
    of_the_graph = [value for value in found.report.values if value.depth >= 0]
    outputs = found.run.prepared.program.outputs  # an output and the value it gives are the same
    depths = found.run.prepared.program.depths()
    names = Counter(outputs.get(value.name, value.name) for value in of_the_graph)
    assert names == Counter({outputs.get(name, name) for name in depths})
    assert [value.depth for value in of_the_graph] == sorted({depths[value.name] for value in of_the_graph})
    assert Counter(value.status for value in of_the_graph).total() == len(names)
    for value in found.report.values:
        if value.status != "compared":
            assert value.reason, value.name
            assert value.mark in ("not_judged", "nonfinite"), value.name


@pytest.mark.parametrize("mode", MODES)
def test_integers_and_booleans_say_so(mode):
    found = looked("masked_nan", mode)
    finding = found.value("lt")
    if mode == "outputs":
        assert (finding.status, finding.mark) == ("compared", "ok")
    else:
        assert finding.status in ("compared", "not_delivered")
        assert finding.status == "compared" or finding.reason.startswith("bool; inside a kernel")


def test_what_is_fused_away_names_its_kernel():
    finding = looked("wrong_kernel", "unfused").value("gelu_1")
    assert finding.status == "not_delivered"
    assert finding.kernel
    assert finding.reason == "inside a kernel"


# What looking does


@pytest.mark.parametrize("mode", MODES)
def test_looking_at_a_steady_engine_changes_nothing(mode):
    report = looked("wrong_kernel", mode).report
    assert report.trusted
    assert [(effect.name, effect.identical, effect.difference) for effect in report.observer] == [("output", True, 0.0)]
    assert report.observer[0].error == pytest.approx(looked("wrong_kernel", mode).result.outputs[0].stats.relative_l2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["nan_unobserved", "nan_unobserved_here"])
def test_an_engine_that_is_right_only_while_it_is_looked_at_is_not_trusted(name, mode):
    report = looked(name, mode).report
    assert not report.trusted
    [effect] = report.observer
    assert (effect.identical, effect.difference, effect.error) == (False, math.inf, math.inf)
    assert effect.observed == "hidden"
    assert report.diagnosis.observed == "hidden"


def _raise(*_: object) -> None:
    raise RuntimeError("stuck")


@pytest.mark.parametrize("where", ["kernels", "the last kernel"])
def test_what_fails_while_tapping_is_a_note(where, monkeypatch):
    if where == "kernels":
        monkeypatch.setattr(PlantedSession, "kernels", _raise)
    else:
        monkeypatch.setattr(KernelTaps, "on_tensor", lambda *_: None)
        monkeypatch.setattr(KernelTaps, "flush", _raise)
    with opened(PLANTED["wrong_kernel"]) as target:
        result = judge_with_layers(target, "one")
    assert (result.verdict, result.layers) == ("fail", None)
    assert result.notes[-1] == "no layers: tapping the planted engine raised RuntimeError: stuck"


def test_a_fault_of_fusion_that_looking_undoes_is_not_trusted():
    found = looked("wrong_when_fused", "outputs")
    assert not found.report.trusted
    assert [effect.observed for effect in found.report.observer] == ["hidden"]
    assert found.report.diagnosis.observed == "hidden"
    assert found.marked("suspect") == []
    assert looked("wrong_when_fused", "unfused").report.trusted
    assert looked("wrong_when_fused", "unfused").report.diagnosis.observed == "unchanged"
    assert looked("wrong_when_fused", "unfused").marked("suspect") == ["add_2"]


def test_rounding_that_looking_changes_is_no_reason_to_distrust_an_engine_that_passes():
    found = looked("rounds_otherwise", "unfused")
    [effect] = found.report.observer
    assert found.result.verdict == "pass"
    assert effect.difference > effect.error / 2
    assert (effect.identical, effect.observed, found.report.trusted) == (False, "rounding", True)


def test_rounding_that_looking_changes_is_no_reason_to_distrust_a_nan_that_it_shows():
    found = looked("nan_and_rounding", "unfused")
    [effect] = found.report.observer
    assert found.result.verdict == "fail"
    assert (effect.identical, effect.observed, found.report.trusted) == (False, "rounding", True)
    assert found.report.diagnosis.observed == "rounding"
    assert [culprit.value for culprit in found.report.diagnosis.culprits] == ["linear_3"]


class Changing(PlantedBackend):
    """Its engines give other outputs while they are tapped."""

    def __init__(self, *faults: Fault, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(*faults)
        self.change = change

    def load(self, engine: Path) -> PlantedSession:
        return ChangingSession(self, ir.load(engine, format="protobuf"))


class ChangingSession(PlantedSession):
    def tap(self, inputs: Any, on_tensor: Any) -> Any:
        return {name: self.backend.change(tensor) for name, tensor in super().tap(inputs, on_tensor).items()}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("healthy", scaled(1.1)),
        ("wrong_kernel", scaled(1.1)),
        ("wrong_kernel", all_nan),
        ("overflow", torch.zeros_like),
    ],
)
def test_an_engine_that_is_wrong_otherwise_while_it_is_looked_at_is_not_trusted(name, change):
    plant = {**PLANTED, **MORE}[name]
    with opened(plant, backend=Changing(*plant.faults, change=change)) as target:
        report = compare_layers(target, "one", mode="unfused")
    assert [effect.observed for effect in report.observer] == ["changed"]
    assert not report.trusted


# Groups


def test_small_groups_find_the_same():
    whole, parts = looked("wrong_kernel", "outputs"), looked("wrong_kernel", "outputs", group_bytes=4000)
    assert parts.builds > whole.builds == 2
    assert [(v.name, v.mark, v.local) for v in parts.report.values] == [
        (v.name, v.mark, v.local) for v in whole.report.values
    ]
    assert f"{parts.builds - 1} engines were observed, each with other values as outputs" in parts.report.notes


def test_one_group_that_changes_the_outputs_is_enough_to_distrust_them_all():
    assert not looked("wrong_when_fused", "outputs", group_bytes=4000).report.trusted


# Patterns and modes


def test_a_pattern_chooses_the_values():
    with opened(PLANTED["wrong_kernel"]) as target:
        report = compare_layers(target, "one", mode="outputs:value:linear_*")
        assert [v.name for v in report.values if v.status == "compared"] == ["linear_1", "linear_2", "linear_3"]
        assert {v.reason for v in report.values if v.status != "compared"} == {"not delivered by a tap"}
        with pytest.raises(UsageError, match=r"outputs:no\.such\.module names no value that the graph computes"):
            compare_layers(target, "one", mode="outputs:no.such.module")


@pytest.mark.parametrize("mode", ["all", "unfused:linear", "Outputs", ":x"])
def test_an_unknown_mode_is_a_mistake(mode):
    with opened(PLANTED["wrong_kernel"]) as target, pytest.raises(UsageError, match="unknown --layers mode"):
        judge_with_layers(target, "one", mode=mode)


def test_the_first_mode_of_the_backend_is_the_default():
    with opened(PLANTED["wrong_kernel"]) as target:
        assert choose_mode(target, "") == ("unfused", "")
        assert choose_mode(target, "outputs:a.b") == ("outputs", "a.b")


def test_a_graph_that_computes_nothing_but_its_outputs_is_looked_at(tmp_path):
    class Relu(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x.relu()}

    one = subject(build=lambda: Relu().eval(), targets=(Target("ort-cpu", "fp32"),))
    with Run(one, quiet(tmp_path)).target(one.targets[0]) as target:
        report = compare_layers(target, "one", mode="outputs")
    assert [(value.name, value.status) for value in report.values] == [("y", "compared")]
    assert [effect.name for effect in report.observer] == ["y"]
    assert report.trusted


def test_a_mode_that_the_backend_has_not_is_not_judged(tmp_path, monkeypatch):
    run = Run(subject(), quiet(tmp_path))
    with run.target(Target("ort-cpu", "fp32")) as target:
        with pytest.raises(NotJudged, match="the ort-cpu backend has no unfused taps; use --layers outputs"):
            choose_mode(target, "unfused")
        result = judge_with_layers(target, "one", mode="unfused")
        assert result.layers is None
        assert "no layers: the ort-cpu backend has no unfused taps; use --layers outputs" in result.notes
    monkeypatch.setitem(BACKENDS, "fake", FakeBackend())
    with (
        run.target(Target("fake", "fp16")) as target,
        pytest.raises(NotJudged, match="fake engine cannot be observed"),
    ):
        choose_mode(target, "outputs")


# Engines that misbehave


class Tampering(PlantedBackend):
    """Lets a function change what its taps deliver."""

    def __init__(self, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.change = change

    def load(self, engine: Path) -> PlantedSession:
        return TamperingSession(self, ir.load(engine, format="protobuf"))


class TamperingSession(PlantedSession):
    def tap(self, inputs: Any, on_tensor: Any) -> Any:
        return super().tap(inputs, lambda name, tensor: on_tensor(name, self.backend.change(name, tensor)))


def test_an_engine_with_other_inputs_has_failed():
    backend = Tampering(lambda name, tensor: tensor + 1 if name == "x" else tensor)
    with opened(MORE["healthy"], backend=backend) as target:
        with pytest.raises(EngineFailed, match="the engine's input 'x' is not what was given to it"):
            compare_layers(target, "one", mode="unfused")
        assert judge_with_layers(target, "one").notes[-1].startswith("no layers: the engine's input 'x'")
    assert backend.open_sessions == 0


def test_a_tensor_that_fits_nothing_is_listed():
    backend = Tampering(lambda name, tensor: tensor[..., :5] if tensor.shape[0] == 16 else tensor)
    with opened(MORE["healthy"], backend=backend) as target:
        report = compare_layers(target, "one", mode="unfused")
    unmapped = [value for value in report.values if value.status == "unmapped"]
    assert len(unmapped) == 4
    assert all("cannot hold what the kernel makes: linear" in value.reason for value in unmapped)


def test_what_a_tap_raises_is_not_lost():
    def broken(name: str, tensor: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such memory")

    with opened(MORE["healthy"], backend=Tampering(broken)) as target:
        note = judge_with_layers(target, "one").notes[-1]
    assert note == "no layers: tapping the planted engine raised ValueError: no such memory"


def test_a_session_without_taps_is_not_judged(monkeypatch):
    class Untappable:
        def __enter__(self) -> Untappable:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    with opened(MORE["healthy"]) as target:
        monkeypatch.setattr(target, "observed", lambda **options: Untappable())
        with pytest.raises(NotJudged, match="the planted engine cannot be tapped; use --layers outputs"):
            compare_layers(target, "one", mode="unfused")


def test_an_engine_that_did_not_run_has_no_layers(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise NotJudged("out of GPU memory")

    with opened(MORE["healthy"]) as target:
        monkeypatch.setattr(target.backend, "load", refuse)
        with pytest.raises(NotJudged, match="out of GPU memory"):
            compare_layers(target, "one")
        result = judge_with_layers(target, "one")
        assert (result.verdict, result.layers) == ("not_judged", None)


# Other backends


def test_pytorch_itself_has_every_value(tmp_path):
    run = Run(PLANTED["overflow"].subject, quiet(tmp_path))
    with run.target(Target("torch", "fp16")) as target:
        report = compare_layers(target, "one")
    assert report.mode == "values"
    assert report.first_nonfinite == "pow_5"
    assert report.trusted
    assert {v.status for v in report.values if v.op.startswith("aten.") and v.name != "output"} == {"compared"}


def test_onnxruntime_shows_values_as_outputs(tmp_path):
    run = Run(MORE["healthy"].subject, quiet(tmp_path))
    with run.target(Target("ort-cpu", "fp32")) as target:
        report = compare_layers(target, "one")
    assert report.mode == "outputs"
    assert Counter(value.status for value in report.values) == {"compared": 16}
    assert {value.mark for value in report.values} == {"ok"}
    assert set(report.timings_s) == {"layers", "building", "loading", "running"}


class Parts(torch.nn.Module):
    """Operators that return several tensors."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        value, gate = x.exp().chunk(2, -1)
        top, index = value.topk(2, -1)
        largest, _ = gate.max(-1, keepdim=True)
        return {"y": top * largest + gate.sum(-1, keepdim=True), "index": index}


@pytest.mark.parametrize("backend", ["torch", "ort-cpu"])
def test_parts_of_a_split_are_values_like_others(backend, tmp_path):
    one = subject(build=lambda: Parts().eval(), targets=(Target(backend, "fp32"),))
    with Run(one, quiet(tmp_path)).target(one.targets[0]) as target:
        report = compare_layers(target, "one")
    seen = {value.name: value for value in report.values if value.status == "compared"}
    assert {"getitem", "getitem_1", "getitem_2", "getitem_4"} <= set(seen)
    assert seen["getitem_1"].op == "aten.split.Tensor"
    assert all(value.depth >= 0 and value.mark == "ok" for value in seen.values())


class Positions(torch.nn.Module):
    """Adds the number of each row, which takes the size of a dynamic dimension."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x.exp() * torch.arange(x.shape[0], dtype=x.dtype).sqrt().unsqueeze(1)}


def test_a_size_is_a_number_in_pytorch_and_a_value_in_onnx(tmp_path):
    one = subject(
        build=lambda: Positions().eval(), cases={"one": lambda: {"x": torch.ones(4, 3)}},
        dynamic={"x": {0: "rows"}}, ranges={"rows": (2, 8)}, targets=(Target("ort-cpu", "fp16"),),
    )  # fmt: skip
    with Run(one, quiet(tmp_path)).target(one.targets[0]) as target, pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "GROUP_BYTES", 2**14)  # all values in one engine, as large as the case has them
        report = compare_layers(target, "one")
        assert target.run.engines.built == 2
    compared = {value.name: value.mark for value in report.values if value.status == "compared"}
    assert compared["exp"] == compared["sqrt"] == "ok"
    assert {value.mark for value in report.values} <= {"ok", "not_judged"}


ONNX = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[2, 3] x) => (float[2, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9.5}, int64[1] two = {2}>
{ h = MatMul(x, w)  s = Softmax(h)  e = Exp(x)  top, index = TopK(e, two)  sum = ReduceSum(top)  y = Add(s, sum) }
"""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_onnx_file_has_layers_too(tmp_path, precision):
    ir.save(ir.from_onnx_text(ONNX), tmp_path / "model.onnx")
    x = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.25, -0.75]])
    model = Subject(
        name="file", onnx=tmp_path / "model.onnx", cases={"one": lambda: {"x": x}},
        targets=(Target("ort-cpu", precision),), weights="file",
    )  # fmt: skip
    run = Run(model, quiet(tmp_path))
    with run.target(model.targets[0]) as target:
        result = judge_with_layers(target, "one")
    assert result.verdict == "pass", result.reason
    report = result.layers
    assert report is not None, result.notes
    assert {value.name: value.status for value in report.values} == dict.fromkeys(
        run.prepared.program.depths(), "compared"
    )
    assert {value.mark for value in report.values} == {"ok"}
    assert report.trusted


def test_what_an_engine_computes_from_constants_is_a_tensor_of_its_own(tmp_path, monkeypatch):
    """Such a value has no place in dataflow order, and an engine that does not fold it writes it all the same."""
    body = "g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float[2] v = {1, 2}>"
    body += "{ c = Neg(v)  h = MatMul(x, w)  y = Add(h, c) }"
    ir.save(ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : 18]>\n{body}'), tmp_path / "model.onnx")
    monkeypatch.setitem(BACKENDS, "planted", PlantedBackend())
    model = Subject(
        name="file", onnx=tmp_path / "model.onnx", cases={"one": lambda: {"x": torch.tensor([[-1.0, 3.0]])}},
        targets=(Target("planted", "fp16"),), weights="file",
    )  # fmt: skip
    with Run(model, quiet(tmp_path)).target(model.targets[0]) as target:
        result = judge_with_layers(target, "one", mode="unfused")
    assert result.layers is not None, result.notes
    statuses = {value.name: value.status for value in result.layers.values}
    assert (statuses.pop("h"), statuses.pop("y")) == ("compared", "compared")
    assert set(statuses.values()) == {"inner"}

"""Values of an engine as they arrive: figures, marks and reasons, and what is kept of them."""

from __future__ import annotations

import math

import pytest
import torch
from planted import named_values, ready

from harness.backends.inspector import Kernel
from harness.compare.norms import relative_l2
from harness.graph.plan import load_plan
from harness.layers import observer as observation
from harness.layers.engine_kernels import EngineKernels
from harness.layers.kernel_taps import KernelTaps
from harness.layers.mapping import Decision
from harness.layers.observer import KEPT, Observer, local_ratio, worst_first
from harness.records.layers import ValueFinding
from harness.reference.replay import Evaluators
from harness.verify.tolerance import FACTOR, UNIT_ROUNDOFF


def run(name: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return every value of PyTorch in one dtype, by name."""
    return named_values(ready(name), dtype)


def observer(name: str, *, precision: str = "fp16", cls: type[Observer] = Observer) -> Observer:
    prepared = ready(name)
    evaluators = prepared.graph.evaluators(prepared.inputs["one"], load_plan(precision), list(prepared.program.values))
    return cls(evaluators, prepared.program.values, prepared.program.depths(), precision=precision)


def order(name: str) -> list[str]:
    """Return the values that PyTorch has, in dataflow order."""
    depths, values = ready(name).program.depths(), run(name, torch.float32)
    return sorted((value for value in depths if value in values), key=depths.__getitem__)


def observe(name: str, engine: dict[str, torch.Tensor], **options: str) -> dict[str, ValueFinding]:
    """Return the findings on an engine that made these values."""
    seen = observer(name, **options)
    for value in order(name):
        seen.add_value(value, engine[value], mapped_by="exact")
    return seen.findings


def engine_with(name: str, value: str, change) -> dict[str, torch.Tensor]:
    """Return the values of an FP16 engine that gets one value wrong."""
    prepared = ready(name)
    evaluator = prepared.graph.evaluators(
        prepared.inputs["one"], load_plan("fp16"), list(prepared.program.values)
    ).floor
    made = {}
    for one in order(name):
        node = prepared.program.outputs.get(one, one)
        tensor = evaluator.value(node)
        if one == value:
            evaluator.observe(node, change(tensor.float()))
            tensor = evaluator.value(node)
        made[one] = tensor
    return made


# Figures


def test_an_engine_that_rounds_as_pytorch_does_is_ok():
    engine = run("wrong_kernel", torch.float16)
    for name, finding in observe("wrong_kernel", engine).items():
        assert finding.mark == "ok", name
        assert finding.local == finding.local_floor, name
        assert finding.stats.relative_l2 == pytest.approx(finding.floor, rel=1e-6), name


def test_figures_are_those_of_whole_runs():
    reference, low = run("wrong_kernel", torch.float32), run("wrong_kernel", torch.float16)
    findings = observe("wrong_kernel", low)
    assert set(findings) == set(order("wrong_kernel"))
    for name, finding in findings.items():
        assert finding.floor == pytest.approx(relative_l2(low[name], reference[name]), rel=1e-9)
        assert finding.largest == low[name].float().abs().max()
        assert finding.depth == ready("wrong_kernel").program.depths()[name]
        assert finding.op == ready("wrong_kernel").program.values[name].op


def test_the_local_error_is_made_on_the_engines_own_inputs():
    engine = engine_with("wrong_kernel", "linear_1", lambda tensor: tensor * 1.05)
    findings = observe("wrong_kernel", engine)
    assert findings["linear_1"].mark == "suspect"
    assert findings["linear_1"].local == pytest.approx(0.05, rel=0.1)
    gelu = torch.nn.functional.gelu(engine["linear_1"].float())
    assert findings["gelu_1"].local == pytest.approx(relative_l2(engine["gelu_1"], gelu), rel=1e-6)
    after = [name for name in order("wrong_kernel") if findings[name].depth > findings["linear_1"].depth]
    assert {findings[name].mark for name in after} == {"passed_on"}
    assert all(findings[name].local < 1e-3 for name in after)
    assert {finding.mark for finding in findings.values() if finding.depth < findings["linear_1"].depth} == {"ok"}


def test_an_fp32_engine_is_held_against_fp64():
    engine = run("wrong_kernel", torch.float32)
    engine["linear_1"] = engine["linear_1"] * (1 + 1e-4)
    findings = observe("wrong_kernel", engine, precision="fp32")
    assert findings["linear_1"].mark == "suspect"
    assert findings["linear_1"].local == pytest.approx(1e-4, rel=0.1)
    assert findings["linear"].mark == "ok"
    assert 0 < findings["linear"].local < 1e-6


@pytest.mark.parametrize("sign", [1, -1])
def test_a_constant_offset_is_a_bias_of_its_sign(sign):
    engine = engine_with("wrong_kernel", "linear_1", lambda tensor: tensor + sign * 0.05)
    finding = observe("wrong_kernel", engine)["linear_1"]
    assert finding.mark == "suspect"
    assert finding.local_bias == pytest.approx(sign, abs=0.01)


def test_noise_is_no_bias():
    generator = torch.Generator().manual_seed(1)
    engine = engine_with("wrong_kernel", "linear_1", lambda t: t + 0.05 * torch.randn(t.shape, generator=generator))
    assert abs(observe("wrong_kernel", engine)["linear_1"].local_bias) < 0.15


def test_small_values_may_differ_by_the_formats_step():
    seen = observer("wrong_kernel")
    tiny = 2.0**-24
    assert seen.local_limit(0.0, 10**6, tiny) == FACTOR / 2
    assert seen.local_limit(0.0, 10**6, 1.0) == FACTOR * UNIT_ROUNDOFF["fp16"]
    assert seen.local_limit(0.01, 10**6, 1.0) == pytest.approx(0.03, rel=0.02)


# What is not finite


def test_nan_is_found_where_it_is_made():
    engine = engine_with("wrong_kernel", "linear_1", lambda tensor: torch.full_like(tensor, math.nan))
    findings = observe("wrong_kernel", engine)
    assert findings["linear_1"].mark == "nonfinite"
    assert "512 of 512 elements are not finite, the first at [0, 0, 0], though all it is" in findings["linear_1"].reason
    assert findings["gelu_1"].mark == "passed_on"
    assert findings["gelu_1"].reason == "512 of 512 elements are not finite, as what it is computed from"
    assert [name for name, finding in findings.items() if finding.mark == "nonfinite"] == ["linear_1"]


def test_one_nan_is_enough():
    def change(tensor):
        tensor[1, 2, 3] = math.nan
        return tensor

    finding = observe("wrong_kernel", engine_with("wrong_kernel", "linear_1", change))["linear_1"]
    assert finding.mark == "nonfinite"
    assert finding.reason.startswith("1 of 512 elements are not finite, the first at [1, 2, 3]")


def test_an_overflow_has_a_number():
    findings = observe("overflow", run("overflow", torch.float16))
    largest = run("overflow", torch.float32)["pow_5"].max()
    first = min((f for f in findings.values() if f.mark == "nonfinite"), key=lambda finding: finding.depth)
    assert first.name == "pow_5"
    assert f"the largest in the reference's precision is {largest:.4g}, and fp16 ends at 65504" in first.reason
    assert first.largest <= 65504


def test_a_reference_that_is_not_finite_either_is_said():
    engine = run("masked_nan", torch.float16)
    finding = observe("masked_nan", engine)["sqrt"]
    assert finding.mark == "passed_on"
    assert finding.reason.endswith("of 512 elements of the reference are not finite either")


def test_a_finite_engine_where_the_reference_is_not_is_not_ok():
    engine = run("masked_nan", torch.float16)
    engine["sqrt"] = engine["sqrt"].nan_to_num(0.5)
    assert observe("masked_nan", engine)["sqrt"].mark != "ok"


# Masks, decisions, and what cannot be compared


class Fixed:
    """Evaluators that give one tensor each."""

    def __init__(self, reference: torch.Tensor | None, floor: torch.Tensor | None = None) -> None:
        self.reference, self.floor, self.replay, self.replay_low = "reference", "floor", "replay", "replay_low"
        self.tensors = {"reference": reference, "replay": reference, "floor": floor, "replay_low": floor}
        self.observed: dict[str, torch.Tensor] = {}
        self.canonical = lambda name: name

    def value(self, evaluator: str, name: str) -> torch.Tensor | None:
        return self.tensors[evaluator]

    def operands(self, name: str) -> dict[str, torch.Tensor]:
        return {}

    def observe(self, name: str, tensor: torch.Tensor) -> None:
        self.observed[name] = tensor


def single(tensor: torch.Tensor, reference: torch.Tensor | None, floor: torch.Tensor | None = None) -> ValueFinding:
    """Return the finding on one value, by the name ``gelu``."""
    prepared = ready("wrong_kernel")
    seen = Observer(Fixed(reference, floor), prepared.program.values, prepared.program.depths(), precision="fp16")
    seen.add_value("gelu", tensor)
    return seen.findings["gelu"]


def test_a_saturated_mask_is_no_suspect():
    mask = torch.zeros(8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), torch.finfo(torch.float32).min)
    finding = single(mask.clamp(min=-65504).half(), mask, mask.clamp(min=-65504).half())
    assert finding.mark == "ok"
    assert finding.local == 0


@pytest.mark.parametrize("wrong", [65504.0, -30000.0, 0.0])
def test_a_mask_that_is_not_at_its_own_end_is_wrong(wrong):
    mask = torch.zeros(8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), torch.finfo(torch.float32).min)
    engine = mask.clamp(min=-65504).half()
    engine[0, 1] = wrong
    assert single(engine, mask, mask.clamp(min=-65504).half()).mark == "suspect"


def test_an_infinite_mask_is_not_saturation():
    mask = torch.zeros(8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), torch.finfo(torch.float32).min)
    assert single(mask.half(), mask, mask.clamp(min=-65504).half()).mark == "nonfinite"


def test_a_decision_made_here_is_a_flip():
    finding = single(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4]))
    assert finding.mark == "flip"
    assert finding.reason.startswith("1 of its 3 decisions differ from the reference's, and 1 from")
    assert single(torch.tensor([1, 2, 4], dtype=torch.int32), torch.tensor([1, 2, 4])).mark == "ok"


def test_a_mask_of_booleans_is_a_decision():
    assert single(torch.tensor([1, 0]), torch.tensor([True, True])).mark == "flip"


def test_what_nothing_computes_is_not_compared():
    finding = single(torch.ones(2), None)
    assert (finding.status, finding.mark) == ("not_compared", "not_judged")
    assert finding.reason == "nothing but the engine computes it"


def test_a_value_without_elements_is_not_compared():
    finding = single(torch.ones(0, 3), torch.ones(0, 3))
    assert (finding.status, finding.mark, finding.reason) == ("not_compared", "not_judged", "it has no elements")


def test_another_shape_is_suspect_and_says_both():
    finding = single(torch.ones(2, 3), torch.ones(3, 2))
    assert finding.mark == "suspect"
    assert finding.reason == "its shape is [2, 3], the reference's [3, 2]"


def test_without_a_floor_the_format_still_sets_a_limit():
    reference = torch.linspace(1, 2, 10**4)
    assert single(reference * (1 + 1e-4), reference).mark == "ok"
    assert single(reference * (1 + 1e-4), reference).floor is None
    assert single(reference * 1.01, reference).mark == "suspect"


def test_all_zeros_are_suspect_where_the_reference_is_not_zero():
    assert single(torch.zeros(64), torch.ones(64), torch.ones(64)).mark == "suspect"


def test_anything_is_suspect_where_the_reference_is_zero():
    zeros = torch.zeros(64)
    assert single(zeros, zeros, zeros).mark == "ok"
    assert single(zeros + 0.5, zeros, zeros).mark == "suspect"


def test_the_worse_of_two_sightings_is_kept():
    prepared = ready("wrong_kernel")
    reference = torch.linspace(1, 2, 64)
    for tensors in ((reference, reference * 1.5), (reference * 1.5, reference)):
        seen = Observer(
            Fixed(reference, reference), prepared.program.values, prepared.program.depths(), precision="fp16"
        )
        for tensor in tensors:
            seen.add_value("gelu", tensor)
        assert seen.findings["gelu"].mark == "suspect"
    seen.add_value("gelu", reference * math.nan)
    seen.add_value("gelu", reference * 9)
    assert seen.findings["gelu"].mark == "nonfinite"


# What an error looks like


def test_only_an_error_made_here_looks_like_something():
    engine = engine_with("wrong_kernel", "gelu", lambda tensor: tensor * 1.25)
    findings = observe("wrong_kernel", engine)
    assert {name for name, finding in findings.items() if finding.looks_like is not None} == {"gelu"}
    found = findings["gelu"].looks_like
    assert (found.kind, found.factor) == ("scale", pytest.approx(1.25, rel=1e-2))


def test_an_operation_that_is_missing_is_named_by_what_the_value_holds():
    run_alone = run("wrong_kernel", torch.float32)
    findings = observe("wrong_kernel", engine_with("wrong_kernel", "gelu", lambda _: run_alone["linear"].half()))
    found = findings["gelu"].looks_like
    assert (found.kind, found.other) == ("swapped", "linear")


def test_what_is_not_finite_and_what_is_decided_look_like_it():
    assert single(torch.tensor([1.0, math.nan]), torch.ones(2)).looks_like.kind == "non_finite"
    found = single(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4])).looks_like
    assert (found.kind, found.count, found.part, found.factor) == ("decision", 1, "offset", -1)
    assert single(torch.tensor([1, 2]), torch.tensor([1, 2])).looks_like is None


# Memory


def errors_kept(wrong: list[float]) -> list[float]:
    """Return which of these relative errors, seen one after another in FP16, are to be propagated."""
    prepared = ready("wrong_kernel")
    reference = torch.linspace(1, 2, 64)
    seen = Observer(Fixed(reference, reference), prepared.program.values, prepared.program.depths(), precision="fp16")
    for error in wrong:
        seen.add_value("gelu", reference * (1 + error))
    return sorted(relative_l2(reference + error, reference) for _, _, _, error, _ in seen.errors)


def test_the_largest_errors_are_kept(monkeypatch):
    monkeypatch.setattr(observation, "KEPT", 4)
    kept = errors_kept([(number * 7 % 40) / 100 for number in range(40)])
    assert kept == pytest.approx([0.36, 0.37, 0.38, 0.39], rel=1e-3)


def test_of_large_values_fewer_are_kept(monkeypatch):
    monkeypatch.setattr(observation, "KEPT_BYTES", 600)  # two of 256
    assert errors_kept([0.1, 0.3, 0.2]) == pytest.approx([0.2, 0.3], rel=1e-3)
    monkeypatch.setattr(observation, "KEPT_BYTES", 100)
    assert errors_kept([0.1, 0.3, 0.2]) == pytest.approx([0.3], rel=1e-3)


def test_no_more_errors_are_kept_than_are_propagated():
    seen = observer("overflow")
    engine = run("overflow", torch.float16)
    for name in order("overflow"):
        seen.add_value(name, engine[name])
    assert 0 < len(seen.errors) <= KEPT


@pytest.mark.parametrize("end", [-3.4e38, -math.inf])
def test_what_is_beyond_the_end_of_the_format_is_kept_as_the_engine_has_it(end: float):
    """The difference of a mask's entry and a small number is no number to add."""
    mask = torch.full((4, 8), end).triu(1)
    engine = mask.nan_to_num(neginf=end).clamp(min=-65504).half()
    engine[0, 3] = 1.5
    engine[1, 0] = 0.25
    prepared = ready("wrong_kernel")
    low = mask.clamp(min=-65504).half() if math.isfinite(end) else mask.half()
    seen = Observer(Fixed(mask, low), prepared.program.values, prepared.program.depths(), precision="fp16")
    seen.add_value("gelu", engine if math.isfinite(end) else torch.where(engine == -65504, end, engine.float()).half())
    [kept] = seen.errors
    disturbed = kept.added_to(mask)
    assert (disturbed[0, 3], disturbed[1, 0]) == (1.5, 0.25)
    assert torch.equal((disturbed != mask).nonzero(), torch.tensor([[0, 3], [1, 0]]))


def test_what_became_zero_stays_zero_whatever_it_is_added_to():
    prepared = ready("wrong_kernel")
    reference = torch.tensor([3e-8, 1.0, 0.0])
    seen = Observer(Fixed(reference, reference.half()), prepared.program.values, {"gelu": 0}, precision="fp16")
    seen.add_value("gelu", torch.tensor([0.0, 1.001, 0.0]).half())
    [kept] = seen.errors
    assert kept.added_to(torch.tensor([4e-8, 2.0, 1.0])).tolist() == [0.0, pytest.approx(2.001, rel=1e-3), 1.0]


# Strays


def test_extra_tensors_are_counted_with_what_is_not_finite_in_them():
    seen = observer("wrong_kernel")
    kernel = Kernel(index=0, name="fused", nodes=(), reads=(), writes=())
    seen.add_extra_tensor("t", kernel, torch.tensor([1.0, math.inf]), Decision(inner=True, reason="a statistic"))
    seen.add_extra_tensor("u", kernel, torch.ones(2), Decision(reason="it can be any"))
    seen.add_extra_tensor("i", kernel, torch.ones(2, dtype=torch.int32), Decision(reason="no value"))
    first, second, third = seen.extra_tensors
    assert (first.status, first.mark, first.tap, first.kernel) == ("inner", "nonfinite", "t", "fused")
    assert first.reason == "a statistic; 1 of 2 elements are not finite"
    assert (second.status, second.mark) == ("unmapped", "not_judged")
    assert (third.status, third.reason) == ("not_compared", "int32: no value")


# Kernel by kernel


class Recorder:
    """An observer that keeps what it is shown."""

    def __init__(self, evaluators) -> None:
        self.evaluators, self.precision, self.device = evaluators, "fp16", torch.device("cpu")
        self.depths = ready("wrong_kernel").program.depths()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.extra_tensors: list[tuple[str, Decision]] = []

    def add_value(self, name: str, tensor: torch.Tensor, **record: str) -> None:
        self.seen.append((name, record))
        self.evaluators.observe(name, tensor)

    def add_extra_tensor(self, name: str, kernel: Kernel, tensor: torch.Tensor, decision: Decision) -> None:
        self.extra_tensors.append((name, decision))


def kernels(*parts: tuple[str, str]) -> list[Kernel]:
    """Return kernels of one node each, by node and by what they write."""
    return [
        Kernel(index=index, name=f"k{index}", nodes=(node,), reads=(), writes=(tap,))
        for index, (node, tap) in enumerate(parts)
    ]


def kernel_taps(*parts: tuple[str, str]) -> tuple[KernelTaps, Recorder, dict[str, torch.Tensor]]:
    prepared = ready("wrong_kernel")
    made = EngineKernels.of(prepared.program.model, prepared.program.values, kernels(*parts))
    asked = {name for candidates in made.candidates for name in candidates.names}
    recorder = Recorder(prepared.graph.evaluators(prepared.inputs["one"], load_plan("fp32"), asked))
    return KernelTaps(made, recorder), recorder, run("wrong_kernel", torch.float32)


def test_tensors_are_decided_when_the_next_kernel_begins():
    taps, recorder, values = kernel_taps(("node_layer_norm", "t0"), ("node_linear", "t1"))
    taps.on_tensor("t0", values["layer_norm"])
    assert recorder.seen == []
    taps.on_tensor("t1", values["linear"].reshape(16, 32))
    assert [name for name, _ in recorder.seen] == ["layer_norm"]
    taps.flush()
    taps.flush()
    assert [name for name, _ in recorder.seen] == ["layer_norm", "linear"]
    assert recorder.seen[1][1] == {"kernel": "k1", "tap": "t1", "mapped_by": "contents", "layout": ""}


def test_a_name_that_no_kernel_writes_is_a_network_input():
    taps, recorder, _ = kernel_taps(("node_layer_norm", "t0"))
    x = ready("wrong_kernel").inputs["one"]["x"]
    taps.on_tensor("x", x)
    taps.on_tensor("t0", x.clone())
    taps.flush()
    assert taps.inputs["x"] is x
    assert [(name, decision.reason) for name, decision in recorder.extra_tensors] == [
        ("t0", "a copy of the network input x")
    ]


def test_a_value_without_elements_is_no_value_to_look_for(monkeypatch):
    taps, _, _ = kernel_taps(("node_layer_norm", "t0"))
    monkeypatch.setattr(Evaluators, "value", lambda *_: torch.ones(0, 32))
    assert taps._expect(taps.observer.evaluators, "layer_norm") is None


def test_kernels_that_share_a_buffer_deliver_it_once_each():
    taps, recorder, values = kernel_taps(("node_layer_norm", "t"), ("node_linear", "t"))
    taps.on_tensor("t", values["layer_norm"])
    taps.on_tensor("t", values["linear"])
    taps.flush()
    assert [name for name, _ in recorder.seen] == ["layer_norm", "linear"]


def test_a_wrong_kernel_gets_its_own_name_and_the_next_is_found_from_it():
    taps, recorder, values = kernel_taps(("node_layer_norm", "t0"), ("node_linear", "t1"), ("node_gelu", "t2"))
    taps.on_tensor("t0", values["layer_norm"])
    taps.on_tensor("t1", values["linear"] * 3)
    taps.on_tensor("t2", torch.nn.functional.gelu(values["linear"] * 3))
    taps.flush()
    assert [(name, record["mapped_by"]) for name, record in recorder.seen] == [
        ("layer_norm", "contents"), ("linear", "name"), ("gelu", "contents"),
    ]  # fmt: skip


# Order


def finding(name: str, **fields: object) -> ValueFinding:
    return ValueFinding(name=name, op="", module="", source="", depth=0, status="compared", **fields)


def test_the_worst_come_first():
    mild, bad = finding("mild", local=0.1, local_floor=0.1), finding("bad", local=0.01, local_floor=0.001)
    nan, none = finding("nan", local=0.0, local_floor=1.0, mark="nonfinite"), finding("none")
    exact = finding("exact", local=0.01, local_floor=0.0)
    assert [value.name for value in worst_first([mild, none, bad, exact, nan])] == [
        "nan",
        "exact",
        "bad",
        "mild",
        "none",
    ]
    assert local_ratio(exact) == math.inf
    assert local_ratio(none) == 0


@pytest.mark.parametrize("floor", [math.inf, None])
def test_a_computed_value_beyond_the_format_is_not_excused_where_the_engine_clamps_it(floor: float | None):
    reference = torch.linspace(1, 2, 64)
    reference[7] = 1e5
    low = None
    if floor is not None:
        low = reference.half()
        assert low[7] == floor
    engine = reference.clamp(max=65504).half()
    finding = single(engine, reference, low)
    assert finding.mark == "suspect"
    assert finding.local == pytest.approx((1e5 - 65504) / 1e5, rel=1e-3)


@pytest.mark.parametrize(("reference", "mark"), [(None, "nonfinite"), (torch.ones(3), "nonfinite")])
def test_nan_is_seen_where_nothing_can_be_compared(reference: torch.Tensor | None, mark: str):
    finding = single(torch.tensor([1.0, math.nan]), reference)
    assert finding.mark == mark
    assert "1 of 2 elements are not finite" in finding.reason


def test_a_decision_that_agrees_with_the_reference_by_chance_is_said():
    prepared = ready("wrong_kernel")
    evaluators = Fixed(torch.tensor([1, 2, 3]))
    evaluators.tensors["replay"] = torch.tensor([1, 2, 4])
    seen = Observer(evaluators, prepared.program.values, prepared.program.depths(), precision="fp16")
    seen.add_value("gelu", torch.tensor([1, 2, 3]))
    finding = seen.findings["gelu"]
    assert finding.mark == "flip"
    assert finding.reason.startswith("0 of its 3 decisions differ from the reference's, and 1 from what PyTorch")

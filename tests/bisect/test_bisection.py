"""From a wrong engine to whose fault it is and a plan that passes, on faults whose answer is known."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from bisecting import TWO_KERNELS, Bisect, build_through, only_outputs, stop_at, verdict_with, with_faults, without_taps
from fake import quiet
from planted import PLANTED, Fault, Healthy, PlantedBackend, PlantedSession, all_nan, normal, ready, scaled

from benchmarks.subjects import SWAMPED
from harness import EngineRefused, NotJudged, Target, UsageError
from harness.backends import EngineCache
from harness.backends.base import BuildReport, BuildRequest
from harness.bisect.bisection import STEPS, Step, bisect, run_steps
from harness.bisect.context import Budget, Context
from harness.bisect.findings import Findings
from harness.bisect.screening import Screen
from harness.bisect.units import Units
from harness.records.bisection import Bisection
from harness.verify import OpenTarget

EVERYWHERE = [(name, plant.backend) for name, plant in PLANTED.items()] + [
    (name, "planted") for name, plant in PLANTED.items() if plant.backend == "torch"
]

PLANS = {
    "wrong_kernel": ("blocks.1.linear",),
    "wrong_when_fused": ("value:add_2",),
    "nan_unobserved": ("blocks.1.linear",),
    "nan_unobserved_here": ("blocks.1.linear",),
}
"""What avoids a wrong kernel of low precision."""
VARIANCE = ("value:mean_5", "value:pow_5", "value:pow_6", "value:sub_4")
"""The fewest values of the plant ``overflow`` that have to be kept in FP32."""
STREAM = ("blocks.2", "blocks.3", "blocks.4", "centre")
"""The same of the plant ``growing_stream``, eight values."""


# Every plant.


@pytest.mark.parametrize(("name", "backend"), EVERYWHERE)
def test_a_planted_fault_is_found_exactly(name: str, backend: str, bisected: Bisect, tmp_path: Path):
    plant = PLANTED[name]
    found, engine = bisected(plant, backend=backend)
    assert found.kind == plant.kind, found.finding
    assert found.complete
    assert not found.interrupted
    answers = (plant.answer, *plant.alternatives, *plant.values)
    if plant.kind == "none":
        assert (found.region, found.plan) == ((), None)
    else:
        assert frozenset(found.region) in answers
    if plant.kind == "precision":
        assert frozenset(found.plan or ()) in answers
    else:
        assert found.plan == PLANS.get(name)
    least = min(len(answer) for answer in answers)
    assert engine.builds <= 2 * math.log2(len(ready(name).program.values)) + 2 * least + 3
    assert found.builds == engine.builds
    if found.plan is not None:
        assert verdict_with(found.plan_file, plant, backend, tmp_path) == "pass"
        assert found.goal is not None
        assert found.goal.source == ("floor" if plant.kind == "engine" else "limit" if plant.limit else "region")
        [output] = found.goal.limits.values()
        assert output < 0.02 or output == plant.limit, "no plan is used that leaves a bit or two"


# What is reported.


def test_the_commands_name_the_plan_and_so_does_the_advice(overflow: Bisection):
    assert overflow.commands == (
        f"parity verify overflow -b planted -p {overflow.plan_file} --case one",
        "parity verify overflow -b planted -p fp16 --case one --layers",
    )
    [advice] = overflow.advice
    assert advice.indicator
    assert advice.meaning
    assert advice.action == "use the plan"


def test_an_overflow_says_which_value_it_is_and_how_far_it_goes(overflow: Bisection):
    assert overflow.finding.startswith("PyTorch fp16 is as wrong: pow_5 overflows (")
    assert "beyond 65504" in overflow.finding


def test_a_plan_file_is_a_plan_and_says_how_it_was_found(overflow: Bisection):
    text = Path(overflow.plan_file).read_text()
    assert tomllib.loads(text) == {"precision": "fp16", "keep_fp32": list(VARIANCE)}
    assert "# Found by: parity bisect overflow -b planted -p fp16 --case one" in text


def test_the_price_is_of_the_plan_and_both_extremes(overflow: Bisection):
    assert overflow.price is not None
    assert overflow.price.device == "CPU"
    assert min(overflow.price.plan_ms, overflow.price.low_ms, overflow.price.fp32_ms) > 0


def test_progress_names_builds_and_the_best_plan(overflow: Bisection, said: list[str]):
    assert overflow.builds == 7, "two questions, the plan, and without each of its values"
    assert "overflow/one [planted-fp16]: 3 of 30 engines built; the best plan so far keeps 4" in said


@pytest.mark.usefixtures("short_search")
def test_every_engine_that_was_tried_is_a_trial(bisected: Bisect):
    found, _ = bisected(PLANTED["growing_stream"])
    first, *fewer = [trial for trial in found.trials if trial.where == "engine"]
    assert first.passed
    assert (first.keep_fp32, first.values) == (found.plan, found.plan_values) == (tuple(sorted(STREAM)), 8)
    units = Units.of(ready("growing_stream").program.values)
    kept, *tried = [{name for it in trial.keep_fp32 for name in units.members(it)} for trial in (first, *fewer)]
    assert sorted(map(sorted, tried)) == sorted(sorted(kept - {name}) for name in kept)
    assert all(trial.passed is False and trial.error > 0.0045 and trial.values == 7 for trial in fewer)


def test_a_healthy_engine_is_left_alone(bisected: Bisect):
    found, engine = bisected(with_faults())
    assert (found.kind, found.region, found.plan, engine.builds) == ("none", (), None, 1)
    assert found.finding.startswith("nothing to repair: ")
    assert (found.gates[-1].answer, found.gates[-1].good) == ("no", "no")


# Bad input.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_builds": 0}, "--max-builds 0 leaves nothing"),
        ({"limit": 0.0}, "--limit 0.0 is not a relative error"),
        ({"limit": -1.0}, "--limit -1.0 is not"),
        ({"limit": math.nan}, "--limit nan is not"),
        ({"limit": math.inf}, "--limit inf is not"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_is_built(
    options: dict[str, Any], words: str, bisected: Bisect, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PlantedBackend, "build", lambda *_: pytest.fail("nothing is built"))
    with pytest.raises(UsageError, match=words):
        bisected(PLANTED["overflow"], **options)


def test_a_plan_that_cannot_be_written_is_said(bisected: Bisect, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*plan\.toml"):
        bisected(PLANTED["overflow"], plan_file=tmp_path / "file" / "plan.toml")


def test_a_plan_that_names_nothing_is_a_usage_error(bisected: Bisect, tmp_path: Path):
    plan = tmp_path / "mine.toml"
    plan.write_text('precision = "fp16"\nkeep_fp32 = ["no.such.module"]\n')
    with pytest.raises(UsageError, match=r"no\.such\.module"):
        bisected(PLANTED["overflow"], precision=str(plan))


def test_an_integer_subject_with_a_wrong_kernel_is_the_engines_fault(bisected: Bisect):
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    fault = Fault(value="output", change=lambda tensor: tensor + 1, only_dtype=None)
    found, _ = bisected(with_faults(fault, build=Doubled, inputs=lambda: {"x": torch.arange(6)}))
    assert (found.kind, found.plan) == ("engine", None)
    assert found.region == ("output",)


def test_an_integer_subject_that_is_right_needs_nothing(bisected: Bisect):
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    found, _ = bisected(with_faults(build=Doubled, inputs=lambda: {"x": torch.arange(6)}))
    assert (found.kind, found.plan) == ("none", None)


@pytest.mark.parametrize("change", [scaled(1.1), all_nan])
def test_a_subject_of_a_single_node(change: Any, bisected: Bisect, tmp_path: Path):
    fault = Fault(value="output", change=change)
    plant = with_faults(fault, build=torch.nn.GELU, inputs=lambda: {"input": normal()["x"]})
    found, _ = bisected(plant)
    assert (found.kind, found.region) == ("engine", ("output",))
    assert found.plan == ("value:gelu",)
    assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


def test_a_limit_below_what_fp32_loses_is_no_request(bisected: Bisect):
    with pytest.raises(UsageError, match=r"--limit 1e-12 .*FP32 itself \(\d"):
        bisected(PLANTED["overflow"], limit=1e-12, max_builds=4)


def test_a_plan_as_the_precision_is_kept_and_added_to(bisected: Bisect, tmp_path: Path):
    mine = tmp_path / "mine.toml"
    mine.write_text('precision = "fp16"\nkeep_fp32 = ["blocks.0"]\n')
    found, _ = bisected(PLANTED["overflow"], precision=str(mine))
    assert (found.kind, found.region, found.plan) == ("precision", VARIANCE, VARIANCE)
    assert found.precision == "mine"
    assert tomllib.loads(Path(found.plan_file).read_text())["keep_fp32"] == ["blocks.0", *VARIANCE]
    assert verdict_with(found.plan_file, PLANTED["overflow"], "planted", tmp_path) == "pass"


def test_a_plan_as_the_precision_of_a_wrong_engine(bisected: Bisect, tmp_path: Path):
    mine = tmp_path / "mine.toml"
    mine.write_text('precision = "fp16"\nkeep_fp32 = ["blocks.3"]\n')
    found, _ = bisected(PLANTED["wrong_kernel"], precision=str(mine))
    assert (found.kind, found.region, found.plan) == ("engine", ("linear_1",), ("blocks.1.linear",))
    assert verdict_with(found.plan_file, PLANTED["wrong_kernel"], "planted", tmp_path) == "pass"


# Backends that show less.


@pytest.mark.parametrize("limitation", [without_taps, only_outputs])
@pytest.mark.parametrize("name", ["wrong_kernel", "nan_unobserved", "nan_unobserved_here"])
def test_a_backend_that_shows_less_still_gives_the_region_and_a_plan(name: str, limitation: Any, bisected: Bisect):
    found, _ = bisected(PLANTED[name], prepare_engine=limitation)
    assert (found.kind, found.region) == ("engine", ("linear_1",))
    assert found.plan == ("blocks.1.linear",)
    could_not = any("could not be observed" in note for note in found.notes)
    assert could_not == (limitation is without_taps)


def test_an_inspector_without_metadata_still_gives_the_region(bisected: Bisect, monkeypatch: pytest.MonkeyPatch):
    layers = PlantedSession.inspected

    def silent(session: PlantedSession) -> list[dict[str, Any]]:
        return [{key: value for key, value in layer.items() if key != "Metadata"} for layer in layers(session)]

    monkeypatch.setattr(PlantedSession, "inspected", silent)
    found, _ = bisected(PLANTED["wrong_kernel"])
    assert (found.kind, found.region, found.plan) == ("engine", ("linear_1",), ("blocks.1.linear",))


# Builds: refused for want of a budget or a kernel, parallel, interrupted, resumed.


@pytest.mark.parametrize(
    ("name", "most"), [("overflow", 2), ("overflow", 3), ("overflow", 7), ("wrong_kernel", 4), ("nan_unobserved", 5)]
)
def test_few_builds_keep_what_was_found(name: str, most: int, bisected: Bisect, tmp_path: Path):
    plant = PLANTED[name]
    found, _ = bisected(plant, max_builds=most)
    assert found.kind == plant.kind
    assert found.region
    assert found.max_builds == most
    assert found.complete == ((name, most) == ("overflow", 7))
    assert found.builds <= most
    if found.plan is None:
        assert "no plan passed" not in [advice.indicator for advice in found.advice], "it is not known that none does"
        assert not (tmp_path / "found").exists()
    else:
        assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


@pytest.mark.usefixtures("short_search")
def test_a_search_without_the_builds_it_needs_says_so_and_a_second_one_goes_on(bisected: Bisect):
    first, engine = bisected(PLANTED["growing_stream"], max_builds=5)
    assert (first.complete, engine.builds, first.gate_builds) == (False, 5, 2)
    assert frozenset(first.plan or ()) == PLANTED["growing_stream"].answer
    second, engine = bisected(PLANTED["growing_stream"])
    assert second.complete
    assert frozenset(second.plan or ()) == PLANTED["growing_stream"].answer
    assert engine.builds == 6, "the first five come from the engine cache"
    assert (second.builds, second.gate_builds) == (6, 0), "the questions built nothing; what was built is the search's"
    third, engine = bisected(PLANTED["growing_stream"])
    assert (third.plan, third.finding, engine.builds) == (second.plan, second.finding, 0)


def test_a_refused_build_is_unresolved_and_the_search_goes_on(bisected: Bisect, tmp_path: Path):
    def refuse(number: int, request: BuildRequest) -> None:
        if number == 3:
            raise EngineRefused("planted has no kernel for that")

    plant = PLANTED["overflow"]
    found, _ = bisected(plant, prepare_engine=lambda engine: build_through(engine, refuse))
    tried = [trial for trial in found.trials if trial.where == "engine"]
    unresolved = [trial for trial in tried if trial.passed is None]
    assert [trial.reason for trial in unresolved] == ["planted has no kernel for that"]
    assert unresolved[0].keep_fp32 == VARIANCE
    assert found.plan is not None
    assert found.plan_values == 5
    assert set(found.plan) > set(VARIANCE)
    assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


def test_two_wrong_kernels_are_both_avoided(bisected: Bisect, tmp_path: Path):
    found, _ = bisected(TWO_KERNELS)
    assert found.kind == "engine"
    assert found.region in (("linear",), ("linear_3",))
    assert verdict_with(found.plan_file, TWO_KERNELS, "planted", tmp_path) == "pass"


def test_two_builds_at_a_time_give_the_same_answer(bisected: Bisect):
    with ThreadPoolExecutor(2) as executor:
        found, _ = bisected(TWO_KERNELS, prepare_engine=without_taps, executor=executor, width=2, max_builds=60)
    alone, _ = bisected(TWO_KERNELS, prepare_engine=without_taps, max_builds=60)
    assert (found.kind, found.finding, found.region) == ("engine", alone.finding, alone.region)
    assert found.plan == alone.plan is not None


def test_builds_ahead_count_as_builds(bisected: Bisect):
    with ThreadPoolExecutor(2) as executor:
        found, engine = bisected(
            TWO_KERNELS, prepare_engine=without_taps, executor=executor, width=2, max_builds=16, reproducer=None
        )
    assert found.builds == engine.builds
    assert found.builds <= found.max_builds


@pytest.mark.parametrize("number", [1, 2])
def test_interrupted_before_a_finding(number: int, bisected: Bisect):
    found, _ = bisected(PLANTED["growing_stream"], prepare_engine=stop_at(number))
    assert (found.interrupted, found.complete, found.kind, found.plan) == (True, False, "not_judged", None)
    assert found.finding == "interrupted, before there was a finding"


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("number", [4, 6])
def test_interrupted_with_a_plan_leaves_it_written(number: int, bisected: Bisect, tmp_path: Path):
    plant = PLANTED["growing_stream"]
    found, _ = bisected(plant, prepare_engine=stop_at(number))
    assert (found.interrupted, found.complete, found.kind) == (True, False, "precision")
    assert frozenset(found.plan or ()) == plant.answer
    assert found.plan_file == str(tmp_path / "found" / "plan.toml")
    assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


@pytest.mark.parametrize("number", [3, 7, 12])
def test_interrupted_anywhere_nothing_is_lost(number: int, bisected: Bisect):
    """Build 3 is the first of a part of the graph; without taps, plans are tried from about the tenth on."""

    def prepare_engine(engine: PlantedBackend) -> None:
        without_taps(engine)
        stop_at(number)(engine)

    found, _ = bisected(TWO_KERNELS, prepare_engine=prepare_engine)
    assert (found.interrupted, found.complete, found.kind) == (True, False, "engine")
    assert bool(found.region) is (number > 3), "the smallest part that was seen to fail"
    passed = [trial.keep_fp32 for trial in found.trials if trial.where == "engine" and trial.passed]
    assert (found.plan in passed) if passed else found.plan is None
    assert "no plan passed" not in [advice.indicator for advice in found.advice], "it is not known that none does"


def test_interrupted_in_pytorch_keeps_what_was_seen_to_pass(bisected: Bisect, monkeypatch: pytest.MonkeyPatch):
    passes, tried = Screen.passes, iter(range(1000))

    def interrupted(screen: Screen, opened: OpenTarget, kept: frozenset[str]) -> bool:
        if next(tried) and any(trial.reason == "" for trial in screen.tried.values()):
            raise KeyboardInterrupt
        return passes(screen, opened, kept)

    monkeypatch.setattr(Screen, "passes", interrupted)
    found, _ = bisected(PLANTED["overflow"])
    assert (found.interrupted, found.complete, found.kind, found.plan) == (True, False, "precision", None)
    assert [trial.keep_fp32 for trial in found.trials if trial.passed] == [found.region]


# The steps.


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """What steps are given that use nothing of it."""
    subject = PLANTED["overflow"].subject
    return Context(
        subject=subject, target=Target("torch", "fp16"), case="one", settings=quiet(tmp_path), folder=tmp_path,
        max_builds=1,
    )  # fmt: skip


def noting(note: str) -> Step:
    return lambda context, found: found.noted(note)


def raising(error: BaseException) -> Step:
    def step(context: Context, found: Findings) -> Findings:
        raise error

    return step


FIRST = Findings(target=Target("torch", "fp16"))


def test_there_are_ten_steps_at_most():
    assert len(STEPS) <= 10
    assert all(step.__doc__ for step in STEPS)


def test_steps_run_in_their_order_until_one_ends(context: Context):
    found = run_steps(
        (noting("a"), noting("b"), lambda context, found: found.ending("none", "right"), noting("c")), context, FIRST
    )
    assert (found.notes, found.kind, found.finding) == (("a", "b"), "none", "right")


def test_an_interruption_keeps_what_the_steps_before_it_found(context: Context):
    found = run_steps((noting("a"), raising(KeyboardInterrupt()), noting("c")), context, FIRST)
    assert (found.notes, found.interrupted) == (("a",), True)


def test_an_error_is_the_finding_where_there_was_none(context: Context):
    found = run_steps((noting("a"), raising(NotJudged("no room")), noting("c")), context, FIRST)
    assert (found.notes, found.finding, found.complete) == (("a", "no room"), "no room", False)
    engine = dataclasses.replace(FIRST, kind="engine", finding="it goes wrong in gelu")
    found = run_steps((raising(NotJudged("no room")), noting("c")), context, engine)
    assert (found.kind, found.finding, found.notes) == ("engine", "it goes wrong in gelu", ("no room",))


def test_a_wrong_request_ends_all(context: Context):
    with pytest.raises(UsageError, match="the plan names nothing"):
        run_steps((noting("a"), raising(UsageError("the plan names nothing"))), context, FIRST)


def test_an_unfit_case_is_a_sentence(tmp_path: Path):
    subject = dataclasses.replace(PLANTED["overflow"].subject, build=lambda: 1 / 0)
    found = bisect(subject, Target("torch", "fp16"), "one", quiet(tmp_path))
    assert (found.kind, found.plan) == ("not_judged", None)
    assert "ZeroDivisionError" in found.finding


def test_missing_weights_are_not_judged(tmp_path: Path):
    def missing() -> torch.nn.Module:
        raise NotJudged("no weights: download them first")

    subject = dataclasses.replace(PLANTED["overflow"].subject, build=missing)
    found = bisect(subject, Target("torch", "fp16"), "one", quiet(tmp_path))
    assert (found.kind, found.finding) == ("not_judged", "no weights: download them first")


@pytest.mark.parametrize("most", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["overflow", "wrong_kernel", "nan_unobserved"])
def test_no_more_engines_are_built_than_allowed_whatever_for(name: str, most: int, bisected: Bisect):
    found, engine = bisected(PLANTED[name], max_builds=most)
    assert engine.builds == found.builds <= most
    assert found.gate_builds <= found.builds
    if found.builds == most < 3:
        assert not found.complete


def test_a_reproducer_counts_as_a_build(tmp_path: Path):
    def build(path: Path) -> BuildReport:
        path.write_bytes(b"an engine")
        return BuildReport()

    budget = Budget(2)
    engines = EngineCache(tmp_path, limit_bytes=2**20)
    budget.count(engines)
    engines.get({"a": 1}, build, progress=print)
    assert (budget.built, budget.left) == (1, 1)
    budget.spend()
    assert (budget.built, budget.left) == (2, 0)
    with pytest.raises(NotJudged, match="--max-builds"):
        budget.spend()
    with pytest.raises(NotJudged, match="2 builds"):
        engines.get({"a": 2}, build, progress=print)
    assert engines.get({"a": 1}, build, progress=print).path.is_file(), "one from the cache costs nothing"


def test_what_pytorch_itself_loses_is_the_precisions_although_no_verdict_can_be_given(tmp_path: Path):
    found = bisect(SWAMPED, Target("torch", "fp16"), "one", quiet(tmp_path), plan_file=tmp_path / "plan.toml")
    assert found.kind == "precision"
    assert found.plan == ("value:add", "value:sub")


class Nested(Healthy):
    """Healthy, but for what it takes and returns: nested, by names that Python has not."""

    def forward(self, past):
        return {"past": [super().forward(past["key.x"][0]) + past["key.x"][1]]}


@pytest.mark.parametrize("at", ["linear", "linear_3"])
def test_a_fault_between_nested_inputs_and_outputs_is_found(at: str, bisected: Bisect, tmp_path: Path):
    def given():
        return {"past": {"key.x": [normal()["x"], 2 * normal()["x"].roll(1, 0)]}}

    found, _ = bisected(with_faults(Fault(value=at, change=scaled(1.1)), build=Nested, inputs=given))
    assert (found.kind, found.region) == ("engine", (at,))

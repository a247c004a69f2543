"""From a wrong engine to whose fault it is and a plan that passes, on faults whose answer is known."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from fake import quiet
from planted import (
    PLANTED,
    Fault,
    Healthy,
    Planted,
    PlantedBackend,
    PlantedSession,
    all_nan,
    install,
    normal,
    scaled,
)

from harness import EngineRefused, NotJudged, Subject, Target, UsageError
from harness.backends import BACKENDS
from harness.backends.base import BuildReport, BuildRequest
from harness.bisect import bisection
from harness.bisect import questions as gates
from harness.bisect.bisection import bisect
from harness.bisect.reproducer.folder import NotReproduced
from harness.bisect.reproducer.text import Spec
from harness.compare.norms import relative_l2
from harness.graph.plan import load_plan
from harness.records.accuracy import OutputResult, Result
from harness.records.bisection import Bisection, Trial
from harness.records.layers import ValueFinding
from harness.subject import Tolerance
from harness.verify import target as verify_target
from harness.verify.prepare import prepare
from harness.verify.run import Repeats
from harness.verify.verify import verify

EVERYWHERE = [(name, plant.backend) for name, plant in PLANTED.items()] + [
    (name, "planted") for name, plant in PLANTED.items() if plant.backend == "torch"
]

PLANS = {
    "wrong_kernel": ("blocks.1.linear",),
    "wrong_when_fused": ("blocks.2.act",),
    "nan_unobserved": ("blocks.1.linear",),
    "nan_unobserved_here": ("blocks.1.linear",),
}
"""What goes round a wrong kernel of low precision."""

Hunt = Callable[..., tuple[Bisection, PlantedBackend]]


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch):
    """Time engines for moments: what a plan costs on this machine is not what is tested here."""
    monkeypatch.setattr("harness.latency.measure.WARM_UP_S", 0.0)
    monkeypatch.setattr("harness.latency.measure.MEASURE_S", 0.01)


@pytest.fixture
def hunt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hunt:
    """Return a function that installs a plant, bisects it and returns what was found and the backend.

    Every call has the same engine cache, plan file ``found/plan.toml`` and reproducer folder ``reproducer``.
    """

    def hunt(
        plant: Planted, *, backend: str = "planted", precision: str | None = None, **options: Any
    ) -> tuple[Bisection, PlantedBackend]:
        engine = install(monkeypatch, plant)
        prepare_engine = options.pop("prepare_engine", None)
        if prepare_engine is not None:
            prepare_engine(engine)
        target = Target(backend, precision or plant.precision)
        files = {"plan_file": tmp_path / "found" / "plan.toml", "reproducer": tmp_path / "reproducer"}
        found = bisect(plant.subject, target, "one", quiet(tmp_path), **{"limit": plant.limit, **files, **options})
        assert engine.open_sessions == 0, "every engine is freed"
        return found, engine

    return hunt


def with_faults(*faults: Fault, build: Callable[[], torch.nn.Module] = Healthy, inputs: Any = normal) -> Planted:
    """Return a subject, healthy unless another is given, whose engines have these faults."""
    subject = Subject(
        name="subject", build=lambda: build().eval(), cases={"one": inputs},
        targets=(Target("planted", "fp16"),), weights="random",
    )  # fmt: skip
    return Planted(name="subject", subject=subject, backend="planted", kind="engine", faults=faults, why="a test")


TWO_KERNELS = with_faults(*(Fault(value=name, change=scaled(1.1)) for name in ("linear", "linear_3")))


def count_of_values(plant: Planted, tmp_path: Path) -> int:
    return len(prepare(plant.subject, quiet(tmp_path)).program.values)


def verdict_with(plan: Path | str, plant: Planted, backend: str, tmp_path: Path) -> str:
    """Return what ``parity verify -p plan`` says, in an engine cache of its own."""
    subject = plant.subject
    if plant.limit is not None:
        tolerance = Tolerance(why="the limit of the plant", relative_l2=plant.limit)
        subject = dataclasses.replace(subject, tolerances={"output": tolerance})
    [result] = verify(
        subject, targets=(Target(backend, str(plan)),), cases=("one",), settings=quiet(tmp_path / "afresh")
    )
    return result.verdict


def build_through(engine: PlantedBackend, before: Callable[[int, BuildRequest], None]) -> None:
    """Let ``before(number, request)`` see every build of a backend first, from 1; what it raises comes out."""
    build, count = engine.build, iter(range(1, 1000))

    def watched(request: BuildRequest, path: Path, settings: Any) -> BuildReport:
        before(next(count), request)
        return build(request, path, settings)

    engine.build = watched  # type: ignore[method-assign]


def stop_at(number: int) -> Callable[[PlantedBackend], None]:
    """Return what interrupts a backend in the middle of its build of this number."""

    def interrupt(count: int, request: BuildRequest) -> None:
        if count == number:
            raise KeyboardInterrupt

    return lambda engine: build_through(engine, interrupt)


# Every plant.


@pytest.mark.parametrize(("name", "backend"), EVERYWHERE)
def test_a_planted_fault_is_found_exactly(name: str, backend: str, hunt: Hunt, tmp_path: Path):
    plant = PLANTED[name]
    found, engine = hunt(plant, backend=backend)
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
    assert engine.builds <= 2 * math.log2(count_of_values(plant, tmp_path)) + 2 * least + 3
    assert found.builds == engine.builds
    if found.plan is not None:
        assert verdict_with(found.plan_file, plant, backend, tmp_path) == "pass"


# What is reported.


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What was said while the plant ``overflow`` was bisected."""
    return []


@pytest.fixture(scope="module")
def overflow(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Bisection:
    """What is found for the plant of that name; the plan's file is there to be read."""
    folder = tmp_path_factory.mktemp("overflow")
    settings = quiet(folder, progress=said.append)
    with pytest.MonkeyPatch.context() as patch:
        install(patch, PLANTED["overflow"])
        target = Target("planted", "fp16")
        return bisect(PLANTED["overflow"].subject, target, "one", settings, plan_file=folder / "plan.toml")


def test_the_questions_come_in_their_order(overflow: Bisection):
    assert [(gate.question, gate.answer) for gate in overflow.gates] == [
        ("are the inputs equal?", "yes"),
        ("is the reference repeatable?", "yes"),
        ("is the engine repeatable?", "yes"),
        ("is everything finite?", "no"),
        ("is the FP32 engine right?", "yes"),
        ("is the engine wrong?", "yes"),
        ("is it worse than PyTorch in the same precision?", "no"),
    ]
    assert overflow.gates[3].detail == "output: 512 of 512 not"


def test_the_advice_ends_in_commands_that_name_the_plan(overflow: Bisection):
    assert overflow.advice[-2:] == (
        "parity verify overflow -b planted -p fp16 --case one --layers",
        f"parity verify overflow -b planted -p {overflow.plan_file} --case one",
    )
    assert all(line.count(" | ") == 2 for line in overflow.advice[:-2])
    assert overflow.advice[0].endswith(" | use the plan")


def test_a_plan_file_is_a_plan_and_says_how_it_was_found(overflow: Bisection):
    text = Path(overflow.plan_file).read_text()
    assert tomllib.loads(text) == {"precision": "fp16", "keep_fp32": ["blocks.2.norm"]}
    assert "# Found by: parity bisect overflow -b planted -p fp16 --case one" in text


def test_the_price_is_of_the_plan_and_both_extremes(overflow: Bisection):
    assert overflow.price is not None
    assert overflow.price.device == "CPU"
    assert min(overflow.price.plan_ms, overflow.price.low_ms, overflow.price.fp32_ms) > 0


def test_progress_names_builds_and_the_best_plan(overflow: Bisection, said: list[str]):
    assert overflow.builds == 3
    assert "overflow/one [planted-fp16]: 1 of 30 engines built; the best plan so far keeps 1" in said


def test_every_engine_that_was_tried_is_a_trial(hunt: Hunt):
    found, _ = hunt(PLANTED["growing_stream"])
    tried = [trial for trial in found.trials if trial.where == "engine"]
    assert tried[0].passed
    fewer = {frozenset(tried[0].keep_fp32) - {left} for left in tried[0].keep_fp32}
    assert {frozenset(trial.keep_fp32) for trial in tried[1:]} == fewer
    assert all(trial.passed is False and trial.error > 0.0045 for trial in tried[1:])


def test_a_healthy_engine_is_left_alone(hunt: Hunt):
    found, engine = hunt(with_faults())
    assert (found.kind, found.region, found.plan, engine.builds) == ("none", (), None, 1)
    assert found.finding.startswith("nothing to repair: ")
    assert found.gates[-1].answer == "no"


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
    options: dict[str, Any], words: str, hunt: Hunt, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PlantedBackend, "build", lambda *_: pytest.fail("nothing is built"))
    with pytest.raises(UsageError, match=words):
        hunt(PLANTED["overflow"], **options)


def test_a_plan_that_cannot_be_written_is_said(hunt: Hunt, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="the plan cannot be written to"):
        hunt(PLANTED["overflow"], plan_file=tmp_path / "file" / "plan.toml")


def test_a_plan_that_names_nothing_is_a_usage_error(hunt: Hunt, tmp_path: Path):
    plan = tmp_path / "mine.toml"
    plan.write_text('precision = "fp16"\nkeep_fp32 = ["no.such.module"]\n')
    with pytest.raises(UsageError, match=r"no\.such\.module"):
        hunt(PLANTED["overflow"], precision=str(plan))


def test_a_subject_that_is_not_repeatable_is_not_judged(hunt: Hunt):
    class Live(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(x, training=True)

    found, engine = hunt(with_faults(build=Live))
    assert (found.kind, engine.builds) == ("not_judged", 0)
    assert (found.gates[-1].question, found.gates[-1].answer) == ("is the reference repeatable?", "no")
    assert "not repeatable" in found.finding


def test_an_engine_that_is_never_built_is_not_judged(hunt: Hunt):
    def refuse(number: int, request: BuildRequest) -> None:
        raise EngineRefused("planted refuses everything")

    found, _ = hunt(PLANTED["wrong_kernel"], prepare_engine=lambda engine: build_through(engine, refuse))
    assert (found.kind, found.plan, found.builds) == ("not_judged", None, 0)
    assert found.finding == "planted refuses everything"
    assert (found.gates[-1].question, found.gates[-1].answer) == ("does the engine run?", "no")


def test_an_engine_that_cannot_be_judged_is_not_blamed(hunt: Hunt):
    class Zero(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0

    found, engine = hunt(with_faults(build=Zero))
    assert (found.kind, found.plan, engine.builds) == ("not_judged", None, 1)
    assert "all zeros" in found.finding
    assert (found.gates[-1].question, found.gates[-1].answer) == ("can the engine be judged?", "no")


def test_an_engine_that_writes_into_its_inputs_is_at_fault(hunt: Hunt, monkeypatch: pytest.MonkeyPatch):
    run = PlantedSession.run

    def overwrite(session: PlantedSession, inputs: Any) -> Any:
        outputs = run(session, inputs)
        inputs["x"].zero_()
        return outputs

    monkeypatch.setattr(PlantedSession, "run", overwrite)
    found, _ = hunt(with_faults())
    assert found.kind == "engine"
    assert (found.gates[0].question, found.gates[0].answer) == ("are the inputs equal?", "no")


def test_an_engine_that_is_not_repeatable_is_said_so(hunt: Hunt, monkeypatch: pytest.MonkeyPatch):
    run, runs = PlantedSession.run, iter(range(10_000))

    def drift(session: PlantedSession, inputs: Any) -> Any:
        return {name: tensor * (1 + 0.1 * (next(runs) % 2)) for name, tensor in run(session, inputs).items()}

    monkeypatch.setattr(PlantedSession, "run", drift)
    found, _ = hunt(with_faults())
    gates = {gate.question: gate for gate in found.gates}
    assert gates["is the engine repeatable?"].answer == "no"
    assert found.kind == "engine"


def test_an_integer_subject_with_a_wrong_kernel_is_the_engines_fault(hunt: Hunt):
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    fault = Fault(value="output", change=lambda tensor: tensor + 1, only_dtype=None)
    found, _ = hunt(with_faults(fault, build=Doubled, inputs=lambda: {"x": torch.arange(6)}))
    assert (found.kind, found.plan) == ("engine", None)
    assert found.region == ("output",)


def test_an_integer_subject_that_is_right_needs_nothing(hunt: Hunt):
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    found, _ = hunt(with_faults(build=Doubled, inputs=lambda: {"x": torch.arange(6)}))
    assert (found.kind, found.plan) == ("none", None)


@pytest.mark.parametrize("change", [scaled(1.1), all_nan])
def test_a_subject_of_a_single_node(change: Any, hunt: Hunt, tmp_path: Path):
    fault = Fault(value="output", change=change)
    plant = with_faults(fault, build=torch.nn.GELU, inputs=lambda: {"input": normal()["x"]})
    found, _ = hunt(plant)
    assert (found.kind, found.region) == ("engine", ("output",))
    assert found.plan == ("value:gelu",)
    assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


def test_a_limit_below_what_fp32_loses_is_no_request(hunt: Hunt):
    with pytest.raises(UsageError, match=r"--limit 1e-12 is below what FP32 itself loses \("):
        hunt(PLANTED["overflow"], limit=1e-12, max_builds=4)


def test_a_plan_as_the_precision_is_kept_and_added_to(hunt: Hunt, tmp_path: Path):
    mine = tmp_path / "mine.toml"
    mine.write_text('precision = "fp16"\nkeep_fp32 = ["blocks.0"]\n')
    found, _ = hunt(PLANTED["overflow"], precision=str(mine))
    assert (found.kind, found.region, found.plan) == ("precision", ("blocks.2.norm",), ("blocks.2.norm",))
    assert found.precision == "mine"
    assert tomllib.loads(Path(found.plan_file).read_text())["keep_fp32"] == ["blocks.0", "blocks.2.norm"]
    assert verdict_with(found.plan_file, PLANTED["overflow"], "planted", tmp_path) == "pass"


def test_a_plan_as_the_precision_of_a_wrong_engine(hunt: Hunt, tmp_path: Path):
    mine = tmp_path / "mine.toml"
    mine.write_text('precision = "fp16"\nkeep_fp32 = ["blocks.3"]\n')
    found, _ = hunt(PLANTED["wrong_kernel"], precision=str(mine))
    assert (found.kind, found.region, found.plan) == ("engine", ("linear_1",), ("blocks.1.linear",))
    assert verdict_with(found.plan_file, PLANTED["wrong_kernel"], "planted", tmp_path) == "pass"


@pytest.mark.parametrize(("precisions", "tf32"), [(("fp32", "fp16"), False), (("fp32", "tf32", "fp16"), True)])
def test_only_where_there_is_tf32_is_an_error_of_its_size_no_other_fault(
    precisions: tuple[str, ...], tf32: bool, hunt: Hunt
):
    def only(engine: PlantedBackend) -> None:
        engine.precisions = precisions

    plant = with_faults(
        Fault(value="add_2", change=scaled(1 + 5e-4), only_dtype=torch.float32),
        Fault(value="add_2", change=scaled(1.05)),
    )
    found, _ = hunt(plant, precision="fp32", prepare_engine=only)
    assert [gate.answer for gate in found.gates if gate.question == "is the FP32 engine right?"] == ["no"]
    assert found.finding.startswith("engine: planted computes FP32 in TF32") is tf32
    assert ("ask for what you get, -p tf32" in found.advice[0]) is tf32
    assert any(" -p tf32 " in line for line in found.advice) is tf32
    assert not any("keep " in line for line in found.advice)
    assert found.plan is None

    found, _ = hunt(plant, precision="fp16", prepare_engine=only)
    right = [gate for gate in found.gates if gate.question == "is the FP32 engine right?"]
    assert [gate.answer for gate in right] == ["yes" if tf32 else "no"]


@pytest.mark.parametrize(
    ("together", "alone", "races"),
    [
        (0.5, 0.5 + 1e-6, False), (0.5, 0.3, False), (0.5, 0.1, True), (0.5, 0.0, True), (0.5, 0.5, False),
        (math.inf, 0.5, True), (math.inf, math.nan, False),
    ],
)  # fmt: skip
def test_only_kernels_that_do_better_alone_are_said_not_to_wait(
    together: float, alone: float, races: bool, monkeypatch: pytest.MonkeyPatch
):
    ones, asked, advice = torch.ones(4), [], []
    opened = SimpleNamespace(on_gpu=True, engine=SimpleNamespace(path="e"))
    run = SimpleNamespace(repeats=Repeats(worst={"y": ones + together}), expected={"y": ones})
    monkeypatch.setattr(gates, "verify_case", lambda opened, case: run)
    session = SimpleNamespace(
        target=lambda target: contextlib.nullcontext(opened), prepared=SimpleNamespace(inputs={"one": {}})
    )
    hunt: Any = SimpleNamespace(
        session=session, target=Target("planted", "fp16"), case="one", say=lambda words: None, advice=advice,
        gate=lambda question, answer, detail: asked.append((answer, detail)),
    )  # fmt: skip
    monkeypatch.setattr(gates, "run_serialised", lambda *_: {"y": ones + alone})
    outcome = (OutputResult(name="y", verdict="pass" if alone < 0.2 else "fail", reason=""),)
    monkeypatch.setattr(gates, "_judged", lambda *_: outcome)
    assert gates.one_kernel_at_a_time(hunt) is races
    assert [answer for answer, _ in asked] == ["yes" if together == alone else "no"]
    assert ("it passes" in asked[0][1]) is (alone < 0.2)
    assert gates.one_kernel_at_a_time(hunt) is races
    assert len(advice) == races, "said once"


@pytest.mark.parametrize(
    ("repeatable", "alone", "answers", "right"),
    [
        (False, "pass", ["no", "yes"], True),
        (False, "fail", ["no", "no"], False),
        (True, "pass", ["no"], False),  # every run is as wrong: the order of kernels is not the question
    ],
)
def test_an_fp32_engine_that_is_wrong_now_and_then_is_asked_with_one_kernel_at_a_time(
    repeatable: bool, alone: Any, answers: list[str], right: bool, monkeypatch: pytest.MonkeyPatch
):
    wrong = OutputResult(name="y", verdict="fail", reason="relative error 0.1")
    fp32 = Result(
        subject="s", case="one", backend="planted", precision="fp32", verdict="fail", reason="wrong", outputs=(wrong,),
        repeatable=repeatable,
    )  # fmt: skip
    asked: list[str] = []
    hunt: Any = SimpleNamespace(
        target=Target("planted", "fp16"), case="one", base_plan=lambda: load_plan("fp16"), notes=[], advice=[],
        judge_target=lambda target: fp32, gate=lambda question, answer, detail: asked.append(answer),
    )  # fmt: skip
    monkeypatch.setitem(BACKENDS, "planted", PlantedBackend())
    monkeypatch.setattr(gates, "_serialised", lambda *_: SimpleNamespace(opened=None, alone={}))
    outcome = (OutputResult(name="y", verdict=alone, reason="relative error 0.05"),)
    monkeypatch.setattr(gates, "_judged", lambda *_: outcome)
    assert gates.fp32_engine(hunt, dataclasses.replace(fp32, precision="fp16")) == (fp32, right)
    assert asked == answers
    assert bool(hunt.advice) is right


@pytest.mark.parametrize("fp32_races", [True, False])
def test_no_plan_is_looked_for_where_fp32_races_as_well(fp32_races: bool, hunt: Hunt, monkeypatch: pytest.MonkeyPatch):
    ask = gates.fp32_engine

    def asked(state: Any, low: Any) -> Any:
        state.fp32_races = fp32_races
        return ask(state, low)

    monkeypatch.setattr(gates, "fp32_engine", asked)
    monkeypatch.setattr(gates, "one_kernel_at_a_time", lambda _: True)
    found, _ = hunt(TWO_KERNELS)
    assert found.kind == "engine"
    assert "its kernels do not wait for each other" in found.finding
    assert (found.plan is None) is fp32_races
    assert any("no plan was looked for" in note for note in found.notes) is fp32_races
    assert any("use the plan" in line for line in found.advice) is not fp32_races
    assert any("may pass by chance" in note for note in found.notes) is not fp32_races
    assert found.region


@pytest.mark.parametrize(
    ("precision", "tried", "plan", "count", "action"),
    [
        ("fp16", (), None, 2, 'keep "op:aten.gelu" in FP32'),
        ("bf16", (), None, 1, 'keep "value:gelu_0" in FP32'),
        ("fp16", ("op:aten.gelu",), None, 2, 'keeping "op:aten.gelu" in FP32 was tried and is not enough'),
        ("fp16", ("op:aten.gelu",), None, 1, 'keeping "op:aten.gelu" in FP32 was tried and is not enough'),
        ("fp16", ("value:gelu_0",), None, 1, 'keeping "value:gelu_0" in FP32 was tried and is not enough'),
        ("fp16", ("value:gelu_0",), None, 2, 'keep "op:aten.gelu" in FP32'),
        ("fp16", (), ("op:aten.gelu",), 2, 'keep "op:aten.gelu" in FP32'),
        ("fp16", (), ("blocks.1",), 2, "nothing beyond the plan, which passes"),
        ("tf32", (), None, 2, "ask for -p fp32"),
        ("fp32", (), None, 2, "no plan can help: it is in FP32 already"),
    ],
)
def test_neither_what_failed_nor_more_than_a_plan_is_advised(
    precision: str, tried: tuple[str, ...], plan: tuple[str, ...] | None, count: int, action: str
):
    suspects = [
        ValueFinding(
            name=f"gelu_{index}", op="aten.gelu", module="", source="", depth=0, status="compared",
            local=0.1 - index / 99, local_floor=1e-4,
        )
        for index in range(count)
    ]  # fmt: skip
    trial = Trial(keep_fp32=tried, where="engine", passed=False, error=None, reason="")
    hunt: Any = SimpleNamespace(
        target=Target("planted", precision), base_plan=lambda: load_plan(precision), format=lambda: precision,
        plan=plan, reproducer="", trials=[trial],
    )  # fmt: skip
    engine, operator = bisection._engine_advice(hunt, suspects)
    assert engine.split(" | ")[-1] == ("use the plan" if plan else "use another version of planted")
    assert operator.split(" | ")[-1] == action


# Backends that show less.


def without_taps(engine: PlantedBackend) -> None:
    engine.tap_modes = ()


def only_outputs(engine: PlantedBackend) -> None:
    engine.tap_modes = ("outputs",)


@pytest.mark.parametrize("limitation", [without_taps, only_outputs])
@pytest.mark.parametrize("name", ["wrong_kernel", "nan_unobserved", "nan_unobserved_here"])
def test_a_backend_that_shows_less_still_gives_the_region_and_a_plan(name: str, limitation: Any, hunt: Hunt):
    found, _ = hunt(PLANTED[name], prepare_engine=limitation)
    assert (found.kind, found.region) == ("engine", ("linear_1",))
    assert found.plan == ("blocks.1.linear",)
    could_not = any("could not be looked into" in note for note in found.notes)
    assert could_not == (limitation is without_taps)


def test_an_inspector_without_metadata_still_gives_the_region(hunt: Hunt, monkeypatch: pytest.MonkeyPatch):
    kernels = PlantedSession.kernels

    def silent(session: PlantedSession) -> list[dict[str, Any]]:
        return [{key: value for key, value in layer.items() if key != "Metadata"} for layer in kernels(session)]

    monkeypatch.setattr(PlantedSession, "kernels", silent)
    found, _ = hunt(PLANTED["wrong_kernel"])
    assert (found.kind, found.region, found.plan) == ("engine", ("linear_1",), ("blocks.1.linear",))


# Builds: few, refused, parallel, interrupted, resumed.


@pytest.mark.parametrize(
    ("name", "most"), [("overflow", 1), ("overflow", 3), ("wrong_kernel", 1), ("nan_unobserved", 3)]
)
def test_few_builds_keep_what_was_found(name: str, most: int, hunt: Hunt, tmp_path: Path):
    plant = PLANTED[name]
    found, _ = hunt(plant, max_builds=most)
    assert found.kind == plant.kind
    assert found.region
    assert found.max_builds == most
    assert found.complete == (name == "overflow")
    assert found.builds - found.gate_builds <= most
    if found.plan is None:
        assert not any("no plan passed" in line for line in found.advice), "it is not known that none does"
        assert not (tmp_path / "found").exists()
    else:
        assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


def test_a_search_without_the_builds_it_needs_says_so_and_a_second_one_goes_on(hunt: Hunt):
    first, engine = hunt(PLANTED["growing_stream"], max_builds=3)
    assert (first.complete, engine.builds, first.gate_builds) == (False, 5, 2)
    second, engine = hunt(PLANTED["growing_stream"])
    assert second.complete
    assert frozenset(second.plan or ()) == PLANTED["growing_stream"].answer
    assert engine.builds == 2, "the first five come from the engine cache"
    assert (second.builds, second.gate_builds) == (2, 0), "the questions built nothing; what was built is the search's"
    third, engine = hunt(PLANTED["growing_stream"])
    assert (third.plan, third.finding, engine.builds) == (second.plan, second.finding, 0)


def test_a_refused_build_is_unresolved_and_the_search_goes_on(hunt: Hunt, tmp_path: Path):
    def refuse(number: int, request: BuildRequest) -> None:
        if number == 3:
            raise EngineRefused("planted has no kernel for that")

    plant = PLANTED["overflow"]
    found, _ = hunt(plant, prepare_engine=lambda engine: build_through(engine, refuse))
    tried = [trial for trial in found.trials if trial.where == "engine"]
    unresolved = [trial for trial in tried if trial.passed is None]
    assert [trial.reason for trial in unresolved] == ["planted has no kernel for that"]
    assert unresolved[0].keep_fp32 == ("blocks.2.norm",)
    assert found.plan is not None
    assert set(found.plan) > {"blocks.2.norm"}
    assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


def test_two_wrong_kernels_are_both_gone_round(hunt: Hunt, tmp_path: Path):
    found, _ = hunt(TWO_KERNELS)
    assert found.kind == "engine"
    assert found.region in (("linear",), ("linear_3",))
    assert verdict_with(found.plan_file, TWO_KERNELS, "planted", tmp_path) == "pass"


def test_two_builds_at_a_time_give_the_same_answer(hunt: Hunt):
    with ThreadPoolExecutor(2) as executor:
        found, _ = hunt(TWO_KERNELS, prepare_engine=without_taps, executor=executor, width=2, max_builds=60)
    alone, _ = hunt(TWO_KERNELS, prepare_engine=without_taps, max_builds=60)
    assert (found.kind, found.finding, found.region) == ("engine", alone.finding, alone.region)
    assert found.plan == alone.plan is not None


def test_builds_ahead_count_as_builds(hunt: Hunt):
    with ThreadPoolExecutor(2) as executor:
        found, engine = hunt(
            TWO_KERNELS, prepare_engine=without_taps, executor=executor, width=2, max_builds=16, reproducer=None
        )
    assert found.builds == engine.builds
    assert found.builds - found.gate_builds <= found.max_builds


@pytest.mark.parametrize("number", [1, 2])
def test_interrupted_before_a_finding(number: int, hunt: Hunt):
    found, _ = hunt(PLANTED["growing_stream"], prepare_engine=stop_at(number))
    assert (found.interrupted, found.complete, found.kind, found.plan) == (True, False, "not_judged", None)
    assert found.finding == "interrupted before there was a finding"


@pytest.mark.parametrize("number", [4, 6])
def test_interrupted_with_a_plan_leaves_it_written(number: int, hunt: Hunt, tmp_path: Path):
    plant = PLANTED["growing_stream"]
    found, _ = hunt(plant, prepare_engine=stop_at(number))
    assert (found.interrupted, found.complete, found.kind) == (True, False, "precision")
    assert frozenset(found.plan or ()) == plant.answer
    assert found.plan_file == str(tmp_path / "found" / "plan.toml")
    assert verdict_with(found.plan_file, plant, "planted", tmp_path) == "pass"


@pytest.mark.parametrize("number", [3, 7, 12])
def test_interrupted_anywhere_nothing_is_lost(number: int, hunt: Hunt):
    """Build 3 is the first of a part of the graph; without taps, plans are tried from about the tenth on."""

    def prepare_engine(engine: PlantedBackend) -> None:
        without_taps(engine)
        stop_at(number)(engine)

    found, _ = hunt(TWO_KERNELS, prepare_engine=prepare_engine)
    assert (found.interrupted, found.complete, found.kind) == (True, False, "engine")
    passed = [trial.keep_fp32 for trial in found.trials if trial.where == "engine" and trial.passed]
    assert (found.plan in passed) if passed else found.plan is None
    assert not any("no plan passed" in line for line in found.advice), "it is not known that none does"


# The reproducer.


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Spec, bytes]]:
    """Keep what the writer of reproducers is given, with its graph, and write nothing."""
    given: list[tuple[Spec, bytes]] = []

    def write(folder: Path, spec: Spec, *, progress: Any) -> Any:
        given.append((spec, spec.graph.read_bytes()))
        raise NotReproduced("the script did not show the fault")

    monkeypatch.setattr(bisection, "write", write)
    return given


@pytest.mark.parametrize("name", ["wrong_kernel", "wrong_when_fused", "nan_unobserved"])
def test_a_reproducer_shows_the_fault_and_only_the_fault(name: str, hunt: Hunt, specs: Any, tmp_path: Path):
    plant = PLANTED[name]
    found, _ = hunt(plant)
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


def test_a_reproducer_that_does_not_reproduce_is_a_note(hunt: Hunt, specs: Any, tmp_path: Path):
    found, _ = hunt(PLANTED["wrong_kernel"])
    assert found.reproducer == ""
    assert "no reproducer: the script did not show the fault" in found.notes
    assert not (tmp_path / "reproducer").exists()
    assert not any("reproduce.py" in line for line in found.advice)


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
        monkeypatch.setattr(bisection, "write_graph", spoilt)
    subject, folder = with_faults().subject, tmp_path / "reproducer"
    found = bisect(subject, Target("ort-cpu", "fp16"), "one", quiet(tmp_path), reproducer=folder)
    assert (found.kind, found.region) == ("engine", ("layer_norm_1",))
    assert found.plan in (("blocks.1.norm",), ("blocks.1",))
    if shown:
        assert found.reproducer == str(folder)
        assert (folder / "reproduce.py").is_file()
        assert found.advice[-1] == f"python {folder}/reproduce.py"
    else:
        assert found.reproducer == ""
        assert any(note.startswith("no reproducer: ") for note in found.notes)
        assert not folder.exists()


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

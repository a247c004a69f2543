"""An engine run on any inputs: loops and chains of them, PyTorch beside it, and what wrong inputs are said to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from fake import FakeBackend, inputs, quiet, subject
from onnx import TensorProto, helper

import harness
from harness import EngineFailed, NotJudged, Subject, Target, UsageError
from harness.backends import BACKENDS
from harness.checks import Parity
from harness.metrics import Metric
from harness.verify import OpenEngine, Run

ORT = Target("ort-cpu", "fp16")


class Step(torch.nn.Module):
    """Adds a token's row to each of a list of states; ids int64 [batch], states [batch, 4]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.mix = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9)

    def forward(self, ids: torch.Tensor, states: list[torch.Tensor]) -> dict[str, Any]:
        states = [torch.tanh(state + self.table(ids)) for state in states]
        return {"logits": self.mix(states[0] + states[1]), "states": states}


def step_inputs(batch: int = 2) -> dict[str, Any]:
    return {"ids": torch.arange(batch), "states": [torch.zeros(batch, 4), torch.ones(batch, 4)]}


STEP = Subject(
    name="step", build=lambda: Step().eval(), cases={"two": step_inputs}, targets=(ORT,), weights="random",
    dynamic={name: {0: "batch"} for name in ("ids", "states.0", "states.1")}, ranges={"batch": (1, 4)},
)  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenEngine]:
    """Open the engine of one step."""
    with harness.open_engine(STEP, ORT, settings=quiet(tmp_path_factory.mktemp("engine"))) as opened:
        yield opened


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def test_a_loop_keeps_its_state_and_drops_its_inputs(engine: OpenEngine):
    def loop(run: Callable[[Any], Any]) -> list[torch.Tensor]:
        given, seen = step_inputs(3), []
        for _ in range(5):
            found = run(given)
            seen.append(found["logits"])
            for old in (given["ids"], *given["states"]):
                old.zero_()  # what a run has taken is the caller's again
            given = {"ids": found["logits"].argmax(-1), "states": [found["output.states.0"], found["output.states.1"]]}
        return seen

    actual, expected, floor = (loop(run) for run in (engine.run, engine.run_reference, engine.run_floor))
    for one, other, low in zip(actual, expected, floor, strict=True):
        assert 1e-6 < error(one, other) < 2e-3, "FP16 has rounded, and nothing else"
        assert 1e-6 < error(low, other) < 2e-3
        assert one.dtype == other.dtype == low.dtype == torch.float32


def test_flat_names_are_taken_too(engine: OpenEngine):
    given = engine.inputs()
    assert sorted(given) == ["ids", "states.0", "states.1"]
    nested = {"ids": given["ids"], "states": [given["states.0"], given["states.1"]]}
    assert torch.equal(engine.run(given)["logits"], engine.run(nested)["logits"])
    assert engine.device.type == "cpu"


def test_outputs_are_ordinary_tensors(engine: OpenEngine):
    for run in (engine.run, engine.run_reference):
        run(step_inputs())["logits"].add_(1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ids": None}, r"step \[ort-cpu-fp16\] run\(\) lacks the input 'ids'; it takes ids, states.0, states.1"),
        ({"state": torch.ones(2)}, r"unknown input of step .* 'state'; did you mean states"),
        ({"ids": torch.ones(2)}, r"input 'ids' is float32, and the engine takes int64; give .to\(torch.int64\)"),
        ({"ids": torch.zeros(5, dtype=torch.int64)}, r"shape \[5\], and the engine takes \[1 to 4\]; widen ranges="),
        ({"ids": torch.zeros(2, 1, dtype=torch.int64)}, r"shape \[2, 1\], and the engine takes \[1 to 4\]"),
        ({"ids": [7]}, "input 'ids.0' is a int, not a tensor"),
    ],
)
def test_wrong_inputs_are_one_sentence(engine: OpenEngine, changed: dict[str, Any], words: str):
    given = {name: value for name, value in {**step_inputs(), **changed}.items() if value is not None}
    with pytest.raises(UsageError, match=words) as caught:
        engine.run(given)
    assert "\n" not in str(caught.value)


def test_what_is_no_dict_subject_or_target_is_one_sentence(engine: OpenEngine):
    with pytest.raises(UsageError, match="got a Tensor; give a dict of tensors"):
        engine.run(torch.ones(1))
    with pytest.raises(UsageError, match="give a Subject"):
        harness.open_engine("step", ORT)
    with pytest.raises(UsageError, match="give Target"):
        harness.open_engine(STEP, "ort-cpu-fp16")


def test_the_reference_takes_any_size_and_says_what_it_does_not_take(engine: OpenEngine):
    assert engine.run_reference(step_inputs(7))["logits"].shape == (7, 9)
    with pytest.raises(UsageError, match=r"step: forward\(\) raised"):
        engine.run_reference({**step_inputs(2), "ids": torch.tensor([0, 1, 2])})
    with pytest.raises(UsageError, match="lacks the input 'ids'"):
        engine.run_reference({})


def test_pytorch_as_a_target_runs_in_its_precision(tmp_path: Path, engine: OpenEngine):
    with harness.open_engine(STEP, Target("torch", "fp16"), settings=quiet(tmp_path)) as floor:
        assert torch.equal(floor.run(step_inputs())["logits"], engine.run_floor(step_inputs())["logits"])


def test_engines_are_chained_and_a_file_is_one(tmp_path: Path):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 9]) for name in ("logits", "scores")]
    graph = helper.make_graph([helper.make_node("Softmax", ["logits"], ["scores"], axis=-1)], "s", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "softmax.onnx")
    softmax = Subject(
        name="softmax", onnx=tmp_path / "softmax.onnx", cases={"two": lambda: {"logits": torch.ones(2, 9)}},
        targets=(ORT,), weights="file",
    )  # fmt: skip
    settings = quiet(tmp_path)
    with (
        harness.open_engine(STEP, ORT, settings=settings) as step,
        harness.open_engine(softmax, ORT, settings=settings) as scores,
    ):
        given = {"logits": step.run(step_inputs())["logits"]}
        torch.testing.assert_close(scores.run(given)["scores"], given["logits"].softmax(-1), rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(scores.run_reference(given)["scores"], given["logits"].softmax(-1))
        with pytest.raises(UsageError, match=r"takes \[2, 9\]"):
            scores.run({"logits": torch.ones(3, 9)})


def test_a_closed_engine_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backend = FakeBackend()
    monkeypatch.setitem(BACKENDS, "fake", backend)
    engine = harness.open_engine(subject(), Target("fake", "fp16"), settings=quiet(tmp_path))
    assert backend.open_sessions == 1
    engine.close()
    assert backend.open_sessions == 0


def test_an_engine_without_a_machine_to_run_on_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backend = FakeBackend()
    monkeypatch.setattr(backend, "cannot_run", lambda: "no GPU")
    monkeypatch.setitem(BACKENDS, "fake", backend)
    with pytest.raises(NotJudged, match="built, not run"):
        harness.open_engine(subject(), Target("fake", "fp16"), settings=quiet(tmp_path))


# in a test


class Item:
    def __init__(self) -> None:
        self.user_properties: list[tuple[str, Any]] = []


def parity_on(tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Parity:
    monkeypatch.setitem(BACKENDS, "fake", backend)
    opened = Run(subject(), quiet(tmp_path)).target(Target("fake", "fp16")).__enter__()
    return Parity(opened, "one", Item(), **{"required": False, **options})  # type: ignore[arg-type]


def test_a_test_runs_the_engine_and_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parity = parity_on(tmp_path, FakeBackend(), monkeypatch)
    actual, expected = (run(inputs(5)) for run in (parity.run, parity.run_reference))
    assert sorted(actual) == ["left", "right"]
    assert 0 < error(actual["left"], expected["left"]) < 1e-3
    assert torch.equal(parity.inputs["x"], inputs()["x"])
    metric = Metric("distance", lambda a, e: (a["left"] - e["left"]).abs().max(), at_most=0.01, why="a test")
    assert parity.check_metric(metric, of=(actual, expected)).verdict == "pass"
    with pytest.raises(AssertionError, match="distance"):
        parity.check_metric(metric, of=({"left": torch.ones(1)}, {"left": torch.zeros(1)}))
    assert parity._data is not None
    assert parity._data["verdict"] == "fail", "a metric of runs is recorded as one of outputs is"


@pytest.mark.parametrize("fault", [lambda out, given, run: {"left": out["left"]}, EngineFailed("the kernel hung")])
def test_an_engine_that_misbehaves_fails_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any):
    def raising(outputs: Any, given: Any, run: int) -> Any:
        raise fault

    backend = FakeBackend(raising if isinstance(fault, Exception) else fault)
    with pytest.raises(pytest.fail.Exception, match=r"outputs differ|the kernel hung"):
        parity_on(tmp_path, backend, monkeypatch).run(inputs())


@pytest.mark.parametrize(("required", "kind"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)])
def test_without_an_engine_a_test_is_skipped_or_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: bool, kind: type[BaseException]
):
    backend = FakeBackend()
    monkeypatch.setattr(backend, "cannot_run", lambda: "no GPU")
    parity = parity_on(tmp_path, backend, monkeypatch, required=required)
    with pytest.raises(kind, match="no GPU"):
        parity.run(inputs())
    assert parity.run_reference(inputs())["left"].shape == (8, 16)


def test_wrong_inputs_of_a_test_are_a_wrong_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="unknown input"):
        parity_on(tmp_path, FakeBackend(), monkeypatch).run({"y": torch.ones(1)})


def test_another_engine_of_a_chain_is_opened_once_and_freed_with_the_first(tmp_path: Path):
    other = dataclasses.replace(STEP, name="other")
    run = Run(STEP, quiet(tmp_path))
    with run.target(ORT) as opened:
        parity = Parity(opened, "two", None, required=False)
        beside = opened.beside(other)
        actual, expected = (getattr(parity.beside(other), side)(step_inputs()) for side in ("run", "run_reference"))
        assert opened.beside(other) is beside
        assert beside.session is not None
    assert beside.session is None
    assert error(actual["logits"], expected["logits"]) < 1e-2
    with run.target(Target("ort-cpu", "fp32")) as again:
        assert again.beside(other).run is beside.run, "exported once for all targets"

"""The questions before the search: what is asked, what is answered, and what ends it there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bisecting import Bisect, build_through, with_faults
from planted import PLANTED, Fault, PlantedBackend, PlantedSession, scaled

from harness import EngineRefused
from harness.backends.base import BuildRequest
from harness.records.bisection import Bisection


def test_the_questions_come_in_their_order(overflow: Bisection):
    assert [(asked.question, asked.answer) for asked in overflow.gates] == [
        ("does the engine leave its inputs unchanged?", "yes"),
        ("is the reference repeatable?", "yes"),
        ("is the engine repeatable?", "yes"),
        ("are all outputs finite?", "no"),
        ("is the engine wrong?", "yes"),
        ("is the FP32 engine right?", "yes"),
        ("is PyTorch in the same precision right?", "no"),
    ]
    assert overflow.gates[2].detail.startswith("2 runs ")
    assert "output: 512 of 512 " in overflow.gates[3].detail
    assert "PyTorch's own fp16 error" in overflow.gates[6].detail


def test_a_subject_that_is_not_repeatable_is_not_judged(bisected: Bisect):
    class Live(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(x, training=True)

    found, engine = bisected(with_faults(build=Live))
    assert (found.kind, engine.builds) == ("not_judged", 0)
    assert (found.gates[-1].question, found.gates[-1].answer) == ("is the reference repeatable?", "no")
    assert "not repeatable" in found.finding


def test_an_engine_that_is_never_built_is_not_judged(bisected: Bisect):
    def refuse(number: int, request: BuildRequest) -> None:
        raise EngineRefused("planted refuses everything")

    found, _ = bisected(PLANTED["wrong_kernel"], prepare_engine=lambda engine: build_through(engine, refuse))
    assert (found.kind, found.plan, found.builds) == ("not_judged", None, 0)
    assert found.finding == "planted refuses everything"
    assert (found.gates[-1].question, found.gates[-1].answer) == ("does the engine run?", "no")


def test_an_engine_that_cannot_be_judged_is_not_blamed(bisected: Bisect):
    class Zero(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0

    found, engine = bisected(with_faults(build=Zero))
    assert (found.kind, found.plan, engine.builds) == ("not_judged", None, 1)
    assert "all zeros" in found.finding
    assert (found.gates[-1].question, found.gates[-1].answer) == ("can the engine be judged?", "no")


def test_an_engine_that_writes_into_its_inputs_is_at_fault(bisected: Bisect, monkeypatch: pytest.MonkeyPatch):
    run = PlantedSession.run

    def overwrite(session: PlantedSession, inputs: Any) -> Any:
        outputs = run(session, inputs)
        inputs["x"].zero_()
        return outputs

    monkeypatch.setattr(PlantedSession, "run", overwrite)
    found, _ = bisected(with_faults())
    assert found.kind == "engine"
    assert (found.gates[0].question, found.gates[0].answer) == ("does the engine leave its inputs unchanged?", "no")


def test_an_engine_that_is_not_repeatable_is_said_so(bisected: Bisect, monkeypatch: pytest.MonkeyPatch):
    run, runs = PlantedSession.run, iter(range(10_000))

    def drift(session: PlantedSession, inputs: Any) -> Any:
        return {name: tensor * (1 + 0.1 * (next(runs) % 2)) for name, tensor in run(session, inputs).items()}

    monkeypatch.setattr(PlantedSession, "run", drift)
    found, _ = bisected(with_faults())
    [asked] = [asked for asked in found.gates if asked.question == "is the engine repeatable?"]
    assert asked.answer == "no"
    assert "1 of 2 runs" in asked.detail
    assert found.kind == "engine"


@pytest.mark.parametrize(("precisions", "tf32"), [(("fp32", "fp16"), False), (("fp32", "tf32", "fp16"), True)])
def test_only_where_there_is_tf32_is_an_error_of_its_size_no_other_fault(
    precisions: tuple[str, ...], tf32: bool, bisected: Bisect
):
    def only(engine: PlantedBackend) -> None:
        engine.precisions = precisions

    plant = with_faults(
        Fault(value="add_2", change=scaled(1 + 5e-4), only_dtype=torch.float32),
        Fault(value="add_2", change=scaled(1.05)),
    )
    found, _ = bisected(plant, precision="fp32", prepare_engine=only)
    assert [asked.answer for asked in found.gates if asked.question == "is the FP32 engine right?"] == ["no"]
    assert ("TF32" in found.finding) is tf32
    assert ("-p tf32" in found.advice[0].action) is tf32
    assert any(" -p tf32 " in command for command in found.commands) is tf32
    assert not any("keep " in advice.action for advice in found.advice)
    assert found.plan is None

    found, _ = bisected(plant, precision="fp16", prepare_engine=only)
    right = [asked for asked in found.gates if asked.question == "is the FP32 engine right?"]
    assert [asked.answer for asked in right] == ["yes" if tf32 else "no"]

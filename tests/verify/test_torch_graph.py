"""A module's graph: nested inputs and outputs by path, what a module may not do, and hooks that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet

from harness import Result, Subject, Target, UsageError
from harness.verify.prepare import prepare
from harness.verify.verify import verify

ON_CPU = (Target("ort-cpu", "fp32"), Target("ort-cpu", "fp16"))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def subject(module: type[torch.nn.Module], given: Callable[[], dict[str, Any]], **changes: Any) -> Subject:
    cases = {"one": given, **changes.pop("more", {})}
    return Subject(
        name="nested", build=lambda: module().eval(), cases=cases, targets=ON_CPU, weights="random", **changes
    )


def results(made: Subject, tmp_path: Path) -> list[Result]:
    cases = [*made.cases, *made.range_cases]
    return list(verify(made, targets=made.targets, cases=cases, settings=quiet(tmp_path)))


@dataclass
class Batch:
    pictures: list[torch.Tensor]
    mask: torch.Tensor | None = None


class Mixed(torch.nn.Module):
    """Takes a dataclass, a dict and keywords; returns an input, a view of it, a weight and one tensor twice."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        with torch.no_grad():
            self.layer.weight.copy_(drawn(4, 4))

    def forward(self, batch, sizes, **more):
        first, second = batch.pictures
        made = self.layer(first) * sizes["scale"] + more["class"] - more["a-b"]
        last = self.layer(second)
        return {
            "made": (made, {"twice": made}), "given": [second, second[:, 1:].t()], "weight": self.layer.weight,
            "none": None, "again": self.layer(second) + 0 * last, "batch": Batch(pictures=[first + 1]),
        }  # fmt: skip


def mixed():
    return {
        "class": drawn(2, 4, seed=5), "batch": Batch(pictures=[drawn(2, 4), drawn(2, 4, seed=1)]),
        "sizes": {"scale": drawn(4, seed=2)}, "a-b": drawn(1, seed=3),
    }  # fmt: skip


def test_every_output_of_a_nested_module_is_judged_by_its_path(tmp_path):
    names = ["made.0", "made.1.twice", "given.0", "given.1", "weight", "again", "output.batch.pictures.0"]
    for result in results(subject(Mixed, mixed), tmp_path):
        assert (result.verdict, [output.name for output in result.outputs]) == ("pass", names), result.reason


def test_the_graph_has_the_paths_as_the_names_of_inputs_and_outputs(tmp_path):
    program = prepare(subject(Mixed, mixed), quiet(tmp_path)).program
    given = [value.name for value in program.model.graph.inputs]
    assert given == ["class", "batch.pictures.0", "batch.pictures.1", "sizes.scale", "a-b"]
    assert [value.name for value in program.model.graph.outputs] == list(program.outputs)


class Step(torch.nn.Module):
    """Appends to a past of any length, none included."""

    def forward(self, x, past):
        keys = [torch.cat([layer["key"], x], 1) for layer in past]
        return {"mean": keys[0].mean(1), "past": [{"key": it} for it in keys]}


def test_a_past_of_any_length_and_of_none_is_judged(tmp_path):
    def step(length: int) -> Callable[[], dict[str, Any]]:
        return lambda: {"past": [{"key": drawn(1, length, 4)}], "x": drawn(1, 1, 4, seed=1)}

    made = subject(Step, step(3), more={"none": step(0)}, dynamic={"past.0.key": {1: "past"}}, ranges={"past": (0, 6)})
    found = results(made, tmp_path)
    assert [(result.case, result.verdict) for result in found] == [
        (case, "pass") for _ in ON_CPU for case in ("one", "none", "smallest", "largest")
    ]


def test_a_case_that_is_all_past_of_length_none_is_judged(tmp_path):
    made = subject(Step, lambda: {"past": [{"key": drawn(1, 0, 4)}], "x": drawn(1, 1, 4)})
    assert {result.verdict for result in results(made, tmp_path)} == {"pass"}


def test_the_order_of_names_is_no_other_structure_and_another_name_is(tmp_path):
    def turned():
        return dict(reversed(mixed().items()))

    assert {result.verdict for result in results(subject(Mixed, mixed, more={"two": turned}), tmp_path)} == {"pass"}
    with pytest.raises(UsageError, match=r"cases 'one' and 'two' of nested differ: one has 'other'"):
        results(subject(Mixed, mixed, more={"two": lambda: mixed() | {"other": drawn(1)}}), tmp_path)


class Hooked(torch.nn.Module):
    """Its own hooks change what it takes and returns."""

    def __init__(self):
        super().__init__()
        self.register_forward_pre_hook(lambda _, args, given: (args, {"x": given["x"] * 2}), with_kwargs=True)
        self.register_forward_hook(lambda _, args, made: [made, made + 1])

    def forward(self, x):
        return x + 3


def test_hooks_of_the_module_see_what_it_takes_and_returns(tmp_path):
    prepared = prepare(subject(Hooked, lambda: {"x": drawn(2, 3)}), quiet(tmp_path))
    found = prepared.references.reference("one", "fp32")
    assert torch.allclose(found["output_1"], drawn(2, 3) * 2 + 4)
    assert "forward" not in vars(prepared.graph.module)


class Filled(torch.nn.Module):
    """Makes a buffer in its first run, and writes the same into another in every run."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scratch", torch.zeros(2, 3))

    def forward(self, x):
        if "made" not in self._buffers:
            self.register_buffer("made", torch.full((3,), 2.0))
        return self.scratch.copy_(x) * self.made


def test_a_buffer_that_settles_is_no_state(tmp_path):
    assert {result.verdict for result in results(subject(Filled, lambda: {"x": drawn(2, 3)}), tmp_path)} == {"pass"}


class Infinite(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.zeros(3).index_fill(0, torch.tensor([1]), -torch.inf))

    def forward(self, x):
        return {"scores": x + self.mask, "shares": (x + self.mask).softmax(1)}


def test_infinities_that_a_weight_brings_are_said(tmp_path):
    for result in results(subject(Infinite, lambda: {"x": drawn(2, 3)}), tmp_path):
        assert result.verdict == "pass"
        assert any("weight 'mask' holds 1 Inf" in note for note in result.notes)


class Counted(torch.nn.Module):
    """Counts its runs that are no trace."""

    runs = 0

    def forward(self, x):
        Counted.runs += not torch.compiler.is_exporting()
        return x * 2.0


def test_the_module_is_run_twice_for_a_case_however_many_ask(tmp_path):
    made = subject(Counted, lambda: {"x": drawn(2, 3)})
    assert [one.verdict for one in results(made, tmp_path)] == ["pass", "pass"]
    assert Counted.runs == 2

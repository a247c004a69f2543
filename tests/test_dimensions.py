"""Dynamic dimensions that follow from others, or are left to the exporter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake import quiet

from harness import NotJudged, Subject, Target, UsageError
from harness.dimensions import Dimension, dimension
from harness.graph import input_specs
from harness.verify.inputs import at_sizes, check_sizes
from harness.verify.target import Run
from harness.verify.verify import verify_case


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("past", Dimension(symbol="past")),
        ("past+1", Dimension(symbol="past", offset=1)),
        ("4*frames", Dimension(symbol="frames", factor=4)),
        ("2 * n - 3", Dimension(symbol="n", factor=2, offset=-3)),
        ("0*n", None),
        ("n*4", None),
        ("n+m", None),
        ("4", None),
        ("", None),
        (None, None),
        (3, None),
    ],
)
def test_what_a_text_says(text, found):
    assert dimension(text) == found


def test_a_size_and_the_symbol_that_gives_it():
    found = Dimension(symbol="n", factor=4, offset=1)
    assert [found.size(3), found.of_symbol(13), found.of_symbol(12)] == [13, 3, None]


class Step(torch.nn.Module):
    """One token and what was before it: a mask is one longer than the past; speech is cut into groups of four."""

    def forward(
        self, x: torch.Tensor, past: list[torch.Tensor], mask: torch.Tensor, speech: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        keys = torch.cat([past[0], x], dim=1)
        scores = (keys * x).sum(-1) * mask
        groups = speech.reshape(speech.shape[0], -1, 4, 3).mean(2)
        return {"y": scores.softmax(-1) @ keys.mean(-1, keepdim=True), "keys": keys, "groups": groups}


def case(past: int = 5, frames: int = 3, mask: int | None = None, speech: int | None = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(past)
    return {
        "x": torch.randn(1, 1, 8, generator=generator),
        "past": [torch.randn(1, past, 8, generator=generator)],
        "mask": torch.ones(1, past + 1 if mask is None else mask),
        "speech": torch.randn(1, 4 * frames if speech is None else speech, 3, generator=generator),
    }


DYNAMIC: dict[str, dict[int, str | None]] = {
    "past.0": {1: "past"}, "mask": {1: "past+1"}, "speech": {1: "4*frames"},
}  # fmt: skip
RANGES = {"past": (0, 9), "frames": (1, 6)}


def subject(**changes: Any) -> Subject:
    fields: dict[str, Any] = {
        "name": "step", "build": lambda: Step().eval(), "cases": {"later": case, "first": lambda: case(0)},
        "targets": (Target("ort-cpu", "fp32"),), "weights": "random", "dynamic": DYNAMIC, "ranges": RANGES,
    }  # fmt: skip
    return Subject(**{**fields, **changes})


def test_derived_sizes_reach_graph_profiles_generated_cases_and_the_engine(tmp_path):
    run = Run(subject(), quiet(tmp_path))
    with run.target(Target("ort-cpu", "fp32")) as opened:
        verdicts = {it: verify_case(opened, it).result for it in ("first", "later", "smallest", "largest")}
    assert {it: result.verdict for it, result in verdicts.items()} == dict.fromkeys(verdicts, "pass")
    assert all(isinstance(spec.shape[1], str) for spec in input_specs(run.prepared.program.model) if spec.name != "x")
    shapes = run.prepared.shapes
    assert [shapes["mask"].minimum[1], shapes["mask"].maximum[1]] == [1, 10]
    assert [shapes["speech"].minimum[1], shapes["speech"].optimum[1], shapes["speech"].maximum[1]] == [4, 12, 24]
    largest = run.prepared.inputs["largest"]
    assert [largest[name].shape[1] for name in ("past.0", "mask", "speech")] == [9, 10, 24]


def test_what_is_left_to_the_exporter_has_the_range_of_the_cases(tmp_path):
    left = {"past.0": {1: None}, "mask": {1: None}, "speech": {1: None}}
    run = Run(subject(dynamic=left, ranges={}, cases={"short": lambda: case(2, 2), "later": case}), quiet(tmp_path))
    assert run.subject.range_cases == {}
    with run.target(Target("ort-cpu", "fp32")) as opened:
        assert [verify_case(opened, it).result.verdict for it in ("short", "later")] == ["pass", "pass"]
    assert [run.prepared.shapes["mask"].minimum[1], run.prepared.shapes["mask"].maximum[1]] == [3, 6]


class Fixed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(6) * 2


def test_what_the_exporter_makes_a_constant_is_said(tmp_path):
    fixed = subject(build=lambda: Fixed().eval(), cases={"one": lambda: {"x": torch.ones(1, 6)}}, ranges={},
                    dynamic={"x": {1: None}})  # fmt: skip
    with pytest.raises(NotJudged, match=r"dimension 1 of 'x' the constant 6"):
        _ = Run(fixed, quiet(tmp_path)).prepared


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speech": 13}, "'speech' is 13 for 4*frames"),
        ({"mask": 8}, "'mask' is 8, so past is 7 by past+1, and 5 by"),
        ({"past": 20}, "'past.0' is 20"),
    ],
)
def test_a_case_that_does_not_follow_is_one_sentence(changes, words):
    it = subject()
    inputs = case(**changes)
    flat = {**inputs, "past.0": inputs["past"][0]}
    with pytest.raises(UsageError) as error:
        check_sizes(it, flat, where="case 'one'")
    assert words in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"dynamic": {"x": {0: "4*"}}},
        {"dynamic": {"x": {0: "past-1"}}, "ranges": {"past": (0, 3)}},
        {"dynamic": {"x": {0: "past+1"}}, "ranges": {"past+1": (1, 3)}},
        {"dynamic": {"x": {0: None}}, "ranges": {"past": (1, 3)}},
    ],
)
def test_dimensions_that_say_nothing_are_refused(changes):
    with pytest.raises(UsageError):
        subject(**changes)


def test_inputs_at_a_size_of_the_symbol():
    sized = at_sizes({"mask": torch.ones(1, 3)}, {"mask": {1: "past+1"}}, {"past": 6})
    assert sized["mask"].shape == (1, 7)

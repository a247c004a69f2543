"""The search in PyTorch: the ranking, and the smallest set that makes the outputs right."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bisecting import with_faults
from fake import quiet
from planted import PLANTED, ready

from harness import NotJudged
from harness.bisect.screening import Screen
from harness.compare.norms import total_error
from harness.graph.plan import Plan
from harness.tensors import Tensors
from harness.verify.prepare import prepare

FP16 = Plan(name="fp16", dtype="fp16")


def screen(name: str, right: Callable[[Tensors], bool] | None = None) -> Screen:
    """Return a screen of a plant; outputs are right within its limit, unless something else is given."""
    plant, prepared = PLANTED[name], ready(name)
    expected = prepared.references.reference("one", "fp32")

    def within_limit(outputs: Tensors) -> bool:
        return total_error(outputs, expected) <= (plant.limit or 0.25)

    return Screen(prepared, "one", FP16, right or within_limit)


def test_a_program_without_floats_has_nothing_to_choose():
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    integers = with_faults(build=Doubled, inputs=lambda: {"x": torch.arange(6)})
    with pytest.raises(NotJudged, match="no float value"):
        Screen(prepare(integers.subject, quiet(Path())), "one", FP16, lambda outputs: True)


@pytest.mark.parametrize("name", ["overflow", "non_monotonic", "growing_stream", "flipped_decision"])
def test_the_search_finds_the_smallest_set(name: str):
    said: list[str] = []
    found = screen(name).search(said.append)
    assert frozenset(found.region) in (PLANTED[name].answer, *PLANTED[name].values)
    assert not found.interrupted
    assert said[0].startswith("ranking ")
    assert f" {len(found.ranking)} " in said[0]


def test_the_culprit_is_ranked_first_and_every_trial_is_kept():
    tried = screen("overflow")
    ranked = tried.rank(tried.units.coarse())
    assert ranked[0] == "blocks.2.norm"
    assert not tried.passes(frozenset())
    assert tried.passes(frozenset({"blocks.2.norm"}))
    assert tried.passes(frozenset({"blocks.2.norm"}))
    assert [(trial.keep_fp32, trial.where, trial.passed) for trial in tried.trials] == [
        ((), "pytorch", False),
        (("blocks.2.norm",), "pytorch", True),
    ]
    assert tried.trials[0].error == math.inf


def test_nothing_is_found_where_nothing_is_right():
    found = screen("swamping", lambda outputs: False).search(lambda message: None)
    assert found.region == ()
    assert set(found.ranking) == {"before", "accumulate", "after"}
    assert not any(trial.passed for trial in found.trials)


@pytest.mark.parametrize("after", [0, 1])
def test_an_interruption_keeps_the_smallest_that_passed(after: int):
    """Every set passes, until the interruption."""
    asked = iter(range(100))

    def right(outputs: Tensors) -> bool:
        if next(asked) == after:
            raise KeyboardInterrupt
        return True

    found = screen("overflow", right).search(lambda message: None)
    assert found.interrupted
    assert found.ranking[0] == "blocks.2.norm"
    assert len(found.trials) == after
    assert len(found.region) == (1 if after else 0)
    assert not after or found.region in [trial.keep_fp32 for trial in found.trials]

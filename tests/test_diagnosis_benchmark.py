"""The benchmark of the diagnosis: plants go through it from end to end, and a wrong answer is a miss."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.diagnosis import chosen, goals, misses
from benchmarks.planted.listed import PLANTS
from benchmarks.planted.measure import Outcome, measure
from benchmarks.planted.plants import F, Plant, plant

ENGINE = plant("engine fp16", "spectrogram", F("leaky_relu", "scale", 1.05))
EXPORT = plant("export", "spectrogram", F("leaky_relu", "attribute", "alpha", 0.2), precision="fp32")


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return measure(ENGINE)


def test_a_wrong_kernel_is_named_and_its_script_shows_it_alone(outcome):
    assert (outcome.verdict, outcome.kind_right, outcome.kind_found) == ("fail", True, "engine")
    assert outcome.look_first
    assert outcome.bisect_first
    assert outcome.reproducer
    assert outcome.region == 1
    assert not misses(outcome)


def test_a_wrong_export_is_told_from_a_wrong_engine():
    outcome = measure(EXPORT)
    assert (outcome.kind_found, outcome.bisect) == ("export", ["leaky_relu"])
    assert not misses(outcome)


def test_a_right_engine_has_no_suspect():
    outcome = measure(plant("clean", "spectrogram", engine="unoptimised"))
    assert (outcome.verdict, outcome.look, outcome.bisect) == ("pass", [], [])
    assert not misses(dataclasses.replace(outcome, trusted=True))
    assert misses(dataclasses.replace(outcome, trusted=False)) == ["not trusted"]


def test_a_fault_that_does_not_show_is_no_plant():
    outcome = measure(plant("engine fp32", "spectrogram", F("leaky_relu", "scale", 1.0)))
    assert "says pass" in outcome.invalid
    assert misses(outcome)
    assert not all(met for _, met in goals([outcome]))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("kind_right", False, "kind"),
        ("look_first", False, "look names"),
        ("bisect_first", False, "bisect names"),
        ("false", ["add"], "false: add"),
        ("region", 13, "region of 13"),
        ("plan_smallest", False, "smallest"),
        ("error", "KeyError", "raised"),
    ],
)
def test_every_wrong_answer_is_a_miss(outcome, field, value, said):
    wrong = dataclasses.replace(outcome, **{field: value})
    assert said in "; ".join(misses(wrong))
    assert not all(met for _, met in goals([wrong]))
    assert all(met for _, met in goals([outcome]))


def test_another_answer_than_the_planted_one_is_wrong(monkeypatch):
    monkeypatch.setattr(Plant, "answer", frozenset({"layer_norm"}))
    outcome = measure(ENGINE)
    assert (outcome.look_first, outcome.bisect_first) == (False, False)
    assert outcome.false == ["leaky_relu"]
    assert misses(outcome)


def test_names_are_unique_and_can_be_chosen():
    names = [plant.name for plant in PLANTS]
    assert len(set(names)) == len(names)
    assert {it.group for it in chosen(["several/"], 0, 0)} == {"several"}
    assert len(chosen([], 5, 0)) == 5

"""Every test is in exactly one shard, those of one engine in the same, and no shard has much more than its part."""

from __future__ import annotations

import itertools
import math
from argparse import ArgumentTypeError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.shards import Durations, shard_of, split, split_sha256, split_tests

COSTS = st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), max_size=30)
NAMES = st.tuples(*[st.sampled_from(["a", "b", "c"])] * 4)


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "a/b", "2", "", "/", "1/0", "-1/3", "2/3/4", "1.0/3", " 1/3", "²/3", "1/99999999"]
)
def test_what_names_no_shard_is_refused(text: str):
    with pytest.raises(ArgumentTypeError, match="shard"):
        shard_of(text)


def test_a_shard_goes_by_its_name():
    assert [str(shard_of(text)) for text in ("1/1", "2/3", "3/3")] == ["1/1", "2/3", "3/3"]


def loads(costs: dict[str, float], shards: dict[str, int], of: int) -> list[float]:
    return [math.fsum(costs[name] for name in costs if shards[name] == number) for number in range(1, of + 1)]


@settings(deadline=None, max_examples=50)
@given(COSTS, st.integers(1, 6), st.randoms())
def test_every_group_is_in_one_shard_and_shards_are_level(costs, of, random):
    shards = split(costs, of)
    assert shards.keys() == costs.keys()
    assert set(shards.values()) <= set(range(1, of + 1))
    found = loads(costs, shards, of)
    largest = max(costs.values(), default=0.0)
    assert max(found) - min(found) <= largest * (1 + 1e-9)
    mixed = list(costs.items())
    random.shuffle(mixed)
    assert split(dict(mixed), of) == shards


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 20), max_size=6), st.integers(1, 3))
def test_no_shard_takes_longer_than_the_bound_of_the_best_split(costs, of):
    named = {str(n): float(cost) for n, cost in enumerate(costs)}
    ways = itertools.product(range(1, of + 1), repeat=len(costs))
    best = min(max(loads(named, dict(zip(named, way, strict=True)), of)) for way in ways)
    assert max(loads(named, split(named, of), of)) <= (4 / 3 - 1 / (3 * of)) * best + 1e-9


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=4), st.none() | NAMES, max_size=20), st.integers(1, 4), st.booleans())
def test_tests_of_one_engine_are_in_one_shard(names, of, known):
    keys = ("subject", "case", "backend", "precision")
    tests = {test: name and dict(zip(keys, name, strict=True)) for test, name in names.items()}
    durations = Durations(seconds={("a", "a", "a", "a"): 9.0, ("b", "a", "a", "a"): 1.0} if known else {})
    shards = split_tests(tests, of, durations)
    assert shards.keys() == tests.keys()
    engines: dict[tuple[str, ...], set[int]] = {}
    for test, name in names.items():
        if name:
            engines.setdefault((name[0], *name[2:]), set()).add(shards[test])
    assert all(len(found) == 1 for found in engines.values())


def test_durations_decide_and_an_unknown_one_is_the_median():
    names = {f"{subject}{case}": (subject, case, "rtx", "fp16") for subject in "abcd" for case in "12"}
    keys = ("subject", "case", "backend", "precision")
    tests = {test: dict(zip(keys, name, strict=True)) for test, name in names.items()}
    seconds = {name: {"a": 60.0, "b": 1.0, "c": 1.0}[name[0]] for name in names.values() if name[0] != "d"}
    shards = split_tests(tests, 2, Durations(seconds=seconds))
    assert {test for test in tests if shards[test] == shards["a1"]} == {"a1", "a2"}
    counted = split_tests(tests, 2, Durations())
    assert sorted(counted.values()) == [1] * 4 + [2] * 4
    assert Durations(seconds=seconds).cost([("d", "1", "rtx", "fp16"), ("b", "1", "rtx", "fp16")]) == 2.0


def test_the_hash_is_of_tests_and_their_shards():
    assert split_sha256({"a": 1, "b": 2}) == split_sha256({"b": 2, "a": 1})
    assert len({split_sha256(one) for one in ({"a": 1}, {"a": 2}, {"b": 1}, {})}) == 4

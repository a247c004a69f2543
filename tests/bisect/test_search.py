"""The searches: known answers, what they cost, and that nothing is reported that was not itself seen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bisect.search import IntervalFound, SetFound, smallest_interval, smallest_set

PLENTY = 100_000


class Oracle:
    """Answers from a rule, and keeps what it was asked."""

    def __init__(self, rule: Callable[[frozenset[str]], bool | None]) -> None:
        self.rule = rule
        self.batches: list[list[frozenset[str]]] = []

    def __call__(self, batch: Sequence[frozenset[str]]) -> list[bool | None]:
        self.batches.append(list(batch))
        return [self.rule(trial) for trial in batch]

    @property
    def asked(self) -> list[frozenset[str]]:
        return [trial for batch in self.batches for trial in batch]


class Region:
    """Shows a fault by a rule, and keeps what it was asked."""

    def __init__(self, rule: Callable[[int, int], bool | None]) -> None:
        self.rule = rule
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> bool | None:
        self.asked.append((start, stop))
        return self.rule(start, stop)


def names(count: int) -> list[str]:
    return [f"u{rank}" for rank in range(count)]


def needs(*units: str) -> Callable[[frozenset[str]], bool]:
    return lambda trial: trial >= set(units)


def find(ranked: Sequence[str], rule: Callable[[frozenset[str]], bool | None], **options) -> tuple[SetFound, Oracle]:
    """Search, and check what holds for every search."""
    oracle = Oracle(rule)
    found = smallest_set(ranked, oracle, **{"max_calls": PLENTY, **options})
    assert found.calls == len(oracle.asked) == len(set(oracle.asked)) <= options.get("max_calls", PLENTY)
    if found.best is not None:
        assert rule(found.best) is True
        assert found.best in oracle.asked or found.best in options.get("known", {})
    return found, oracle


def narrow(count: int, rule: Callable[[int, int], bool | None], **options) -> tuple[IntervalFound, Region]:
    """Search an interval, and check what holds for every search."""
    region = Region(rule)
    found = smallest_interval(count, region, **{"max_calls": PLENTY, **options})
    assert found.calls == len(region.asked) == len(set(region.asked)) <= options.get("max_calls", PLENTY)
    assert (found.start, found.stop) == (0, count) or rule(found.start, found.stop) is True
    assert (found.start, found.stop) in [*region.asked, (0, count)]
    return found, region


def window(first: int, last: int) -> Callable[[int, int], bool]:
    """Return the rule of a fault that needs all positions from first to last."""
    return lambda start, stop: start <= first and last < stop


def bound(count: int, answer: int) -> float:
    return 2 * math.log2(count) + 2 * answer + 3


def is_one_minimal(best: frozenset[str], rule: Callable[[frozenset[str]], bool | None]) -> bool:
    return not any(rule(best - {unit}) for unit in best if len(best) > 1)


# Sets: known answers


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 7, 40, 99])
def test_single_culprit_at_any_rank(rank: int):
    found, _ = find(names(100), needs(f"u{rank}"))
    assert found.best == {f"u{rank}"}
    assert found.minimal
    assert found.complete
    assert not found.interrupted
    assert found.calls <= (bound(100, 1) if rank < 50 else 3 * math.log2(100) + 15)


def test_first_rank_right_costs_one_call():
    assert find(names(1000), needs("u0"))[0].calls == 1


@pytest.mark.parametrize("culprits", [(0, 1), (0, 1, 2, 3), (0, 2, 5), (3, 50), (10, 40, 70, 99), tuple(range(12))])
def test_several_culprits_are_found_exactly(culprits: tuple[int, ...]):
    wanted = [f"u{rank}" for rank in culprits]
    found, _ = find(names(100), needs(*wanted))
    assert found.best == set(wanted)
    assert found.minimal


def test_two_culprits_each_harmless_alone_need_one_unit():
    found, _ = find(names(64), lambda trial: bool(trial & {"u9", "u50"}))
    assert found.best == {"u9"}
    assert found.minimal
    assert found.calls <= bound(64, 1)


def test_all_units_needed():
    found, _ = find(names(7), needs(*names(7)))
    assert found.best == set(names(7))
    assert found.minimal
    assert found.calls <= bound(7, 7)


def test_nothing_passes():
    found, _ = find(names(10), lambda trial: False)
    assert (found.best, found.minimal, found.complete) == (None, False, True)
    assert found.calls <= 4 * 10


def test_one_unit_and_no_unit():
    assert find(["a"], needs("a"))[0] == SetFound(
        best=frozenset("a"), minimal=True, complete=True, interrupted=False, calls=1
    )
    assert find([], lambda trial: True)[0] == SetFound(
        best=None, minimal=False, complete=True, interrupted=False, calls=0
    )


# Sets: errors that add up


def additive(seed: int, count: int, *, kept_share: float, noise: float) -> tuple[list[str], Callable, int]:
    """Return a ranking, the rule that the error left is small enough, and the size of the smallest set."""
    draw = random.Random(seed)
    power = {name: draw.lognormvariate(0, 1.5) for name in names(count)}
    allowed = kept_share * sum(power.values())
    ranked = sorted(power, key=lambda name: -math.log(power[name]) + draw.gauss(0, noise))

    def rule(trial: frozenset[str]) -> bool:
        return sum(error for name, error in power.items() if name not in trial) <= allowed

    largest = sorted(power, key=lambda name: -power[name])
    optimum = next(size for size in range(1, count + 1) if rule(frozenset(largest[:size])))
    return ranked, rule, optimum


@pytest.mark.parametrize("kept_share", [0.5, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_additive_errors_ranked_by_size(seed: int, kept_share: float):
    ranked, rule, optimum = additive(seed, 60, kept_share=kept_share, noise=0)
    found, _ = find(ranked, rule)
    assert found.best is not None
    assert len(found.best) <= max(1.1 * optimum, optimum + 1)
    assert found.minimal
    assert found.calls <= bound(60, len(found.best))


@pytest.mark.parametrize("seed", range(3))
def test_additive_errors_within_a_budget(seed: int):
    ranked, rule, optimum = additive(seed, 100, kept_share=0.1, noise=0)
    found, _ = find(ranked, rule, max_calls=30)
    assert found.best is not None
    assert len(found.best) <= 1.1 * optimum
    assert not found.complete
    assert not found.minimal


@pytest.mark.parametrize("seed", range(3))
def test_random_ranking_ends_with_a_one_minimal_set(seed: int):
    ranked, rule, _ = additive(seed, 40, kept_share=0.3, noise=100)
    found, _ = find(ranked, rule)
    assert found.best is not None
    assert is_one_minimal(found.best, rule)
    assert found.minimal
    assert found.complete


# Sets: the oracle is not monotone


def test_unit_that_does_harm_ranks_first():
    found, _ = find(names(64), lambda trial: "u1" in trial and "u0" not in trial)
    assert found.best == {"u1"}
    assert found.minimal
    assert found.calls <= bound(64, 1)


def test_harm_is_undone_only_by_the_full_set():
    everything = frozenset(names(32))
    found, _ = find(names(32), lambda trial: trial == everything or ("u2" in trial and "u0" not in trial))
    assert found.best == {"u2"}
    assert found.calls <= bound(32, 1)


@pytest.mark.parametrize("harmful", [0, 3, 9])
def test_one_harmful_unit_among_several_culprits(harmful: int):
    culprits = {"u1", "u2", "u4"}
    found, _ = find(names(24), lambda trial: trial >= culprits and f"u{harmful}" not in trial)
    assert found.best == culprits
    assert found.minimal


def test_many_harmful_units():
    harmful = {f"u{rank}" for rank in range(0, 40, 2)}
    found, _ = find(names(40), lambda trial: "u5" in trial and not trial & harmful)
    assert found.best == {"u5"}


def test_a_passing_prefix_between_failing_ones_is_kept():
    found, _ = find(names(32), lambda trial: trial in ({f"u{rank}" for rank in range(4)}, set(names(32))))
    assert found.best == set(names(4))
    assert found.minimal


def test_minimal_means_that_every_single_removal_was_seen_to_fail():
    def rule(trial: frozenset[str]) -> bool:
        return trial >= {"u0", "u6"} or trial == {"u6"}

    found, _ = find(names(8), rule)
    assert found.best == {"u6"}
    assert found.minimal


# Sets: None, budgets, interruptions


def test_a_set_that_could_not_be_judged_neither_passes_nor_fails():
    def rule(trial: frozenset[str]) -> bool | None:
        return None if trial == {"u0", "u1"} else trial >= {"u0", "u1", "u2"}

    found, _ = find(names(8), rule)
    assert found.best == {"u0", "u1", "u2"}
    assert found.complete
    assert not found.minimal


def test_nothing_could_be_judged():
    found, _ = find(names(6), lambda trial: None)
    assert (found.best, found.minimal, found.complete) == (None, False, True)


def test_a_refused_prefix_does_not_stop_the_search():
    refused = frozenset(names(4))
    found, _ = find(names(32), lambda trial: None if trial == refused else trial >= {"u1", "u2"})
    assert found.best == {"u1", "u2"}
    assert found.minimal


def test_budget_keeps_the_best():
    rule = needs("u3", "u20", "u50")
    sizes, enough = [], find(names(64), rule)[0].calls
    for max_calls in range(enough + 3):
        found, _ = find(names(64), rule, max_calls=max_calls)
        sizes.append(math.inf if found.best is None else len(found.best))
        assert found.complete == (max_calls >= enough)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == math.inf
    assert sizes[-1] == 3


def test_ctrl_c_keeps_the_best():
    rule, asked, passed = needs("u3", "u20"), [], []

    def passes(batch: Sequence[frozenset[str]]) -> list[bool]:
        asked.extend(batch)
        if len(asked) > 12:
            raise KeyboardInterrupt
        passed.extend(trial for trial in batch if rule(trial))
        return [rule(trial) for trial in batch]

    found = smallest_set(names(64), passes, max_calls=PLENTY)
    assert found.interrupted
    assert not found.complete
    assert not found.minimal
    assert found.best == min(passed, key=len)


def test_ctrl_c_before_anything_passed():
    def passes(batch: Sequence[frozenset[str]]) -> list[bool]:
        raise KeyboardInterrupt

    found = smallest_set(names(4), passes, max_calls=9)
    assert (found.best, found.interrupted, found.complete) == (None, True, False)


def test_other_errors_escape():
    def passes(batch: Sequence[frozenset[str]]) -> list[bool]:
        raise RuntimeError("no oracle")

    with pytest.raises(RuntimeError, match="no oracle"):
        smallest_set(names(4), passes, max_calls=9)


@pytest.mark.parametrize("answers", [[], [True, True]])
def test_wrong_number_of_answers(answers: list[bool]):
    with pytest.raises(ValueError, match="zip"):
        smallest_set(names(4), lambda batch: answers, max_calls=9)


def test_nan_is_no_answer():
    with pytest.raises(TypeError, match="True, False or None, not nan"):
        smallest_set(names(4), lambda batch: [math.nan], max_calls=9)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("ranked", "options", "words"),
    [
        (["a", "a"], {"max_calls": 1}, "once: 2 names, 1 different"),
        (["a"], {"max_calls": -1}, "max_calls"),
        (["a"], {"max_calls": 1, "width": 0}, "width"),
    ],
)
def test_wrong_arguments(ranked: list[str], options: dict[str, int], words: str):
    with pytest.raises(ValueError, match=words):
        smallest_set(ranked, lambda batch: [True] * len(batch), **options)


# Sets: what is known already


def test_a_second_search_with_the_answers_of_the_first_asks_nothing():
    rule = needs("u3", "u20", "u33")
    first, oracle = find(names(64), rule)
    again, _ = find(names(64), rule, known={trial: rule(trial) for trial in oracle.asked})
    assert again.calls == 0
    assert (again.best, again.minimal, again.complete) == (first.best, True, True)


def test_an_interrupted_search_goes_on_where_it_stopped():
    rule = needs("u3", "u20", "u33")
    whole, _ = find(names(64), rule)
    part, oracle = find(names(64), rule, max_calls=14)
    rest, _ = find(names(64), rule, known={trial: rule(trial) for trial in oracle.asked})
    assert rest.best == whole.best
    assert rest.minimal
    assert part.calls + rest.calls <= whole.calls


def test_a_known_set_is_pruned():
    start = frozenset({"u3", "u50", "u51"})
    found, oracle = find(names(64), needs("u3", "u50"), known={start: True})
    assert found.best == {"u3", "u50"}
    assert max(map(len, oracle.asked)) < 3


def test_known_sets_of_other_units_are_left_aside():
    found, _ = find(names(4), needs("u1"), known={frozenset({"elsewhere"}): True, frozenset({"u1"}): None})
    assert found.best == {"u0", "u1"}
    assert not found.minimal


def test_the_empty_set_is_never_asked_and_wins_when_known_to_pass():
    found, oracle = find(names(4), needs("u0"))
    assert frozenset() not in oracle.asked
    assert found.minimal
    found, _ = find(names(4), lambda trial: True, known={frozenset(): True})
    assert (found.best, found.minimal, found.calls) == (frozenset(), True, 0)


# Sets: several at a time


@pytest.mark.parametrize("culprits", [(0,), (17,), (1, 2), (3, 50), (0, 1, 2, 3, 4, 5), (10, 40, 70, 99)])
def test_a_wider_search_gives_the_same_answer_in_fewer_batches(culprits: tuple[int, ...]):
    rule = needs(*(f"u{rank}" for rank in culprits))
    one, narrow_oracle = find(names(100), rule)
    four, wide_oracle = find(names(100), rule, width=4)
    assert (four.best, four.minimal, four.complete) == (one.best, one.minimal, one.complete)
    assert {len(batch) for batch in narrow_oracle.batches} == {1}
    assert max(len(batch) for batch in wide_oracle.batches) <= 4
    assert len(wide_oracle.batches) <= max(1, 0.7 * len(narrow_oracle.batches))


@pytest.mark.parametrize("width", [2, 4, 16])
def test_a_wider_search_of_additive_errors(width: int):
    ranked, rule, optimum = additive(3, 40, kept_share=0.3, noise=0.5)
    found, _ = find(ranked, rule, width=width)
    assert found.best is not None
    assert found.minimal
    assert len(found.best) <= 1.5 * optimum


def test_a_batch_never_exceeds_the_budget():
    _, oracle = find(names(100), needs("u3", "u50"), width=4, max_calls=10)
    assert [len(batch) for batch in oracle.batches] == [4, 4, 2]


# Sets: what a search costs


def gaps(ranks: Iterable[int]) -> list[int]:
    """Return the lengths of the runs of other units before and between the culprits."""
    ordered = sorted(ranks)
    return [high - low - 1 for low, high in zip([-1, *ordered], ordered, strict=False)]


def test_calls_stay_within_the_bounds():
    draw = random.Random(0)
    checked = 0
    for _ in range(800):
        count = draw.choice([8, 30, 100, 400])
        size = draw.randint(1, min(12, count // 2))
        last = min(count // 2, int(size * draw.choice([1, 1.2, 2, 4, 50])))
        culprits = draw.sample(range(max(size, last)), size)
        found, _ = find(names(count), needs(*(f"u{rank}" for rank in culprits)))
        assert found.best == {f"u{rank}" for rank in culprits}
        assert found.minimal
        runs, depth = gaps(culprits), max(culprits) + 1
        steps = sum(math.log2(run + 1) for run in runs)
        assert found.calls <= 2 * math.log2(depth) + 1 + 2 * size + 2 * steps
        if math.log2(depth) + steps <= math.log2(2 * count):
            checked += 1
            assert found.calls <= bound(count, size)
    assert checked > 300


@pytest.mark.parametrize("count", [2, 3, 5, 8, 16, 40, 100])
def test_perfect_ranking_stays_within_the_bound(count: int):
    for size in range(1, count + 1, max(1, count // 20)):
        found, _ = find(names(count), needs(*names(size)))
        assert found.best == set(names(size))
        assert found.calls <= bound(count, size)


# Sets: any oracle at all

tables = st.dictionaries(st.frozensets(st.sampled_from(names(6))), st.sampled_from([True, False, None]), max_size=64)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    table=tables,
    other=st.sampled_from([True, False, None]),
    count=st.integers(0, 6),
    width=st.integers(1, 5),
    max_calls=st.integers(0, 70),
)
def test_any_oracle(table: dict[frozenset[str], bool | None], other, count: int, width: int, max_calls: int):
    def rule(trial: frozenset[str]) -> bool | None:
        return table.get(trial, other) if trial else False

    found, oracle = find(names(count), rule, width=width, max_calls=max_calls)
    passed = [trial for trial in oracle.asked if rule(trial)]
    assert (found.best is None) == (not passed)
    assert frozenset() not in oracle.asked
    if found.best is not None:
        assert len(found.best) == min(map(len, passed))
        singles = [rule(found.best - {unit}) for unit in found.best]
        if found.minimal:
            assert set(singles) <= {False}
        if found.complete:
            assert True not in singles
            assert found.minimal == (None not in singles)


# Intervals


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 1000])
def test_interval_of_one_culprit(count: int):
    for culprit in {0, 1, count // 3, count // 2, count - 2, count - 1} & set(range(count)):
        found, _ = narrow(count, window(culprit, culprit))
        assert (found.start, found.stop, found.complete) == (culprit, culprit + 1, True)
        assert found.calls <= 2 * math.ceil(math.log2(count))


def test_interval_of_a_window_and_its_calls():
    draw = random.Random(1)
    for _ in range(500):
        count = draw.choice([5, 20, 100, 1000])
        first = draw.randrange(count)
        last = min(count - 1, first + draw.choice([0, 1, 2, 5, 30]))
        found, _ = narrow(count, window(first, last))
        assert (found.start, found.stop) == (first, last + 1)
        assert found.calls <= 2 * math.log2(count) + 4


def test_interval_of_everything():
    found, _ = narrow(50, window(0, 49))
    assert (found.start, found.stop, found.complete) == (0, 50, True)


def test_interval_takes_the_first_of_two_faults():
    found, _ = narrow(32, lambda start, stop: start <= 5 < stop or start <= 20 < stop)
    assert (found.start, found.stop) == (5, 6)


def test_interval_that_could_not_be_judged_is_not_the_fault():
    found, _ = narrow(16, lambda start, stop: None if stop - start < 4 else start <= 6 < stop)
    assert found.stop - found.start == 4
    assert found.start <= 6 < found.stop
    nothing, _ = narrow(16, lambda start, stop: None)
    assert (nothing.start, nothing.stop, nothing.complete) == (0, 16, True)


def test_interval_around_refused_halves_still_shrinks():
    found, _ = narrow(16, lambda start, stop: None if (start, stop) in {(0, 8), (8, 16)} else start <= 3 < stop)
    assert (found.start, found.stop) == (3, 4)


def test_interval_within_a_budget():
    sizes = []
    for max_calls in range(30):
        found, _ = narrow(256, window(100, 101), max_calls=max_calls)
        sizes.append(found.stop - found.start)
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (256, 2)
    assert not narrow(256, window(100, 101), max_calls=3)[0].complete


def test_interval_after_ctrl_c():
    asked = []

    def fails(start: int, stop: int) -> bool:
        asked.append((start, stop))
        if len(asked) > 5:
            raise KeyboardInterrupt
        return start <= 40 < stop

    found = smallest_interval(64, fails, max_calls=PLENTY)
    assert found.interrupted
    assert not found.complete
    assert (found.start, found.stop) in asked[:5]
    assert found.start <= 40 < found.stop


@pytest.mark.parametrize(("count", "max_calls"), [(0, 5), (4, -1)])
def test_interval_of_wrong_arguments(count: int, max_calls: int):
    with pytest.raises(ValueError, match="at least"):
        smallest_interval(count, window(0, 0), max_calls=max_calls)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(data=st.data(), count=st.integers(1, 9), max_calls=st.integers(0, 60))
def test_any_region(data: st.DataObject, count: int, max_calls: int):
    pairs = [(start, stop) for start in range(count) for stop in range(start + 1, count + 1)]
    table = data.draw(st.fixed_dictionaries({pair: st.sampled_from([True, False, None]) for pair in pairs}))
    found, region = narrow(count, lambda start, stop: table[start, stop], max_calls=max_calls)
    assert 0 <= found.start < found.stop <= count
    smallest = min((stop - start for start, stop in region.asked if table[start, stop]), default=count)
    assert found.stop - found.start == smallest
    if found.complete and smallest > 1:
        assert not table[found.start + 1, found.stop]
        assert not table[found.start, found.stop - 1]

"""Which parts are out of line, and how few runs it takes to find them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from harness.bisect.ranking import Group, beyond, out_of_line, ranked, together

U = 2.0**-11
LINE = partial(out_of_line, roundoff=U)


def groups(*errors: float) -> list[Group]:
    return [Group(names=(f"v{i}",), error=error) for i, error in enumerate(sorted(errors, reverse=True))]


@pytest.mark.parametrize(
    ("errors", "count"),
    [
        ((0.3, *[1e-3] * 20), 1),
        ((0.3, 0.3, *[1e-3] * 20), 2),
        ((0.3, 0.02, *[1e-3] * 20), 2),
        ((math.inf, 0.3, *[1e-3] * 20), 2),
        ((math.inf, *[0.02] * 30), 1),
        ((0.02,) * 30, 0),
        ([0.3 * 0.8**k for k in range(30)], 0),
        ((1e-3, *[1e-5] * 5), 0),
        ((math.inf,) * 4, 4),
        ((0.3,), 0),
        ((), 0),
    ],
    ids=[
        "one", "two alike", "two sizes", "overflow and another", "overflow in a bad network", "all alike",
        "ever smaller", "as large as made", "all overflow", "nothing beside it", "nothing",
    ],
)  # fmt: skip
def test_what_costs_several_times_all_the_rest_is_out_of_line(errors: Sequence[float], count: int):
    assert LINE(groups(*errors)) == count


def test_roundings_that_arrive_as_large_as_made_are_in_line_however_many_values_make_them():
    rest = Group(names=("rest",), error=1e-5)
    few = Group(names=tuple("abcd"), error=2.5 * math.sqrt(4) * U)
    assert LINE([few, rest]) == 0
    assert LINE([Group(names=few.names, error=3.5 * math.sqrt(4) * U), rest]) == 1


@pytest.mark.parametrize(("limit", "count"), [(1.0, 0), (0.4, 1), (0.25, 2), (0.0, 3)])
def test_beyond_a_limit_are_those_that_exceed_it_together(limit: float, count: int):
    assert beyond(groups(0.3, 0.3, 0.2), limit=limit) == count


def halves(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    middle = len(names) // 2
    return [names[:middle], names[middle:]]


def network(**culprits: float) -> Callable[[tuple[str, ...]], float]:
    """Return the error of any values of a network in which all but the culprits cost 1e-4."""
    return lambda names: math.hypot(*(culprits.get(name, 1e-4) for name in names))


NAMES = tuple(f"v{i}" for i in range(256))
EIGHTHS = [NAMES[i : i + 32] for i in range(0, 256, 32)]


@pytest.mark.parametrize("culprits", [{"v77": 0.5}, {"v77": math.inf, "v78": 0.2}, {"v3": 0.4, "v250": 0.02}])
def test_culprits_among_many_values_are_found_in_few_runs(culprits: dict[str, float]):
    asked: list[tuple[str, ...]] = []
    alone = network(**culprits)

    def counted(names: tuple[str, ...]) -> float:
        asked.append(names)
        return alone(names)

    found = ranked(EIGHTHS, halves, counted, LINE, most=96)
    assert [group.names for group in found[: len(culprits)]] == [(name,) for name in culprits]
    assert LINE(found) == len(culprits)
    assert len(asked) <= 8 + 10 * len(culprits)
    assert sorted(name for group in found for name in group.names) == sorted(NAMES)


def test_a_part_that_is_out_of_line_only_as_a_whole_stays_whole():
    bad = dict.fromkeys(EIGHTHS[3], 3e-3)
    found = ranked(EIGHTHS, halves, network(**bad), LINE, most=96)
    assert {name for group in found[: LINE(found)] for name in group.names} == set(bad)
    assert all(group.whole for group in found[: LINE(found)])


def test_where_all_lose_alike_nothing_is_split():
    found = ranked(EIGHTHS, halves, network(), LINE, most=96)
    assert [len(group.names) for group in found] == [32] * 8
    assert together(found) == pytest.approx(16e-4)


def test_no_more_is_asked_than_was_allowed():
    asked: list[tuple[str, ...]] = []

    def alone(names: tuple[str, ...]) -> float:
        asked.append(names)
        return math.inf

    ranked(EIGHTHS, halves, alone, LINE, most=20)
    assert len(asked) == 20

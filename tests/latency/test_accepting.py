"""What accepting sees of the sessions that it is given."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import quiet

from harness.latency.accepting import reviewed
from harness.records.latency import Session


def given(*levels: float) -> list[Session]:
    days = [f"2026-01-0{i + 1}T00:00:00+00:00" for i in range(len(levels))]
    return [replace(quiet(level, f"b{i}"), recorded_at=days[i]) for i, level in enumerate(levels)]


GOOD = (1.0, 1.001, 0.999, 1.002, 0.998, 1.0, 1.001, 0.999)


@pytest.mark.parametrize("size", [0.05, 0.1])
@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_outlier_is_shown_and_left_out(count: int, size: float, sign: int):
    levels = list(GOOD[:count])
    levels[1] *= 1 + sign * size
    found = reviewed("x", given(*levels))
    assert [one.id for one in found.left_out] == ["b1"]
    assert len(found.sessions) == count - 1
    assert "session b1 of 2026-01-02T00:00:00" in found.remarks[0]
    assert "--include" in found.remarks[0]
    kept = reviewed("x", given(*levels), include=True)
    assert (len(kept.sessions), kept.left_out) == (count, ())
    assert "outlier" in kept.remarks[0]


def test_good_sessions_are_accepted_without_a_word():
    found = reviewed("x", given(*GOOD))
    assert (len(found.sessions), found.left_out, found.remarks) == (8, (), ())


def test_a_wide_spread_holds_no_outlier():
    assert reviewed("x", given(1.0, 1.04, 0.97, 1.02)).left_out == ()


@pytest.mark.parametrize(
    ("levels", "words"),
    [((1.0, 1.001), "these are 2"), ((1.0, 1.004, 0.997, 1.003), "more would (then parity accept --last"),
     ((1.0, 1.05, 0.96, 1.02), "32 sessions would not either")],
)  # fmt: skip
def test_a_baseline_that_cannot_tell_three_percent_says_so(levels: tuple[float, ...], words: str):
    (remark,) = reviewed("x", given(*levels)).remarks
    assert words in remark


def test_two_modes_are_said_and_kept():
    found = reviewed("x", given(*GOOD[:6], 1.03, 1.031))
    assert len(found.sessions) == 8
    assert "two modes: 6 sessions at 1 ms, 2 at 1.03" in found.remarks[0]

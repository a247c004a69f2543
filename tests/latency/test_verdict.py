"""Latency verdicts on simulated sessions whose truth is known, and on sessions that must never pass."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import TRIALS, base, quiet, rate, with_runs

from benchmarks.latency_verdict import session, sessions
from harness.errors import UsageError
from harness.latency.estimate import freedom, prediction_error, qn, t_quantile, welch
from harness.latency.verdict import compare_in_turns, compare_sessions, speed_up
from harness.machine.identity import Machine
from harness.records.latency import Session
from harness.records.sessions import session_from_json


def with_median(one: Session, number: int, value: float | None) -> Session:
    """Return the session with another GPU median in one process."""
    return with_runs(one, number, gpu_ms=replace(one.runs[number].gpu_ms, median=value))


def with_p99(one: Session, level: float) -> Session:
    """Return the session with a 99th percentile in every process."""
    runs = [replace(run, gpu_ms=replace(run.gpu_ms, p99=level * run.gpu_ms.median)) for run in one.runs]
    return replace(one, runs=tuple(runs))


# How often it is wrong


@pytest.mark.parametrize("spread", [0.003, 0.005, 0.01])
@pytest.mark.parametrize("baseline", [4, 8])
def test_equal_sessions_are_rarely_called_regressed(baseline: int, spread: float):
    assert rate("regressed", baseline=baseline, spread=spread, change=0.0) <= 0.02


def test_without_a_margin_the_interval_alone_holds_its_level():
    assert rate("regressed", baseline=8, spread=0.005, change=0.0, regress_margin=0.0) <= 0.03


def test_three_percent_is_found_by_eight_stored_sessions_at_a_spread_of_three_per_mille():
    assert rate("regressed", baseline=8, spread=0.003, change=0.03) >= 0.9


@pytest.mark.parametrize("baseline", [4, 8])
def test_three_percent_is_never_called_equivalent(baseline: int):
    assert rate("equivalent", baseline=baseline, spread=0.005, change=0.03) <= 0.03


def test_three_percent_faster_is_improved_and_equal_is_equivalent():
    assert rate("improved", trials=200, baseline=8, spread=0.003, change=-0.03) >= 0.9
    assert rate("equivalent", trials=200, baseline=8, spread=0.003, change=0.0) >= 0.95


def test_a_change_as_large_as_the_bound_is_hardly_ever_equivalent():
    assert rate("equivalent", baseline=8, spread=0.005, change=0.03) <= 0.03


def test_a_noisy_machine_is_inconclusive_not_equivalent():
    assert rate("equivalent", trials=200, baseline=8, spread=0.03, change=0.0) <= 0.02
    assert rate("regressed", trials=200, baseline=8, spread=0.03, change=0.0) <= 0.02


def test_in_turns_holds_its_level_and_finds_three_percent():
    rng = np.random.default_rng(4)

    def one(change: float, margin: float) -> str:
        a, b = next(sessions(rng, spread=0, level=1 + change)), next(sessions(rng, spread=0, name="b"))
        return compare_in_turns(a, b, regress_margin=margin).verdict

    assert sum(one(0.0, 0.0) == "regressed" for _ in range(TRIALS)) / TRIALS <= 0.045
    assert sum(one(0.0, 0.01) == "regressed" for _ in range(TRIALS)) / TRIALS <= 0.005
    assert sum(one(0.03, 0.01) == "regressed" for _ in range(TRIALS)) / TRIALS >= 0.95


# What it says


def test_regression_names_the_rule_and_its_numbers():
    result = compare_sessions(quiet(1.03), base())
    assert result.verdict == "regressed"
    assert result.ratio == pytest.approx(1.03 / 1.002, rel=1e-3)
    assert 1.01 < result.low < result.ratio < result.high
    assert result.metric == "gpu_ms"
    assert result.baseline == ("b0", "b1", "b2", "b3", "b4")
    for words in ("1.03", "prediction interval from the median of 5 sessions", "for 5 processes", "wholly above 1.01"):
        assert words in result.rule
    assert result.p_value < 0.01
    assert not result.repeated


@pytest.mark.parametrize(
    ("level", "verdict", "words"),
    [
        (0.96, "improved", "wholly below 0.9901"),
        (1.0, "equivalent", "within 0.97087 and 1.03"),
        (1.012, "equivalent", "within"),
        (1.014, "inconclusive", "neither beyond"),
    ],
)
def test_other_verdicts(level: float, verdict: str, words: str):
    result = compare_sessions(quiet(level), base(), equivalent_within=0.015 if verdict == "inconclusive" else 0.03)
    assert (result.verdict, words in result.rule) == (verdict, True)


def test_prediction_interval_is_that_of_the_formula():
    levels = (1.0, 1.004, 0.998, 1.007)
    old = [quiet(level, f"b{i}") for i, level in enumerate(levels)]
    third = sorted(abs(math.log(a / b)) for i, a in enumerate(levels) for b in levels[i + 1 :])[2]
    spread = 2.21914 * 4 / 8.6 * third
    half = t_quantile(1.94, 0.975) * spread * math.sqrt(math.pi / 2 / 4 + 1)
    result = compare_sessions(quiet(1.001), old)
    assert math.log(result.ratio) == pytest.approx(math.log(1.001) - (math.log(1.0) + math.log(1.004)) / 2, abs=1e-9)
    assert math.log(result.high / result.ratio) == pytest.approx(half, rel=1e-3)
    assert math.log(result.ratio / result.low) == pytest.approx(half, rel=1e-3)


def test_the_spread_of_normal_sessions_is_right_and_its_interval_holds_its_level():
    rng = np.random.default_rng(2)
    for n in (4, 5, 8, 16):
        sample = rng.standard_normal((4000, n + 1))
        spreads = np.array([qn(list(row[1:])) for row in sample])
        error = np.array([prediction_error(spread, 0.0, 1, n) for spread in spreads])
        outside = abs(sample[:, 0] - np.median(sample[:, 1:], axis=1)) > t_quantile(freedom(n), 0.975) * error
        assert np.mean(spreads**2) == pytest.approx(1.0, rel=0.1)
        assert 0.035 <= outside.mean() <= 0.06


@pytest.mark.parametrize("size", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("sessions", [4, 8])
def test_one_session_in_four_does_not_move_the_comparison(sessions: int, size: float):
    """It did: true changes of up to 20 % were inconclusive for ever."""
    levels = np.array([1.0, 1.002, 0.998, 1.001, 0.999, 1.0015, 0.9985, 1.0])[:sessions]
    levels[: sessions // 4] *= 1 + size * np.arange(1, sessions // 4 + 1)
    old = [quiet(level, f"b{i}") for i, level in enumerate(levels)]
    assert compare_sessions(quiet(1.0), old).verdict == "equivalent"
    assert compare_sessions(quiet(1.05), old).verdict == "regressed"


def test_margin_is_never_below_the_spread_between_sessions():
    levels = np.exp(0.02 * np.linspace(-1, 1, 5))
    old = [quiet(level, f"b{i}") for i, level in enumerate(levels)]
    result = compare_sessions(quiet(1.5), old)
    assert result.verdict == "regressed"
    assert f"wholly above {1 + qn(list(np.log(levels))):.5g}" in result.rule


def test_welch_is_that_of_scipy():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    new, old = list(rng.normal(0.1, 1, 5)), list(rng.normal(0, 3, 9))
    theirs = ttest_ind(new, old, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    ours = welch(new, old)
    assert ours.freedom == pytest.approx(theirs.df)
    assert [math.log(x) for x in ours.interval()[1:]] == pytest.approx([interval.low, interval.high])
    assert 2 * ours.p_value(1.0) == pytest.approx(theirs.pvalue)


def test_stored_times_alone_confirm_nothing_and_say_what_would():
    result = compare_sessions(quiet(1.05), base())
    assert (result.verdict, result.repeated) == ("regressed", False)
    assert "PARITY_ENGINES" in result.next_step
    few = compare_sessions(quiet(1.05), base(3))
    assert (few.verdict, few.repeated) == ("regressed", False)
    assert "Welch interval over 5 against 15 processes" in few.rule


def test_the_same_engine_file_cannot_have_become_slower():
    old = base(engine_sha256="a" * 64, inputs="real")
    for level in (0.95, 1.05):
        result = compare_sessions(quiet(level, engine_sha256="a" * 64, inputs="real"), old)
        assert result.verdict == "machine_changed"
        assert "accept" in result.next_step
    assert compare_sessions(quiet(engine_sha256="a" * 64, inputs="real"), old).verdict == "equivalent"
    assert compare_sessions(quiet(1.05, engine_sha256="a" * 64, inputs="random"), old).verdict == "regressed"
    assert compare_sessions(quiet(1.05, engine_sha256="b" * 64, inputs="real"), old).verdict == "regressed"


@pytest.mark.parametrize(
    ("levels", "words"),
    [((1.0, 1.04, 0.98), "3 of 4 sessions"), ((1.0, 1.01, 0.99, 1.005), "32 sessions would not either"),
     ((1.0, 1.003, 0.998, 1.004), "more would (then parity accept --last")],
)  # fmt: skip
def test_inconclusive_says_why_and_what_to_do(levels: tuple[float, ...], words: str):
    old = [quiet(level, f"b{i}") for i, level in enumerate(levels)]
    result = compare_sessions(quiet(1.026), old)
    assert (result.verdict, words in result.next_step) == ("inconclusive", True), result.next_step


def test_missing_sessions_do_not_matter_but_a_duplicate_counts_once():
    old = base(6)
    assert compare_sessions(quiet(1.03), old[::2] + old[1:2]).verdict == "regressed"
    twice = compare_sessions(quiet(1.03), [old[0]] * 8)
    assert twice.baseline == ("b0",)


def test_one_process_off_does_not_decide():
    result = compare_sessions(with_median(quiet(1.0), 4, 1.5), base())
    assert result.verdict == "inconclusive"
    assert compare_sessions(with_median(quiet(1.03), 4, 1.5), base()).verdict == "inconclusive"


def test_hodges_lehmann_is_noted_when_it_disagrees():
    result = compare_in_turns(with_median(quiet(), 4, 1.5), quiet(1.0, "b"))
    assert result.ratio > 1.05
    assert result.verdict == "inconclusive"
    assert [note for note in result.notes if "Hodges-Lehmann ratio" in note and note.endswith("disagrees: 1")]
    assert not compare_in_turns(quiet(1.03), quiet(1.0, "b")).notes


def test_slow_tail_is_noted_and_never_decides():
    old = [with_p99(one, 1.1) for one in base()]
    result = compare_sessions(with_p99(quiet(), 1.3), old)
    assert result.verdict == "equivalent"
    assert [note for note in result.notes if note.startswith("p99 regressed 1.17")]
    assert not compare_sessions(with_p99(quiet(), 1.12), old).notes
    assert not compare_sessions(with_p99(quiet(), 1.3), [*old, quiet(1.0, "without")]).notes


# Clocks


def test_slower_in_time_and_equal_in_cycles_is_a_slower_clock():
    result = compare_sessions(quiet(1.05, clock=1980 / 1.05), base(clock=1980))
    assert result.verdict == "slower_clock"
    assert result.ratio == pytest.approx(1.05, rel=1e-2)
    assert "slower in time" in result.rule
    assert "but equivalent in clock cycles 0.998 [" in result.rule
    assert "SM clock changed: 1886 MHz here, 1980 MHz in the baseline" in result.notes


def test_slower_in_time_and_in_cycles_is_a_regression():
    assert compare_sessions(quiet(1.1, clock=1880), base(clock=1980)).verdict == "regressed"
    assert compare_sessions(quiet(1.05, clock=1980), base(clock=1980)).verdict == "regressed"
    assert compare_sessions(quiet(1.05), base(clock=1980)).verdict == "regressed"


def test_faster_clock_that_hides_a_regression_is_noted():
    result = compare_sessions(quiet(1.0, clock=1980), base(clock=1880))
    assert result.verdict == "equivalent"
    assert [note for note in result.notes if note.startswith("regressed in clock cycles 1.05")]


def test_bimodal_clocks_of_the_machine_cry_no_wolf():
    rng = np.random.default_rng(7)
    verdicts = []
    for _ in range(200):
        clocks = np.where(rng.random(9) < 0.5, 1755.0, 1980.0)
        every = [
            session(1980 / clock * np.exp(rng.normal(0, 0.003, 5)), f"s{i}", clocks_mhz=np.full(5, clock))
            for i, clock in enumerate(clocks)
        ]
        verdicts.append(compare_sessions(every[0], every[1:]).verdict)
    assert verdicts.count("regressed") / 200 <= 0.02


def test_baseline_at_one_clock_and_sessions_at_another():
    rng = np.random.default_rng(8)
    for _ in range(50):
        old = [session(np.exp(rng.normal(0, 0.003, 5)), f"b{i}", clocks_mhz=np.full(5, 1980.0)) for i in range(4)]
        new = session(1980 / 1755 * np.exp(rng.normal(0, 0.003, 5)), "new", clocks_mhz=np.full(5, 1755.0))
        assert compare_sessions(new, old).verdict == "slower_clock"


def test_power_limit_on_one_side_must_be_confirmed_in_cycles():
    def capped(one: Session) -> Session:
        runs = [replace(run, conditions=replace(run.conditions, power_capped=True)) for run in one.runs]
        return replace(one, runs=tuple(runs))

    clocks = np.array([1700.0, 1800, 1900, 2000, 1750])
    new = session(quiet(1.05).medians(), "new", clocks_mhz=clocks)
    new = capped(new)
    result = compare_sessions(new, base(clock=1980))
    assert result.verdict == "inconclusive"
    assert "the power limit was reached on one side only" in result.notes
    assert compare_sessions(capped(quiet(1.05, clock=1980)), base(clock=1980)).verdict == "regressed"


# What can never pass


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, None])
def test_median_that_is_no_time_is_never_equivalent(value: float | None):
    result = compare_sessions(with_median(quiet(), 1, value), base())
    assert result.verdict == "inconclusive"
    assert "process 2 has the gpu_ms median" in result.rule
    assert result.ratio is None
    everywhere = quiet()
    for number in range(5):
        everywhere = with_median(everywhere, number, value)
    assert compare_sessions(everywhere, [replace(everywhere, id=f"b{i}") for i in range(5)]).verdict == "inconclusive"
    left = compare_sessions(quiet(), [*base(), with_median(quiet(1.0, "bad"), 0, value)])
    assert left.verdict == "equivalent"
    assert "bad" not in left.baseline
    assert left.notes[0].startswith("baseline session bad left out: process 1 has the gpu_ms median")
    assert compare_in_turns(with_median(quiet(), 0, value), quiet(1.0, "b")).verdict == "inconclusive"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_medians_give_a_verdict_and_only_close_ones_equivalent(medians: list[float]):
    result = compare_sessions(session(np.array(medians), "new"), base())
    if result.verdict == "equivalent":
        assert all(0 < value < math.inf for value in medians)
        assert 0.97 < np.median(medians) < 1.04
    json.dumps(result.to_json(), allow_nan=False)


def test_invalid_environment_says_why():
    spoilt = with_runs(quiet(), 2, invalid=("a foreign process used the GPU",))
    result = compare_sessions(spoilt, base())
    assert result.verdict == "invalid_environment"
    assert "a foreign process used the GPU" in result.rule
    assert compare_sessions(spoilt, ()).verdict == "invalid_environment"
    assert compare_in_turns(quiet(1.0, "a"), spoilt).verdict == "invalid_environment"
    noted = compare_sessions(quiet(), [*base(), replace(spoilt, id="spoilt")])
    assert any("spoilt left out: invalid environment: a foreign process" in note for note in noted.notes)


@pytest.mark.parametrize("k", [0, 1])
def test_fewer_than_two_processes_are_inconclusive(k: int):
    result = compare_sessions(replace(quiet(), runs=quiet().runs[:k]), base())
    assert result.verdict == "inconclusive"
    assert f"only {k} processes were measured" in result.rule


def test_two_processes_are_enough_for_a_verdict_and_widen_it():
    few, many = compare_in_turns(quiet(k=2), quiet(k=2)), compare_in_turns(quiet(k=8), quiet(k=8))
    assert few.high / few.low > many.high / many.low
    assert many.verdict == "equivalent"


def test_no_baseline_is_neither_pass_nor_fail():
    result = compare_sessions(quiet(), ())
    assert (result.verdict, result.ratio, result.rule) == ("no_baseline", None, "no session was accepted yet")


def test_session_in_its_own_baseline_is_left_out():
    result = compare_sessions(quiet(), [*base(), quiet()])
    assert "new" not in result.baseline
    assert "baseline session new left out: it is this session itself" in result.notes


def machine(key: str, **facts) -> Machine:
    return Machine(key=key, class_key="simulated", facts=facts)


def test_baseline_of_another_machine_names_what_differs():
    new = quiet(machine=machine("a", gpu="H200", driver="580.1", cpu="x"))
    old = base(machine=machine("b", gpu="H200", driver="570.2", cpu="x"))
    result = compare_sessions(new, old)
    assert result.verdict == "no_baseline"
    assert "it is of another machine (driver 580.1 here, 570.2 there)" in result.notes[0]
    assert result.notes[-1].startswith("advice only, machine of the same class: 0.998 [")
    assert result.ratio is None


@pytest.mark.parametrize("fact", ["driver", "locked_mhz", "threads"])
def test_this_machine_with_another_driver_or_clock_has_changed(fact: str):
    here = {"host": "ci-1", "uuid": "GPU-1", "backend": "rtx", "backend_version": "1"}
    old = base(machine=machine("b", **here, **{fact: 1}))
    result = compare_sessions(quiet(machine=machine("a", **here, **{fact: 2})), old)
    assert (result.verdict, result.ratio) == ("machine_changed", None)
    assert f"{fact} 2 here, 1 there" in result.rule
    assert result.next_step
    for other in ({"host": "ci-2"}, {"backend_version": "2"}):
        elsewhere = quiet(machine=machine("a", **{**here, **other}, **{fact: 2}))
        assert compare_sessions(elsewhere, old).verdict == "no_baseline"


def test_baseline_of_another_metric_or_graph_mode_is_none():
    on_cpu = [replace(run, gpu_ms=None) for run in quiet().runs]
    result = compare_sessions(quiet(), [replace(one, runs=tuple(on_cpu)) for one in base()])
    assert result.verdict == "no_baseline"
    assert "measured end_to_end_ms, this session gpu_ms" in result.notes[0]
    failed = [replace(run, graph=False, graph_failure="an op synchronises") for run in quiet().runs]
    result = compare_sessions(replace(quiet(), runs=tuple(failed)), base())
    assert result.verdict == "no_baseline"
    assert "one replayed a CUDA graph and the other did not (an op synchronises)" in result.notes[0]
    mixed = replace(quiet(), runs=(*quiet().runs[:3], *failed[:2]))
    assert compare_sessions(mixed, base()).verdict == "inconclusive"


def test_another_benchmark_is_a_programming_error():
    other = quiet(1.0, "other", precision="fp32")
    with pytest.raises(ValueError, match="session other is of"):
        compare_sessions(quiet(), [other])
    with pytest.raises(ValueError, match="two machines"):
        compare_in_turns(quiet(), quiet(1.0, "b", machine=machine("b")))


@pytest.mark.parametrize("limits", [{"regress_margin": math.nan}, {"regress_margin": -0.1}, {"equivalent_within": 0.0}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]):
    with pytest.raises(UsageError, match="give fractions between 0 and 1"):
        compare_sessions(quiet(), base(), **limits)


# What a reader must know


def test_changed_engine_weights_and_flags_are_noted():
    old = base(engine_sha256="a" * 64, kernels_sha256="c" * 64, weights="trained", inputs="real")
    new = with_runs(
        quiet(engine_sha256="b" * 64, kernels_sha256="c" * 64, weights="random", inputs="real"),
        0,
        flags=("clock jumped", "unstable"),
    )
    old[0] = with_runs(old[0], 1, flags=("warm-up unstable",))
    assert compare_sessions(new, old).notes == (
        "engine changed: its file: bbbbbbbbbbbb here, aaaaaaaaaaaa in the baseline",
        "other weights: random here, trained in the baseline",
        "clock jumped in 1 of 5 processes",
        "unstable in 1 of 5 processes",
        "warm-up unstable in 1 of 25 processes of the baseline",
    )


def test_sessions_read_back_from_json_give_the_same_verdict():
    def again(one: Session) -> Session:
        return session_from_json(json.loads(json.dumps(one.to_json())))

    new, old = with_p99(quiet(1.03, clock=1980), 1.2), [with_p99(one, 1.1) for one in base(clock=1980)]
    assert compare_sessions(again(new), [again(one) for one in old]) == compare_sessions(new, old)
    assert compare_sessions(again(with_median(new, 0, math.nan)), old).verdict == "inconclusive"


def test_spread_of_zero_is_no_division_by_zero():
    same = session(np.ones(5), "new")
    old = [replace(same, id=f"b{i}") for i in range(5)]
    assert compare_sessions(same, old).verdict == "equivalent"
    slower = compare_sessions(session(np.full(5, 1.02), "new"), old)
    assert (slower.verdict, slower.p_value) == ("regressed", 0.0)
    assert slower.low == slower.ratio == slower.high


# In turns


def test_in_turns_gives_the_speed_up_with_its_interval():
    result = compare_in_turns(quiet(1.0, "engine", precision="fp16"), quiet(2.5, "eager", runner="eager"))
    assert result.verdict == "improved"
    ratio, low, high = speed_up(result)
    assert ratio == pytest.approx(2.5, rel=1e-3)
    assert 2.45 < low < ratio < high < 2.55
    assert speed_up(compare_sessions(quiet(), ())) is None


def test_in_turns_compares_end_to_end_where_gpu_time_is_missing():
    eager = replace(quiet(2.0, "eager"), runs=tuple(replace(run, gpu_ms=None, graph=False) for run in quiet(2.0).runs))
    result = compare_in_turns(quiet(), eager)
    assert (result.verdict, result.metric) == ("improved", "end_to_end_ms")
    assert "GPU time is missing in new or eager: compared end to end" in result.notes
    assert "a CUDA graph on one side only" in result.notes

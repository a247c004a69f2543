"""What change a machine can show: its spreads, and the smallest change that the rule finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import base, quiet, rate, with_runs

from benchmarks.latency_verdict import sessions
from harness.errors import NotJudged
from harness.latency.noise import noise_of


def test_noise_recovers_the_spreads():
    rng = np.random.default_rng(1)
    series = sessions(rng, spread=0.006, process_spread=0.003, processes=10)
    found = noise_of([next(series) for _ in range(200)])
    assert found.sd_session == pytest.approx(0.006, rel=0.15)
    assert found.sd_process == pytest.approx(0.003, rel=0.15)
    assert found.sd_within == pytest.approx(0.005)
    assert (found.sessions, found.processes, found.notes) == (200, 10, ())


def test_smallest_change_is_what_the_rule_finds_nine_times_in_ten():
    rng = np.random.default_rng(2)
    changes = []
    for _ in range(100):
        series = sessions(rng, spread=0.003)
        changes.append(noise_of([next(series) for _ in range(8)]).smallest_change)
    assert 0.85 <= rate("regressed", baseline=8, spread=0.003, change=float(np.median(changes))) <= 0.97


def test_noise_with_one_session_says_what_it_does_not_know():
    found = noise_of([quiet()])
    assert found.sd_session is None
    assert found.smallest_change > 0.01
    assert "lower bound" in found.notes[0]


def test_noise_leaves_out_what_does_not_count():
    spoilt = with_runs(quiet(1.0, "spoilt"), 0, invalid=("throttled",))
    found = noise_of([*base(), spoilt])
    assert found.sessions == 5
    assert found.notes == ("session spoilt left out: invalid environment: throttled",)
    with pytest.raises(NotJudged, match="throttled"):
        noise_of([spoilt])
    with pytest.raises(NotJudged, match="none was measured"):
        noise_of([])
    launched = replace(quiet(1.0, "launched"), runs=tuple(replace(one, graph=False) for one in quiet().runs))
    (note,) = noise_of([*base(), launched]).notes
    assert note == "session launched left out: session b0 and this one do not both replay a CUDA graph"
    with pytest.raises(ValueError, match="one benchmark on one machine"):
        noise_of([quiet(), quiet(1.0, "b", precision="fp32")])
    changed = noise_of([quiet(1.0, f"s{i}", engine_sha256=digest) for i, digest in enumerate("aaaab")])
    assert "they are not of one engine" in changed.notes[0]

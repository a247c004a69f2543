"""Latencies as text and as pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from latencies import GPU, KERNELS, comparison, eager, measured, process, session

from harness.errors import NotJudged, UsageError
from harness.records.latency import Acceptance, Measured, Session
from harness.report import facts
from harness.report.plots import latency as latency_plot
from harness.report.text import latency
from harness.report.text import series as latency_series

MISSING = {
    "subject": "clip", "case": "short", "backend": "trt", "precision": "fp16", "runner": "engine", "sizes": {},
    "reason": "no GPU", "failed": False,
}  # fmt: skip


def json(*items: Measured) -> list[dict[str, Any]]:
    return [item.to_json() for item in items]


def both(**changes: Any) -> list[dict[str, Any]]:
    faster = {"speed_up": {"eager fp32": 2.0}, "speed_up_intervals": {"eager fp32": (1.9, 2.1)}}
    return json(measured(session(**changes), **faster), measured(eager(**changes)))


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_table_on_the_cpu_says_so_and_has_no_empty_columns():
    text = latency.latency_table(both())
    heading, engine = row(text, "target"), row(text, "ort-cpu-fp16")
    assert heading.split() == [
        "target", "case", "CPU", "ms", "[low,", "high]", "runs/s", "vs", "eager", "fp32", "verdict",
    ]  # fmt: skip
    assert engine.split() == [
        "ort-cpu-fp16", "short", "1", "[0.99,", "1.01]", "1e+03", "2x", "[1.9,", "2.1]", "no", "baseline",
    ]  # fmt: skip
    assert row(text, "eager fp32").endswith(" -"), "PyTorch is not judged"
    assert "device: CPU" in text
    assert "host clock" in text
    assert "CUDA" not in text


def test_table_on_a_gpu_keeps_the_three_figures_apart():
    text = latency.latency_table(both(gpu=True))
    engine = row(text, "rtx-fp16").split()
    assert row(text, "target").split()[2:] == [
        "GPU", "ms", "[low,", "high]", "end", "to", "end", "enqueue", "p90", "p99", "runs/s", "MiB", "vs", "eager",
        "fp32", "verdict",
    ]  # fmt: skip
    assert engine[2:10] == ["1", "[0.99,", "1.01]", "2", "0.1", "1.1", "1.2", "1e+03"]
    assert engine[10] == "1024"
    assert "CUDA graph replayed" in text
    assert "device: NVIDIA H200" in text


def test_throughput_of_a_process_that_does_not_count_is_not_shown():
    runs = (process(1.0, invalid=("a foreign process",)), process(1.0), process(1.0))
    runs = (runs[0], *(replace(run, throughput_per_s=None) for run in runs[1:]))
    assert runs[0].throughput_per_s is not None
    assert "runs/s" not in row(latency.latency_table(json(measured(session(runs=runs)))), "target")


def test_a_chart_leaves_out_sessions_that_do_not_count(tmp_path: Path):
    runs = (process(1.0, invalid=("a foreign process",)),)
    with pytest.raises(NotJudged, match=r"^nothing has figures that count$"):
        latency_plot.save_bench(json(measured(session(runs=runs))), tmp_path / "x")


def test_table_shows_random_weights_sizes_and_lines_that_fit():
    text = latency.latency_table(json(measured(session(weights="random", sizes={"batch": 4, "tokens": 16}))))
    assert "RANDOM WEIGHTS" in text
    assert "short batch=4 tokens=16" in text
    assert max(map(len, text.splitlines())) <= 120


def test_table_of_two_devices_has_two_blocks():
    text = latency.latency_table([*both(), *both(gpu=True)])
    assert text.count("target  ") == 2
    assert text.splitlines()[-1] == "4 timed: 2 no baseline"


def test_gpu_time_and_host_time_are_never_in_one_column():
    on_host = session((3.0, 3.1, 3.2), device="NVIDIA H200", machine=GPU, backend="ort-cuda")
    text = latency.latency_table(json(measured(session(gpu=True)), measured(on_host)))
    gpu, host = text.split("\n\nclip |")
    assert "GPU ms" in row(gpu, "target")
    assert "ort-cuda" not in gpu
    assert row(host, "target").split()[2:4] == ["host", "ms"]
    assert row(host, "ort-cuda-fp16").split()[2] == "3.1"
    assert "GPU ms" not in host


def test_remarks_say_what_a_reader_must_know():
    runs = (process(1.0, gpu=True, flags=("unstable",)), process(1.0, gpu=True, graph=False, graph_failure="illegal"))
    judged = comparison(
        "regressed",
        1.05,
        baseline=("a",),
        notes=("engine changed: its file",),
        rule="above 1.01",
        next_step="measure again",
    )
    text = latency.latency_table(json(measured(session(gpu=True, runs=runs), comparison=judged)))
    for fact in (
        "REGRESSED: above 1.01",
        "engine changed: its file",
        "unstable in 1 of 2",
        "graph: illegal",
        "measure again",
    ):
        assert fact in text


@pytest.mark.parametrize("verdict", ["machine_changed", "invalid_environment", "inconclusive"])
def test_what_nothing_could_be_compared_for_is_said(verdict: str):
    judged = comparison(verdict, rule="driver 2 here, 1 there", next_step="accept again")
    text = " ".join(latency.latency_table(json(measured(session(), comparison=judged))).split())
    for fact in ("driver 2 here, 1 there", "what to do: accept again"):
        assert fact in text


def test_an_invalid_environment_shows_its_reason_in_place_of_figures():
    runs = (process(1.0), process(9.0, invalid=("process 7 computes on this GPU",)))
    text = latency.latency_table(json(measured(session(runs=runs), "invalid_environment")))
    assert "process 7 computes on this GPU" in text
    assert row(text, "ort-cpu-fp16").endswith("INVALID")
    assert "[1, 1]" in text, "the process that counts is shown"


def test_what_was_not_measured_is_below():
    text = latency.latency_table([], [MISSING, {**MISSING, "failed": True, "reason": "it crashed"}])
    missing, failed, *_ = text.splitlines()
    assert missing.endswith("not measured: no GPU")
    assert failed.endswith("FAILED: it crashed")
    assert text.splitlines()[-1] == "0 timed; 2 not measured"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("no_baseline", "(no baseline)"),
        ("equivalent", "(equivalent, 1.002 of the baseline)"),
        ("regressed", "(REGRESSED, 1.002 of the baseline)"),
    ],
)
def test_short(verdict: Any, words: str):
    found = measured(comparison=comparison(verdict, None if verdict == "no_baseline" else 1.002))
    assert latency.latency_line(found.to_json()) == f"clip short [ort-cpu-fp16] CPU 1 ms {words}"


def test_figures_of_sessions_without_any():
    empty = session(()).to_json()
    assert facts.session_latency(empty) is None
    assert facts.figures(empty, "gpu_ms", "median") == []
    assert "no figure" in latency.latency_line(measured(session(())).to_json())


def test_kernels_by_time_and_by_module():
    text = latency.kernels_table(measured(kernels=KERNELS).to_json())
    assert row(text, "0.6").split() == ["0.6", "60.0%", "encoder.layers.0.mlp", "gemm_1"]
    assert "of no one module" in text
    assert "3 kernels" in text
    assert facts.by_module(json(measured(kernels=KERNELS))[0]["kernels"]) == {
        "encoder.layers.0.mlp": (0.6, 0.6, 1), "encoder.layers.1.mlp": (0.3, 0.3, 1), "": (0.1, 0.1, 1),
    }  # fmt: skip


def test_kernels_without_modules_and_long_lists():
    plain = tuple(replace(kernel, module="") for kernel in KERNELS)
    text = latency.kernels_table(measured(kernels=plain).to_json(), rows=2)
    assert "1 more kernels" in text
    assert "no one module" not in text


def test_modules_are_cut_to_as_many_levels_as_fit():
    timed = json(measured(kernels=KERNELS))[0]["kernels"]
    assert [k["module"] for k in latency.levels(timed, 3)] == ["encoder.layers.0.mlp", "encoder.layers.1.mlp", ""]
    assert [k["module"] for k in latency.levels(timed, 2)] == ["encoder.layers", "encoder.layers", ""]


def sessions(*levels: float) -> list[Session]:
    return [
        session((ms, ms * 1.001, ms * 0.999), id=f"s{number}", recorded_at=f"2026-01-{number + 1:02}T00:00:00+00:00")
        for number, ms in enumerate(levels)
    ]


def accepted(*ids: str) -> Acceptance:
    return Acceptance(
        id="a", accepted_at="2026-01-02T00:00:00+00:00", benchmark="b", machine_key="k", sessions=ids, why="first"
    )


def test_series_finds_a_step_and_marks_what_was_accepted():
    noise = [1.0, 1.002, 0.998, 1.001, 0.999, 1.0, 1.001]
    found = latency_series.series_of(sessions(*noise, *(1.1 * n for n in noise)), acceptance=accepted("s0", "s1"))
    (change,) = found["change_points"]
    assert change["index"] == 7
    assert change["change"] == pytest.approx(0.1, abs=0.005)
    assert [point["accepted"] for point in found["points"]].count(True) == 2
    text = latency_series.history_text([found])
    assert "warning: +10" in text
    line = row(text, "baseline: ")
    for fact in ("2 sessions", "2026-01-02T00:00:00", "first"):
        assert fact in line
    assert "machine cpu012345678" in text


def test_series_tells_the_age_of_its_baseline():
    found = latency_series.series_of(sessions(1.0, 1.0, 1.02, 1.02, 1.02), acceptance=accepted("s0", "s1"))
    assert found["age"] == {"days": 3.0, "sessions": 3, "change": pytest.approx(0.02), "trend": None}
    text = latency_series.history_text([found])
    assert "3 days and 3 sessions old" in row(text, "baseline: ")
    assert "warning: the series has moved since its baseline was accepted" in text
    still = latency_series.series_of(sessions(1.0, 1.0, 1.001), acceptance=accepted("s0", "s1"))
    assert "has moved" not in latency_series.history_text([still])
    assert latency_series.series_of(sessions(1.0))["age"] is None


def test_series_leaves_out_invalid_sessions_and_says_so():
    bad = session(runs=(process(9.0, invalid=("a stranger",)), process(9.0)), id="bad")
    found = latency_series.series_of([*sessions(1.0, 1.0), bad])
    text = latency_series.history_text([found])
    assert found["points"][-1]["invalid"] == ["a stranger"]
    assert "INVALID: a stranger" in text
    assert "nothing was accepted" in text
    assert "from 10 on" in text


def test_series_warns_of_a_drift():
    found = latency_series.series_of(sessions(*(1 + 0.002 * number for number in range(20))))
    assert found["trend"]["drifts"]
    assert "warning: drifts by" in latency_series.history_text([found])


def test_long_series_show_the_latest():
    text = latency_series.history_text([latency_series.series_of(sessions(*[1.0] * 8))], rows=5)
    assert "3 older sessions" in text


def test_aa_text():
    line = {
        "target": "rtx-fp16 short", "ms": 1.234, "sd_within": 0.001, "sd_process": 0.002, "sd_session": None,
        "smallest_change": 0.0123, "sessions": 4, "processes": 5, "verdicts": {"equivalent": 5, "inconclusive": 1},
        "notes": ["a note"],
    }  # fmt: skip
    text = latency_series.noise_text([line])
    assert row(text, "rtx").split() == [
        "rtx-fp16", "short", "1.234", "0.1", "%", "0.2", "%", "-", "1.2", "%", "4", "x", "5", "5", "equivalent,", "1",
        "inconclusive",
    ]  # fmt: skip
    assert row(text, "note: ").endswith("a note")


def swept() -> list[dict[str, Any]]:
    faster = {"speed_up": {"eager fp32": 2.0}, "speed_up_intervals": {"eager fp32": (1.9, 2.1)}}
    found = []
    for batch in (4, 1, 2):
        found.append(measured(session((batch * 1.0, batch * 1.1), sizes={"batch": batch}), **faster))
        found.append(measured(eager((batch * 2.0, batch * 2.2), sizes={"batch": batch})))
    return json(*found)


def test_charts_are_written_and_the_same_twice(tmp_path: Path):
    first = latency_plot.save_bench(swept(), tmp_path / "a")
    second = latency_plot.save_bench(swept(), tmp_path / "b")
    assert [path.name for path in first] == ["a.png", "a.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    svg = first[1].read_text()
    for words in ("ort-cpu-fp16", "eager fp32", "batch", "clip short, CPU"):
        assert f">{words}" in svg


def test_chart_of_one_size_has_a_bar_per_contestant(tmp_path: Path):
    svg = latency_plot.save_bench(both(weights="random"), tmp_path / "a")[1].read_text()
    assert "random weights" in svg
    assert "2x eager fp32" in svg


def test_axis_is_the_size_that_was_swept():
    assert latency_plot.swept(swept()) == "batch"
    assert latency_plot.swept(both()) == ""
    fixed = json(*(measured(session(sizes={"batch": 1, "tokens": tokens})) for tokens in (8, 16)))
    assert latency_plot.swept(fixed) == "tokens"


def test_chart_of_a_series(tmp_path: Path):
    bad = session(runs=(process(9.0, invalid=("a stranger",)), process(9.0)), id="bad")
    levels = sessions(*[1.0] * 6, *[1.2] * 6)
    series = latency_series.series_of([*levels, bad], acceptance=accepted("s0"))
    svg = latency_plot.save_history(series, tmp_path / "h")[1].read_text()
    assert "accepted as the baseline" in svg
    assert "+20.0%" in svg
    assert "invalid environment" in svg


def test_charts_of_nothing_and_to_nowhere(tmp_path: Path):
    with pytest.raises(NotJudged, match="nothing has figures"):
        latency_plot.save_bench(json(measured(session(()))), tmp_path / "a")
    with pytest.raises(NotJudged, match="no session has figures"):
        latency_plot.save_history({"points": [{"ms": None}]}, tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        latency_plot.save_bench(both(), tmp_path / "file" / "a")


def test_machine_words():
    assert latency_series.machine_words(session(gpu=True)) == f"NVIDIA H200, machine {GPU.key[:12]}"

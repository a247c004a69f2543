"""The table and the failure text, from plain dicts as they arrive from another process."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from harness.report.text import machine, tables
from harness.report.text import results as text
from harness.report.text.tables import columns, wrapped
from harness.settings import print_progress

STATS: dict[str, Any] = {
    "shape": [2, 4],
    "dtype": "float32",
    "absolute": {"max": 0.0123, "mean": 0.001, "median": 0.001, "p99": 0.01},
    "relative": {"max": 1.0, "mean": 0.1, "median": 0.1, "p99": 0.9},
    "relative_l2": 4.1e-2,
    "cosine": 0.99912,
    "effective_bits": 4.61,
    "worst": [{"index": [0, 3], "actual": 1.0, "expected": 1.0123}],
}


def a_result(**changes: Any) -> dict[str, Any]:
    output = {
        **STATS, "name": "logits", "verdict": "pass", "reason": "relative error 0.041, PyTorch fp16 loses 0.02",
        "floor": {"relative_l2": 2.05e-2}, "allowed": {"relative_l2": 0.06},
    }  # fmt: skip
    provenance = {
        "weights": "trained", "weights_source": "clip 1.0", "inputs": "real", "reference": "computed", "device": "H200",
    }  # fmt: skip
    base: dict[str, Any] = {
        "subject": "clip", "case": "short", "backend": "rtx", "precision": "fp16", "verdict": "pass", "reason": "",
        "engine": None, "provenance": provenance, "outputs": [output], "metrics": [], "notes": [], "next_step": "",
    }  # fmt: skip
    return copy.deepcopy({**base, **changes})


def not_judged(reason: str, **changes: Any) -> dict[str, Any]:
    return a_result(verdict="not_judged", reason=reason, outputs=[], provenance=None, **changes)


def test_row_has_every_figure():
    row = next(line for line in text.results_table([a_result()]).splitlines() if line.startswith("rtx-fp16"))
    assert row.split() == [
        "rtx-fp16", "short", "logits", "pass", "0.041", "0.0205", "2", "0.0123", "0.99912", "4.61",
    ]  # fmt: skip


def test_heading_says_where_figures_come_from():
    heading = text.results_table([a_result()]).splitlines()[0]
    assert "weights: trained (clip 1.0)" in heading
    assert "inputs: real" in heading
    assert "device: H200" in heading


def test_columns_are_aligned():
    shown = text.results_table([a_result(), a_result(case="a-much-longer-case")]).splitlines()
    rows = [line for line in shown if line.startswith(("target", "rtx-fp16"))]
    assert len(rows) == 3
    assert len({len(row) for row in rows}) == 1


def test_missing_floor_and_figures_are_dashes():
    result = a_result()
    result["outputs"][0].update(floor=None, relative_l2=None, cosine=None)
    row = next(line for line in text.results_table([result]).splitlines() if line.startswith("rtx-fp16"))
    assert row.split()[4:] == ["-", "-", "-", "0.0123", "-", "4.61"]


def test_short_reason_stands_in_the_row_and_below():
    shown = text.results_table([not_judged("no GPU")])
    assert any(line.startswith("rtx-fp16") and line.endswith("not judged  no GPU") for line in shown.splitlines())


def test_long_reason_is_never_cut():
    reason = " ".join(f"word{i}" for i in range(60))
    shown = text.results_table([not_judged(reason)])
    assert " ".join(shown.split()).count(reason) == 1
    assert "(reason below)" in shown


@pytest.mark.parametrize("result", [a_result(), not_judged("x " * 200), a_result(case="long-" * 5)])
def test_fits_width_and_is_ascii(result: dict[str, Any]):
    result["notes"] = ["saturated \u00b165504, \u2013 and more " * 8]
    shown = text.results_table([result, result])
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= tables.WIDTH


def test_same_reason_is_said_once_for_all_targets():
    results = [
        not_judged("No module named 'tensorrt'", precision=precision, case=case)
        for precision in ("fp32", "fp16")
        for case in ("short", "long")
    ]
    lines = text.results_table(results).splitlines()
    assert [line.split(": ")[0] for line in lines if line.endswith(": No module named 'tensorrt'")] == [
        "rtx-fp32, rtx-fp16"
    ]


def test_reason_of_one_case_names_the_case():
    lines = text.results_table([a_result(), not_judged("no such file", case="long")]).splitlines()
    assert "rtx-fp16 long: no such file" in lines


def test_failure_names_output_and_next_step():
    result = a_result(verdict="fail", reason="r", next_step="parity bisect clip -b rtx -p fp16")
    result["outputs"][0].update(verdict="fail", reason="relative error 0.041; worst at [0, 3]")
    assert text.failure_text(result).splitlines() == [
        "clip [rtx fp16] logits: relative error 0.041; worst at [0, 3]",
        "next: parity bisect clip -b rtx -p fp16",
    ]


def test_failure_without_outputs_gives_the_reason():
    assert (
        text.failure_text(a_result(verdict="fail", reason="it crashed", outputs=[]))
        == "clip [rtx fp16] short: it crashed"
    )


def decided(**changes: Any) -> dict[str, Any]:
    counts = {"elements": 64, "differ": 2, "ties": 2, "floor_differ": 1, "dtype": "int64", "shape": [64], **changes}
    output = {"name": "ids", "verdict": "pass", "reason": "2 of 64 differ, both ties", "floor": None, "allowed": {}}
    return a_result(outputs=[{**output, "decisions": counts}])


def test_decisions_are_counted_where_figures_stand():
    row = next(line for line in text.results_table([decided()]).splitlines() if line.startswith("rtx-fp16"))
    assert row.endswith("2 of 64 differ, ties: 2")
    assert text.result_line(decided()) == "pass: ids 2 of 64 differ, ties: 2"
    assert text.result_line(decided(differ=0, ties=0)) == "pass: ids all 64 equal"


def test_decisions_stand_for_the_worst_error_only_where_nothing_has_one():
    both = [*decided()["outputs"], *a_result()["outputs"]]
    assert text.worst_error(decided()["outputs"] * 2) == "4 of 128 differ, ties: 4"
    assert text.worst_error(both) == "0.041"


def test_metric_is_a_row():
    metric = {"name": "similarity", "verdict": "fail", "reason": "0.5, reference 0.7: differs by 0.2 (allowed 0.01)",
              "actual": 0.5, "expected": 0.7, "allowed": 0.01}  # fmt: skip
    shown = text.results_table([a_result(verdict="fail", metrics=[metric])])
    line = next(line for line in shown.splitlines() if " similarity " in line)
    assert re.findall(r"FAIL|0\.\d+", line) == ["FAIL", "0.5", "0.7", "0.01"]
    assert f"similarity: {metric['reason']}" in shown


def test_count_line():
    results = [a_result(), a_result(verdict="fail"), not_judged("x"), not_judged("y")]
    assert text.verdict_counts(results) == "4 verdicts: 1 passed, 1 failed, 2 not judged"


def test_nothing_run_is_said():
    assert "no verdicts" in text.results_table([])


def test_subject_list_shows_what_cannot_be_loaded():
    good = {"name": "a", "path": "suites/test_a.py", "problem": "", "cases": ["x"], "targets": ["rtx-fp16"],
            "weights": "random", "weights_source": "seed 0", "inputs": "random"}  # fmt: skip
    shown = machine.subjects_table(
        [good, {"name": "b", "path": "suites/test_b.py", "problem": "it defines no SUBJECT"}]
    )
    assert "random (seed 0)" in shown
    assert "it defines no SUBJECT" in shown


HOSTILE = "a\x1b[2Jb\nPASS\rc\u202ed\u2028e"
"""Clears the screen, begins a line that says PASS, goes back to its start, turns the text round."""


def test_a_name_reaches_no_terminal_as_it_is(capsys):
    print_progress(f"{HOSTILE}: building")
    shown = [
        *wrapped("note: ", f"output {HOSTILE} is wrong"),
        *columns(("target", "verdict", "name"), [((HOSTILE, "FAIL"), (HOSTILE,))]),
        *capsys.readouterr().err.splitlines(),
    ]
    assert all(line.isascii() and line.isprintable() for line in shown)
    assert not any(line.lstrip().startswith("PASS") for line in shown)
    assert len(shown) == 4

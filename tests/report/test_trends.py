"""Accuracy over time on the page and in the summary of a CI run."""

from __future__ import annotations

from pathlib import Path

import pytest
from accuracy_records import accuracy, add_series

from harness.history import accuracy_trends, open_history
from harness.records import Records, document, load, save_json
from harness.report.html.page import page
from harness.report.step_summary import summary
from harness.report.text.accuracy import sparkline


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """A rise with a failure and a run that was not judged, beside a series that stays."""
    with open_history(str(tmp_path / "h.sqlite")) as history:
        add_series(history, [1.1] * 10 + [2.9] * 3)
        history.add(accuracy(13, None, verdict="fail"))
        history.add(accuracy(14, outputs=(), verdict="not_judged"))
        add_series(history, [1.2] * 4, precision="bf16", weights="random", prefix="b")
        trends = [trend.to_json() for trend in accuracy_trends(history)]
    data = document([], environment={}, command="parity verify clip") | {"accuracy_history": trends}
    save_json(data, tmp_path / "out" / "a.json")
    return load([tmp_path / "out"])


@pytest.mark.parametrize(("lang", "words"), [("en", "rose from 1.1 to 2.9"), ("zh", "由 1.1 升至 2.9")])
def test_the_page_has_a_plot_of_each_output_and_names_what_rises(records: Records, lang: str, words: str):
    text = page(records, lang=lang)  # type: ignore[arg-type]
    assert text.count('role="img" aria-label="logits') == 2
    assert text.count('class="rises"') == 1
    assert text.count(words) == 2, "at the top, and at the subject"
    assert page(records, lang=lang) == text  # type: ignore[arg-type]


def test_the_summary_of_a_run_names_what_rises(records: Records):
    (line,) = [line for line in summary(records).splitlines() if "warning" in line]
    assert "ratio to the floor of logits rose from 1.1 to 2.9 since 2026-10-11, run run-10 (limit 3)" in line


def test_of_two_records_of_one_series_the_newest_counts(records: Records, tmp_path: Path):
    old = [{**trend, "points": trend["points"][:4], "creeps": False} for trend in records.trends]
    save_json(document([], environment={}, command="x") | {"accuracy_history": old}, tmp_path / "out" / "0.json")
    assert load([tmp_path / "out"]).trends == records.trends


def test_a_sparkline_has_a_mark_for_each_run(records: Records):
    rising = next(trend for trend in records.trends if trend["creeps"])
    assert sparkline(rising["points"]) == "__________###x?"
    assert sparkline([]) == ""

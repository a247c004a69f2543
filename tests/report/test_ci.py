"""What a CI run shows at a glance: the badge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded

from harness.records import reader as records
from harness.records.latency import Comparison
from harness.report import ci

FAILED = recorded.result("fail", reason="relative error 0.1")
SKIPPED = recorded.result("not_judged", reason="no GPU", outputs=())


@pytest.mark.parametrize(
    ("results", "message", "colour"),
    [
        ([recorded.result()], "1 passed", "brightgreen"),
        ([recorded.result(), FAILED], "1 failed, 1 passed", "red"),
        ([recorded.result(), SKIPPED], "1 passed, 1 not judged", "yellow"),
        ([SKIPPED], "1 not judged", "lightgrey"),
        ([], "nothing recorded", "lightgrey"),
    ],
)
def test_the_badge_is_green_only_when_all_was_judged_and_passed(
    results: list[Any], message: str, colour: str, tmp_path: Path
):
    assert ci.badge(recorded.load(tmp_path, results=results)) == {
        "schemaVersion": 1, "label": "parity", "message": message, "color": colour, "isError": colour == "red",
    }  # fmt: skip


def test_the_badge_is_not_green_for_a_run_cut_short_or_a_broken_file(tmp_path: Path):
    assert ci.badge(recorded.load(tmp_path, results=[recorded.result()], complete=False))["color"] == "yellow"
    recorded.document(tmp_path, results=[recorded.result()])
    (tmp_path / "bad.json").write_text("{")
    found = ci.badge(records.load([tmp_path]))
    assert (found["message"], found["color"]) == ("1 passed, 1 unreadable", "yellow")


@pytest.mark.parametrize(("repeated", "colour"), [(True, "red"), (False, "yellow")])
def test_a_regression_counts_when_it_was_seen_twice(repeated: bool, colour: str, tmp_path: Path):
    slower = Comparison(verdict="regressed", ratio=1.2, low=1.1, high=1.3, repeated=repeated)
    bench = [replace(recorded.measured(), comparison=slower)]
    assert ci.badge(recorded.load(tmp_path, results=[recorded.result()], bench=bench))["color"] == colour

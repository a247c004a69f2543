"""Models that were brought up part by part, in every report: read back, counted, shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import recorded
from recorded import brought_up, part

from harness.hackathon import save_readme
from harness.records import reader
from harness.report import all_verdicts, badge, summary
from harness.report.html.page import page
from harness.report.text import part_counts, parts_text

BAD = part(
    "layers.1", "fail", reason="output: relative error 0.2", ratio=200.0, error=0.2, next_step="parity parts net"
)
BEHIND = part("layers.2", "not_judged", reached=False, reason="not reached, since layers.1 failed", error=None)


@pytest.mark.parametrize(("parts", "colour"), [((), "brightgreen"), ((part(), BAD, BEHIND), "red")])
def test_a_failed_part_is_a_failed_run(tmp_path: Path, parts: tuple, colour: str):
    records = recorded.load(tmp_path, parts=[brought_up(*parts)])
    assert badge(records)["color"] == colour
    (verdict,) = [one for one in all_verdicts(records) if one.kind == "parts"]
    assert verdict.verdict == ("fail" if parts else "pass")
    assert recorded.banner(page(records)) == ("bad" if parts else "good")


def test_each_part_is_a_row(tmp_path: Path):
    records = recorded.load(tmp_path, parts=[brought_up(part(), BAD, BEHIND, not_run=("idle",))])
    text = summary(records)
    assert recorded.cells(text, "`net`", "`one`", "`rtx-fp16`", "`layers.1`")[1:] == ["0.2", "0.001", "200"]
    assert "`layers.2`" not in text.partition("<details>")[2], "what was not reached is no row"
    shown = page(records)
    assert all(word in shown for word in ("layers.0", "layers.2", "parity parts net", "idle"))
    (tmp_path / "report").mkdir()
    readme = save_readme(records, tmp_path / "report").read_text()
    assert recorded.cells(readme, "`layers.1`", "`Block`")[1:] == ["0.2", "0.001", "200"]


def test_the_terminal_counts_what_was_not_reached():
    data = brought_up(part(), BAD, BEHIND).to_json()
    text = parts_text([data])
    assert part_counts(data["parts"]) in text
    assert "1 not reached" in text
    assert "parity parts net" in text
    assert "layers.1: output: relative error 0.2" in text


def test_a_record_that_contradicts_itself_is_read_as_that(tmp_path: Path):
    path = recorded.document(tmp_path, parts=[brought_up(part(), BAD, verdict="pass")])
    records = reader.load([path])
    assert records.contradictory
    assert records.parts[0].data["verdict"] == "fail"
    empty = recorded.document(tmp_path, "empty.json", parts=[brought_up()])
    data = json.loads(empty.read_text())
    data["parts"][0]["parts"] = []
    empty.write_text(json.dumps(data))
    assert reader.load([empty]).parts[0].data["verdict"] == "not_judged", "no part is no pass"

"""A search for operators to leave in floats is read back and is a chapter of the page, in both languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_fixtures as made

from harness.errors import UsageError
from harness.records import QuantSearch, QuantTrial, UnitCost
from harness.records import reader as records
from harness.records.writer import document
from harness.report.html import page as html

FOUND = QuantSearch(
    subject="net", case="one", backend="ort-cpu", precision="file", source="net.onnx", verdict="pass",
    finding="1 of 2 units in floats meet the cost limit 0.05", against="plain", limit="the cost limit 0.05",
    allowed=0.05, error=0.3, exclude=("node_bad",), plan_file="plan.toml", device="CPU",
    units=(UnitCost(name="node_bad", op="Gemm", alone=0.3, without=0.01, left=True),
           UnitCost(name="node_good", op="Conv", alone=0.01, without=0.3)),
    trials=(QuantTrial(units=0, error=0.3, verdict="fail", on="fake-quantisation"),
            QuantTrial(units=1, error=None, verdict="fail", on="fake-quantisation"),
            QuantTrial(units=1, error=0.01, verdict="pass", on="engine", ms=1.5)),
)  # fmt: skip


def written(tmp_path: Path, found: QuantSearch):
    data = document([], command="parity bisect net.onnx --quant", environment=made.ENVIRONMENT)
    made.save(tmp_path / "one.json", {**data, "quant": found.to_json()})
    return records.load([tmp_path])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_has_the_answer_the_ranking_and_the_chart(tmp_path: Path, lang: Any):
    loaded = written(tmp_path, FOUND)
    assert [entry.data["exclude"] for entry in loaded.quant_searches] == [["node_bad"]]
    text = html.page(loaded, lang=lang)
    assert all(words in text for words in ("node_bad", "node_good", FOUND.finding, "plan.toml", 'id="quant1-units"'))
    assert text.count('class="chart"') == 1


def test_a_search_without_an_answer_is_shown_too(tmp_path: Path):
    failed = QuantSearch(
        subject="net", case="one", backend="ort-cpu", precision="file", source="net.onnx", verdict="fail",
        finding="quantisation is not what costs it", against="plain", limit="the cost limit 0.05", error=None,
    )  # fmt: skip
    text = html.page(written(tmp_path, failed))
    assert "quantisation is not what costs it" in text
    assert 'class="chart"' not in text


def test_a_damaged_search_is_not_used(tmp_path: Path):
    data = document([], command="parity bisect net.onnx --quant", environment=made.ENVIRONMENT)
    made.save(tmp_path / "one.json", {**data, "quant": {**FOUND.to_json(), "units": 3}})
    with pytest.raises(UsageError, match=r"quant\.units"):
        records.load([tmp_path])

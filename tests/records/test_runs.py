"""What a run expected and did not get is named; what it got stays as it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from recorded import result

from harness import records
from harness.records import DIED, NOT_ENDED, name_of, with_missing


def asked(**changes):
    return {
        **dict(zip(("subject", "case", "backend", "precision"), name_of(result().to_json()), strict=True)),
        **changes,
    }


def test_what_is_missing_is_added_and_no_result_is_lost():
    one, other = result().to_json(), replace(result(), source="b.py").to_json()
    wrong = replace(result("fail"), case="wrong").to_json()
    found = with_missing([one, other, wrong], [asked(), asked(case="new", source="c.py"), asked(case="wrong")], DIED)
    assert [(row["case"], row["source"], row["verdict"]) for row in found] == [
        (one["case"], "", "not_judged"), (one["case"], "b.py", "not_judged"), ("wrong", "", "fail"),
        ("new", "c.py", "not_judged"),
    ]  # fmt: skip
    assert with_missing([one, other], [], DIED) == [one, other]


@pytest.mark.parametrize(
    ("error", "reason"), [("", DIED), (NOT_ENDED, DIED), ("interrupted", "not judged: interrupted")]
)
def test_reports_have_what_a_run_did_not_get_to(error, reason, tmp_path):
    expected = [
        asked(arrived=True),
        asked(case="new", arrived=False),
        asked(case="test without a result", arrived=True),
    ]
    data = records.document([result().to_json()], environment={}, command="", complete=False, error=error)
    records.save_json({**data, "expected": expected}, tmp_path / "one.json")
    (document,) = records.load([tmp_path / "one.json"]).documents
    assert [(row["case"], row["verdict"]) for row in document.results[1:]] == [("new", "not_judged")]
    assert document.results[1]["reason"] == reason
    whole = {**data, "complete": True, "error": "", "expected": expected}
    records.save_json(whole, tmp_path / "one.json")
    assert len(records.load([tmp_path / "one.json"]).results) == 1


@pytest.mark.parametrize(
    "expected", [None, 1, {}, [1], [{}], [{"subject": {}, "case": [], "backend": 1, "precision": 2}]]
)
@pytest.mark.parametrize("results", [None, 1, [1], [{}]])
def test_damaged_records_are_no_crash(expected, results, tmp_path):
    data = records.document([], environment={}, command="", complete=False)
    (tmp_path / "one.json").write_text(json.dumps({**data, "expected": expected, "results": results}))
    records.save_json({**data, "complete": True}, tmp_path / "good.json")
    found = records.load([tmp_path])
    assert [doc.name for doc in found.documents] == ["good.json"]
    assert "results" in found.broken[0]

"""What an entry makes of a verdict: known, or a failure all the same; what was not judged stays so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import recorded

from harness.ledger import Entry, Ledger, as_known, judged_latency, standings, today
from harness.records.latency import Comparison

DAY = today()
DECLARED = {"net": {"source": "", "targets": ["rtx-fp16", "rtx-bf16"], "cases": ["one", "two"]}}


def entry(days: int = 30, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "number": 1, "subject": "net", "target": ("rtx-fp16",), "at_most": 10.0, "reason": "tactic 7",
        "issue": "https://example.com/7", "expires": DAY + timedelta(days=days),
    }  # fmt: skip
    return Entry(**{**fields, **changes})


def wrong(error: float = 0.009, **changes: Any) -> Any:
    output = recorded.output(verdict="fail", stats=recorded.stats(error))
    return recorded.result("fail", outputs=(output,), **changes)


@pytest.mark.parametrize(
    ("result", "one", "verdict", "why"),
    [
        (wrong(), entry(), "known", ""),
        (wrong(), entry(0), "known", ""),
        (wrong(), entry(-1), "fail", "known only until"),
        (wrong(0.9), entry(), "fail", "300 times its limit, at most 10"),
        (wrong(0.9), entry(at_most=None), "known", ""),
        (recorded.result(), entry(), "fail", "passes now"),
        (recorded.result(), entry(-1), "fail", "passes now"),
        (recorded.result("not_judged", outputs=()), entry(), "not_judged", ""),
        (recorded.result("not_judged", outputs=()), entry(-1), "fail", "known only until"),
        (recorded.result("fail", outputs=()), entry(), "fail", "nothing in it can be held against at_most"),
        (wrong(), entry(kind="refused", at_most=None), "fail", "fails now by wrong answer"),
    ],
)
def test_an_entry_decides(result, one, verdict, why):
    ledger = Ledger(entries=(one,), day=DAY)
    found = as_known(result, ledger, one, owner="team-y")
    assert (found.verdict, found.owner) == (verdict, "team-y")
    assert found.known is not None
    assert why in found.known.why
    assert bool(found.known.why) == bool(why)
    assert why in found.reason
    assert one.issue in found.reason or verdict != "known"
    assert as_known(found, ledger, one).verdict == verdict
    status = {"known": "known", "not_judged": "not_reached", "fail": "failed"}[verdict]
    standing = standings(ledger, DECLARED, [found.to_json()])[0]
    assert (standing["status"], standing["matched"], standing["reached"]) == (status, 2, int(verdict != "not_judged"))


def test_the_owner_of_an_entry_comes_before_that_of_its_subject():
    one = entry(owner="team-x")
    assert as_known(wrong(), Ledger(entries=(one,)), one, owner="team-y").owner == "team-x"


@pytest.mark.parametrize(
    ("comparison", "one", "verdict", "why"),
    [
        ({"verdict": "regressed", "ratio": 1.2, "repeated": True}, entry(at_most=1.5), "fail", ""),
        ({"verdict": "regressed", "ratio": 1.7, "repeated": True}, entry(at_most=1.5), "fail", "1.7 times as long"),
        ({"verdict": "regressed", "ratio": 1.2, "repeated": True}, entry(-1, at_most=1.5), "fail", "known only until"),
        ({"verdict": "regressed", "ratio": 1.2, "repeated": False}, entry(at_most=1.5), "not_judged", ""),
        ({"verdict": "equivalent", "ratio": 1.0}, entry(at_most=1.5), "pass", "not slower any more"),
        ({"verdict": "no_baseline", "ratio": None}, entry(at_most=1.5), "not_judged", ""),
    ],
)
def test_an_entry_about_latency_decides(comparison, one, verdict, why):
    measured = recorded.measured()
    data = {**measured.to_json(), "comparison": Comparison(low=None, high=None, **comparison).to_json()}
    found = judged_latency(data, Ledger(entries=(one,), day=DAY), one)["known"]
    assert found["verdict"] == verdict
    assert why in found["why"]
    assert bool(found["why"]) == bool(why)


def test_an_entry_that_expires_soon_says_so():
    days = [standings(Ledger(entries=(entry(n),), day=DAY), DECLARED)[0] for n in (-1, 0, 13, 14)]
    assert [(one["days_left"], one["expires_soon"]) for one in days] == [
        (-1, False), (0, True), (13, True), (14, False),
    ]  # fmt: skip

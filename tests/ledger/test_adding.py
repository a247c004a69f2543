"""Entries written from records: what stands in the ledger stays, and what was written covers what was recorded."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
import recorded

from harness.errors import UsageError
from harness.ledger import as_known, entry_text, proposed, read, today, with_entries
from harness.records.latency import Comparison

GIVEN = {
    "reason": 'tactic "7"\n\x7f', "issue": "https://example.com/7", "owner": "team-x",
    "expires": today() + timedelta(days=9),
}  # fmt: skip


def wrong(error: float, **changes):
    output = recorded.output(verdict="fail", stats=recorded.stats(error))
    return recorded.result("fail", outputs=(output,), **changes)


@pytest.mark.parametrize(
    "result", [wrong(0.0123), wrong(3.3), wrong(math.nan), recorded.result("fail", outputs=())], ids=str
)
def test_what_is_written_covers_what_was_recorded(tmp_path, result):
    (fields,) = proposed([result.to_json(), recorded.result(case="two").to_json()])
    path, text, ledger = with_entries(tmp_path, None, [entry_text({**fields, **GIVEN})])
    one = ledger.entries[0]
    assert (path, one.case, one.reason) == (tmp_path / "known.toml", ("one",), GIVEN["reason"])
    assert as_known(result, ledger, one).verdict == "known"
    path.write_text(text, encoding="utf-8")
    assert read(tmp_path).entries == ledger.entries


def test_cases_of_one_target_are_one_entry_bounded_by_the_worst():
    found = [wrong(0.009).to_json(), wrong(0.02, case="two").to_json(), wrong(0.01, precision="bf16").to_json()]
    one, other = proposed(found)
    assert (one["target"], one["case"], one["at_most"]) == ("rtx fp16", ["one", "two"], pytest.approx(10.0))
    assert (other["target"], other["case"], other["at_most"]) == ("rtx bf16", ["one"], pytest.approx(5.0))


def test_a_regression_is_an_entry_of_its_own():
    slower = replace(
        recorded.measured(), comparison=Comparison(verdict="regressed", ratio=1.2, low=1.1, high=1.3, repeated=True)
    )
    (fields,) = proposed([], [slower.to_json(), recorded.measured().to_json()])
    assert (fields["kind"], fields["at_most"]) == ("regressed", 1.8)


@pytest.mark.parametrize("before", ["# why", "# why\n", "# why\n\n# more\n"])
def test_what_stands_there_stays(tmp_path, before):
    (tmp_path / "known.toml").write_text(before)
    (fields,) = proposed([wrong(0.01).to_json()])
    text = entry_text({**fields, **GIVEN})
    after = with_entries(tmp_path, None, [text])[1]
    assert (after.startswith(before), after.endswith(f"\n\n{text}")) == (True, True)
    with pytest.raises(UsageError, match="both about"):
        with_entries(tmp_path, None, [text, text])

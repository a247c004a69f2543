"""Parts that are known to fail: covered no further than their entry in the ledger says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from bringup.conftest import subject
from fake import quiet
from planted import Fault, PlantedBackend, scaled

from harness import UsageError
from harness.backends import BACKENDS
from harness.bringup import Request, bring_up
from harness.ledger import Ledger, proposed, read, standings, today
from harness.records import BringUp, all_judged

LATER = today() + timedelta(days=30)
WRONG = Fault(value="softmax", change=scaled(1.1))


def ledger(folder: Path, *entries: str) -> Ledger:
    """Return the ledger of entries about parts, each given by what it has beside what all have."""
    head = """[[known]]
subject = "net"
target = "planted fp16"
reason = "tactic 7"
issue = "https://example.com/7"
"""
    texts = [head + one + ("" if "expires" in one else f"\nexpires = {LATER}\n") for one in entries]
    (folder / "known.toml").write_text("\n".join(texts))
    return read(folder)


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that brings a model up whose second block is wrong, or right."""

    def judged(
        *entries: str,
        faults: tuple[Fault, ...] = (WRONG,),
        all_launched: bool = False,
        valid: Any = None,
        **request: Any,
    ) -> Any:
        backend = PlantedBackend(*faults)
        monkeypatch.setitem(BACKENDS, "planted", backend)
        known = ledger(tmp_path, *entries)
        known = Ledger(file=known.file, entries=known.entries, day=known.day, launches_all=all_launched)
        model = subject(owner="team-x", parts_valid=valid or {})
        begun = bring_up(
            model, targets=model.targets, cases=["one"], settings=quiet(tmp_path), request=Request(**request),
            ledger=known,
        )  # fmt: skip
        for _ in begun.run():
            pass
        record = begun.records()[0]
        statuses = [one["status"] for one in standings(known, {}, models=[record.to_json()])]
        return record, statuses, begun.results, backend

    return judged


def verdicts(found: BringUp) -> list[str]:
    return [part.verdict if part.reached else "not reached" for part in found.parts]


AT_MOST = "\nat_most = inf\n"


def test_a_known_part_fails_no_run_and_does_not_end_it(judged: Any):
    found, statuses, results, _ = judged(f'part = "blocks.1"{AT_MOST}')
    assert (found.verdict, verdicts(found)) == ("known", ["pass", "known", "pass", "pass"])
    part = found.parts[1]
    assert (part.known.issue, part.known.verdict, part.known.why) == ("https://example.com/7", "fail", "")
    assert (part.failure, part.next_step) == ("wrong_answer", "parity parts net -b planted -p fp16 --prefix blocks.1")
    assert part.error
    assert part.error > part.floor
    assert part.times_limit > 1
    assert "tactic 7" in found.reason
    assert statuses == ["known"]
    assert all_judged(results, "planted"), "it ran"


def test_a_part_that_fails_worse_or_in_another_way_fails(judged: Any):
    for entry in ('part = "blocks.1"\nat_most = 1.0\n', 'part = "blocks.*"\nkind = "refused"\ncase = "one"\n'):
        found, statuses, _, _ = judged(entry, prefix="blocks.1")
        assert verdicts(found)[0] == "pass", "blocks.1.linear is another part"
        assert found.verdict == "fail"
        found, statuses, _, _ = judged(entry)
        assert "fail" in verdicts(found)
        assert found.verdict == "fail"
        assert statuses == ["failed"]


def test_an_entry_about_the_whole_or_another_part_covers_none(judged: Any):
    for entry in (AT_MOST, f'part = ["blocks.1.weigh", "upto blocks.1"]{AT_MOST}', f'part = "head"{AT_MOST}'):
        found, statuses, _, _ = judged(entry)
        assert (found.verdict, verdicts(found)[:2]) == ("fail", ["pass", "fail"])
        assert statuses == ["not_reached"]
        assert found.parts[1].known is None


def test_a_cut_model_has_entries_of_its_own(judged: Any):
    found, _, _, _ = judged(f'part = "upto blocks.*"{AT_MOST}', upto="blocks.1")
    assert verdicts(found) == ["fail", "known"], "the first passes, and a pattern covers no more than what fails"
    found, statuses, _, _ = judged(f'part = "upto blocks.1"{AT_MOST}', upto="blocks.1")
    assert (found.verdict, verdicts(found), statuses) == ("known", ["pass", "known"], ["known"])


def test_what_passes_now_fails_and_the_parts_behind_it_are_judged(judged: Any):
    found, statuses, _, _ = judged('part = "blocks.1"\n', faults=())
    assert (found.verdict, verdicts(found)) == ("fail", ["pass", "fail", "pass", "pass"])
    assert "passes now: remove it from known.toml, entry 1" in found.parts[1].reason
    assert (found.parts[1].next_step, statuses) == ("", ["failed"])
    assert proposed([], models=[found.to_json()]) == []


def test_what_is_expired_fails(judged: Any):
    found, statuses, _, _ = judged(f'part = "blocks.1"{AT_MOST}expires = {today() - timedelta(days=1)}\n')
    assert (found.verdict, verdicts(found)[1], statuses) == ("fail", "fail", ["failed"])


def test_what_is_known_to_crash_is_not_launched(judged: Any):
    entry = 'part = "blocks.1"\nkind = "crash"\n'
    found, statuses, results, backend = judged(entry)
    assert (found.verdict, verdicts(found)) == ("known", ["pass", "known", "pass", "pass"])
    assert (backend.builds, len(results), statuses) == (2, 4, ["known"]), "the head is built once"
    assert judged(entry, all_launched=True)[0].verdict == "fail", "it gives a wrong answer"


def test_a_part_that_was_not_judged_is_not_hidden_by_a_known_one(judged: Any):
    fits_nothing = {"blocks.0:output_0": lambda given: given["x"] > torch.inf}
    found, _, _, _ = judged(f'part = "blocks.1"{AT_MOST}', valid=fits_nothing)
    assert (found.verdict, verdicts(found)[:2]) == ("not_judged", ["not_judged", "known"])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (['part = "block.1"\n'], "no part 'block.1'|block.1"),
        (['part = "blocks.1"\n', 'part = "blocks.*"\n'], "entries 1 and 2"),
        (['part = "blocks.1"\nkind = "regressed"\n'], "latency of a part"),
        (["part = 7\n"], "part"),
    ],
)
def test_an_entry_that_names_no_part_is_a_wrong_request(judged: Any, entries: list[str], words: str):
    with pytest.raises(UsageError, match=words):
        judged(*entries)


def test_an_entry_is_proposed_for_each_part_that_failed(judged: Any):
    found, _, _, _ = judged(keep_going=True)
    (entry,) = proposed([], models=[found.to_json()])
    assert {key: entry[key] for key in ("subject", "target", "case", "part", "kind", "owner")} == {
        "subject": "net", "target": "planted fp16", "case": ["one"], "part": "blocks.1", "kind": "wrong answer",
        "owner": "team-x",
    }  # fmt: skip
    assert found.parts[1].times_limit
    assert entry["at_most"] >= 1.5 * found.parts[1].times_limit
    cut, _, _, _ = judged(keep_going=True, upto="blocks.1")
    assert proposed([], models=[cut.to_json()])[0]["part"] == "upto blocks.1"

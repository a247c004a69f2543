"""The ledger's file is read strictly: one sentence, with the file and the entry, for whatever is wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.ledger import MOST_DAYS, read, today

LATER = today() + timedelta(days=30)
FIELDS = {
    "subject": '"clip"', "target": '"rtx fp16"', "reason": '"tactic 7"', "issue": '"https://example.com/7"',
    "expires": str(LATER),
}  # fmt: skip
DECLARED = {"source": "test_clip.py", "targets": ["rtx-fp16", "rtx-bf16", "ort-cpu-fp16"], "cases": ["short", "long"]}


def entry(**changes: str | None) -> str:
    fields = {key: value for key, value in {**FIELDS, **changes}.items() if value is not None}
    return "\n".join(["[[known]]", *(f"{key} = {value}" for key, value in fields.items()), ""])


def ledger(folder: Path, *entries: str):
    (folder / "known.toml").write_text("\n".join(entries), encoding="utf-8")
    return read(folder)


def test_without_a_file_nothing_is_known(tmp_path):
    assert read(tmp_path).entries == ()
    assert ledger(tmp_path, "# none yet\n").entries == ()
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path, tmp_path / "other.toml")


def test_an_entry_has_its_fields_or_their_defaults(tmp_path):
    one = ledger(tmp_path, entry()).entries[0]
    assert (one.target, one.case, one.kind, one.at_most, one.owner) == (("rtx-fp16",), (), "wrong_answer", 10.0, "")
    assert (one.expires, one.number) == (LATER, 1)
    full = entry(
        target='["rtx fp16", "ort-cpu *"]', case='["short"]', kind='"wrong answer"', at_most="inf", owner='"team-x"'
    )
    one = ledger(tmp_path, full).entries[0]
    assert (one.target, one.case, one.at_most, one.owner) == (("rtx-fp16", "ort-cpu-*"), ("short",), None, "team-x")
    assert ledger(tmp_path, entry(kind='"regressed"')).entries[0].at_most == 1.5
    assert ledger(tmp_path, entry(kind='"out of memory"')).entries[0].at_most is None
    assert [ledger(tmp_path, entry(kind=f'"{kind}"')).entries[0].kind for kind in ("refused", "refused build")] == [
        "refused", "refused",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": None}, "has no subject; give the name"),
        ({"subject": "7"}, "subject is 7 (int); give the name"),
        ({"subject": '" "'}, "subject is ' ' (str)"),
        ({"subject": '"*"'}, "name one subject"),
        ({"subject": '"cli?"'}, "name one subject"),
        ({"target": '""'}, "target is '' (str)"),
        ({"target": "[]"}, "target is"),
        ({"target": '["rtx fp16", 7]'}, "target is"),
        ({"target": '["rtx fp16", "rtx fp16"]'}, "names 'rtx fp16' twice"),
        ({"case": "true"}, "case is True (bool)"),
        ({"kind": '"weird"'}, "unknown kind 'weird'"),
        ({"kind": "1"}, "kind is 1 (int)"),
        ({"at_most": "0.5"}, "at_most is 0.5 (float); give a number of at least 1"),
        ({"at_most": "nan"}, "at_most is nan"),
        ({"at_most": "true"}, "at_most is True"),
        ({"at_most": "2", "kind": '"crash"'}, "at_most is the bound of a wrong answer or regressed"),
        ({"reason": None}, "has no reason"),
        ({"issue": None}, "has no issue"),
        ({"issue": '"#7"'}, "give the URL of its issue"),
        ({"issue": '"https://"'}, "give the URL of its issue"),
        ({"owner": '""'}, "owner is '' (str)"),
        ({"expires": None}, "has no expires"),
        ({"expires": '"2027-03-01"'}, "without quotes"),
        ({"expires": "2027-03-01T10:00:00"}, "without quotes"),
        ({"expires": str(today() + timedelta(days=MOST_DAYS + 1))}, f"more than {MOST_DAYS} days ahead"),
        ({"color": "1"}, "unknown key 'color'"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_one_sentence(tmp_path, changes, words):
    with pytest.raises(UsageError) as caught:
        ledger(tmp_path, entry(subject='"vae"'), entry(**changes))
    assert str(caught.value).startswith("known.toml, entry 2")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("known = 3", "give entries"),
        ("known = [3]", "entry 1 is 3 (int)"),
        ("[[entries]]\nsubject = 1", "unknown key 'entries'"),
        (entry(expires="2027-02-30"), "is not valid TOML"),
        ("subject: clip", "is not valid TOML"),
    ],
)
def test_a_file_that_is_no_ledger_is_one_sentence(tmp_path, text, words):
    with pytest.raises(UsageError) as caught:
        ledger(tmp_path, text)
    assert "known.toml" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [{}, {"case": '"short"'}, {"target": '"rtx *"'}, {"target": '["ort-cpu fp16", "rtx-fp16"]'}, {"kind": '"crash"'}],
)
def test_two_entries_about_one_thing_are_an_error(tmp_path, other):
    with pytest.raises(UsageError, match="entries 1 and 2 are both about"):
        ledger(tmp_path, entry(), entry(**other))


def test_patterns_that_meet_in_a_target_are_an_error_where_it_is_declared(tmp_path):
    found = ledger(tmp_path, entry(target='"rtx *"'), entry(target='"* fp16"'))
    with pytest.raises(UsageError, match="entries 1 and 2 are both about clip/"):
        found.check("clip", DECLARED)
    ledger(tmp_path, entry(), entry(kind='"regressed"'), entry(subject='"vae"')).check("clip", DECLARED)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": '"rtx fp32"'}, "unknown target 'rtx-fp32'"),
        ({"target": '["rtx fp16", "trt *"]'}, "unknown target 'trt-.'"),
        ({"case": '"shorts"'}, "unknown case 'shorts'; did you mean short"),
    ],
)
def test_an_entry_that_names_nothing_is_an_error(tmp_path, changes, words):
    found = ledger(tmp_path, entry(**changes))
    with pytest.raises(UsageError, match=rf"known.toml, entry 1 \(clip\): {words}"):
        found.check("clip", DECLARED)
    found.check("vae", DECLARED)


def test_an_entry_is_found_by_what_it_names(tmp_path):
    found = ledger(
        tmp_path, entry(target='"rtx *"', case='"short"'), entry(target='"rtx fp16"', kind='"regressed"'),
        entry(subject='"net[0]"', target='"ort-cpu my plan"', source='"a.onnx"'),
    )  # fmt: skip

    def number(*names: str, **options) -> int | None:
        one = found.entry_of(*names, **options)
        return one and one.number

    assert number("clip", "rtx-bf16", "short") == 1
    assert number("clip", "rtx-bf16", "long") is None
    assert number("clip", "ort-cpu-fp16", "short") is None
    assert number("clip", "rtx-fp16", "long", latency=True) == 2
    assert number("net[0]", "ort-cpu-my plan", "any", source="a.onnx") == 3
    assert number("net[0]", "ort-cpu-my plan", "any", source="b.onnx") is None

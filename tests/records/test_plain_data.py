"""JSON data from dataclasses: what becomes plain, and that a large record is walked through once."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from harness.records import data
from harness.records.data import JsonRecord, plain


@dataclass(frozen=True)
class Inner:
    numbers: tuple[float, ...] = (1.0, math.nan, math.inf)


@dataclass(frozen=True)
class Outer(JsonRecord):
    inner: Inner = Inner()
    several: tuple[Inner, ...] = (Inner(()), Inner((2.0,)))
    by_name: dict[object, Inner] = field(default_factory=lambda: {3: Inner((4.0,))})
    words: str = "text"
    nothing: None = None


def test_dataclasses_become_plain_data_at_any_depth():
    found = Outer().to_json()
    assert found == {
        "inner": {"numbers": [1.0, None, None]}, "several": [{"numbers": []}, {"numbers": [2.0]}],
        "by_name": {"3": {"numbers": [4.0]}}, "words": "text", "nothing": None,
    }  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_every_value_of_a_record_is_visited_once(monkeypatch):
    visits = []

    def counted(value):
        visits.append(value)
        return plain(value)

    monkeypatch.setattr(data, "plain", counted)
    counted(Outer(several=tuple(Inner((float(i),)) for i in range(1000))))
    assert len(visits) == 1 + 5 + (1 + 3) + 1000 * 3 + 3  # itself, its fields, and what is in them


def test_a_class_is_no_record():
    assert plain(Inner) is Inner

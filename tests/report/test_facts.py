"""Facts of records that reports share."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import pytest

from harness.records import ErrorShape, ShapeKind, plain
from harness.report.facts import shape_words
from harness.report.words import Words

FIGURES = {
    "scale": {"factor": 1.03},
    "offset": {"factor": -0.25},
    "constant_per_channel": {"axis": 1, "size": 12},
    "scale_per_channel": {"axis": 1, "size": 12},
    "other_axis": {"axis": 2, "instead_of": 3},
    "slice": {"axis": 1, "size": 12, "entries": ((3, 3), (7, 9)), "part": "scale", "factor": 0.5},
    "shift": {"axis": 2, "steps": 1},
    "transposed": {"permutation": (0, 2, 1)},
    "saturation": {"factor": 65504.0},
    "swapped": {"other": "pooled"},
    "stale": {"other": "first"},
    "non_finite": {"count": 3, "elements": 12},
    "decision": {"count": 3, "elements": 12, "part": "offset", "factor": 1.0},
}
SAID = {
    "scale": ("1.030",),
    "offset": ("-0.25",),
    "constant_per_channel": ("axis 1",),
    "scale_per_channel": ("factor", "axis 1"),
    "other_axis": ("along axis 2", "of 3"),
    "slice": ("3, 7-9 of axis 1", "12", "0.500"),
    "shift": ("by 1 along axis 2",),
    "transposed": ("[0, 2, 1]",),
    "saturation": ("65504",),
    "swapped": ("pooled",),
    "stale": ("first",),
    "non_finite": ("3 of 12",),
    "decision": ("3 of 12", "off by 1"),
    "tf32_rounding": ("TF32",),
    "fp16_rounding": ("FP16",),
    "bf16_rounding": ("BF16",),
    "unknown": ("unknown shape of error",),
}


@pytest.mark.parametrize("kind", get_args(ShapeKind))
def test_a_shape_is_said_with_its_figures(kind: ShapeKind):
    shape = plain(asdict(ErrorShape(kind=kind, **FIGURES.get(kind, {}))))
    phrase = shape_words(shape)
    assert [word for word in SAID.get(kind, ()) if word not in phrase] == []
    assert phrase != shape_words(shape, Words("zh"))
    assert "None" not in phrase
    assert "{" not in phrase


@pytest.mark.parametrize(
    ("kind", "figures", "said"),
    [
        ("scale", {"factor": 1e-4}, "0.0001"),
        ("scale", {"factor": 1.0001}, "1.0001"),
        ("scale", {"factor": -1.0}, "-1"),
        ("stale", {}, "earlier run"),
        ("decision", {"count": 2, "elements": 4, "part": "scale", "factor": -1.0}, "2 of 4 decisions are negated"),
        ("decision", {"count": 2, "elements": 4}, "2 of 4 decisions differ"),
        ("non_finite", {"axis": 0, "size": 4, "entries": ((1, 1),), "count": 9, "elements": 36}, "entry 1 of axis 0"),
        ("slice", {"axis": 0, "size": 4, "entries": ((0, 1),)}, "entry 0-1 of axis 0 only (it has 4)"),
    ],
)
def test_what_is_known_is_said(kind: ShapeKind, figures: dict, said: str):
    assert said in shape_words(plain(asdict(ErrorShape(kind=kind, **figures))))

"""A study as text and charts, and pictures as sheets."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.errors import UsageError
from harness.records.accuracy import MetricResult
from harness.records.study import StepError, StudyResult, VariantResult
from harness.report.facts import Point, pareto_front, tradeoff_points
from harness.report.plots import study as study_plot
from harness.report.plots.image_sheet import amplified, save_picture, save_sheet
from harness.report.text import study as words


def metric(name: str, value: float) -> MetricResult:
    return MetricResult(name=name, verdict="pass", reason="", actual=value, expected=0.0, allowed=12.0)


def variant(name: str, verdict: str = "pass", **fields: Any) -> VariantResult:
    return VariantResult(name=name, settings={}, verdict=verdict, reason=f"why {name}", **fields)  # type: ignore[arg-type]


def study(*variants: VariantResult) -> dict[str, Any]:
    return StudyResult(
        name="system", weights="random", weights_source="seed 0", inputs="real", device="CPU",
        score_rule="less is better", variants=variants, notes=("a note",),
    ).to_json()  # fmt: skip


STEPS = tuple(StepError(step=n, timestep=951 - 50 * n, free=1e-3 * (n + 1), forced=1e-4) for n in range(4))
NAN_STEPS = (StepError(step=0, timestep=951, free=math.nan, forced=math.nan),)
STUDY = study(
    variant("reference", "not_judged", latency_ms=100.0, speed_up=1.0, stages_ms={"host": 1.0, "decoder": 2.5}),
    variant("good", latency_ms=10.0, speed_up=10.0, score=80.0, steps=STEPS, stages_ms={"host": 1.25},
            metrics=(metric("pd mean", 2.0), metric("pd max", 3.0), metric("psnr", 40.0))),
    variant("broken", "fail", steps=NAN_STEPS, notes=("look here",)),
)  # fmt: skip


def test_the_table_says_everything():
    text = words.study_text(STUDY)
    assert {"system", "weights: random (seed 0)", "inputs: real", "device: CPU"} == set(
        text.splitlines()[0].split(" | ")
    )
    good = next(line for line in text.splitlines() if line.startswith("good"))
    assert good.split() == ["good", "pass", "2", "3", "-", "40", "-", "10", "10", "80"]
    broken = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("broken")]
    assert broken[0].startswith("FAIL ")
    assert broken[1:] == ["why broken", "note: look here"]
    for fact in ("a note", "less is better", "2 variants: 1 passed, 1 failed"):
        assert fact in text
    assert "why good" not in text
    assert words.stage_lines(STUDY)[:3] == [
        "ms per stage  host  decoder  whole",
        "reference        1      2.5    100",
        "good          1.25        -     10",
    ]


def test_the_front_holds_what_nothing_beats():
    points = [
        Point(index=0, name=name, latency_ms=latency, quality=quality, verdict="pass", limit=None)
        for name, latency, quality in (("slow", 9, 1.0), ("fast", 1, 5.0), ("beaten", 9.5, 4.0), ("middle", 4, 3.0))
    ]
    assert [point.name for point in pareto_front(points, lower=True)] == ["fast", "middle", "slow"]
    assert [point.name for point in pareto_front(points, lower=False)] == ["fast"]
    failed = replace(points[1], verdict="fail")
    assert [point.name for point in pareto_front([failed, *points[2:]])] == ["middle"]


def test_quality_is_pd_or_else_psnr():
    assert tradeoff_points(STUDY)[1:] == ("pd mean", True)
    without = study(variant("reference"), variant("v", "not_judged", latency_ms=1.0, metrics=(metric("psnr", 30.0),)))
    points, _, lower = tradeoff_points(without)
    assert ([point.quality for point in points], lower) == ([30.0], False)
    assert tradeoff_points(study(variant("reference"), variant("broken", "fail")))[0] == []


def test_the_reference_is_no_point_unless_it_failed():
    timed = {"latency_ms": 9.0, "metrics": (metric("pd mean", 0.0),)}
    for verdict, names in (("not_judged", ["v"]), ("fail", ["first", "v"])):
        points = tradeoff_points(study(variant("first", verdict, **timed), variant("v", **timed)))[0]
        assert [(point.name, point.index) for point in points] == [(n, ["first", "v"].index(n)) for n in names]
        assert points[-1].limit == 12.0


def test_charts_are_drawn_of_what_there_is(tmp_path: Path):
    charts = study_plot.save_study(STUDY, tmp_path / "new" / "run")
    assert set(charts) == {"pd against latency", "error over steps"}
    for path in charts.values():
        with Image.open(path) as picture:
            assert picture.width > 1000
    assert study_plot.save_study(study(variant("reference")), tmp_path / "none") == {}


def test_a_chart_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        study_plot.save_study(STUDY, tmp_path / "file" / "run")


def test_a_difference_is_amplified_without_clipping():
    black = np.zeros((2, 2, 3), np.uint8)
    other = black.copy()
    other[0, 0, 1] = 30
    difference, factor = amplified(black, other)
    assert (factor, int(difference.max())) == (8, 240)
    assert amplified(black, black)[1] == 1
    with pytest.raises(UsageError, match="cannot be held against"):
        amplified(black, black[:1])


def test_a_sheet_holds_every_panel_as_it_is(tmp_path: Path):
    red = np.zeros((20, 200, 3), np.uint8)
    red[:, :, 0] = 255
    grey = np.full((20, 200), 77, np.uint8)
    save_sheet({"red": red, "grey": grey}, tmp_path / "new" / "sheet.png", title="two")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert int((pixels == (255, 0, 0)).all(axis=2).sum()) == 20 * 200
    assert int((pixels == (77, 77, 77)).all(axis=2).sum()) >= 20 * 200


def test_a_small_panel_is_enlarged(tmp_path: Path):
    save_sheet({"small": np.zeros((8, 8, 3), np.uint8)}, tmp_path / "sheet.png", title="one")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 192


def test_a_picture_is_written_without_loss(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_picture(pixels, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    with pytest.raises(UsageError, match="sheet of no pictures"):
        save_sheet({}, tmp_path / "none.png", title="none")

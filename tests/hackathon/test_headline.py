"""The first sentence of the README, and the key numbers that it is made of: nothing is claimed that was not shown."""

# ruff: noqa: RUF001 - Chinese punctuation is full-width

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded

from harness.hackathon.context import Context
from harness.hackathon.headline import headline
from harness.hackathon.key_numbers import key_rows
from harness.report.words import Language, Words


def context(folder: Path, lang: Language = "en", **parts: Any) -> Context:
    records = recorded.load(folder, **parts)
    return Context(records=records, recorded=records, words=Words(lang), template="2023")


def sentence(folder: Path, lang: Language = "en", **parts: Any) -> str:
    return " ".join(line for line in headline(context(folder, lang, **parts)) if line)


def trained(verdict: Any = "pass", **changes: Any) -> Any:
    known = replace(recorded.result().provenance, weights="trained", inputs="real")
    return recorded.result(verdict, **{"provenance": known, **changes})


def test_speed_up_with_its_size_and_the_error_over_the_floor(tmp_path: Path):
    bench = [recorded.measured(sizes={"batch": 1}, weights="trained", inputs="real")]
    assert sentence(tmp_path, "zh", results=[trained()], bench=bench) == (
        "**NVIDIA H200 上 `net`（`rtx-fp16`）相对 PyTorch FP32 加速 4 倍（batch=1），"
        "误差为同精度 PyTorch 的 1.11 倍。**"
    )
    assert "random" not in sentence(tmp_path, results=[trained()], bench=bench)


def test_random_weights_are_said_in_the_sentence_itself(tmp_path: Path):
    assert sentence(tmp_path, "zh", results=[recorded.result()], bench=[recorded.measured()]).endswith(
        "（随机权重、随机输入）。**"
    )


@pytest.mark.parametrize(
    ("parts", "said", "unsaid"),
    [
        ({"results": [trained()]}, ("was not timed", "1.11 times"), ("as fast",)),
        ({"bench": [recorded.measured()]}, ("4 times as fast", "was not verified"), ("times the error",)),
        ({"results": [trained("fail")], "bench": [recorded.measured()]}, ("fails", "1.11"), ("as fast",)),
        (
            {"results": [trained(), trained("not_judged", case="two", outputs=())], "bench": [recorded.measured()]},
            ("was not judged in all cases",),
            ("as fast",),
        ),
        (
            {"results": [trained(), trained("fail", precision="fp8")]},
            ("`rtx-fp16`", "failed: `rtx-fp8`"),
            (),
        ),
        ({}, ("Nothing was verified or timed",), ()),
        ({"studied": recorded.study()}, ("variant `fp16` takes 60 ms", "2 times as fast", "its results pass"), ()),
        (
            {"studied": recorded.study(variants=(recorded.variant("a", 9.0), recorded.variant("b", 4.0, "fail")))},
            ("No variant of `canny2image` that was timed passes",),
            ("as fast",),
        ),
        ({"studied": recorded.study(variants=(recorded.variant("a", 9.0),))}, ("was timed",), ("pass", "as fast")),
        (
            {"studied": recorded.study(variants=(recorded.variant("a", 9.0), recorded.variant("b", 4, "not_judged")))},
            ("were not judged",),
            ("pass",),
        ),
    ],
)
def test_what_is_lacking_is_said(parts: Any, said: tuple[str, ...], unsaid: tuple[str, ...], tmp_path: Path):
    text = sentence(tmp_path, **parts)
    assert [word for word in said if word not in text] == []
    assert [word for word in unsaid if word in text] == []


def test_a_speed_up_whose_interval_holds_1_is_none(tmp_path: Path):
    unsure = replace(recorded.measured(speed_up=1.01), speed_up_intervals={"eager fp32": (0.97, 1.05)})
    text = sentence(tmp_path, results=[trained()], bench=[unsure])
    assert "not proven to be faster" in text
    assert "1.01 [0.97, 1.05]" in text
    slower = replace(recorded.measured(speed_up=0.5), speed_up_intervals={"eager fp32": (0.4, 0.6)})
    assert "slower than PyTorch" in sentence(tmp_path, results=[trained()], bench=[slower])


def test_a_speed_up_that_is_hardly_known_has_its_interval(tmp_path: Path):
    unsure = replace(recorded.measured(speed_up=77.0), speed_up_intervals={"eager fp32": (44.0, 134.0)})
    assert "77 [44, 134] times as fast" in sentence(tmp_path, results=[trained()], bench=[unsure])
    results = [trained(), trained(subject="b")]
    assert "44 to 134 times as fast" in sentence(tmp_path, results=results, bench=[unsure])


def test_several_models_have_one_sentence_that_names_what_did_not_pass(tmp_path: Path):
    results = [trained(), trained(subject="b"), trained("fail", subject="c")]
    bench = [recorded.measured(), recorded.measured(subject="b", speed_up=2.0)]
    text = sentence(tmp_path, results=results, bench=bench)
    assert "2 of 3 models pass" in text
    assert "2 to 4 times as fast" in text
    assert ": `c`" in text


def test_the_speed_up_stays_when_a_later_session_had_no_baseline(tmp_path: Path):
    bench = [
        recorded.measured(2.0, recorded_at="2026-01-01"),
        recorded.measured(3.0, speed_up=None, recorded_at="2026-02-01"),
    ]
    row, *others = key_rows(context(tmp_path, results=[trained()], bench=bench))
    assert others == []
    assert row.shown is not None
    assert row.shown["speed_up"]["eager fp32"] == 4.0
    assert "4 times as fast" in sentence(tmp_path, results=[trained()], bench=bench)


def test_the_ratio_is_of_one_outputs_error_and_that_outputs_floor(tmp_path: Path):
    outputs = (
        recorded.output("a", stats=recorded.stats(1e-2), floor=recorded.stats(1e-2)),
        recorded.output("b", stats=recorded.stats(2e-3), floor=recorded.stats(1e-3)),
    )
    row = key_rows(context(tmp_path, results=[trained(outputs=outputs)]))[0]
    assert row.ratio == pytest.approx(2.0)

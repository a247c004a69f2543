"""``parity study`` and ``parity score``: what they accept, say, write, return."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import commands as cli

STUDY = """
from pathlib import Path

from harness.errors import NotJudged
from harness.records import MetricResult
from harness.records import StudyResult, VariantResult

VERDICTS = {verdicts!r}


def variants():
    return list(VERDICTS)


def run(*, variants, pictures, steps, backend, settings, folder):
    Path("asked.txt").write_text(repr((variants, pictures, steps, backend, settings.device, str(folder))))
    done = [VariantResult(name="reference", settings={{}}, verdict="pass", reason="it is", latency_ms=9.0)]
    for name in variants or VERDICTS:
        if VERDICTS[name] == "interrupt":
            raise KeyboardInterrupt
        if VERDICTS[name] == "trouble":
            raise NotJudged("no weights here")
        psnr = MetricResult(name="psnr", verdict="pass", reason="", actual=30.0, expected=0.0, allowed=1.0)
        done.append(VariantResult(
            name=name, settings={{}}, verdict=VERDICTS[name], reason="because", latency_ms=2.0, metrics=(psnr,)
        ))
        yield StudyResult(
            name="tiny", weights="random", weights_source="seed 0", inputs="random", device="CPU", score_rule="none",
            variants=tuple(done),
        )
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "suites" / "tiny").mkdir(parents=True)
    return tmp_path


def study(folder: Path, verdicts: dict[str, str], *options: str) -> int:
    (folder / "suites" / "tiny" / "study.py").write_text(STUDY.format(verdicts=verdicts))
    return cli.main(["study", "suites/tiny", "-b", "ort-cpu", "--device", "cpu", *options])


def document(path: str = "reports/tiny-study.json") -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(path).read_text())
    return data


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ({"a": "pass", "b": "pass"}, 0),
        ({"a": "pass", "b": "not_judged"}, 0),
        ({"a": "pass", "b": "fail"}, 1),
        ({"a": "not_judged"}, 3),
    ],
)
def test_the_exit_status_is_that_of_the_variants(folder: Path, verdicts: dict[str, str], status: int):
    assert study(folder, verdicts) == status


def test_the_study_is_printed_and_written_with_its_charts(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert study(folder, {"a": "pass", "b": "pass"}, "--pictures", "2", "--steps", "5", "--variants", "b,a") == 0
    assert Path("asked.txt").read_text() == repr((("b", "a"), 2, 5, "ort-cpu", "cpu", "reports/tiny-study-pictures"))
    written = document()
    assert written["complete"] is True
    assert [variant["name"] for variant in written["study"]["variants"]] == ["reference", "b", "a"]
    charts = written["study"]["charts"]
    assert charts == {"psnr against latency": "tiny-study-tradeoff.png"}
    assert all((folder / "reports" / file).is_file() for file in charts.values())
    shown = capsys.readouterr().out
    assert "2 variants: 2 passed" in shown
    assert "json: reports/tiny-study.json" in shown


def test_an_interrupted_study_keeps_what_it_found(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert study(folder, {"a": "pass", "b": "interrupt"}, "--json", "out/s.json") == 130
    written = document("out/s.json")
    assert (written["complete"], written["error"]) == (False, "interrupted")
    assert len(written["study"]["variants"]) == 2
    assert "1 variant: 1 passed" in capsys.readouterr().out


def test_trouble_is_written_and_said(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert study(folder, {"a": "pass", "b": "trouble"}) == 3
    assert "no weights here" in capsys.readouterr().err
    written = document()
    assert (written["complete"], written["error"]) == (False, "no weights here")
    assert len(written["study"]["variants"]) == 2


def test_a_study_that_yields_nothing_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert study(folder, {}) == 3
    assert "suites/tiny gave no result" in capsys.readouterr().err
    assert "gave no result" in document()["error"]


def test_the_variants_can_be_listed(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert study(folder, {"a": "pass", "b": "pass"}, "--list") == 0
    assert capsys.readouterr().out.split() == ["a", "b"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (None, "has no study.py"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("def variants(): return []", "no run()"),
    ],
)
def test_a_folder_without_a_study_is_a_usage_error(
    folder: Path, capsys: pytest.CaptureFixture[str], source: str | None, sentence: str
):
    if source is not None:
        (folder / "suites" / "tiny" / "study.py").write_text(source)
    assert cli.main(["study", "suites/tiny"]) == 2
    assert sentence in capsys.readouterr().err


def test_an_unknown_backend_is_a_usage_error(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert study(folder, {"a": "pass"}, "-b", "ort-cp") == 2
    assert "did you mean ort-cpu" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--pictures", "0"], ["--steps", "x"]])
def test_numbers_start_at_one(folder: Path, options: list[str]):
    with pytest.raises(SystemExit, match="2"):
        study(folder, {"a": "pass"}, *options)


# parity score


@pytest.fixture
def entry(folder: Path) -> Path:
    """Make a contest folder that gives back what it gets."""
    cv2 = pytest.importorskip("cv2", reason="the contest's pictures are read by OpenCV")
    (folder / "entry" / "pictures_croped").mkdir(parents=True)
    for number in range(2):
        pixels = np.full((256, 384, 3), number, np.uint8)
        cv2.imwrite(str(folder / "entry" / "pictures_croped" / f"bird_{number}.png"), pixels)
    (folder / "entry" / "preprocess.sh").write_text("true")
    (folder / "entry" / "canny2image_TRT.py").write_text(
        "class hackathon:\n"
        "    def initialize(self): pass\n"
        "    def process(self, image, prompt, *rest): return [image + len(prompt)]\n"
    )
    return folder / "entry"


def test_a_contest_folder_is_judged(
    entry: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
):
    monkeypatch.setattr("harness.metrics.perceptual_distance.perceptual_distance", lambda actual, expected: 2.5)
    options = ["--reference", "entry/pictures_croped", "--prompt", "cat", "--seed", "3", "--json", "score.json"]
    assert cli.main(["score", "entry", *options]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"entry: pass: .*2\.5.*2\.5", shown)
    assert "bird_0" in shown
    assert "note: 2 pictures" in shown
    score = json.loads(Path("score.json").read_text())["score"]
    assert (score["parameters"]["prompt"], score["parameters"]["seed"]) == ("cat", 3)
    assert [picture["pd"] for picture in score["pictures"]] == [2.5, 2.5]


def test_without_references_the_status_is_not_judged(entry: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["score", "entry"]) == 3
    assert "entry: not judged" in capsys.readouterr().out


def test_a_folder_that_breaks_fails(entry: Path, capsys: pytest.CaptureFixture[str]):
    (entry / "preprocess.sh").unlink()
    assert cli.main(["score", "entry"]) == 1
    assert re.search(r"entry: FAIL: .*preprocess\.sh", capsys.readouterr().out)


def test_pictures_that_are_not_there_are_a_usage_error(entry: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["score", "entry", "--images", "nowhere"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err

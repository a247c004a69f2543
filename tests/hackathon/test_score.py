"""Judging a contest folder: a tiny one that works, and every way in which one can be wrong."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="the contest's pictures are read by OpenCV: pip install opencv-python-headless")

from harness.errors import NotJudged, UsageError  # noqa: E402
from harness.hackathon import score as contest  # noqa: E402
from harness.hackathon.rules import PARAMETERS, RULES, Rules  # noqa: E402
from harness.hackathon.score import judge_folder  # noqa: E402
from harness.records import mean_latency  # noqa: E402

SCRIPT = """
import pathlib
import numpy as np


class hackathon:
    def initialize(self):
        self.gain = int(pathlib.Path("gain.txt").read_text())

    def process(self, image, prompt, a_prompt, n_prompt, num_samples, resolution, steps, guess, strength, scale, seed,
                eta, low, high):
        assert (resolution, steps, low, high) == (256, 20, 100, 200)
        {body}
"""
BODY = "return [np.clip(image.astype(int) + self.gain + seed % 2, 0, 255).astype(np.uint8)]"
HEIGHT, WIDTH = 256, 384


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three pictures of the contest's size."""
    (tmp_path / "images").mkdir()
    for number in (10, 2, 1):
        pixels = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"bird_{number}.png"), pixels)
    return contest.find_images(tmp_path / "images", 20)


@pytest.fixture
def reference(images: list[Path], tmp_path: Path) -> Path:
    folder = tmp_path / "reference"
    folder.mkdir()
    for image in images:
        cv2.imwrite(str(folder / image.name), cv2.imread(str(image)))
    return folder


def entry(tmp_path: Path, body: str = BODY, preprocess: str = "echo 3 > gain.txt") -> Path:
    folder = tmp_path / "entry"
    folder.mkdir()
    (folder / "preprocess.sh").write_text(preprocess)
    (folder / "canny2image_TRT.py").write_text(SCRIPT.format(body=body))
    return folder


@pytest.fixture
def distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the mean absolute difference of two files for their perceptual distance."""

    def mean_difference(actual: Any, expected: Any) -> float:
        left, right = (cv2.imread(str(path)).astype(float) for path in (actual, expected))
        return float(np.abs(left - right).mean())

    monkeypatch.setattr("harness.metrics.perceptual_distance.perceptual_distance", mean_difference)


def test_a_folder_that_works_passes(tmp_path: Path, images: list[Path], reference: Path, distance: None):
    result = judge_folder(entry(tmp_path), images=images, reference=reference, output=tmp_path / "out")
    assert result.verdict == "pass"
    assert [picture.name for picture in result.pictures] == ["bird_1", "bird_2", "bird_10"]
    assert result.pd_mean == pytest.approx(4)  # 3 from the file that preprocess.sh wrote, 1 from the seed
    assert result.pd_max == pytest.approx(4)
    assert result.latency_ms == pytest.approx(sum(picture.latency_ms for picture in result.pictures[1:]) / 2)
    assert result.score is not None
    assert 0 < result.score < 100
    assert result.notes == ("3 pictures; the contest takes 20",)
    assert all(Path(picture.file).suffix == ".png" for picture in result.pictures), "encoded as the reference is"
    json.dumps(result.to_json(), allow_nan=False)


def test_another_seed_reaches_the_folder(tmp_path: Path, images: list[Path], reference: Path, distance: None):
    result = judge_folder(
        entry(tmp_path), images=images, reference=reference, output=tmp_path / "out",
        parameters={**PARAMETERS, "seed": 2},
    )  # fmt: skip
    assert result.pd_mean == pytest.approx(3)


def test_a_large_distance_fails(tmp_path: Path, images: list[Path], reference: Path, distance: None):
    folder = entry(tmp_path, preprocess="echo 20 > gain.txt")
    result = judge_folder(folder, images=images, reference=reference, output=tmp_path / "out")
    assert result.verdict == "fail"
    assert result.score == 0
    assert "above 12 fails" in result.reason


def test_without_reference_pictures_nothing_passes(tmp_path: Path, images: list[Path]):
    result = judge_folder(entry(tmp_path), images=images, output=tmp_path / "out")
    assert result.verdict == "not_judged"
    assert any("give --reference DIR" in note for note in result.notes)
    assert result.latency_ms is not None


def test_without_weights_nothing_passes(
    tmp_path: Path, images: list[Path], reference: Path, monkeypatch: pytest.MonkeyPatch
):
    def missing(*_: Any) -> float:
        raise NotJudged("no weights: put them there")

    monkeypatch.setattr("harness.metrics.perceptual_distance.perceptual_distance", missing)
    result = judge_folder(entry(tmp_path), images=images, reference=reference, output=tmp_path / "out")
    assert result.verdict == "not_judged"
    assert any("no weights: put them there" in note for note in result.notes)


@pytest.mark.parametrize(
    ("body", "preprocess", "sentence"),
    [
        ("return [image[:8]]", "echo 3 > gain.txt", r"bird_1: process.. gave uint8 \[8, 384, 3\]"),
        ("return [image / 2]", "echo 3 > gain.txt", r"gave float64 \[256, 384, 3\]; the contest wants uint8"),
        ("return []", "echo 3 > gain.txt", "process.. on bird_1 raised IndexError"),
        ("return None", "echo 3 > gain.txt", "process.. on bird_1 raised TypeError"),
        (
            "raise RuntimeError('boom')",
            "echo 3 > gain.txt",
            r"RuntimeError: boom \(canny2image_TRT.py, line 13\)",
        ),
        (BODY, "true", "initialize.. raised FileNotFoundError"),
        (BODY, "echo no TensorRT here >&2; exit 7", "preprocess.sh ended with status 7: no TensorRT here"),
        ("import os; os._exit(0)", "echo 3 > gain.txt", "ended after 0 of 3 pictures"),
        ("import os; os.kill(os.getpid(), 9)", "echo 3 > gain.txt", "was ended by signal 9"),
    ],
    ids=["shape", "dtype", "empty", "none", "raises", "no-engine", "preprocess", "exits", "killed"],
)
def test_what_a_folder_does_wrong_is_one_sentence(
    tmp_path: Path, images: list[Path], body: str, preprocess: str, sentence: str
):
    result = judge_folder(entry(tmp_path, body, preprocess), images=images, output=tmp_path / "out")
    assert result.verdict == "fail"
    assert result.score is None
    assert "\n" not in result.reason
    assert re.search(sentence, result.reason), result.reason


def test_what_takes_too_long_is_stopped(tmp_path: Path, images: list[Path]):
    folder = entry(tmp_path, preprocess="sleep 600")
    result = judge_folder(folder, images=images, output=tmp_path / "out", timeout_s=0.2)
    assert result.verdict == "fail"
    assert re.search(r"preprocess\.sh .* 0\.2 s", result.reason)


@pytest.mark.parametrize("name", ["preprocess.sh", "canny2image_TRT.py"])
def test_a_folder_without_a_part_fails(tmp_path: Path, images: list[Path], name: str):
    folder = entry(tmp_path)
    (folder / name).unlink()
    result = judge_folder(folder, images=images, output=tmp_path / "out")
    assert (result.verdict, result.reason.split(";")[0]) == ("fail", f"entry has no {name}")


def test_pictures_made_before_the_trouble_are_kept(tmp_path: Path, images: list[Path]):
    folder = entry(tmp_path, "self.gain -= 1\n        assert self.gain\n        return [image]", "echo 2 > gain.txt")
    result = judge_folder(folder, images=images, output=tmp_path / "out")
    assert result.verdict == "fail"
    assert [picture.name for picture in result.pictures] == ["bird_1"]


def test_a_picture_that_cannot_be_compared_fails_alone(tmp_path: Path, images: list[Path], reference: Path):
    cv2.imwrite(str(reference / "bird_2.png"), np.zeros((8, 8, 3), np.uint8))

    def shapes(actual: Any, expected: Any) -> float:
        from harness.metrics.image import per_pair

        return float(per_pair(lambda *_: 1.0, actual, expected))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.metrics.perceptual_distance.perceptual_distance", shapes)
        result = judge_folder(entry(tmp_path), images=images, reference=reference, output=tmp_path / "out")
    assert (result.verdict, result.score) == ("fail", None)
    assert result.reason.startswith("bird_2: it cannot be compared with its reference: image 0 is [3, 256, 384]")
    assert [picture.pd for picture in result.pictures] == [1.0, None, 1.0]
    assert [bool(picture.reason) for picture in result.pictures] == [False, True, False]


def test_one_picture_of_a_wrong_shape_does_not_hide_the_others(
    tmp_path: Path, images: list[Path], reference: Path, distance: None
):
    body = "self.gain += 1\n        return [image[:8] if self.gain == 5 else image]"
    result = judge_folder(entry(tmp_path, body), images=images, reference=reference, output=tmp_path / "out")
    assert result.verdict == "fail"
    assert [picture.pd for picture in result.pictures] == [0.0, None, 0.0]
    assert "bird_2: process() gave uint8 [8, 384, 3]" in result.reason


def test_a_picture_that_cannot_be_read_is_the_users_error_and_found_before_anything_runs(
    tmp_path: Path, images: list[Path], reference: Path
):
    (reference / "bird_10.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"bird_10.png cannot be read"):
        judge_folder(entry(tmp_path), images=images, reference=reference, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    images[0].write_bytes(b"")
    with pytest.raises(UsageError, match=r"bird_1.png cannot be read"):
        judge_folder(tmp_path / "entry", images=images, output=tmp_path / "out")


def test_two_pictures_of_one_name_are_not_mixed_up(tmp_path: Path, images: list[Path]):
    other = images[0].with_suffix(".jpg")
    cv2.imwrite(str(other), cv2.imread(str(images[0])))
    with pytest.raises(UsageError, match="several pictures are named bird_1"):
        judge_folder(entry(tmp_path), images=[*images, other], output=tmp_path / "out")


def test_what_is_asked_wrongly_is_a_usage_error(tmp_path: Path, images: list[Path], reference: Path):
    with pytest.raises(UsageError, match="is no folder"):
        judge_folder(tmp_path / "none", images=images, output=tmp_path / "out")
    with pytest.raises(UsageError, match="there is no folder"):
        contest.find_images(tmp_path / "none", 20)
    with pytest.raises(UsageError, match=r"holds no .jpg or .png"):
        contest.find_images(Path(__file__).parent, 20)
    next(reference.iterdir()).unlink()
    with pytest.raises(UsageError, match="holds no picture bird_"):
        judge_folder(entry(tmp_path), images=images, reference=reference, output=tmp_path / "out")


def test_two_reference_pictures_of_one_name_are_not_chosen_from(images: list[Path], reference: Path):
    cv2.imwrite(str(reference / "bird_1.jpg"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="holds several pictures bird_1"):
        contest.reference_of(images[0], reference)


# the rules


def test_the_score_falls_with_both_and_is_0_at_the_limits():
    assert RULES.score(0, 0) == 100
    assert RULES.score(3, 500) > RULES.score(3, 600) > RULES.score(4, 600) > 0
    assert RULES.score(12, 1) == RULES.score(1, 2600) == RULES.score(13, 3000) == 0


@pytest.mark.parametrize(
    ("distances", "latency_ms", "verdict"),
    [
        ([1.0, 11.9], 100.0, "pass"),
        ([1.0, 12.1], 100.0, "fail"),
        ([1.0, math.nan], 100.0, "fail"),
        ([1.0], 2600.0, "fail"),
        ([], 2600.0, "fail"),
        ([], 100.0, "not_judged"),
        ([1.0], None, "not_judged"),
        ([1.0], math.nan, "not_judged"),
    ],
)
def test_the_limits(distances: list[float], latency_ms: float | None, verdict: str):
    assert RULES.judge(distances, latency_ms)[0] == verdict


def test_the_score_can_be_replaced():
    rules = Rules(score=lambda pd, latency_ms: pd + latency_ms, words="the sum")
    assert rules.judge([1.0, 3.0], 100.0)[2] == 102


def test_the_first_latency_does_not_count():
    assert mean_latency([1000.0, 1.0, 3.0]) == 2
    assert mean_latency([5.0]) == 5
    assert mean_latency([]) is None

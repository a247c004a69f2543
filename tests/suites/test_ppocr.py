"""The suites of PP-OCRv4: what they say without the package, what they draw, and how they read outputs."""

from __future__ import annotations

import pytest
import torch

from harness import NotJudged
from suites.ppocr import pictures, test_detection, test_orientation, test_recognition

pytest.importorskip("PIL")
SUITES = (test_detection, test_recognition, test_orientation)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.SUBJECT.name)
def test_without_the_package_nothing_is_judged_and_the_sentence_says_what_to_install(monkeypatch, suite):
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotJudged, match="pip install --no-deps rapidocr-onnxruntime"):
        assert suite.SUBJECT.onnx_file


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.SUBJECT.name)
def test_pictures_are_drawn_as_the_networks_take_them(suite):
    for case in suite.SUBJECT.cases.values():
        given = case()["x"]
        assert given.dtype == torch.float32
        assert given.shape[1] == 3
        assert (given.min(), given.max()) == (-1, 1), "black letters on white"
        assert torch.equal(given, case()["x"])


def test_columns_of_the_recogniser_become_text(monkeypatch):
    monkeypatch.setattr(test_recognition, "characters", lambda: ["", "a", "b", " "])
    best = torch.tensor([[1, 1, 0, 1, 2, 2, 3, 0], [0, 0, 2, 2, 0, 2, 0, 0]])
    scores = {"softmax": torch.nn.functional.one_hot(best, 4).float()}
    assert test_recognition.read(scores) == ["aab ", "bb"]


def test_overlap_of_text_and_lines_that_are_not_found():
    page = torch.zeros(1, 1, *pictures.PAGE)
    for top in pictures.TOPS:
        page[..., top : top + 30, pictures.LEFT :] = 0.9
    less = page.clone()
    less[..., pictures.TOPS[-1] :, :] = 0
    assert test_detection.overlap({"p": page}, {"p": page}) == 1
    assert test_detection.overlap({"p": less}, {"p": page}) == pytest.approx(0.75)
    assert test_detection.covered({"p": page}, pictures.LINES[:4]) == 1
    assert test_detection.covered({"p": less}, pictures.LINES[:4]) == 0


def test_orientations_that_are_found_are_counted():
    count = len(test_orientation.TEXTS)
    scores = torch.eye(2).repeat_interleave(count, 0)
    assert test_orientation.right({"s": scores}) == 1
    assert test_orientation.right({"s": scores.roll(1, 0)}) == 1 - 2 / (2 * count)

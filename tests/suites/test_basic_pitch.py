"""The Basic Pitch suite: what it says without its package, and its metric."""

from __future__ import annotations

import pytest
import torch

import suites.test_basic_pitch as suite
from harness import NotJudged


def test_without_the_package_nothing_is_judged_and_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotJudged, match="pip install --no-deps basic-pitch"):
        assert suite.SUBJECT.onnx_file


@pytest.mark.parametrize(("wrong", "share"), [(0, 0.0), (1, 0.25), (4, 1.0)])
def test_note_frames_that_only_one_hears_are_counted(wrong, share):
    expected = torch.zeros(1, 172, 88)
    expected[0, 3, :4] = 0.9
    actual = expected.clone()
    actual[0, 3, :wrong] = 0.1
    assert suite.heard_otherwise({suite.NOTES: actual}, {suite.NOTES: expected}) == share

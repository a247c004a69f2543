"""The suites of WeNet: the contest's shapes and files, and what its table does not judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness import NotJudged
from suites.wenet import cases, test_decoder, test_encoder
from suites.wenet.models import SIZE


def test_shapes_are_those_of_the_contest():
    encoder, decoder = test_encoder.build(), test_decoder.build()
    with torch.no_grad():
        heard = encoder(**cases.speech(2, 64))
        scored = decoder(**cases.hypotheses(2, 15))
    assert heard["encoder_out"].shape == (2, 15, SIZE.width)
    assert heard["encoder_out_lens"].tolist() == [15, 11]
    assert scored["decoder_out"].shape == (2, 10, 63, SIZE.characters)
    assert scored["best_index"].shape == (2,)


def test_what_lies_behind_the_end_of_speech_changes_nothing_within():
    encoder, given = test_encoder.build(), cases.speech(2, 64)
    other = {**given, "speech": given["speech"].clone()}
    other["speech"][1, 52:] = 100.0
    with torch.no_grad():
        one, two = (encoder(**inputs)["encoder_out"] for inputs in (given, other))
    assert torch.allclose(one[1, :11], two[1, :11], atol=1e-5)


def test_the_best_hypothesis_is_judged_by_agreement():
    expected = {"best_index": torch.tensor([0, 1, 2, 3])}
    assert test_decoder.agreement({"best_index": torch.tensor([0, 1, 2, 4])}, expected) == 0.75


def test_the_files_of_the_contest_are_cases_and_what_is_asked_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cases, "DATA", str(tmp_path))
    out = np.linspace(1, 2, 8, dtype=np.float32).reshape(1, 2, 4)
    for name in ("16-64", "1-64", "1-16"):
        np.savez(tmp_path / f"encoder-{name}.npz", speech=out, speech_lengths=np.ones(1, np.int32), encoder_out=out)
    subject = cases.subject("encoder", test_encoder.build, cases.speech)
    assert list(subject.cases) == ["1-16", "1-64", "16-64"]
    assert set(subject.cases["1-16"]()) == {"speech", "speech_lengths"}
    worst, median = cases.contest("encoder", "1-16", "encoder_out", absolute=1, relative=1, epsilon=0)
    actual = torch.from_numpy(out * 1.5)
    assert worst.function({"encoder_out": actual}, {}) == pytest.approx(1.0)
    assert median.function({"encoder_out": actual}, {}) == pytest.approx(0.5)


def test_a_file_that_lacks_an_input_is_not_judged(tmp_path: Path):
    np.savez(tmp_path / "encoder-1-16.npz", speech=np.ones(1, np.float32))
    with pytest.raises(NotJudged, match="speech_lengths"):
        cases.given(tmp_path / "encoder-1-16.npz", ("speech", "speech_lengths"))
    (tmp_path / "encoder-2-16.npz").write_bytes(b"no file of numpy")
    with pytest.raises(NotJudged, match="encoder-2-16"):
        cases.given(tmp_path / "encoder-2-16.npz", ("speech",))

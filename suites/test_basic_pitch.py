"""Basic Pitch, which finds the notes in music: an ONNX file with trained weights, from the package basic-pitch.

``PARITY_AUDIO`` names a recording (WAV, FLAC or Ogg Vorbis); without it the input is random.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from harness import NotJudged, Subject, targets
from harness.checks import test_outputs
from harness.metrics import Metric

RATE, SAMPLES = 22050, 43844
"""What the network takes: two seconds of one channel."""
START_S = float(os.environ.get("PARITY_AUDIO_START", "10"))
"""Where in the recording they begin."""
INPUT = "serving_default_input_2:0"
CONTOURS, NOTES, ONSETS = (f"StatefulPartitionedCall:{number}" for number in range(3))
"""The outputs: 264 pitch bins, and 88 notes and their beginnings, each of 172 frames, from 0 to 1."""


def model() -> Path:
    """Return the file in the package. Raises NotJudged where that is not installed."""
    found = importlib.util.find_spec("basic_pitch")
    if found is None or found.origin is None:
        raise NotJudged("no weights: pip install --no-deps basic-pitch")
    return Path(found.origin).parent / "saved_models" / "icassp_2022" / "nmp.onnx"


def random() -> dict[str, torch.Tensor]:
    """Return seeded noise, float32 [1, SAMPLES, 1]."""
    return {INPUT: 0.1 * torch.randn(1, SAMPLES, 1, generator=torch.Generator().manual_seed(0))}


def recording() -> dict[str, torch.Tensor]:
    """Return two seconds of the recording, resampled, float32 [1, SAMPLES, 1]."""
    path = os.environ["PARITY_AUDIO"]
    try:
        import soundfile
        from scipy.signal import resample_poly
    except ImportError as error:
        raise NotJudged("no recording: pip install soundfile scipy") from error
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise NotJudged(f"PARITY_AUDIO={path} cannot be read: {error}") from error
    start = round(START_S * rate)
    mono = sound[start : start + round(SAMPLES / RATE * rate) + rate].mean(axis=1)
    resampled = torch.from_numpy(resample_poly(mono, RATE, rate)).float()[:SAMPLES]
    if len(resampled) < SAMPLES:
        raise NotJudged(f"PARITY_AUDIO={path} has not {SAMPLES / RATE:.1f} s from {START_S:g} s on")
    return {INPUT: resampled.reshape(1, SAMPLES, 1)}


MUSIC = bool(os.environ.get("PARITY_AUDIO"))
SUBJECT = Subject(
    name="basic-pitch",
    onnx=model,
    cases={"music": recording} if MUSIC else {"noise": random},
    targets=(
        *targets("trt", "rtx", precisions=("fp32", "tf32", "fp16")),
        *targets("ort-cpu", "torch", precisions=("fp32", "fp16")),
    ),
    weights="trained",
    weights_source="PyPI basic-pitch 0.4.0, saved_models/icassp_2022/nmp.onnx",
    inputs="real" if MUSIC else "random",
)


def heard(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return which of 88 notes sound in which frame: bool [frames, 88], at the package's threshold of 0.3."""
    return outputs[NOTES][0] > 0.3


def heard_otherwise(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> float:
    """Return the note frames that only one of two hears, over those that the second one hears."""
    reference = heard(expected)
    return float((heard(actual).to(reference.device) != reference).sum()) / max(1, int(reference.sum()))


NOTE_FRAMES = Metric(
    "note frames heard otherwise", heard_otherwise, at_most=0.02,
    why="of 373 in the music that was tried, PyTorch in FP16 hears 0.5 % otherwise when the logarithm stays in FP32",
)  # fmt: skip


def test_notes(parity):
    """The same notes are heard in the same frames."""
    parity.check_metric(NOTE_FRAMES)

"""Inputs of WeNet's encoder and decoder in the contest's shapes, and what both suites share.

They are random, or those of the contest's files: ``--cases 'data/encoder-*.npz'``. ``PARITY_WENET_ONNX`` names a folder
with its ``encoder.onnx`` and ``decoder.onnx``, which take the place of the networks of random weights; then the files'
own outputs are held against the engine's by the contest's limits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import Subject, targets
from harness.metrics import Metric
from suites.wenet.models import CHOSEN, MELS, SIZE

ONNX = os.environ.get("PARITY_WENET_ONNX", "")
BATCH, FRAMES, HEARD = ((1, 64), (4, 256), (16, 1024)) if CHOSEN == "full" else ((1, 4), (4, 32), (16, 64))
"""The contest's smallest and largest batch, quarters of the frames of speech, and frames that the encoder gives."""
HYPOTHESES, CHARACTERS = 10, 64
Inputs = dict[str, torch.Tensor]


def speech(batch: int, frames: int) -> Inputs:
    """Return random speech, of which the last one ends earlier."""
    dice = torch.Generator().manual_seed(frames)
    lengths = torch.full((batch,), frames, dtype=torch.int32)
    lengths[-1] -= frames // 4 if batch > 1 else 0
    return {"speech": torch.randn(batch, frames, MELS, generator=dice), "speech_lengths": lengths}


def hypotheses(batch: int, frames: int) -> Inputs:
    """Return random hypotheses for random outputs of the encoder."""
    dice = torch.Generator().manual_seed(frames)
    said = torch.randint(0, SIZE.characters, (batch, HYPOTHESES, CHARACTERS), generator=dice)
    return {
        "encoder_out": torch.randn(batch, frames, SIZE.width, generator=dice),
        "encoder_out_lens": torch.full((batch,), frames, dtype=torch.int32),
        "hyps_pad_sos_eos": said,
        "hyps_lens_sos": torch.randint(3, CHARACTERS - 1, (batch, HYPOTHESES), generator=dice, dtype=torch.int32),
        "ctc_score": -20 * torch.rand(batch, HYPOTHESES, generator=dice),
    }


def from_file(arrays: Mapping[str, torch.Tensor]) -> Inputs:
    """Return what a file of the contest holds as the networks have it: lengths, where it has the masks of them."""
    found = dict(arrays)
    if (mask := found.get("encoder_out_lens")) is not None and mask.dtype == torch.bool:
        found["encoder_out_lens"] = mask.flatten(1).sum(1).int()
    return found


def subject(role: str, make: Callable[[int, int], Inputs], sizes: tuple[int, int], **built: Any) -> Subject:
    """Return a network with random inputs of this batch and so many frames; ``built`` is of the one made here."""
    from_onnx: dict[str, Any] = {
        "onnx": Path(ONNX) / f"{role}.onnx", "weights": "file", "weights_source": f"{role}.onnx of PARITY_WENET_ONNX",
    }  # fmt: skip
    built |= {"weights": "random", "weights_source": f"seed 0, {CHOSEN} size", "parts": "blocks"}
    return Subject(
        name=f"wenet-{role}", cases={"-".join(map(str, sizes)): partial(make, *sizes)}, from_file=from_file,
        targets=(
            *targets("trt", "rtx", "ort-cuda", precisions=("fp32", "tf32", "fp16", "bf16")),
            *targets("ort-cpu", "torch", precisions=("fp32", "fp16")),
        ),
        **(from_onnx if ONNX else built),
    )  # fmt: skip


def check_contest(parity: Any, output: str, *, absolute: float, relative: float, epsilon: float) -> None:
    """Hold an output against that of the contest's file, by what the contest asks."""
    if output not in parity.given:
        pytest.skip("not judged: the contest's table needs its files: --cases 'data/encoder-*.npz'")
    expected, why = parity.given[output].float(), "the contest's testEncoderAndDecoder.py"

    def apart(actual: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (actual[output].cpu().float() - expected).abs()

    def most(actual: Mapping[str, torch.Tensor], _: Any) -> float:
        return float(apart(actual).max())

    def median(actual: Mapping[str, torch.Tensor], _: Any) -> float:
        return float((apart(actual) / (expected.abs() + epsilon)).median())

    parity.check_metric(Metric(f"a0 of {output}", most, at_most=absolute, why=why))
    parity.check_metric(Metric(f"r0 of {output}", median, at_most=relative, why=why))

"""Inputs of WeNet's encoder and decoder in the contest's shapes, and what both suites share.

``PARITY_WENET_DATA`` names the contest's folder of ``encoder-BS-SL.npz`` and ``decoder-BS-SL.npz``; without it inputs
are random. ``PARITY_WENET_ONNX`` names a folder with its ``encoder.onnx`` and ``decoder.onnx``, which take the place of
the networks of random weights; then the files' own outputs are held against the engine's by the contest's limits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import NotJudged, Subject, targets
from harness.metrics import Metric
from suites.wenet.models import CHOSEN, MELS, SIZE

DATA, ONNX = os.environ.get("PARITY_WENET_DATA", ""), os.environ.get("PARITY_WENET_ONNX", "")
BATCH, HYPOTHESES, CHARACTERS = (1, 64), 10, 64
"""The contest's smallest and largest batch, hypotheses of each, and characters of each hypothesis."""
with_contest = pytest.mark.skipif(
    not (DATA and ONNX), reason="the contest's table needs PARITY_WENET_DATA and PARITY_WENET_ONNX"
)
"""Marks what needs the contest's files: networks of random weights have other outputs than those."""
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


@cache
def arrays(path: Path) -> Inputs:
    """Return what a file of the contest holds. Raises NotJudged where it cannot be read."""
    import numpy

    try:
        with numpy.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError) as error:
        raise NotJudged(f"{path} cannot be read: {error}; give the contest's .npz files") from error


def given(path: Path, names: tuple[str, ...]) -> Inputs:
    """Return the inputs in a file of the contest. Raises NotJudged for one that has not all of them."""
    found = arrays(path)
    if missing := [name for name in names if name not in found]:
        raise NotJudged(f"{path} has no {missing[0]}; it has {', '.join(found)}")
    return {name: found[name] for name in names}


def files(role: str) -> dict[str, Path]:
    """Return the contest's files of a network by the name of their case, such as ``16-64``, the smallest first."""
    found = {path.stem.removeprefix(f"{role}-"): path for path in Path(DATA).glob(f"{role}-*.npz")} if DATA else {}
    return dict(sorted(found.items(), key=lambda one: [int(size) for size in re.findall(r"\d+", one[0])]))


def subject(
    role: str, build: Callable[[], Any], make: Callable[[int, int], Inputs], **random: tuple[int, int]
) -> Subject:
    """Return a network with the contest's cases, or random ones of these sizes; its batch is dynamic."""
    names = tuple(make(1, 16))
    cases: dict[str, Callable[[], Mapping[str, Any]]] = {}
    cases |= {case: partial(given, path, names) for case, path in files(role).items()}
    cases = cases or {name.removeprefix("x").replace("_", "-"): partial(make, *sizes) for name, sizes in random.items()}
    from_file: dict[str, Any] = {
        "onnx": Path(ONNX) / f"{role}.onnx", "weights": "file", "weights_source": f"{role}.onnx of PARITY_WENET_ONNX",
    }  # fmt: skip
    built: dict[str, Any] = {
        "build": build, "weights": "random", "weights_source": f"seed 0, {CHOSEN} size", "parts": "blocks",
        "dynamic": {name: {0: "batch"} for name in names}, "ranges": {"batch": BATCH if CHOSEN == "full" else (1, 4)},
    }  # fmt: skip
    return Subject(
        name=f"wenet-{role}", cases=cases, inputs="real" if files(role) else "random",
        targets=(
            *targets("trt", "rtx", "ort-cuda", precisions=("fp32", "tf32", "fp16", "bf16")),
            *targets("ort-cpu", "torch", precisions=("fp32", "fp16")),
        ),
        **(from_file if ONNX else built),
    )  # fmt: skip


def contest(role: str, case: str, output: str, *, absolute: float, relative: float, epsilon: float) -> list[Metric]:
    """Return what the contest asks of an output: largest absolute and median relative error against its file."""
    why = "the contest's testEncoderAndDecoder.py"

    def errors(actual: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        expected = arrays(files(role)[case])[output].float()
        return (actual[output].cpu().float() - expected).abs(), expected.abs()

    def most(actual: Mapping[str, torch.Tensor], _: Any) -> float:
        return float(errors(actual)[0].max())

    def median(actual: Mapping[str, torch.Tensor], _: Any) -> float:
        apart, size = errors(actual)
        return float((apart / (size + epsilon)).median())

    return [
        Metric(f"a0 of {output}", most, at_most=absolute, why=why),
        Metric(f"r0 of {output}", median, at_most=relative, why=why),
    ]

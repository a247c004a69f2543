"""Pictures of text as the three networks of PP-OCRv4 take them, drawn here, and the files of the networks.

The files are in the package rapidocr-onnxruntime, the font is the one that Pillow carries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness import NotJudged, Subject, Tolerance, targets

LINES = (
    "Bread rises because yeast gives off gas.",
    "The museum opens at 10:30 on weekdays.",
    "Invoice 2024-0817: 1,299.00 EUR",
    "Gale warning for the northern coast",
    "He fixed the chain with a paper clip",
    "Flight LH 454 boards at gate B27",
    "Water boils at 100 degrees Celsius",
    "Tickets are sold until 5 p.m.",
)
"""What is drawn; a line of each."""
HEIGHT, WIDTH = 48, 640
"""Pixels of a line, as the recogniser takes it."""
PAGE = (288, 512)
"""Height and width of a page in pixels, multiples of 32."""
TOPS = (20, 86, 152, 218)
"""Where the lines of a page begin, in pixels from above."""
LEFT = 40
SIZE = 22
"""Of the letters on a page."""


def model(name: str) -> Path:
    """Return a file in the package. Raises NotJudged where that is not installed."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        raise NotJudged("no weights: pip install --no-deps rapidocr-onnxruntime")
    return Path(found.origin).parent / "models" / name


def drawn(text: str, size: int = 30) -> Any:
    """Return a line of text, black on white, as a picture of its own size. Raises NotJudged without Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise NotJudged("no picture: pip install pillow") from error
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    picture = Image.new("L", (right - left + 8, bottom - top + 8), 255)
    ImageDraw.Draw(picture).text((4 - left, 4 - top), text, font=font, fill=0)
    return picture


def strip(text: str, width: int, *, turned: bool = False) -> torch.Tensor:
    """Return a line as float32 [3, HEIGHT, width] from -1 (black) to 1, grey on its right as in the package."""
    picture = drawn(text)
    picture = picture.rotate(180) if turned else picture
    scaled = min(width, -(-HEIGHT * picture.width // picture.height))
    strip = torch.zeros(3, HEIGHT, width)
    strip[:, :, :scaled] = numbers(picture.resize((scaled, HEIGHT)))
    return strip


def numbers(picture: Any) -> torch.Tensor:
    """Return a grey picture as float32 [height, width] from -1 to 1."""
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.reshape(picture.height, picture.width) / 127.5 - 1


def page(lines: tuple[str, ...]) -> torch.Tensor:
    """Return a page with one line at each of TOPS, float32 [1, 3, *PAGE]."""
    made = torch.ones(PAGE)
    for text, top in zip(lines, TOPS, strict=True):
        line = numbers(drawn(text, SIZE))
        made[top : top + line.shape[0], LEFT : LEFT + line.shape[1]] = line
    return made.expand(1, 3, *PAGE).contiguous()


def subject(name: str, file: str, *, tolerances: Mapping[str, Tolerance] | None = None, **cases: Any) -> Subject:
    """Return one of the networks with these cases."""
    return Subject(
        name=f"ppocr-{name}",
        onnx=lambda: model(file),
        cases=cases,
        targets=(
            *targets("trt", "rtx", "ort-cuda", precisions=("fp32", "tf32", "fp16")),
            *targets("ort-cpu", "torch", precisions=("fp32", "fp16")),
        ),
        tolerances=tolerances or {},
        weights="trained",
        weights_source=f"PyPI rapidocr-onnxruntime 1.4.4, models/{file}",
        inputs="real",
    )

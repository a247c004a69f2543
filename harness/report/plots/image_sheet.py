"""Pictures as files: one picture as PNG, and a sheet of several side by side with their names.

A picture is a uint8 array [height, width, 3] in RGB, or [height, width] in grey.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.files import replacing

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


GAP, BAND = 8, 22
"""Pixels between two pictures, and of the band above them that holds their names."""
SMALLEST = 192
"""Pictures that are less wide are enlarged, so that their names fit."""
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


def amplified(actual: Pixels, expected: Pixels) -> tuple[Pixels, int]:
    """Return |actual - expected| times the largest power of two that clips nothing, and that factor.

    Raises UsageError when the shapes differ.
    """
    import numpy as np

    if actual.shape != expected.shape:
        raise UsageError(f"a picture of {list(actual.shape)} cannot be held against one of {list(expected.shape)}")
    difference = np.abs(actual.astype(np.int16) - expected.astype(np.int16))
    largest, factor = int(difference.max(initial=0)), 1
    while largest and largest * factor * 2 <= 255:
        factor *= 2
    return (difference * factor).astype(np.uint8), factor


def save_picture(pixels: Pixels, path: Path) -> None:
    """Write one picture as PNG. Raises UsageError when it cannot be written."""
    from PIL import Image

    with replacing(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")


def save_sheet(panels: Mapping[str, Pixels], path: Path, *, title: str) -> None:
    """Write pictures side by side as PNG, each below its name, with a title above all.

    Raises UsageError when there are none or the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not panels:
        raise UsageError(f"{path} would be a sheet of no pictures; give at least one")
    pictures = {name: _enlarged(Image.fromarray(pixels).convert("RGB")) for name, pixels in panels.items()}
    width = sum(picture.width + GAP for picture in pictures.values()) + GAP
    height = max(picture.height for picture in pictures.values()) + 2 * BAND + 2 * GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((GAP, GAP // 2), title, fill=_INK, font=font)
    left = GAP
    for name, picture in pictures.items():
        draw.text((left, BAND + GAP // 2), name, fill=_INK, font=font)
        sheet.paste(picture, (left, 2 * BAND + GAP))
        left += picture.width + GAP
    with replacing(path) as file:
        sheet.save(file, format="PNG")


def _enlarged(picture: PIL.Image.Image) -> PIL.Image.Image:
    times = -(-SMALLEST // picture.width)
    return picture if times <= 1 else picture.resize((picture.width * times, picture.height * times), resample=0)

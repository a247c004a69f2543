"""Real pictures (from scikit-image's wheel, nothing is downloaded), cropped as the contest does, and their edges."""

from __future__ import annotations

from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness import NotJudged, UsageError
from harness.errors import install_hint
from suites.canny2image.sizes import Size

Pixels = NDArray[np.uint8]

FILES = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")
CROPS = {"middle": (1.0, 0.5), "closer": (2 / 3, 0.5), "first": (0.8, 0.0), "last": (0.8, 1.0)}
"""Side of a crop as a part of the largest, and where it lies: 0 at the upper left, 1 at the lower right."""
MOST = len(FILES) * len(CROPS)


def load(count: int, size: Size) -> dict[str, Pixels]:
    """Return RGB pictures, uint8 [height, width, 3], by name. Raises UsageError for more than there are."""
    if not 1 <= count <= MOST:
        raise UsageError(f"{count} pictures are not to be had; ask for 1 to {MOST}")
    cv2, folder = opencv(), _folder()
    return {
        f"{Path(file).stem}-{crop}": _crop(cv2, folder / file, crop, size)
        for crop, file in islice(product(CROPS, FILES), count)
    }


def opencv() -> Any:
    """Return OpenCV. Raises NotJudged when it is missing."""
    try:
        import cv2
    except ImportError as error:
        raise NotJudged(f"canny2image needs OpenCV: {install_hint('canny2image')}") from error
    return cv2


def _folder() -> Path:
    try:
        from skimage import data
    except ImportError as error:
        raise NotJudged(f"the pictures are scikit-image's: {install_hint('canny2image')}") from error
    return Path(data.__file__).parent


def _crop(cv2: Any, file: Path, crop: str, size: Size) -> Pixels:
    image = cv2.imread(str(file))
    if image is None:
        raise NotJudged(f"scikit-image has no picture {file.name}; install the version that the extra names")
    height, width = image.shape[:2]
    part, place = CROPS[crop]
    scale = min(height / size.height, width / size.width) * part
    rows, columns = int(size.height * scale), int(size.width * scale)
    top, left = int((height - rows) * place), int((width - columns) * place)
    cut = image[top : top + rows, left : left + columns, ::-1]
    resized: Pixels = cv2.resize(np.ascontiguousarray(cut), (size.width, size.height), interpolation=cv2.INTER_AREA)
    return resized


def fit(image: Pixels, resolution: int) -> Pixels:
    """Return a picture whose shorter side is ``resolution``, both sides rounded to multiples of 64, in RGB.

    ControlNet's rule: grey is repeated, transparency laid on white; Lanczos to enlarge, area means to reduce.
    """
    cv2 = opencv()
    image = image[:, :, None] if image.ndim == 2 else image
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    elif image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.float32) / 255
        image = (image[:, :, :3] * alpha + 255 * (1 - alpha)).clip(0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    scale = resolution / min(height, width)
    rows, columns = (int(np.round(side * scale / 64)) * 64 for side in (height, width))
    how = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA
    resized: Pixels = cv2.resize(image, (columns, rows), interpolation=how)
    return resized


def canny(image: Pixels, low: int, high: int) -> Pixels:
    """Return the edges of a picture, uint8 [height, width], 0 or 255."""
    edges: Pixels = opencv().Canny(image, low, high)
    return edges


def edges_tensor(edges: Pixels, device: torch.device) -> torch.Tensor:
    """Return edges as the hint network takes them: float32 [1, 3, height, width] in 0..1."""
    tensor = torch.from_numpy(edges).to(device).float() / 255
    return tensor[None, None].repeat(1, 3, 1, 1)

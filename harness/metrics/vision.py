"""Classification and segmentation: do the same classes win, and how well do the areas cover each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    import torch


NO_CLASS = -1
"""The label of a pixel that has none because a score is NaN or infinite: wrong whatever the reference says."""


def top1_agreement(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the share of rows whose largest score is at the same class, 0 to 1.

    Both are scores [n, classes]. A row with a NaN or plus infinity on either side does not agree, nor does one whose
    scores are all alike where the other's are not. Raises UsageError when the shapes differ, for an empty batch, and
    for scores that are not floating point.
    """
    if actual.shape != expected.shape or actual.ndim != 2 or not actual.numel():
        shapes = f"{list(actual.shape)} against {list(expected.shape)}"
        raise UsageError(f"top-1 agreement: scores of {shapes}; give two tensors [n, classes]")
    expected = expected.to(actual.device)
    left, right = labels(actual), labels(expected)
    # A plain argmax gives the first class to a row of zeros, and be it right.
    is_flat = [scores.amax(dim=1) == scores.amin(dim=1) for scores in (actual, expected)]
    return float(((left == right) & (left != NO_CLASS) & (is_flat[0] == is_flat[1])).double().mean())


def labels(scores: torch.Tensor) -> torch.Tensor:
    """Return the class with the largest score: [n, classes, ...] in, [n, ...] int64 out.

    NO_CLASS where a score is NaN or plus infinity: a plain argmax takes it for the largest and returns its class.
    Raises UsageError for scores that are not floating point, or have no classes.
    """
    if not scores.is_floating_point() or scores.ndim < 2 or not scores.shape[1]:
        raise UsageError(f"scores are {scores.dtype} {list(scores.shape)}; give floating point [n, classes, ...]")
    return scores.argmax(dim=1).masked_fill((scores.isnan() | scores.isposinf()).any(dim=1), NO_CLASS)


def mean_iou(actual: torch.Tensor, expected: torch.Tensor, *, classes: int, ignore_index: int | None = None) -> float:
    """Return the mean intersection over union of label maps, 0 to 1, over the classes that occur on either side.

    Both are integer labels of one shape (see :func:`labels`); the counts of all images are added up before the ratio is
    taken, as ADE20K and Cityscapes do. Pixels whose expected label is ``ignore_index`` do not count. NaN when no pixel
    counts. Raises UsageError for other shapes, labels that are no integers, and labels that are no class.
    """
    overlap = iou(confusion_matrix(actual, expected, classes=classes, ignore_index=ignore_index))
    present = overlap[~overlap.isnan()]
    return float(present.mean()) if present.numel() else math.nan


def mask_iou(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of each mask, logits [..., height, width] of which above 0 is inside.

    A mask that is empty on both sides has 1, one that is not finite on either side NaN. Raises UsageError for other
    shapes, and for what is no tensor of floats.
    """
    import torch

    if actual.shape != expected.shape or actual.ndim < 2:
        shapes = f"{list(actual.shape)} against {list(expected.shape)}"
        raise UsageError(f"mask IoU: masks of {shapes}; give two tensors [..., height, width]")
    if not (actual.is_floating_point() and expected.is_floating_point()):
        raise UsageError(f"mask IoU: masks of {actual.dtype} and {expected.dtype}; give logits, floats")
    ours, theirs = (logits.reshape(-1, *logits.shape[-2:]) for logits in (actual, expected.to(actual.device)))
    both, either = ((ours > 0) & (theirs > 0)).sum((1, 2)), ((ours > 0) | (theirs > 0)).sum((1, 2))
    overlap = torch.where(either > 0, both / either.clamp(min=1), 1.0)
    return overlap.masked_fill(~(ours.isfinite() & theirs.isfinite()).all(2).all(1), math.nan)


def confusion_matrix(
    actual: torch.Tensor, expected: torch.Tensor, *, classes: int, ignore_index: int | None = None
) -> torch.Tensor:
    """Return how many pixels of each expected class (row) got each actual class (column), int64 [classes, classes + 1].

    The last column counts pixels without a class. Matrices of several batches may be added. Raises as
    :func:`mean_iou` does.
    """
    import torch

    if actual.shape != expected.shape:
        raise UsageError(f"label maps of {list(actual.shape)} against {list(expected.shape)}; give one shape")
    for name, tensor in (("actual", actual), ("expected", expected)):
        if tensor.is_floating_point() or tensor.is_complex():
            raise UsageError(
                f"{name} labels are {tensor.dtype}; give integers, by harness.metrics.vision.labels(scores)"
            )
    wanted = expected.flatten().long()
    found = actual.flatten().long().to(wanted.device)
    if ignore_index is not None:
        counted = wanted != ignore_index
        found, wanted = found[counted], wanted[counted]
    for name, tensor, least in (("actual", found, NO_CLASS), ("expected", wanted, 0)):
        if tensor.numel() and not (least <= int(tensor.min()) and int(tensor.max()) < classes):
            seen = f"{int(tensor.min())} to {int(tensor.max())}"
            raise UsageError(f"{name} labels run from {seen}, the classes from 0 to {classes - 1}")
    found = found.where(found != NO_CLASS, classes)
    cells = torch.bincount(wanted * (classes + 1) + found, minlength=classes * (classes + 1))
    return cells.reshape(classes, classes + 1)


def iou(matrix: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of each class, float64 [classes]; NaN for a class that never occurs."""
    classes = len(matrix)
    hits = matrix.diagonal().double()
    union = matrix.sum(dim=1) + matrix[:, :classes].sum(dim=0) - hits
    return hits / union

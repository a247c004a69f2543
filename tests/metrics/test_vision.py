"""Label maps, scores and embeddings: known values, and NaN."""

from __future__ import annotations

import math

import pytest
import torch

from harness.errors import UsageError
from harness.metrics.embedding import cosine
from harness.metrics.vision import confusion_matrix, iou, labels, mask_iou, mean_iou, top1_agreement

NAN = float("nan")


def test_mean_iou_by_hand():
    actual = torch.tensor([[0, 0, 1], [1, 1, 2]])
    expected = torch.tensor([[0, 1, 1], [1, 1, 0]])
    # Class 0: 1 of 3, class 1: 3 of 4, class 2: 0 of 1, class 3 occurs nowhere.
    assert iou(confusion_matrix(actual, expected, classes=4)).tolist()[:3] == pytest.approx([1 / 3, 3 / 4, 0])
    assert mean_iou(actual, expected, classes=4) == pytest.approx((1 / 3 + 3 / 4) / 3)
    assert mean_iou(expected, expected, classes=4) == 1


def test_the_overlap_of_masks_by_hand():
    actual = torch.tensor([[[1.0, 2.0], [-1.0, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]], [[1.0, NAN], [1.0, 1.0]]])
    expected = torch.tensor([[[1.0, -2.0], [3.0, 0.0]], [[-2.0, -1.0], [-1.0, -1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    first, empty, broken = mask_iou(actual[None], expected[None]).tolist()
    assert (first, empty) == (pytest.approx(1 / 3), 1)
    assert math.isnan(broken)
    with pytest.raises(UsageError, match="mask IoU"):
        mask_iou(actual, expected[:1])


def test_counts_are_accumulated_over_images():
    # Alone the images have 1.0 and 0.0; together class 0 has 3 of 4.
    actual, expected = torch.tensor([[0, 0, 0, 9], [1, 9, 9, 9]]), torch.tensor([[0, 0, 0, 9], [0, 9, 9, 9]])
    assert mean_iou(actual, expected, classes=10, ignore_index=9) == pytest.approx((3 / 4 + 0) / 2)
    halves = [confusion_matrix(a, e, classes=10, ignore_index=9) for a, e in zip(actual, expected, strict=True)]
    whole = confusion_matrix(actual, expected, classes=10, ignore_index=9)
    assert torch.equal(halves[0] + halves[1], whole)


def test_mean_iou_is_that_of_torchmetrics():
    module = pytest.importorskip("torchmetrics.functional.classification", reason="torchmetrics is not installed")
    generator = torch.Generator().manual_seed(0)
    actual, expected = (torch.randint(0, 5, (3, 8, 8), generator=generator) for _ in range(2))
    theirs = module.multiclass_jaccard_index(actual, expected, num_classes=5, ignore_index=0)
    counted = expected != 0
    assert mean_iou(actual[counted], expected[counted], classes=5) == pytest.approx(
        mean_iou(actual, expected, classes=5, ignore_index=0)
    )
    rows = iou(confusion_matrix(actual, expected, classes=5, ignore_index=0))
    assert float(rows[1:].mean()) == pytest.approx(float(theirs), abs=1e-6)


def test_pixel_without_a_class_is_wrong():
    scores = torch.tensor([[[0.9, NAN], [0.1, 0.9]], [[0.1, 0.2], [0.9, 0.1]]])[None]
    found = labels(scores)
    assert found.tolist() == [[[0, -1], [1, 0]]]
    expected = torch.tensor([[[0, 0], [1, 0]]])
    assert mean_iou(found, expected, classes=2) == pytest.approx((2 / 3 + 1) / 2)
    assert mean_iou(torch.full_like(expected, -1), expected, classes=2) == 0


def test_no_pixel_is_nan():
    nothing = torch.full((2, 2), 255)
    assert math.isnan(mean_iou(nothing, nothing, classes=2, ignore_index=255))


@pytest.mark.parametrize(
    ("actual", "expected", "words"),
    [
        (torch.zeros(2, 2).long(), torch.zeros(2).long(), "give one shape"),
        (torch.zeros(2), torch.zeros(2).long(), "actual labels are torch.float32; give integers"),
        (torch.zeros(2).long(), torch.full((2,), NAN), "expected labels are torch.float32"),
        (torch.tensor([3]), torch.tensor([0]), "actual labels run from 3 to 3, the classes from 0 to 1"),
        (torch.tensor([0]), torch.tensor([-1]), "expected labels run from -1"),
    ],
)
def test_labels_that_are_none(actual: torch.Tensor, expected: torch.Tensor, words: str):
    with pytest.raises(UsageError, match=words):
        mean_iou(actual, expected, classes=2)


def test_top1_agreement():
    expected = torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    assert top1_agreement(expected, expected) == 1
    actual = torch.tensor([[1.0, 9.0], [1.0, 3.0], [NAN, 1.0], [2.0, 1.0]])
    assert top1_agreement(actual, expected) == 0.5
    assert top1_agreement(expected, actual) == 0.5
    nothing = torch.full((4, 2), NAN)
    assert top1_agreement(nothing, nothing) == 0


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((3,), (3,)), ((0, 3), (0, 3))])
def test_top1_agreement_needs_scores(shapes: tuple[tuple[int, ...], tuple[int, ...]]):
    with pytest.raises(UsageError, match="classes"):
        top1_agreement(*(torch.zeros(shape) for shape in shapes))


def test_cosine():
    actual = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    expected = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert cosine(actual, expected).tolist() == pytest.approx([0, math.sqrt(0.5), 1, -1, 0])
    batch = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert cosine(batch, batch).tolist() == pytest.approx([1, 1])


def test_cosine_of_large_and_small_vectors():
    for scale in (1e-30, 1e30):
        vector = torch.tensor([[1.0, 2.0]]) * scale
        assert float(cosine(vector, vector)) == pytest.approx(1)
    for scale in (1e-200, 1e200):
        vector = torch.tensor([[1.0, 2.0]], dtype=torch.float64) * scale
        assert float(cosine(vector, vector)) == pytest.approx(1)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_cosine_of_what_is_not_finite_is_nan(value: float):
    good = torch.ones(2, 3)
    bad = good.clone()
    bad[1, 2] = value
    for pair in ((bad, good), (good, bad), (bad, bad)):
        similarity = cosine(*pair)
        assert float(similarity[0]) == pytest.approx(1)
        assert math.isnan(float(similarity[1]))


def test_cosine_needs_one_shape():
    with pytest.raises(UsageError, match="one shape"):
        cosine(torch.ones(2, 3), torch.ones(2, 4))

"""The mask decoder on 1 to 8 points: masks and their scores, for every number of points."""

from harness.checks import test_outputs
from harness.metrics import Metric
from harness.metrics.vision import mask_iou
from suites.sam.models import LEAST_IOU, MOST_POINTS, SCORE_DIFFERENCE, points, size, subject

SUBJECT = subject("mask-decoder")


def test_task(parity):
    for count in range(1, MOST_POINTS + 1):
        given = {**parity.inputs, **points(count)}
        made, why = (parity.run(given), parity.run_reference(given)), "pixels whose logit is nearly 0 may flip"
        overlap = Metric(f"mask iou, {count} points", _overlap, at_least=LEAST_IOU[size()], over="mean", why=why)
        parity.check_metric(overlap, of=made)
        parity.check_metric(f"scores, {count} points", lambda out: out["scores"], at_most=SCORE_DIFFERENCE, of=made)


def _overlap(actual, expected):
    return mask_iou(actual["masks"], expected["masks"])

"""Task metrics: plain functions of images, texts, labels or embeddings, bound to a limit by the suite that uses them.

    from harness.metrics import Metric
    from harness.metrics.image import psnr

    PSNR = Metric("psnr", lambda a, e: psnr(a["image"], e["image"]), at_least=30, why="below 30 dB it is seen")

docs/metrics.md lists the functions, the packages they need and the files their networks need.
"""

from __future__ import annotations

from harness.metrics.binding import Metric, failed, judge, limited, measure
from harness.metrics.remarks import collect_remarks

__all__ = ["Metric", "collect_remarks", "failed", "judge", "limited", "measure"]

"""How often the interval of a difference of means holds the true mean, and how often a wrong engine passes.

    python benchmarks/paired.py            # about a minute

Differences are drawn with a known mean, many times for each number of samples. ``holds`` is the share of intervals with
the true mean in them, to be read against 95 %. ``wrong passes`` is the share of draws judged ``pass`` where the true
mean lies a tenth beyond the limit.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.metrics.paired import LEAST_SAMPLES, paired_difference

DRAWS = 1000
RESAMPLES = 1000


def rare(rng: np.random.Generator, samples: int, share: float, loss: float) -> np.ndarray:
    """Return differences of mean 0 of which a share loses so much more than the others."""
    return share * loss - loss * (rng.random(samples) < share) + rng.standard_normal(samples)


DIFFERENCES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "Student t, 3 degrees": lambda rng, n: rng.standard_t(3, n),
    "lognormal": lambda rng, n: math.exp(0.5) - rng.lognormal(size=n),
    "1 in 10 loses 20": lambda rng, n: rare(rng, n, 0.1, 20),
    "1 in 20 loses 20": lambda rng, n: rare(rng, n, 0.05, 20),
    "1 in 50 loses 50": lambda rng, n: rare(rng, n, 0.02, 50),
}


def main() -> None:
    """Print one row per kind of difference and number of samples."""
    print(f"at least {LEAST_SAMPLES} samples; {DRAWS} draws a row\n")
    print(f"{'differences':22}{'samples':>9}{'holds':>9}{'wrong passes':>14}")
    for name, draw in DIFFERENCES.items():
        rng = np.random.default_rng(0)
        for samples in (LEAST_SAMPLES, 100, 200):
            held = passed = 0
            for _ in range(DRAWS):
                found = paired_difference(draw(rng, samples), np.zeros(samples), resamples=RESAMPLES)
                held += found.low <= 0 <= found.high
                # The same draw, moved by a tenth more than the limit.
                moved = -1.1 + found.difference, -1.1 + found.low, -1.1 + found.high
                passed += moved[1] >= -1 and moved[2] <= 1 and abs(moved[0]) <= 1
            print(f"{name:22}{samples:9}{held / DRAWS:9.1%}{passed / DRAWS:14.1%}", flush=True)


if __name__ == "__main__":
    main()

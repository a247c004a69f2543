"""How often a right engine is called wrong: the simulation behind the factors in harness/tolerance.py.

Two programs that are equally good lose independent errors of one distribution. This prints the 99.9th percentile of how
much more the one loses than the other, by norm and by largest element, over the number of elements and the tails of the
distribution; a factor below it would fail one right engine in a thousand.

    python benchmarks/verdict.py
"""

from __future__ import annotations

import numpy as np

from harness.verify import FACTOR, MAX_FACTOR, confidence_factor

TRIALS = 20_000
DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Laplace": lambda rng, shape: rng.laplace(size=shape),
    "Student t, 3 degrees": lambda rng, shape: rng.standard_t(3, size=shape),
}


def main() -> None:
    """Print one row per distribution and size."""
    rng = np.random.default_rng(0)
    print(f"allowed: norm {FACTOR:g} x c(n), largest element {MAX_FACTOR:g} x c(n); {TRIALS} trials a row\n")
    print(f"{'errors':22}{'elements':>10}{'c(n)':>8}{'norm':>9}{'largest':>9}{'called wrong':>14}")
    for name, draw in DISTRIBUTIONS.items():
        for elements in (1, 4, 10, 100, 1000, 10_000):
            norms, maxima = [], []
            for _ in range(TRIALS // 2000):
                engine, floor = (np.abs(draw(rng, (2000, elements))) for _ in range(2))
                norms.append(np.linalg.norm(engine, axis=1) / np.linalg.norm(floor, axis=1))
                maxima.append(engine.max(axis=1) / floor.max(axis=1))
            norm, largest, few = np.concatenate(norms), np.concatenate(maxima), confidence_factor(elements)
            wrong = np.mean((norm > FACTOR * few) | (largest > MAX_FACTOR * few))
            quantiles = f"{np.quantile(norm, 0.999):9.3g}{np.quantile(largest, 0.999):9.3g}"
            print(f"{name:22}{elements:10}{few:8.2f}{quantiles}{wrong:13.2%}")


if __name__ == "__main__":
    main()

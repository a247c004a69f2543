"""What excuses a decision, and how often a right engine is not excused: the simulation behind verify/margins.py.

An engine flips a decision where its error is larger than the decision's margin. Margins are even near a tie, so of
its flips the share ``E max(|e| - reach, 0) / E |e|`` is not excused: e is the engine's error, ``times`` as large as
PyTorch's, and the reach is made of PyTorch's errors of as many values as the output has. ``reach`` is its median over
the standard deviation of PyTorch's errors: a flip of a decision with a larger margin is always found.

    python benchmarks/decisions.py
"""

from __future__ import annotations

import numpy as np
import torch

from harness.verify import Deciding

VALUES = 2**21
TIMES = (1.0, 2.0, 3.0)
DISTRIBUTIONS = {
    "one rounding": lambda rng, shape: rng.uniform(-1, 1, size=shape),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Laplace": lambda rng, shape: rng.laplace(size=shape),
    "Student t, 3 degrees": lambda rng, shape: rng.standard_t(3, size=shape),
}


def main() -> None:
    """Print one row per distribution and number of values."""
    rng = np.random.default_rng(0)
    headings = "".join(f"{f'engine x {times:g}':>12}" for times in TIMES)
    print(f"{'errors':22}{'values':>8}{'reach':>8}{headings}")
    for name, draw in DISTRIBUTIONS.items():
        for values in (1, 2, 4, 16, 64, 1024):
            shape = (VALUES // max(values, 64), values)
            floor, engine = (torch.from_numpy(draw(rng, shape)) for _ in range(2))
            reference = torch.from_numpy(rng.uniform(1, 2, shape)) * 2.0**20  # beside it, the errors change no order
            error = floor * 2.0**-8
            reach = Deciding(reference=reference, floor=reference + error, roundoff=0.0).reach(1) * 2.0**8
            shares = [
                float((times * engine.abs() - reach).clamp(min=0).sum() / (times * engine.abs()).sum())
                for times in TIMES
            ]
            print(f"{name:22}{values:8}{float((reach / floor.std()).median()):8.3g}", *(f"{it:11.3%}" for it in shares))


if __name__ == "__main__":
    main()

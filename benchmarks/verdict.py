"""How often a right engine is called wrong, and the smallest fault that is called wrong.

    python benchmarks/verdict.py [--programs 2400]

Nothing is timed. Right engines are the same small networks in the same precision with other roundings that are as
legitimate (benchmarks/right_programs.py), and errors drawn from distributions with light and heavy tails. Faults are
planted in networks' outputs and bisected to the smallest size of which every one of SEEDS is caught.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import torch
from right_programs import FORMATS, NETWORKS, Arithmetic, Weights, right_engine

from harness.records import OutputResult
from harness.verify import FACTOR, MAX_FACTOR, judge_tensors

Tensor = torch.Tensor
WORKERS = 2
SEEDS = 5
TAILS: dict[str, Callable[[torch.Generator, tuple[int, ...]], Tensor]] = {
    "uniform": lambda g, shape: torch.rand(shape, generator=g) - 0.5,
    "normal": lambda g, shape: torch.randn(shape, generator=g),
    "Laplace": lambda g, shape: torch.rand(shape, generator=g).log() * (torch.rand(shape, generator=g) - 0.5).sign(),
    "Student t, 3 degrees": lambda g, shape: torch.randn(shape, generator=g) / _chi(g, shape, 3),
    "log-normal sizes": lambda g, shape: torch.randn(shape, generator=g) * torch.randn(shape, generator=g).exp(),
}
SHAPES = ((10,), (1, 100), (1, 1000), (4, 250), (64, 16), (2, 16, 8, 8))


def _chi(g: torch.Generator, shape: tuple[int, ...], degrees: int) -> Tensor:
    return torch.randn(degrees, *shape, generator=g).square().mean(0).sqrt()


def program(name: str, seed: int, worse: float = 0.0) -> tuple[str, OutputResult] | None:
    """Return the precision and the verdict on a right engine; None where the format overflows.

    ``worse`` makes the engine's error so many times the floor's, as a fused kernel's may be.
    """
    precision = ("fp16", "bf16", "fp32")[seed % 3]
    weights = Weights(seed, FORMATS[precision])

    def run(arithmetic: Arithmetic) -> Tensor:
        weights.restart()
        return NETWORKS[name](arithmetic, weights)

    expected = run(Arithmetic())
    expected = expected if precision == "fp32" else expected.float()
    floor = run(Arithmetic(dtype=FORMATS[precision])).float()
    actual = run(right_engine(FORMATS[precision], seed)).float()
    if not (floor.isfinite().all() and actual.isfinite().all()):
        return None
    if worse:
        times = min(worse * float((floor - expected).norm() / (actual - expected).norm()), worse)
        actual = (expected.double() + times * (actual.double() - expected.double())).float()
    return precision, judge_tensors("y", actual, expected, floor, precision=precision)


def drawn(tail: str, shape: tuple[int, ...], seed: int) -> OutputResult:
    """Return the verdict on an engine whose errors have the distribution of the floor's."""
    g = torch.Generator().manual_seed(seed)
    expected = torch.randn(shape, generator=g)
    floor, actual = (expected + 2e-3 * TAILS[tail](g, shape) for _ in range(2))
    return judge_tensors("y", actual, expected, floor, precision="fp16")


Fault = tuple[tuple[int, ...], Callable[[Tensor, Tensor, float], Tensor]]
"""A shape, and how a fault of a size is made of expected values and a right engine's."""


def _noise(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(99))


def _part(index: tuple[object, ...], change: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    def planted(expected: Tensor, actual: Tensor, size: float) -> Tensor:
        out = actual.clone()
        out[index] = change(expected[index], actual[index], size)
        return out

    return planted


ALL = slice(None)
FAULTS: dict[str, Fault] = {
    "all errors, times the floor": ((64, 384), lambda e, a, k: e + (a - e) * k),
    "1 channel of 16, times the floor": ((2, 16, 16, 16), _part((ALL, 3), lambda e, a, k: e + (a - e) * k)),
    "1 batch entry of 64, times the floor": ((64, 384), _part((5,), lambda e, a, k: e + (a - e) * k)),
    "1 token of 128, times the floor": ((2, 128, 96), _part((0, 7), lambda e, a, k: e + (a - e) * k)),
    "1 position of 128, times the floor": ((2, 128, 96), _part((ALL, 7), lambda e, a, k: e + (a - e) * k)),
    "1 element of 1, times the floor": ((64, 384), _part((5, 7), lambda e, a, k: e + 2 * k)),
    "scale of everything, less 1": ((64, 384), lambda e, a, k: a * (1 + k)),
    "scale of 1 channel of 16, less 1": ((2, 16, 16, 16), _part((ALL, 3), lambda e, a, k: a * (1 + k))),
    "bias of everything, over the RMS": ((64, 384), lambda e, a, k: a + k),
    "bias of 1 channel of 16, over the RMS": ((2, 16, 16, 16), _part((ALL, 3), lambda e, a, k: a + k)),
    "noise in 1 channel of 768 beside one of x1000": (
        (64, 768), _part((ALL, 9), lambda e, a, k: a + k * _noise(a) * e.std()),
    ),
    "noise in 1 score of 80 beside boxes in pixels": (
        (1, 84, 400), _part((0, 20), lambda e, a, k: a + k * _noise(a) * e.std()),
    ),
}  # fmt: skip


def caught(fault: str, precision: str, size: float) -> bool:
    """Return whether a fault of this size is called wrong, whatever the seed."""
    shape, plant = FAULTS[fault]
    for seed in range(SEEDS):
        g = torch.Generator().manual_seed(seed)
        expected = torch.randn(shape, generator=g)
        if "1 element" in fault:
            expected[5, 7] = 1
        if "x1000" in fault:
            expected[:, 5] *= 1000
        if "boxes" in fault:
            expected[:, :4] = expected[:, :4].abs() * 300
            expected[:, 4:] = torch.sigmoid(expected[:, 4:] * 1.5 - 6)
        unit = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
        loss = 2 * unit * expected.abs()
        floor, actual = (expected.double() + loss * torch.randn(shape, generator=g) for _ in range(2))
        actual = plant(expected.double(), actual, size * unit if "1 element" in fault else size)
        if judge_tensors("y", actual, expected.double(), floor, precision=precision).verdict != "fail":
            return False
    return True


def smallest(fault: str, precision: str) -> float:
    """Return the smallest size that is caught, to 2 %; infinite where none up to 1e6 is."""
    low, high = 2.0**-26, 2.0**20
    if not caught(fault, precision, high):
        return math.inf
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if caught(fault, precision, middle) else (middle, high)
    return high


def _programs(job: tuple[str, range, float]) -> tuple[str, Counter[str], str]:
    torch.set_num_threads(1)
    name, seeds, worse = job
    found: Counter[str] = Counter()
    why = ""
    for seed in seeds:
        if (judged := program(name, seed, worse)) is None:
            found["overflow"] += 1
            continue
        found[judged[1].verdict] += 1
        if judged[1].verdict == "fail":
            why = f"{judged[0]}, seed {seed}: {judged[1].reason}"
    return name, found, why


def _drawn(job: tuple[str, int]) -> tuple[str, int, int]:
    torch.set_num_threads(1)
    tail, count = job
    results = [drawn(tail, SHAPES[seed % len(SHAPES)], seed).verdict for seed in range(count)]
    return tail, results.count("fail"), count


def _smallest(job: tuple[str, str]) -> tuple[str, str, float]:
    torch.set_num_threads(1)
    return (*job, smallest(*job))


def report(pool: ProcessPoolExecutor, programs: int) -> Iterator[str]:
    """Yield the lines."""
    each = -(-programs // len(NETWORKS))
    for worse, count in ((0.0, each), (2.84, each // 4)):
        total: Counter[str] = Counter()
        title = f"as good as PyTorch ({count} of each)" if not worse else f"with {worse} times its error ({count})"
        yield f"engines {title}, other roundings; {len(NETWORKS)} networks in fp16, bf16, fp32\n"
        for name, found, why in pool.map(_programs, [(name, range(count), worse) for name in NETWORKS]):
            total += found
            if found["fail"]:
                yield f"  {name:32}{found['fail']:4} of {found.total()}   {why:.150}"
        judged = total["pass"] + total["fail"]
        yield f"  called wrong: {total['fail']} of {judged} = {total['fail'] / judged:.2%}"
        yield f"  not judged: {total['not_judged']}; left out, as the format overflows: {total['overflow']}\n"
    yield "errors drawn from one distribution for engine and floor\n"
    for tail, wrong, count in pool.map(_drawn, [(tail, programs // 2) for tail in TAILS]):
        yield f"  {tail:32}{wrong:4} of {count} = {wrong / count:.2%}"
    yield f"\nsmallest fault caught in {SEEDS} of {SEEDS} outputs; the floor loses 2 roundings of each element\n"
    yield f"  {'':48}{'fp32':>10}{'fp16':>10}{'bf16':>10}"
    jobs = [(fault, precision) for fault in FAULTS for precision in FORMATS]
    sizes = {job[:2]: job[2] for job in pool.map(_smallest, jobs)}
    for fault in FAULTS:
        yield f"  {fault:48}" + "".join(f"{sizes[fault, precision]:10.3g}" for precision in FORMATS)
    yield f"\nallowed: {FACTOR:g} times the floor of every part, {MAX_FACTOR:g} times its largest error, times chance"


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=2400, help="right programs in all (default: 2400)")
    with ProcessPoolExecutor(WORKERS) as pool:
        for line in report(pool, parser.parse_args().programs):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Faults planted in what decides a verdict: a constant or a condition changed; some test must fail for each.

``mutmut`` changes functions only, one token at a time; these are the changes of constants, and those that a verdict is
most easily fooled by. Prints one line a fault; the exit status is 1 where one survives.

    python benchmarks/mutants.py [WORD ...]    # only those with one of the words in their line
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # it forks

import hypothesis  # noqa: F401  imported once, before the forks
import numpy  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch  # noqa: F401

ROOT = Path(__file__).parents[1]
TOLERANCE = ("harness/verify/tolerance.py", "tests/verify/test_tolerance.py tests/verify/test_parts.py")
PARTS = ("harness/verify/parts.py", "tests/verify/test_part_limits.py tests/verify/test_parts.py")
CHANCE = ("harness/verify/chance.py", "tests/verify/test_parts.py")
SUMS = ("harness/compare/parts.py", "tests/verify/test_parts.py")
JUDGING = ("harness/verify/judging.py", "tests/verify/test_refusals.py tests/verify/test_tolerance.py")
NORMS = ("harness/compare/norms.py", "tests/compare/test_norms.py")
CPU = ("harness/compare/cpu.py", "tests/compare/test_compare.py")
PAIRED = ("harness/metrics/paired.py", "tests/metrics/test_paired.py tests/metrics/test_binding.py")
DECISIONS = ("harness/verify/decisions.py", "tests/verify/test_judge_decisions.py")
COUNTS = ("harness/compare/decisions.py", "tests/compare/test_decisions.py")
FAULTS = (
    ("one rounding of FP32 x4", TOLERANCE, '"fp32": 2.0**-24, "tf32"', '"fp32": 2.0**-22, "tf32"'),
    ("one rounding of TF32 x4", TOLERANCE, '"tf32": 2.0**-11', '"tf32": 2.0**-9'),
    ("one rounding of FP16 x4", TOLERANCE, '"fp16": 2.0**-11', '"fp16": 2.0**-9'),
    ("one rounding of BF16 x4", TOLERANCE, '"bf16": 2.0**-8', '"bf16": 2.0**-6'),
    ("smallest step of FP16 x16", TOLERANCE, '{"fp16": 2.0**-24', '{"fp16": 2.0**-20'),
    ("an FP32 floor may lose 2^-8", TOLERANCE, "FP32_HOLDS = 2.0**-10", "FP32_HOLDS = 2.0**-8"),
    ("a floor may lose 0.2", TOLERANCE, "HOLDS = 0.1\n", "HOLDS = 0.2\n"),
    ("a part beside such a floor may lose 0.5", TOLERANCE, "PART_HOLDS = 0.25", "PART_HOLDS = 0.5"),
    ("half a bit is enough", TOLERANCE, "LEAST_BITS = 1.0", "LEAST_BITS = 0.5"),
    ("a cosine allows any scale", TOLERANCE, "_COSINE_SCALE = 0.25", "_COSINE_SCALE = 0.5"),
    ("a cosine of NaN passes", TOLERANCE, 'not stats.cosine >= allowed["cosine"]', 'stats.cosine < allowed["cosine"]'),
    ("a largest error of NaN passes", TOLERANCE, 'not stats.absolute["max"] <= all', 'stats.absolute["max"] > all'),
    ("an error of NaN passes", TOLERANCE, "not stats.relative_l2 <= allowed", "stats.relative_l2 > allowed"),
    ("near-constant exemption x64", TOLERANCE, "<= roundoff * stats.max", "<= 64 * roundoff * stats.max"),
    ("an infinity on one side only passes", TOLERANCE, "if stats.mismatched_nonfinite:\n        return (",
     "if False:\n        return ("),
    ("an output of zeros passes", TOLERANCE, "if stats.zero_actual and not stats.zero_expected:", "if False:"),
    ("an infinity of the wrong sign is met", CPU, "(bad & (a != e))", "(bad & (np.abs(a) != np.abs(e)))"),
    ("an infinity of the wrong sign is close", NORMS, "(others == theirs)", "(others.abs() == theirs.abs())"),
    ("NaN is close to an infinity", NORMS, "(others.isnan() & theirs.isnan())", "~others.isfinite()"),
    ("references may differ by 2^-10", NORMS, "FAITHFUL = 2.0**-14", "FAITHFUL = 2.0**-10"),
    ("empty passes beside what is not", JUDGING, "not tensor.numel() and actual[name].shape == tensor.shape",
     "not actual[name].numel()"),
    ("another shape passes beside what is empty", JUDGING, "and actual[name].shape == tensor.shape", ""),
    ("factor 4", PARTS, "\nFACTOR = 3.0", "\nFACTOR = 4.0"),
    ("factor 2", PARTS, "\nFACTOR = 3.0", "\nFACTOR = 2.0"),
    ("factor of single elements x2", PARTS, "MAX_FACTOR = 12.0", "MAX_FACTOR = 24.0"),
    ("1 % of right outputs fail", PARTS, "FALSE_REDS = 1e-3", "FALSE_REDS = 1e-2"),
    ("limits of parts x2", PARTS, "return max(factor**2 * floor,", "return 4 * max(factor**2 * floor,"),
    ("no octave has neighbours", PARTS, "NEIGHBOURS = 4", "NEIGHBOURS = 0"),
    ("neighbours count for nothing", PARTS, "\nPRIOR_DEGREES = 8.0", "\nPRIOR_DEGREES = 1e-9"),
    ("neighbours count twice", PARTS, "\nPRIOR_DEGREES = 8.0", "\nPRIOR_DEGREES = 16.0"),
    ("errors of a part are all independent", PARTS, "MOST_DEGREES = 32.0", "MOST_DEGREES = 1e9"),
    ("floors of slices are not pooled", CHANCE, "return (weight * centre * prior + degrees * squared) / (weight",
     "return squared, (weight"),
    ("floors of slices are pooled twice", CHANCE, "return (weight * centre", "return (2 * weight * centre"),
    ("the pool counts for nothing", CHANCE, "LEAST_PRIOR = 2.0", "LEAST_PRIOR = 1e-9"),
    ("octaves two wide", SUMS, ">> 52)", ">> 53)"),
    ("octaves of 8 in one", SUMS, ">> 52) & (OCTAVES - 1)", ">> 52) & (OCTAVES - 8)"),
    ("integers have a tolerance of the norm", DECISIONS, 'in ("relative_l2", "cosine"):', "in ():"),
    ("booleans have a tolerance", DECISIONS, 'if found.dtype == "bool" and', 'if found.dtype == "none" and'),
    ("floats are taken for indices", COUNTS, "not expected.is_floating_point():", "False:"),
    ("NaN and fractions are decisions", COUNTS, "(~actual.isfinite() | (actual != actual.trunc()))", "actual[:0]"),
    ("lower bound of the paired interval dropped", PAIRED, "-limit <= self.low and self.high", "self.high"),
    ("upper bound of the paired interval dropped", PAIRED, "-limit <= self.low and self.high <= limit",
     "-limit <= self.low"),
    ("its small-sample correction dropped", PAIRED, "stats.t.ppf(1 - tail, samples - 1)", "stats.norm.ppf(1 - tail)"),
    ("its standard error of n instead of n - 1", PAIRED, "differences.std(ddof=1)", "differences.std(ddof=0)"),
    ("that of the resamples", PAIRED, "drawn.std(axis=1, ddof=1)", "drawn.std(axis=1, ddof=0)"),
    ("30 samples are enough", PAIRED, "LEAST_SAMPLES = math.ceil(math.log(0.05) / math.log(1 - RARE))",
     "LEAST_SAMPLES = 30"),
    ("rare is 1 in 10", PAIRED, "RARE = 0.05", "RARE = 0.1"),
)  # fmt: skip


def survives(copy: Path, tests: str) -> bool:
    """Return whether the tests pass in a copy of the repository, in a process of their own."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.chdir(copy)
    sys.path[:0] = [str(copy)]
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
    slow = "--deselect=tests/compare/test_compare.py::test_kernels_under_the_interpreter"
    os._exit(int(pytest.main([*options, slow, *tests.split()])))


def main(words: list[str]) -> int:
    chosen = [fault for fault in FAULTS if not words or any(word in fault[0] for word in words)]
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("harness", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, copy / name)
        sys.dont_write_bytecode = True  # of one mutant it would serve the next
        for name, (file, tests), old, new in chosen:
            source = (copy / file).read_text()
            if source.count(old) != 1:
                raise SystemExit(f"{name}: {file} holds {source.count(old)} times {old!r}; repair the table")
            (copy / file).write_text(source.replace(old, new))
            lives = survives(copy, tests)
            alive += lives
            print(f"{'SURVIVES' if lives else 'killed'}  {name} ({file})", flush=True)
            (copy / file).write_text(source)
        if not survives(copy, " ".join(sorted({test for _, (_, tests), _, _ in chosen for test in tests.split()}))):
            raise SystemExit("the tests fail without any fault: no figure above means anything")
    print(f"{len(chosen)} faults, {len(chosen) - alive} killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The part of every ``reproduce.py`` that knows nothing of the backend: arguments, comparison, table, exit status."""

from __future__ import annotations

import argparse
import platform
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

try:
    import numpy as np
except ImportError:
    print("cannot run: numpy is missing; install it with: pip install numpy")
    sys.exit(2)
TITLE = ""
PRECISION = ""
# Whether what the graph types as FP32 may be computed in TF32.
TF32 = False
# Python modules that are the runtime; the first that can be imported is used.
MODULES: tuple[str, ...] = ()
# ONNX Runtime only: the execution provider, and whether the graph is optimised.
PROVIDER = ""
OPTIMIZE = True
# Runs of the engine: on a GPU, an engine whose kernels overlap is right in some runs.
RUNS = 2
# The largest relative L2 error allowed of each output, and where these limits come from.
LIMITS: dict[str, float] = {}
LIMITS_WHY = ""
FOLDER = Path(__file__).resolve().parent
GRAPH = FOLDER / "graph.onnx"


class Stop(Exception):
    """The script cannot run here; the text says what is missing."""


class Engine(Protocol):
    """The graph, built and ready to run."""

    versions: list[str]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once and return every output as a fresh array."""

    def close(self) -> None:
        """Free what the engine holds."""


class Measured(NamedTuple):
    """One output of one run against what is expected."""

    output: str
    run: int
    error: float
    """Relative L2 error over the elements that are finite on both sides; NaN where there is none."""
    nonfinite: int
    worst: str
    wrong: bool


def main(open_engine: Callable[[Mapping[str, Any], Path | None], Engine]) -> int:
    """Return 1 when the fault shows, 0 when it does not, 2 when the script cannot run."""
    options = arguments()
    try:
        return reproduce(open_engine, options)
    except Stop as stop:
        print(f"cannot run: {stop}", flush=True)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)  # Python's own exit status would be 1, which means "reproduced" here
        print(f"cannot run: unexpected {type(error).__name__}: {error}", flush=True)
    return 2


def arguments() -> argparse.Namespace:
    """Return the options given on the command line."""
    parser = argparse.ArgumentParser(description=f"{TITLE}. Exit status: 1 reproduced, 0 not reproduced, 2 cannot run.")
    parser.add_argument("--engine", type=Path, metavar="FILE", help="save what was built from the graph")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"runs of the engine (default {RUNS})")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"--runs {options.runs}: give 1 or more")
    return options


def reproduce(open_engine: Callable[[Mapping[str, Any], Path | None], Engine], options: argparse.Namespace) -> int:
    """Build, run, compare, print, and return the exit status."""
    inputs, expected = load("inputs.npz"), load("expected.npz")
    if not LIMITS or set(expected) != set(LIMITS):
        raise Stop(f"expected.npz holds {sorted(expected)}, but limits are known for {sorted(LIMITS)}")
    print(f"{TITLE}\nbuilding graph.onnx ({PRECISION}) ...", flush=True)
    engine = open_engine(inputs, options.engine)
    try:
        for line in (*engine.versions, f"numpy {np.__version__}", f"Python {platform.python_version()}"):
            print(line, flush=True)
        measured, repeatable = measure_runs(engine, inputs, expected, options.runs)
    finally:
        engine.close()
    print_table(measured)
    print(repeatable)
    return conclude(measured)


def load(name: str) -> dict[str, Any]:
    """Return the arrays of an .npz file of this folder."""
    if not (FOLDER / name).is_file():
        raise Stop(f"{name} is missing; it belongs beside this script")
    with np.load(FOLDER / name, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def measure_runs(
    engine: Engine, inputs: Mapping[str, Any], expected: Mapping[str, Any], runs: int
) -> tuple[list[Measured], str]:
    """Return every output of every run, measured, and a sentence on whether the runs gave the same bits."""
    measured: list[Measured] = []
    first: dict[str, Any] = {}
    differing = set()
    for run in range(1, runs + 1):
        outputs = engine.run(inputs)
        if missing := sorted(set(expected) - set(outputs)):
            raise Stop(
                f"the graph has no output {', '.join(missing)}; graph.onnx and expected.npz do not belong together"
            )
        first = first or outputs
        differing |= {name for name in expected if outputs[name].tobytes() != first[name].tobytes()}
        measured += [measure(outputs[name], array, output=name, run=run) for name, array in expected.items()]
    if runs == 1:
        return measured, "1 run: nothing is known of repeatability"
    same = f"differ in {', '.join(sorted(differing))}" if differing else "gave the same bits"
    return measured, f"the {runs} runs {same}"


def measure(actual: Any, expected: Any, *, output: str, run: int) -> Measured:
    """Compare one output. An element that is not finite counts as right only where the same infinity is expected.

    Where NaN is expected nothing is: such an element, as of padding, does not count.
    """
    if actual.shape != expected.shape:
        worst = f"shape {actual.shape}, expected {expected.shape}"
        return Measured(output, run, float("nan"), 0, worst, True)
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(e)
    mismatched = ~finite & (a != e) & ~np.isnan(e)
    difference = np.zeros(a.shape)
    np.subtract(a, e, out=difference, where=finite)
    error = relative(difference, np.where(finite, e, 0.0)) if finite.any() or not mismatched.any() else float("nan")
    nonfinite = int(a.size - np.isfinite(a).sum())
    wrong = bool(mismatched.any()) or not error <= LIMITS[output]
    flat = int(np.argmax(mismatched if mismatched.any() else np.abs(difference))) if a.size else 0
    where = [int(index) for index in np.unravel_index(flat, a.shape)] if a.size else []
    worst = f"{where}: {a.flat[flat]:.6g}, expected {e.flat[flat]:.6g}" if a.size else "empty"
    return Measured(output, run, error, nonfinite, worst, wrong)


def relative(difference: Any, expected: Any) -> float:
    """Return the norm of the difference over the norm of what is expected; infinite for an error against zeros."""
    error, size = float(np.linalg.norm(difference.ravel())), float(np.linalg.norm(expected.ravel()))
    if size == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return error / size


def print_table(measured: Sequence[Measured]) -> None:
    """Print two lines per output: its first run, and the worst where that is another."""
    rows = [("output", "run", "relative L2", "allowed", "non-finite", "", "worst element")]
    worst = {one.output: one for one in sorted(measured, key=badness)}
    for one in measured:
        if one.run > 1 and one is not worst[one.output]:
            continue
        figures = (f"{one.error:.3g}", f"{LIMITS[one.output]:.3g}", str(one.nonfinite))
        rows.append((one.output, str(one.run), *figures, "WRONG" if one.wrong else "ok", one.worst))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"allowed: {LIMITS_WHY}")


def badness(one: Measured) -> tuple[bool, int, float, int]:
    """Return what orders runs of an output, the worst last and of equals the first."""
    return one.wrong, one.nonfinite, np.nan_to_num(one.error, nan=np.inf), -one.run


def conclude(measured: Sequence[Measured]) -> int:
    """Print the last line and return the exit status."""
    wrong: dict[str, Measured] = {}
    for one in measured:
        if one.wrong:
            wrong.setdefault(one.output, one)
    if not wrong:
        print("not reproduced: every output of every run is within its limit", flush=True)
        return 0
    figures = [
        f"{name}: relative L2 error {one.error:.3g} (allowed {LIMITS[name]:.3g}), {one.nonfinite} non-finite"
        for name, one in wrong.items()
    ]
    outputs = len({one.output for one in measured})
    print(f"REPRODUCED: {len(wrong)} of {outputs} outputs are wrong; {'; '.join(figures)}", flush=True)
    return 1

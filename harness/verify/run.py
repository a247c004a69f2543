"""Runs an engine several times, checks names, dtypes and memory of its outputs, and returns the worst run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from harness.backends import RUNS_ON_CPU, RUNS_ON_GPU
from harness.compare import bitwise_equal, total_error
from harness.errors import EngineFailed
from harness.sentences import Sentence
from harness.tensors import Tensors, like


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What several runs of one engine on the same inputs gave."""

    worst: Tensors
    """The outputs of the run that is farthest from the reference."""
    another: Tensors | None = None
    """Those of a run that differs from it; None where all gave the same bits."""
    runs: int = 1
    differing: int = 0
    """Runs that differ from the first in any bit."""
    spread: float = 0.0
    """Largest relative L2 distance of a run from the first."""

    def words(self) -> str:
        """Return how the runs differ; empty where all bits are the same."""
        if not self.differing:
            return ""
        return Sentence("runs_differ", differing=self.differing, runs=self.runs, spread=self.spread)


def run_repeatedly(
    run: Callable[[], Tensors],
    *,
    inputs: Tensors,
    expected: Tensors,
    declared: Mapping[str, torch.dtype],
    on_gpu: bool,
    runs: int | None = None,
    counted: Callable[[Tensors], Tensors] = lambda outputs: outputs,
) -> Repeats:
    """Return the outputs of the worst of several runs, on the devices of the expected ones.

    Without a number a GPU gets more ``runs`` than a CPU: kernels that overlap by mistake give the right result in some.
    ``counted`` gives outputs with 0 for what does not count: there runs may differ.

    Raises EngineFailed where a run's outputs are not the declared ones, or lie in memory that is not their own.
    """
    made = run()
    check_outputs(made, declared, inputs)
    first = worst = like(expected, made)
    another: Tensors | None = None
    wrong: float | None = None  # of the worst run; asked for only where runs differ
    right, base = counted(expected), counted(first)
    spread, differing, runs = 0.0, 0, runs or (RUNS_ON_GPU if on_gpu else RUNS_ON_CPU)
    for _ in range(runs - 1):
        again = run()
        check_outputs(again, declared, made | inputs)
        check_outputs(again, declared, worst)  # or this run has overwritten the one to be judged
        again = like(expected, again)
        now = counted(again)
        if all(bitwise_equal(now[name], base[name]) for name in base):
            continue
        differing, spread = differing + 1, max(spread, total_error(now, base))
        wrong = total_error(base, right) if wrong is None else wrong
        if (error := total_error(now, right)) > wrong:
            worst, wrong, another = again, error, first
        elif another is None:
            another = again
    return Repeats(worst=worst, another=another, runs=runs, differing=differing, spread=spread)


def check_outputs(actual: Tensors, declared: Mapping[str, torch.dtype], others: Tensors) -> None:
    """Raise EngineFailed when names or dtypes are not the declared ones, or memory is shared with other tensors."""
    if set(actual) != set(declared):
        missing, unexpected = sorted(set(declared) - set(actual)), sorted(set(actual) - set(declared))
        raise EngineFailed(Sentence("outputs_missing", missing=missing, unexpected=unexpected))
    owners = {tensor.untyped_storage().data_ptr(): name for name, tensor in others.items() if tensor.numel()}
    for name, tensor in actual.items():
        if tensor.dtype != declared[name]:
            dtypes = (str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, declared[name]))
            raise EngineFailed(Sentence("output_dtype", name=name, dtype=next(dtypes), declared=next(dtypes)))
        if tensor.numel() and (owner := owners.get(tensor.untyped_storage().data_ptr())):
            raise EngineFailed(Sentence("output_shares_memory", name=name, owner=owner))

"""Outputs that come with a case: they are the reference where PyTorch FP32 gives the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from harness.compare import FAITHFUL, distance
from harness.errors import UsageError, suite_code, unknown_name
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify.valid import ValidElements
from harness.verify.witnesses import EXPLAINED


def given_outputs(
    subject: Subject, case: str, computed: Tensors, valid: ValidElements, *, exact: Callable[[], Tensors]
) -> Tensors:
    """Return the outputs that come with a case, with what was ``computed`` in the place of elements that do not count.

    ``exact`` gives the FP64 truth. Raises UsageError for what is no output, or has another dtype or shape, and
    where PyTorch FP32 gives something else: then one of the two is of another model.
    """
    what = f"{subject.name}: what is given with case {case!r}"
    with suite_code(what):
        given: object = subject.given[case]()
    if not isinstance(given, Mapping):
        raise UsageError(f"{what} is a {type(given).__name__}; return a dict of outputs by name")
    found: Tensors = {}
    for name, tensor in given.items():
        if name not in computed:
            raise UsageError(f"{what}: {unknown_name('input or output', name, [*computed])}")
        if words_of(tensor) != words_of(computed[name]):
            raise UsageError(f"{what}: {name!r} is {words_of(tensor)}, and the output {words_of(computed[name])}")
        assert isinstance(tensor, torch.Tensor)
        found[name] = tensor.to(computed[name].device)
    found = valid.as_in(case, found, computed)
    errors = {name: distance(tensor, computed[name]) for name, tensor in found.items()}
    wrong = {name: error for name, error in errors.items() if not error <= FAITHFUL}
    if wrong:
        truth = exact()
        wrong = {name: e for name, e in wrong.items() if not e <= EXPLAINED * distance(computed[name], truth[name])}
    if wrong:
        name = max(wrong, key=lambda name: wrong[name])
        raise UsageError(
            f"{what} is not what the model gives in FP32: {name!r} differs by {wrong[name]:.3g}; give the weights that "
            "it was made with, in the precision it was made in, or leave the outputs out"
        )
    return found


def words_of(tensor: object) -> str:
    """Return dtype and shape: ``float32 [1, 15, 256]``."""
    if not isinstance(tensor, torch.Tensor):
        return f"a {type(tensor).__name__}"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

"""A subject's PyTorch module: built, called with TF32 or without, and its outputs by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from harness import limits
from harness.errors import NotJudged, UsageError, suite_code
from harness.subject import Subject
from harness.tensors import Tensors


def build_module(subject: Subject) -> torch.nn.Module:
    """Return the subject's module. Raises NotJudged or UsageError where ``build`` gives none in eval mode."""
    assert subject.build is not None
    if isinstance(subject.build, torch.nn.Module):
        kind = type(subject.build).__name__
        raise UsageError(f"{subject.name!r}: build is the module itself, a {kind}; give lambda: it")
    torch.manual_seed(0)  # a subject with random weights gets the same ones every time
    with suite_code(f"{subject.name}: build()"), limits.step("build()", subject=subject.name):
        module = subject.build()
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{subject.name}: build() returned a {type(module).__name__}, not a torch.nn.Module")
    if training := next((name for name, child in module.named_modules() if child.training), None):
        raise NotJudged(f"{subject.name}: module {training!r} is in training mode; call .eval() in build()")
    if module.training:
        raise NotJudged(f"{subject.name}: the module is in training mode; call .eval() in build()")
    return module


def named_outputs(outputs: Any) -> Tensors:
    """Return what ``forward`` returned as tensors by name.

    The names are a mapping's keys, ``output`` for a tensor, or ``output_0``, ``output_1``, ... for a sequence. Raises
    UsageError when there is no output, or one is not a tensor.
    """
    named = dict(_named(outputs))
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise UsageError(
                f"output {name!r} is a {type(value).__name__}, not a tensor; return tensors from forward()"
            )
    if not named:
        raise UsageError("the subject has no outputs: forward() returned nothing to compare")
    return named


def _named(outputs: Any) -> Iterator[tuple[str, Any]]:
    if outputs is None:
        return
    if isinstance(outputs, Mapping):  # transformers' ModelOutput is one
        yield from ((str(key), value) for key, value in outputs.items())
    elif isinstance(outputs, (list, tuple)):
        yield from ((f"output_{index}", value) for index, value in enumerate(outputs))
    else:
        yield "output", outputs


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions, and restore what was set before."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn

"""A subject's PyTorch module: built, and called with TF32 or without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from harness import limits
from harness.errors import NotJudged, UsageError, suite_code
from harness.sentences import Sentence
from harness.structure import no_plain_numbers
from harness.subject import Subject


def build_module(subject: Subject) -> torch.nn.Module:
    """Return the subject's module in eval mode. Raises NotJudged or UsageError where ``build`` gives none.

    A wrapper around a model in eval mode is put in that mode too: what it was made of already is.
    """
    assert subject.build is not None
    if isinstance(subject.build, torch.nn.Module):
        kind = type(subject.build).__name__
        raise UsageError(f"{subject.name!r}: build is the module itself, a {kind}; give lambda: it")
    torch.manual_seed(0)  # a subject with random weights gets the same ones every time
    with suite_code(f"{subject.name}: build()"), limits.step("build()", subject=subject.name):
        module = subject.build()
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{subject.name}: build() returned a {type(module).__name__}, not a torch.nn.Module")
    training = [name for name, child in module.named_modules() if child.training]
    if training == [""] and any(True for _ in module.children()):
        module.eval()
    elif training:
        named = next((Sentence("module_named", name=name) for name in training if name), Sentence("the_module"))
        raise NotJudged(Sentence("in_training_mode", name=subject.name, named=named))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        lazy = Sentence("is_uninitialised") if torch.nn.parameter.is_lazy(tensor) else ""
        if problem := lazy or no_plain_numbers(tensor):
            raise NotJudged(Sentence("weight_problem", name=subject.name, name_2=name, problem=problem))
    return module


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions, and restore what was set before."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn

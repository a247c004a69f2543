"""Which elements of an output count: padding differs between right programs, and a suite names the others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch

from harness import limits
from harness.errors import NotJudged, UsageError, suite_code, unknown_name
from harness.sentences import Sentence
from harness.subject import Subject
from harness.tensors import Tensors, sha256_of
from harness.verify.inputs import CaseInputs, generated_words


class MaskOfCase:
    """A function of ``valid=`` that is asked by case: the mask of a part comes of the inputs of the whole model."""

    def __init__(self, of: Callable[[str], Any]) -> None:
        """``of`` returns the mask of a case."""
        self.of = of

    def __call__(self, inputs: object) -> Any:
        """Raise TypeError: the inputs of the part do not say which case they are of."""
        raise TypeError("the mask of a part is asked for by its case")


class ValidElements:
    """The masks of a subject's outputs by case, as ``valid=`` gives them, asked for once and checked.

    All engines and all references of a case are held to the same masks. Raises UsageError for an unknown output.
    """

    def __init__(self, subject: Subject, inputs: CaseInputs, outputs: Collection[str]) -> None:
        self.subject, self._inputs = subject, inputs
        self._given: dict[str, Tensors] = {}
        for name in subject.valid:
            if name not in outputs:
                raise UsageError(f"{subject.name}: valid=: {unknown_name('output', name, outputs)}")

    def sha256(self, case: str) -> str:
        """Return a hash of the masks of a case; empty where every element counts."""
        masks = self._masks(case)
        return sha256_of(masks) if masks else ""

    def check(self, case: str, outputs: Tensors) -> None:
        """Raise UsageError for a mask that does not fit the reference's outputs of a case, or leaves nothing of one."""
        for name, mask in self._masks(case).items():
            shape = tuple(outputs[name].shape)
            if not _fits(mask, shape):
                raise self._error(
                    case, name, Sentence("mask_shape", shape=list(mask.shape), shape_2=list(shape))
                )  # fmt: skip
            if outputs[name].numel() and not bool(mask.any()):
                raise self._error(case, name, Sentence("mask_empty"))

    def of(self, case: str, outputs: Tensors) -> Tensors:
        """Return the masks of these outputs, each in the shape of its output and on its device.

        An output without a mask is left out, and so is one whose shape is not the reference's.
        """
        masks = {name: mask for name, mask in self._masks(case).items() if name in outputs}
        return {
            name: mask.to(outputs[name].device).expand(outputs[name].shape)
            for name, mask in masks.items()
            if _fits(mask, tuple(outputs[name].shape))
        }

    def counted(self, case: str, outputs: Tensors) -> Tensors:
        """Return outputs with 0 for what does not count: alike in all that are compared, it adds to no distance."""
        return outputs | {name: outputs[name].where(mask, 0) for name, mask in self.of(case, outputs).items()}

    def as_in(self, case: str, outputs: Tensors, others: Tensors) -> Tensors:
        """Return outputs with what others have in the place of what does not count."""
        return outputs | {
            name: outputs[name].where(mask, others[name].to(outputs[name]))
            for name, mask in self.of(case, outputs).items()
            if outputs[name].shape == others[name].shape
        }

    def given(self, case: str) -> dict[str, Callable[[Any], torch.Tensor]]:
        """Return the masks of a case as ``valid=`` of another subject with the same outputs takes them."""
        return {name: partial(_always, mask) for name, mask in self._masks(case).items()}

    def _masks(self, case: str) -> Tensors:
        """Return the masks of a case as the suite gives them."""
        if case not in self._given:
            self._given[case] = {name: self._mask(case, name) for name in self.subject.valid}
        return self._given[case]

    def _mask(self, case: str, name: str) -> torch.Tensor:
        first, again = (self._ask(case, name) for _ in range(2))
        if not torch.equal(first, again):
            raise self._error(case, name, Sentence("mask_changes"))
        return first

    def _ask(self, case: str, name: str) -> torch.Tensor:
        what = f"{self.subject.name}: valid[{name!r}] of case {case!r}"
        function = self.subject.valid[name]
        given = {path: tensor.clone() for path, tensor in self._inputs[case].items()}
        with suite_code(what), limits.step(f"valid[{name!r}]", subject=self.subject.name):
            mask: object
            mask = function.of(case) if isinstance(function, MaskOfCase) else function(self._inputs.nested(given))
        if not isinstance(mask, torch.Tensor):
            raise self._error(case, name, Sentence("mask_type", name=type(mask).__name__))
        if mask.dtype != torch.bool:
            dtype = str(mask.dtype).removeprefix("torch.")
            raise self._error(case, name, Sentence("mask_dtype", dtype=dtype))
        return mask.detach().cpu()

    def _error(self, case: str, name: str, problem: str) -> UsageError | NotJudged:
        words = f"{self.subject.name}: the mask valid[{name!r}] of case {case!r} {problem}"
        generated = generated_words(self.subject, case)
        return NotJudged(Sentence("error_of", error=words, words=generated)) if generated else UsageError(words)


def _always(mask: torch.Tensor, inputs: object) -> torch.Tensor:
    return mask


def _fits(mask: torch.Tensor, shape: tuple[int, ...]) -> bool:
    return mask.dim() == len(shape) and all(own in (1, size) for own, size in zip(mask.shape, shape, strict=True))

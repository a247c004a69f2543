"""A subject's inputs: what every case gives, checked, and the shapes that an engine must take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from harness.backends import ShapeRange
from harness.errors import NotJudged, ParityError, UsageError, first_line, unknown_name
from harness.subject import Subject
from harness.tensors import Tensors


class CaseInputs(Mapping[str, Tensors]):
    """The inputs of every case by its name, asked for once and checked.

    ``accept(inputs, case)`` returns them as the graph takes them, on the device that PyTorch computes on. Raises
    UsageError for an unknown case or what does not fit, NotJudged when the suite's own code raises.
    """

    def __init__(self, subject: Subject, accept: Callable[[Tensors, str], Tensors]) -> None:
        self.subject, self._accept = subject, accept
        self._found: dict[str, Tensors] = {}

    def __getitem__(self, case: str) -> Tensors:
        if case not in self._found:
            self._found[case] = self._accept(case_inputs(self.subject, case), case)
        return self._found[case]

    def __iter__(self) -> Iterator[str]:
        return iter(self.subject.cases)

    def __len__(self) -> int:
        return len(self.subject.cases)

    def largest(self) -> str:
        """Return the case with the most elements: a dimension of size 1 in an example would be taken for a constant."""
        return max(self, key=lambda case: sum(tensor.numel() for tensor in self[case].values()))


def case_inputs(subject: Subject, case: str) -> Tensors:
    """Return a case's inputs as the suite gives them.

    Raises UsageError for an unknown case or what is no tensor, NotJudged when the suite's own code raises.
    """
    if case not in subject.cases:
        raise unknown_name(f"case of {subject.name}", case, subject.cases)
    try:
        inputs: Any = subject.cases[case]()
    except ParityError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise NotJudged(f"{subject.name}: case {case!r} raised {what}") from error
    if not isinstance(inputs, Mapping) or not (inputs or subject.onnx):
        raise UsageError(f"case {case!r} of {subject.name} gives no inputs; return a dict of tensors by name")
    for name, tensor in inputs.items():
        if not isinstance(tensor, torch.Tensor):
            kind = type(tensor).__name__
            raise UsageError(f"case {case!r} of {subject.name}: input {name!r} is a {kind}, not a tensor")
    return dict(inputs)


def engine_shapes(inputs: CaseInputs) -> dict[str, ShapeRange]:
    """Return the shapes of every input that an engine for all cases must take.

    For a module these are the declared ranges, tuned for the largest case; an engine for an ONNX file takes what it is
    verified with. Raises UsageError (module) or NotJudged (file) when the cases do not fit one engine.
    """
    subject = inputs.subject
    shapes_of: dict[str, list[tuple[int, ...]]] = {}
    for case in inputs.values():
        for name, tensor in case.items():
            shapes_of.setdefault(name, []).append(tuple(tensor.shape))
    make = _seen_range if subject.onnx is not None else _declared_range
    return {name: make(subject, name, shapes) for name, shapes in shapes_of.items()}


def _declared_range(subject: Subject, name: str, shapes: list[tuple[int, ...]]) -> ShapeRange:
    dynamic = subject.dynamic.get(name, {})
    largest = max(shapes, key=lambda shape: [shape[axis] for axis in dynamic])
    for axis, size in enumerate(largest):
        if axis not in dynamic and any(shape[axis] != size for shape in shapes):
            raise UsageError(
                f"{subject.name}: input {name!r} has {size} and other sizes in dimension {axis}; "
                "declare it in dynamic= and ranges="
            )
    low, high = (
        tuple(subject.ranges[dynamic[axis]][end] if axis in dynamic else size for axis, size in enumerate(largest))
        for end in (0, 1)
    )
    return ShapeRange(minimum=low, optimum=largest, maximum=high)


def _seen_range(subject: Subject, name: str, shapes: list[tuple[int, ...]]) -> ShapeRange:
    if len({len(shape) for shape in shapes}) > 1:
        raise NotJudged(f"{subject.name}: input {name!r} has another rank in another case")
    low, high = (tuple(pick(sizes) for sizes in zip(*shapes, strict=True)) for pick in (min, max))
    return ShapeRange(minimum=low, optimum=high, maximum=high)

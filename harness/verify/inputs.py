"""A subject's inputs: what every case gives, checked, and the shapes that an engine must take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from harness import limits
from harness.backends import ShapeRange
from harness.dimensions import dimension, dimensions
from harness.errors import NotJudged, UsageError, suite_code, unknown_name
from harness.graph import UNKNOWN_DIM, InputSpec
from harness.memory import available_bytes
from harness.sentences import Sentence
from harness.structure import Structure, flatten_inputs
from harness.subject import Subject
from harness.tensors import Tensors


class CaseInputs(Mapping[str, Tensors]):
    """The inputs of every case by its name, asked for once and checked; generated cases are found, and not listed.

    ``accept(inputs, case)`` returns them as the graph takes them, on the device that PyTorch computes on. Raises
    UsageError for an unknown case or what does not fit, NotJudged when the suite's own code raises.
    """

    def __init__(self, subject: Subject, accept: Callable[[Tensors, str], Tensors]) -> None:
        self.subject, self._accept = subject, accept
        self._found: dict[str, Tensors] = {}
        self._first: tuple[str, Structure] | None = None

    def __getitem__(self, case: str) -> Tensors:
        if case not in self._found:
            try:
                inputs, structure = structured_inputs(self.subject, case)
                self._require_same(case, structure)
                self._found[case] = self._accept(inputs, case)
            except UsageError as error:
                if not (words := generated_words(self.subject, case)):
                    raise
                raise NotJudged(Sentence("error_of", error=error, words=words)) from error  # nobody wrote this case
        return self._found[case]

    def __iter__(self) -> Iterator[str]:
        return iter(self.subject.cases)

    def __len__(self) -> int:
        return len(self.subject.cases)

    @property
    def structure(self) -> Structure:
        """How the inputs of every case are nested."""
        if self._first is None:
            self[next(iter(self))]
        assert self._first is not None
        return self._first[1]

    def nested(self, inputs: Tensors) -> dict[str, Any]:
        """Return inputs by path as the suite gives them: nested as those of every case, or flat for an ONNX file."""
        nested: dict[str, Any] = dict(inputs) if self.subject.onnx is not None else self.structure.build(inputs)
        return nested

    def _require_same(self, case: str, structure: Structure) -> None:
        """Raise UsageError for a case whose inputs are nested in another way, or have other names, than another's."""
        first, known = self._first = self._first or (case, structure)
        if self.subject.onnx is None and not structure.is_like(known):
            apart = sorted(structure.names ^ known.names)
            what = f"one has {apart[0]!r} and the other has not" if apart else "their containers or caches do"
            raise UsageError(
                f"the inputs of the cases {first!r} and {case!r} of {self.subject.name} differ: {what}; an engine "
                "takes the same inputs in all cases"
            )

    def largest(self) -> str:
        """Return the case with the most elements: a dimension of size 1 in an example would be taken for a constant."""
        return max(self, key=lambda case: sum(tensor.numel() for tensor in self[case].values()))


def case_inputs(subject: Subject, case: str) -> Tensors:
    """Return a case's inputs by path; see :func:`structured_inputs`."""
    return structured_inputs(subject, case)[0]


def structured_inputs(subject: Subject, case: str) -> tuple[Tensors, Structure]:
    """Return the inputs that the suite gives for a case by path, and how they are nested.

    ``smallest`` and ``largest`` are made from the first case. Raises UsageError for an unknown case or what is no
    tensor, NotJudged for a tensor that cannot be compared and when the suite's own code raises.
    """
    if sizes := subject.range_cases.get(case):
        first, structure = structured_inputs(subject, next(iter(subject.cases)))
        return at_sizes(first, subject.dynamic, sizes), structure
    if case not in subject.cases:
        raise unknown_name(f"case of {subject.name}", case, [*subject.cases, *subject.range_cases])
    with suite_code(f"{subject.name}: case {case!r}"), limits.step(f"case {case!r}", subject=subject.name):
        inputs: Any = subject.cases[case]()
    if not isinstance(inputs, Mapping) or not (inputs or subject.onnx):
        raise UsageError(f"case {case!r} of {subject.name} gives no inputs; return a dict of tensors by name")
    tensors, structure = flatten_inputs(inputs, f"case {case!r} of {subject.name}")
    if not tensors and subject.onnx is None:
        raise UsageError(f"case {case!r} of {subject.name} gives no tensors; an engine needs an input")
    return tensors, structure


def check_sizes(subject: Subject, inputs: Tensors, *, where: str) -> None:
    """Raise UsageError where ``dynamic`` and ``ranges`` do not fit the inputs of a case."""
    if unknown := sorted(set(subject.dynamic) - set(inputs)):
        raise UsageError(f"{where}: dynamic= names {unknown[0]!r}, which is no input ({', '.join(inputs)})")
    for name, dims in subject.dynamic.items():
        shape = list(inputs[name].shape)
        if (last := max(dims, default=0)) >= len(shape) and dims:
            raise UsageError(f"{where}: dynamic= names dimension {last} of {name!r}, which has shape {shape}")
    known: dict[str, tuple[int, str]] = {}
    for name, axis, dim in dimensions(subject.dynamic):
        size, (low, high), text = inputs[name].shape[axis], subject.ranges[dim.symbol], subject.dynamic[name][axis]
        number, which = dim.of_symbol(size), f"dimension {axis} of {name!r}"
        if number is None or not low <= number <= high:
            of = "" if text == dim.symbol else f" for {text}"
            raise UsageError(f"{where}: {which} is {size}{of}, and ranges= has {dim.symbol} from {low} to {high}")
        other, place = known.setdefault(dim.symbol, (number, which))
        if number != other:
            raise UsageError(
                f"{where}: {which} is {size}, so {dim.symbol} is {number} by {text}, and {other} by {place}"
            )


def given_inputs(
    given: Mapping[str, Any], example: Tensors, shapes: Mapping[str, ShapeRange] | None, *, where: str
) -> Tensors:
    """Return inputs for a run of an engine by path, nested as a case is or flat. ``shapes`` are those it takes.

    Raises UsageError where names, dtypes or shapes are others than those of the case ``example`` and of the engine.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"{where} got a {type(given).__name__}; give a dict of tensors by name")
    tensors, _ = flatten_inputs(given, where)
    if unknown := [name for name in tensors if name not in example]:
        raise unknown_name(f"input of {where}", unknown[0], example)
    if missing := [name for name in example if name not in tensors]:
        raise UsageError(f"{where} lacks the input {missing[0]!r}; it takes {', '.join(example)}")
    for name, wanted in example.items():
        dtype, shape = tensors[name].dtype, tuple(tensors[name].shape)
        if dtype != wanted.dtype:
            kinds = f"is {dtype}, and the engine takes {wanted.dtype}".replace("torch.", "")
            raise UsageError(f"{where}: input {name!r} {kinds}; give .to({wanted.dtype})")
        if shapes is not None and not shapes[name].holds(shape):
            raise UsageError(
                f"{where}: input {name!r} has shape {list(shape)}, and the engine takes {shapes[name].words()}; widen "
                "ranges= of the subject, or give a case of this shape"
            )
    return tensors


def generated_words(subject: Subject, case: str) -> str:
    """Return how a generated case came about; empty for a case of the suite."""
    if not (sizes := subject.range_cases.get(case)):
        return ""
    words = " ".join(f"{symbol}={size}" for symbol, size in sizes.items())
    return Sentence("generated_from", case=next(iter(subject.cases)), words=words)


def sizes_notes(specs: Sequence[InputSpec], inputs: Tensors) -> tuple[str, ...]:
    """Return the sizes that an ONNX file's dynamic dimensions were run at; nothing where it has none."""
    sizes = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str):
                sizes[f"{spec.name}[{axis}]" if dim == UNKNOWN_DIM else dim] = inputs[spec.name].shape[axis]
    words = ", ".join(f"{dim}={size}" for dim, size in sizes.items())
    return (Sentence("dynamic_run_at", words=words),) if words else ()


def at_sizes(inputs: Tensors, dynamic: Mapping[str, Mapping[int, str | None]], sizes: Mapping[str, int]) -> Tensors:
    """Return inputs with every dynamic dimension cut to its size, or repeated up to it.

    What is repeated holds the values that the case holds, so that ids stay valid and masks stay masks. Copies are
    rolled along another dimension, but for masks: of equal copies an engine could mix up the rows unseen.
    """
    found = dict(inputs)
    for name, axis, dim in dimensions(dynamic):
        if dim.symbol in sizes and name in found:
            found[name] = _at_size(found[name], axis, dim.size(sizes[dim.symbol]), name)
    return found


def _at_size(tensor: torch.Tensor, axis: int, size: int, name: str) -> torch.Tensor:
    have, is_mask = tensor.shape[axis], bool(((tensor == 0) | (tensor == 1)).all())
    if size <= have:
        cut = tensor.narrow(axis, 0, size).contiguous()
        if not is_mask or axis != tensor.ndim - 1:
            return cut
        # Of a row that is padded on the left nothing would be left: a softmax over nothing is NaN.
        return cut.masked_fill((cut == 0).all(axis, keepdim=True) & (tensor != 0).any(axis, keepdim=True), 1)
    if not have:
        raise NotJudged(Sentence("input_empty", name=name, axis=axis, size=size))
    needed = tensor.nbytes // have * size
    if needed > (free := available_bytes()):
        raise NotJudged(Sentence("input_too_large", name=name, size=size, axis=axis, needed=needed, free=free))
    others = [other for other, length in enumerate(tensor.shape) if other != axis and length > 1]
    times = -(-size // have)
    different = min(times, tensor.shape[others[-1]] if others and not is_mask else 1)
    block = torch.cat([tensor.roll(k, others[-1]) if k else tensor for k in range(different)], dim=axis)
    repeats = [-(-times // different) if other == axis else 1 for other in range(tensor.ndim)]
    return block.repeat(repeats).narrow(axis, 0, size).contiguous()


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

    def ends(axis: int, size: int) -> tuple[int, int]:
        """Return the smallest and the largest size: those of the cases where it is left to the exporter."""
        if axis not in dynamic:
            return size, size
        if (dim := dimension(dynamic[axis])) is None:
            return min(shape[axis] for shape in shapes), max(shape[axis] for shape in shapes)
        low, high = subject.ranges[dim.symbol]
        return dim.size(low), dim.size(high)

    both = [ends(axis, size) for axis, size in enumerate(largest)]
    low, high = (tuple(pair[end] for pair in both) for end in (0, 1))
    return ShapeRange(minimum=low, optimum=largest, maximum=high)


def _seen_range(subject: Subject, name: str, shapes: list[tuple[int, ...]]) -> ShapeRange:
    if len({len(shape) for shape in shapes}) > 1:
        raise NotJudged(Sentence("input_other_rank", name=subject.name, name_2=name))
    low, high = (tuple(pick(sizes) for sizes in zip(*shapes, strict=True)) for pick in (min, max))
    return ShapeRange(minimum=low, optimum=high, maximum=high)

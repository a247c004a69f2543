"""The parts of a model under a prefix, each as a subject of its own for the cases that can share an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import torch

from harness.bringup.calls import Call, Model, Taken
from harness.bringup.modules import Alone, cut_after
from harness.dimensions import dimensions
from harness.errors import UsageError, unknown_name
from harness.fields import fits_path
from harness.sentences import Sentence
from harness.structure import Structure
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify import MaskOfCase


@dataclass(frozen=True, kw_only=True)
class Found:
    """The parts of a model under a prefix."""

    prefix: str
    """The module whose children they are; empty for the model."""
    calls: tuple[Call, ...]
    """In the order in which they run."""
    not_run: tuple[str, ...]
    """Modules there that no case runs, nor what is in them."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What can be verified as one engine."""

    subject: Subject
    """Its cases are some of the model's."""
    notes: tuple[str, ...] = ()
    takes_tensors: bool = True
    """Whether an engine of it has an input."""


def find_parts(model: Model, cases: Sequence[str], prefix: str, upto: str) -> Found:
    """Return the parts under ``prefix``, up to the module ``upto``; without a prefix those beside that module.

    Without either they are the modules of the first level that has more than one. What is not called itself, such as a
    list of modules, has its children in its place; a module without children is the only part of itself. Raises
    UsageError for a path of no module, and where nothing runs.
    """
    runs = [model.order(case) for case in cases]
    times = {path: max(run.count(path) for run in runs) for run in runs for path in run}
    first = {path: place for run in reversed(runs) for place, path in reversed(list(enumerate(run)))}
    shared: dict[torch.nn.Module, str] = {module: path for path, module in model.module.named_modules()}
    known: dict[str, torch.nn.Module] = dict(model.module.named_modules(remove_duplicate=False))
    for option, path in (("prefix", prefix), ("upto", upto)):
        if path.partition("#")[0] not in known:
            raise unknown_name(f"module of {model.subject.name} (--{option})", path, [name for name in known if name])
    if upto and not prefix:
        prefix = upto.partition("#")[0].rpartition(".")[0]

    def own(path: str) -> str:
        return shared[known[path]]

    def below(path: str) -> Iterator[str]:
        """Yield the parts in a module's place: itself where it is called, else those of its children."""
        if times.get(own(path)):
            yield path
        else:
            for child in _children(known, path):
                yield from below(child)

    def parts_of(path: str) -> list[str]:
        return [one for child in _children(known, path) for one in below(child)] or [*below(path)]

    paths = parts_of(prefix)
    while not prefix and not upto and len(paths) == 1 and _children(known, paths[0]):
        inner = parts_of(paths[0])
        if inner == paths:
            break
        prefix, paths = (paths[0], inner) if len(inner) > 1 else ("", inner)
    paths = list({own(path): path for path in reversed(paths)}.values())
    order = sorted(paths, key=lambda path: first[own(path)])
    if not order or order == [""]:
        what = f"no module of {prefix or model.subject.name}"
        raise UsageError(f"{what} is run by {', '.join(cases)}: there is no part to build; see parity verify")
    calls = [Call(path=p, number=n + 1, of=times[own(p)]) for p in order for n in range(times[own(p)])]
    if upto:
        names = [call.name for call in calls]
        if upto not in names:
            raise unknown_name(f"part under {prefix or model.subject.name} that runs (--upto)", upto, names)
        calls = calls[: names.index(upto) + 1]
    idle = [child for child in _children(known, prefix) if not any(_is_in(path, child) for path in order)]
    return Found(prefix=prefix, calls=tuple(calls), not_run=tuple(idle if order != [prefix] else ()))


def check_masks(model: Model) -> None:
    """Raise UsageError for a mask of parts that names no module of the model, or two of one output."""
    subject, keys = model.subject, [key.partition(":")[::2] for key in model.subject.parts_valid]
    known = [path for path, _ in model.module.named_modules(remove_duplicate=False)]
    for pattern, _ in keys:
        if not any(fits_path(path, pattern.partition("#")[0]) for path in known):
            raise unknown_name(f"module of {subject.name} (parts_valid=)", pattern, [path for path in known if path])
    for (one, output), (other, again) in combinations(keys, 2):
        if output == again and any(fits_path(path, one) and fits_path(path, other) for path in known):
            words = f"{subject.name}: parts_valid={one}:{output} and {other}:{output} name the same part"
            raise UsageError(f"{words}; leave one mask for each output")


def masks_of(model: Model, call: Call) -> dict[str, MaskOfCase]:
    """Return the masks of the outputs of a part that ``parts_valid`` gives to it; they are asked for by case."""

    def mask(function: Callable[[Any], Any], case: str) -> Any:
        return function(model.given(case))

    keys = ((*key.partition(":")[::2], function) for key, function in model.subject.parts_valid.items())
    return {out: MaskOfCase(partial(mask, function)) for module, out, function in keys if fits_path(call.name, module)}


def _children(known: Mapping[str, torch.nn.Module], path: str) -> list[str]:
    return [f"{path}.{name}" if path else name for name, _ in known[path].named_children()]


def _is_in(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")


def cut(model: Model, call: Call) -> list[Part]:
    """Return the model cut after a call as a subject that takes the inputs of the model."""
    made = cut_after(model.module, call)
    subject = replace(
        model.subject, name=f"{model.subject.name}:upto {call.name}", build=lambda: made, tolerances={},
        valid=masks_of(model, call), given={}, weights_files=None,
    )  # fmt: skip
    return [Part(subject=subject)]


def alone(model: Model, call: Call, cases: Sequence[str], *, dynamic: bool) -> list[Part]:
    """Return one call of a module as subjects that take what the model gives it in PyTorch FP32.

    Cases are one subject where they call it with the same constants, and in the same sizes unless it is ``dynamic``.
    """
    taken = {case: one for case in cases if (one := model.taken(case, call)) is not None}
    groups: list[dict[str, Taken]] = []
    for case, one in taken.items():
        like = (group for group in groups if _is_like(one, next(iter(group.values())), dynamic))
        group = next(like, None)
        groups.append({case: one}) if group is None else group.update({case: one})
    return [_subject(model, call, group) for group in groups]


def _is_like(one: Taken, other: Taken, dynamic: bool) -> bool:
    """Return whether two cases may share an engine."""
    if not one.structure.is_like(other.structure) or one.positional != other.positional:
        return False
    held, others = _held(one), _held(other)
    if held.keys() != others.keys() or not all(torch.equal(held[name], others[name]) for name in held):
        return False
    pairs = [(tensor, other.tensors[name]) for name, tensor in one.tensors.items()]
    return all(a.dtype == b.dtype and (a.ndim == b.ndim if dynamic else a.shape == b.shape) for a, b in pairs)


def _held(taken: Taken) -> Tensors:
    """Return the tensors that become constants: an input must be finite, and masks hold infinities."""
    return {name: one for name, one in taken.tensors.items() if one.is_floating_point() and not one.isfinite().all()}


def _subject(model: Model, call: Call, group: Mapping[str, Taken]) -> Part:
    whole, first = model.subject, next(iter(group.values()))
    held = _held(first)
    inputs = {case: {n: t for n, t in one.tensors.items() if n not in held} for case, one in group.items()}
    module = Alone(model.module.get_submodule(call.path), call.path, first, held)
    dynamic, ranges = _sizes(model, inputs)
    notes = [Sentence("input_constant", name=name) for name in held]
    constants = _constants(first.structure)
    notes += [Sentence("arguments_constant", constants=constants)] if constants else []
    subject = Subject(
        name=f"{whole.name}:{call.name}", build=lambda: module, targets=whole.targets, weights=whole.weights,
        cases={case: (lambda found=found: found) for case, found in inputs.items()},  # type: ignore[misc]
        weights_source=whole.weights_source, inputs=whole.inputs, dynamic=dynamic, ranges=ranges, source=whole.source,
        typed=whole.typed, locator=whole.locator, options=whole.options, owner=whole.owner,
        valid=masks_of(model, call),
    )  # fmt: skip
    return Part(subject=subject, notes=tuple(notes), takes_tensors=bool(inputs[next(iter(group))]))


def _constants(structure: Structure, path: str = "") -> str:
    """Return what is no tensor, by path, as text."""
    if not structure.parts:
        simple = structure.fixed and structure.kind in (int, float, bool, str)
        return f"{path}={structure.fixed}" if simple else ""
    inner = zip(structure.keys, structure.parts, strict=True)
    return ", ".join(filter(None, (_constants(part, f"{path}.{key}" if path else key) for key, part in inner)))


def _sizes(
    model: Model, inputs: Mapping[str, Tensors]
) -> tuple[dict[str, dict[int, str | None]], dict[str, tuple[int, int]]]:
    """Return which dimensions of a part's inputs are dynamic: those that differ between cases.

    One that has the sizes of a dynamic dimension of the model is called as that and has its range; others have the
    range that was seen.
    """
    whole, cases = model.subject, list(inputs)
    symbols: dict[tuple[int, ...], str] = {}
    ranges: dict[str, tuple[int, int]] = {}
    for name, axis, dim in dimensions(whole.dynamic):
        if dim.factor == 1 and not dim.offset:
            symbols.setdefault(tuple(model.sizes[case][name].shape[axis] for case in cases), dim.symbol)
    dynamic: dict[str, dict[int, str | None]] = {}
    for name, tensor in inputs[cases[0]].items():
        for axis in range(tensor.ndim):
            sizes = tuple(inputs[case][name].shape[axis] for case in cases)
            if len(set(sizes)) > 1:
                symbol = symbols.setdefault(sizes, f"size_{len(symbols)}")
                dynamic.setdefault(name, {})[axis] = symbol
                ranges[symbol] = whole.ranges.get(symbol) or (min(sizes), max(sizes))
    return dynamic, ranges

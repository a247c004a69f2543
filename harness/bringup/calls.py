"""A model in PyTorch FP32 as it runs: which of its modules are called, in which order, and with what."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from harness import limits
from harness.errors import UsageError, suite_code
from harness.graph import check_arguments
from harness.memory import guarded
from harness.pytorch import build_module, tf32_allowed
from harness.settings import Settings
from harness.structure import Structure, with_constants
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify import compute_device, structured_inputs

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a module in a run of the model."""

    path: str
    """The module's dotted path."""
    number: int = 1
    """Counted from 1."""
    of: int = 1
    """How often the model calls it."""

    @property
    def name(self) -> str:
        """The path, with ``#2`` for the second call of a module that is called more than once."""
        return self.path if self.number == 1 else f"{self.path}#{self.number}"


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a module was called with in one case."""

    tensors: Tensors
    """By path, from the names of the arguments that ``forward`` has."""
    structure: Structure
    """Of the arguments by name, with what is no tensor."""
    positional: int
    """How many of them, the first ones, were given without a name."""
    written: frozenset[str]
    """The tensors that the module wrote into."""

    def arguments(self, tensors: Tensors) -> tuple[list[Any], dict[str, Any]]:
        """Return what to call the module with to give it these tensors."""
        built: dict[str, Any] = self.structure.build(tensors)
        names = list(built)
        return [built[name] for name in names[: self.positional]], {n: built[n] for n in names[self.positional :]}


class Reached(BaseException):
    """Ends a run of the model at a module; no Exception, so that a model which catches those does not go on."""


class Model:
    """A subject's module and its cases, run as often as it is asked about."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        """Raises UsageError or NotJudged where the module or a case of the suite cannot be had."""
        if subject.onnx is not None:
            raise UsageError(
                f"{subject.name} is an ONNX file, which has no modules to build one by one; parity verify "
                f"{subject.as_typed} --layers compares every value of it"
            )
        self.subject, self.device = subject, compute_device(settings)
        self.module = build_module(subject).to(self.device)
        self._arguments: dict[str, dict[str, Any]] = {}
        self._structures: dict[str, Structure] = {}
        self.sizes: dict[str, Tensors] = {}
        """The inputs of the model by case."""

    def arguments(self, case: str) -> dict[str, Any]:
        """Return the keyword arguments of a case, on the device that PyTorch computes on."""
        if case not in self._arguments:
            inputs, structure = structured_inputs(self.subject, case)
            check_arguments(self.module, structure.keys, inputs, where=f"case {case!r} of {self.subject.name}")
            self.sizes[case], self._structures[case] = inputs, structure
            self._arguments[case] = structure.build({name: one.to(self.device) for name, one in inputs.items()})
        return self._arguments[case]

    def given(self, case: str) -> dict[str, Any]:
        """Return copies of the inputs of a case as the suite gives them."""
        self.arguments(case)
        inputs: dict[str, Any] = self._structures[case].build({n: one.clone() for n, one in self.sizes[case].items()})
        return inputs

    def order(self, case: str) -> list[str]:
        """Return the paths of the modules that a case calls, one for each call; a shared module has its first path."""
        found: list[str] = []
        paths = {module: path for path, module in self.module.named_modules()}

        def note(module: torch.nn.Module, args: Any) -> None:
            found.append(paths[module])

        with _hooks(module.register_forward_pre_hook(note) for module in paths):
            self._run(case)
        return found

    def taken(self, case: str, call: Call) -> Taken | None:
        """Return what a call of a module is given in a case; None where the case does not come to it."""
        module = self.module.get_submodule(call.path)
        found: list[Taken] = []
        before: dict[str, tuple[torch.Tensor, int]] = {}
        calls = count()

        def enter(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            if next(calls) == call.number - 1:
                given, structure = with_constants(_named(module, args) | kwargs, "input")
                before.update({name: (tensor, tensor._version) for name, tensor in given.items()})
                # The model goes on with its own containers and caches; these are copies.
                copied = structure.build({name: tensor.clone() for name, tensor in given.items()})
                tensors, structure = with_constants(copied, "input")
                found.append(Taken(tensors=tensors, structure=structure, positional=len(args), written=frozenset()))

        def leave(_: torch.nn.Module, args: Any, outputs: Any) -> None:
            if found:
                raise Reached

        hooks = [
            module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(leave, prepend=True),
        ]
        with _hooks(hooks):
            self._run(case)
        if not found:
            return None
        return replace(found[0], written=frozenset(name for name, (one, was) in before.items() if one._version != was))

    def _run(self, case: str) -> None:
        """Run a case as far as the hooks let it."""
        name, arguments = self.subject.name, self.arguments(case)
        with (
            limits.work(name, "running the model in PyTorch"), guarded(f"{name}/{case}"), torch.no_grad(),
            tf32_allowed(False), suite_code(f"{name}: forward()", UsageError), limits.step("forward()", subject=name),
        ):  # fmt: skip
            try:
                self.module(**arguments)
            except Reached:
                return


def _named(module: torch.nn.Module, args: tuple[Any, ...]) -> dict[str, Any]:
    """Return positional arguments by the names that ``forward`` has for them."""
    try:
        known = [p for p in inspect.signature(module.forward).parameters.values() if p.kind in _POSITIONAL]
    except (TypeError, ValueError):  # compiled code has no signature
        known = []
    named = [parameter.name for parameter in known] + [f"input_{index}" for index in range(len(known), len(args))]
    return dict(zip(named, args, strict=False))


@contextmanager
def _hooks(made: Iterable[RemovableHandle]) -> Iterator[None]:
    handles = list(made)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

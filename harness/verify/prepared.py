"""A subject made ready: its graph, its inputs, and what its outputs should be; computed once, shared by all targets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from harness.backends import ShapeRange
from harness.errors import NotJudged, ParityError, UsageError, first_line, unknown_name
from harness.graph import Plan, Program
from harness.reference import Lane, Lanes
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What PyTorch itself loses in a precision."""

    outputs: Tensors
    """Its outputs, by name."""
    notes: tuple[str, ...]
    """Emulation and saturation, where there was any."""


class Prepared(Protocol):
    """A subject whose graph and references are at hand."""

    subject: Subject
    weights_sha256: str
    program_sha256: str
    """With the weights' hash, what the root of every engine's cache key is made of."""

    @property
    def program(self) -> Program:
        """The subject as an FP32 graph; made when an engine has to be built or a plan names values."""

    def exporter(self) -> dict[str, str]:
        """Return what else the graph depends on: the versions of the exporter, and its options."""

    def dtypes(self, plan: Plan) -> dict[str, str]:
        """Return the compute dtype of every value by name; nothing for a plan that treats all values alike."""

    def inputs(self, case: str) -> Tensors:
        """Return a case's inputs, checked, on the device PyTorch computes on."""

    def reference(self, case: str, dtype: str) -> Tensors:
        """Return the outputs in ``fp32`` (the reference) or ``fp64`` (the truth)."""

    def reference_words(self, case: str, dtype: str) -> str:
        """Return where that reference comes from, for provenance."""

    def floor(self, case: str, plan: Plan) -> Floor:
        """Return what PyTorch gives in a precision. Raises NotJudged where there is no such floor."""

    def floor_name(self, plan: Plan) -> str:
        """Return what makes that floor, as sentences name it."""

    def typed_outputs(self, case: str, dtypes: Mapping[str, str]) -> Tensors:
        """Return what PyTorch gives with these compute dtypes by value name, FP32 where there is none."""

    def lanes(self, case: str, plan: Plan, asked: Collection[str]) -> Lanes:
        """Return the lanes to hold an engine's values against; ``asked`` names the values that will be asked for."""

    def values_of(self, case: str, names: Sequence[str]) -> Tensors:
        """Return values of the graph, network inputs among them, in FP32. Raises NotJudged for what none computes."""

    def lane(self, case: str) -> Lane:
        """Return one lane in FP32, to see what a change of one value does to the outputs."""

    def depths(self) -> dict[str, int]:
        """Return the position in dataflow order of every value, by its name in the graph and in the program."""

    def output_dtypes(self, case: str) -> dict[str, torch.dtype]:
        """Return the declared dtype of every output."""

    def shapes(self) -> dict[str, ShapeRange]:
        """Return the shapes that an engine for all cases must take."""


def compute_device(settings: Settings) -> torch.device:
    """Return where PyTorch computes: what was asked for, else a GPU when there is one."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise NotJudged("no GPU that PyTorch can use; leave out --device cuda to compute on the CPU")
    return torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))


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
    if not isinstance(inputs, Mapping) or not inputs:
        raise UsageError(f"case {case!r} of {subject.name} gives no inputs; return a dict of tensors by name")
    for name, tensor in inputs.items():
        if not isinstance(tensor, torch.Tensor):
            kind = type(tensor).__name__
            raise UsageError(f"case {case!r} of {subject.name}: input {name!r} is a {kind}, not a tensor")
    return dict(inputs)


def named_values(lanes: Lanes, names: Sequence[str], inputs: Tensors) -> Tensors:
    """Return values of the reference lane by name. Raises NotJudged for one that nothing computes."""
    found: Tensors = {}
    for name in names:
        value = inputs[name] if name in inputs else lanes.value(lanes.reference, name)
        if value is None:
            raise NotJudged(f"nothing but the engine computes the value {name!r}")
        found[name] = value
        lanes.done([name])
    return found

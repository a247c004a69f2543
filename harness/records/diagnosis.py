"""The diagnosis of a wrong engine, as data: every culprit, what its error looks like, what it explains, what is left.

A layer report has one, made from what was observed; a bisection has one too, with what its parts of the graph showed.
See docs/json.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Observed = Literal["unchanged", "rounding", "changed", "hidden", ""]
ShapeKind = Literal[
    "scale",
    "offset",
    "constant_per_channel",
    "scale_per_channel",
    "slice",
    "shift",
    "transposed",
    "other_axis",
    "saturation",
    "swapped",
    "stale",
    "random",
    "tf32_rounding",
    "fp16_rounding",
    "bf16_rounding",
    "non_finite",
    "zeros",
    "decision",
    "another_function",
    "unknown",
]


@dataclass(frozen=True, kw_only=True)
class ErrorShape:
    """What an error looks like: a kind with its figures, computed from the tensors."""

    kind: ShapeKind
    """``unknown`` when it is none of the others."""
    explained: float = 0.0
    """Squared share of the error that this kind explains, 0 to 1."""
    factor: float | None = None
    """The factor (``scale``), the constant that was added (``offset``), the number it ends at (``saturation``); of the
    kind in ``part`` where there is one."""
    axis: int | None = None
    """The axis of ``constant_per_channel``, ``scale_per_channel``, ``slice``, ``shift``, of a ``non_finite`` in a few
    entries only, and the one that a softmax was taken along (``other_axis``)."""
    instead_of: int | None = None
    """The axis that the softmax should be taken along (``other_axis``)."""
    size: int | None = None
    """Entries that ``axis`` has."""
    entries: tuple[tuple[int, int], ...] = ()
    """The entries of ``axis`` that are wrong, as ranges: first and last of each."""
    steps: int | None = None
    """By how many entries it is shifted: ``actual[i] = expected[i - steps]`` (``shift``)."""
    permutation: tuple[int, ...] = ()
    """The order of the axes of the expected value that this one holds instead (``transposed``)."""
    other: str = ""
    """The output or value that this one holds instead (``swapped``), or the case of an earlier run (``stale``)."""
    part: ShapeKind | None = None
    """What the error looks like within ``entries`` (``slice``) or among the decisions that differ: ``offset`` for all
    off by ``factor``, ``scale`` with -1 for all negated; None where nothing more is known."""
    count: int | None = None
    """Elements that are not finite or that differ (``non_finite``, ``decision``)."""
    elements: int | None = None
    """Elements of the value, where there is a ``count``."""


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """One place where an error is made that reaches the outputs."""

    value: str
    """The value's name."""
    op: str
    """The operator that makes it."""
    module: str
    """Dotted path of its PyTorch module."""
    source: str
    """``file:line`` of the Python code that makes it."""
    made_by: Literal["engine", "export", "precision"] = "engine"
    """Whose error it is: the engine's, the exporter's, whose graph differs from PyTorch here, or the precision's, which
    cannot hold this value in PyTorch either."""
    folded: tuple[str, ...] = ()
    """Other modules (or operators of its own) whose operations were folded into this one: they may be the wrong
    ones."""
    error: float | None = None
    """Relative L2 error made here, on the engine's own inputs; None where it was not measured or is not finite."""
    floor: float | None = None
    """What PyTorch loses there in the same precision."""
    explains: float | None = None
    """Share of the squared error of a wrong output that goes with this error, 0 to 1: what it alone gives, or what is
    left more without it, of the output where that is most; None where it could not be propagated. Of a precision: what
    PyTorch loses more where of all the culprits this one alone is not in FP32."""
    looks_like: ErrorShape | None = None
    """What the error looks like."""
    inside: str = ""
    """The kernel it was found in by replaying the kernel's operations one by one; empty for one that was observed."""
    alone: int | None = None
    """Operations of the smallest part of the graph that shows it when it is built alone; None where none was built or
    none showed it."""
    reason: str = ""
    """What is known beside the figures, such as ``reached 1.2e5, FP16 ends at 65504``."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Where the error of an engine is made, all of it."""

    culprits: tuple[Culprit, ...] = ()
    """The first explains the most, but what is no number comes before it; of equal ones the first in dataflow order.
    Empty where no place was found."""
    right_before: int = 0
    """Compared values before the first culprit that are right."""
    wrong_later: int = 0
    """Compared values that are wrong only because of the culprits."""
    compared: int = 0
    """Values that were compared."""
    left: float | None = None
    """Share of the squared error that the culprits together do not explain, of the wrong output where that is most;
    None where it could not be computed."""
    complete: bool = False
    """Whether there is no other culprit: what is left is within what an engine may lose, or 5 % where PyTorch in this
    precision loses as much as the engine."""
    observed: Observed = ""
    """What observing did to the wrong outputs: not a bit, rounding only, as much as the error in question, or it made
    them right; empty where nothing was observed."""

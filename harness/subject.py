"""What a suite declares: a subject, its cases and its targets. Plain data; nothing here runs anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Explicit limits; each one named replaces the derived limit, and the floor is still shown beside it."""

    why: str
    """Where the limits come from. Required, so that nobody has to guess why a limit was set."""
    relative_l2: float | None = None
    """Largest norm of the error over the norm of the reference."""
    max_absolute: float | None = None
    """Largest absolute error of any element, in the output's own unit."""
    cosine: float | None = None
    """Smallest cosine similarity."""

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise UsageError("Tolerance(...) needs why=: say where its limits come from")
        if (self.relative_l2, self.max_absolute, self.cosine) == (None, None, None):
            raise UsageError("Tolerance(...) sets no limit; give relative_l2=, max_absolute= or cosine=")


RANGE_CASES = ("smallest", "largest")
"""Names of the cases that are generated at the two ends of the declared ranges."""
Weights = Literal["trained", "random", "file"]
InputsKind = Literal["real", "random"]
PLAIN_PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True)
class Target:
    """One backend in one precision."""

    backend: str
    """``trt``, ``rtx``, ``ort-cpu``, ``ort-cuda`` or ``torch``."""
    precision: str
    """``fp32``, ``tf32``, ``fp16``, ``bf16`` or the path of a plan file."""

    @property
    def precision_name(self) -> str:
        """The precision as ids and tables show it: a plan file by its stem."""
        return self.precision if self.precision in PLAIN_PRECISIONS else Path(self.precision).stem

    def __str__(self) -> str:
        return f"{self.backend}-{self.precision_name}"


def targets(*backends: str, precisions: tuple[str, ...]) -> tuple[Target, ...]:
    """Return every backend in every precision."""
    return tuple(Target(backend, precision) for backend in backends for precision in precisions)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under test."""

    name: str
    """As typed after ``parity verify``."""
    build: Callable[[], torch.nn.Module] | None = None
    """Return the PyTorch module, FP32, in eval mode; called once. None for an ONNX file."""
    cases: Mapping[str, Callable[[], dict[str, torch.Tensor]]]
    """Inputs by case name; each call returns the keyword arguments of ``forward``, always the same ones."""
    targets: tuple[Target, ...]
    """What is verified by default."""
    weights: Weights
    """Where the weights come from; shown with every figure."""
    weights_source: str = ""
    """In words, with a version: the package, checkpoint or seed."""
    inputs: InputsKind = "random"
    """Whether the inputs are real data; shown with every figure."""
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Dynamic dimensions: input name -> {dimension: symbol}."""
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Smallest and largest size of every symbol in ``dynamic``."""
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    """Explicit limits by precision or by output name; each says why."""
    onnx: Path | Callable[[], Path] | None = None
    """The ONNX file, where the subject is one, or a function that returns its path; that may raise NotJudged, as where
    the package that carries the file is not installed."""
    locator: str = ""
    """What to type to reach it, where that is not its name; filled in by the command line."""
    typed: str = ""
    """What was typed to reach it, with the options that go with it, as a shell reads it; filled in as above."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Extra keyword arguments for ``torch.onnx.export``."""

    @property
    def as_typed(self) -> str:
        """What to type after ``parity verify`` to reach it, as a shell reads it."""
        file = None if callable(self.onnx) else self.onnx
        return self.typed or shlex.quote(str(file or self.locator or self.name))

    @property
    def onnx_file(self) -> Path:
        """The path of the ONNX file of a subject that is one."""
        assert self.onnx is not None
        return self.onnx() if callable(self.onnx) else self.onnx

    @property
    def range_cases(self) -> dict[str, dict[str, int]]:
        """The generated cases ``smallest`` and ``largest``: the sizes at the ends of the declared ranges, by symbol.

        Empty for an ONNX file, whose engine takes the shapes of its cases, and without a dynamic dimension. A case of
        the suite that has such a name stands in its place.
        """
        symbols = sorted({symbol for dims in self.dynamic.values() for symbol in dims.values()})
        if self.onnx is not None or not symbols:
            return {}
        ends = {name: {symbol: self.ranges[symbol][end] for symbol in symbols} for end, name in enumerate(RANGE_CASES)}
        return {name: sizes for name, sizes in ends.items() if name not in self.cases}

    def __post_init__(self) -> None:
        if (self.build is None) == (self.onnx is None):
            raise UsageError(f"subject {self.name!r} needs either build= (PyTorch) or onnx= (a file), and only one")
        if not self.cases:
            raise UsageError(f"subject {self.name!r} has no cases; give cases={{'name': function_returning_inputs}}")
        if not self.targets:
            raise UsageError(f"subject {self.name!r} has no targets; give targets=targets('rtx', precisions=('fp16',))")
        symbols = {symbol for dims in self.dynamic.values() for symbol in dims.values()}
        if missing := sorted(symbols - set(self.ranges)):
            raise UsageError(
                f"subject {self.name!r}: no range for dynamic dimension {', '.join(missing)}; add it to ranges="
            )

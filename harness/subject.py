"""What a suite declares: a subject, its cases and its targets. Plain data; nothing here runs anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness.dimensions import dimension, dimensions
from harness.errors import UsageError, suite_code
from harness.fields import described, named_fields, require, require_names, require_number, require_one_of
from harness.repository import content_of

if TYPE_CHECKING:
    import torch


@named_fields
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
        if not isinstance(self.why, str) or not self.why.strip():
            raise UsageError("Tolerance(...) needs why=: say where its limits come from")
        require_number("Tolerance(...): relative_l2", self.relative_l2, least=0)
        require_number("Tolerance(...): max_absolute", self.max_absolute, least=0)
        require_number("Tolerance(...): cosine", self.cosine, least=-1, most=1)
        if (self.relative_l2, self.max_absolute, self.cosine) == (None, None, None):
            raise UsageError("Tolerance(...) sets no limit; give relative_l2=, max_absolute= or cosine=")


RANGE_CASES = ("smallest", "largest")
"""Names of the cases that are generated at the two ends of the declared ranges."""
Weights = Literal["trained", "random", "file"]
InputsKind = Literal["real", "random"]
PLAIN_PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
FILE = "file"
"""The precision that leaves an ONNX file typed as it is."""
NAMED_PRECISIONS = (*PLAIN_PRECISIONS, FILE)
"""What a precision may be without being a plan file."""


@dataclass(frozen=True)
class Target:
    """One backend in one precision."""

    backend: str
    """``trt``, ``rtx``, ``ort-cpu``, ``ort-cuda`` or ``torch``."""
    precision: str
    """``fp32``, ``tf32``, ``fp16``, ``bf16``, ``file`` (an ONNX file as it is typed) or the path of a plan file."""

    def __post_init__(self) -> None:
        for name, value, give in (
            ("backend", self.backend, "its name, such as 'rtx'"),
            ("precision", self.precision, "its name, such as 'fp16', or the path of a plan file"),
        ):
            require(isinstance(value, str), f"Target(...): the {name}", value, f"{give}, as text")
        if self.precision not in NAMED_PRECISIONS and self.precision_name in NAMED_PRECISIONS:
            raise UsageError(f"the plan {self.precision} has the name of a precision; give it another")

    @property
    def precision_name(self) -> str:
        """The precision as ids and tables show it: a plan file by its stem."""
        return self.precision if self.precision in NAMED_PRECISIONS else Path(self.precision).stem

    def plan_source(self, root: Path) -> str:
        """Return which plan file of a repository it is, with its content's hash; empty for a plain precision."""
        return "" if self.precision in NAMED_PRECISIONS else content_of(root, self.precision)

    def __str__(self) -> str:
        return f"{self.backend}-{self.precision_name}"


def targets(*backends: str, precisions: Iterable[str]) -> tuple[Target, ...]:
    """Return every backend in every precision."""
    if isinstance(precisions, str):
        raise UsageError(f"targets(...): precisions is {precisions!r}; give a tuple, such as ({precisions!r},)")
    chosen = tuple(precisions)
    return tuple(Target(backend, precision) for backend in backends for precision in chosen)


@named_fields
@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under test."""

    name: str
    """As typed after ``parity verify``."""
    build: Callable[[], torch.nn.Module] | None = None
    """Return the PyTorch module, FP32, in eval mode; called once. None for an ONNX file."""
    cases: Mapping[str, Callable[[], Mapping[str, Any]]]
    """Inputs by case name; each call returns the keyword arguments of ``forward``, always the same ones: tensors, or
    what holds tensors at any depth (lists, dicts, dataclasses, caches), whose names are then paths."""
    targets: tuple[Target, ...]
    """What is verified by default."""
    weights: Weights
    """Where the weights come from; shown with every figure."""
    weights_source: str = ""
    """In words, with a version: the package, checkpoint or seed."""
    inputs: InputsKind = "random"
    """Whether the inputs are real data; shown with every figure."""
    dynamic: Mapping[str, Mapping[int, str | None]] = field(default_factory=dict)
    """Dynamic dimensions: input name -> {dimension: symbol}; a nested input goes by its path, ``past.0.key``. What
    follows from a symbol is ``4*frames`` or ``past+1``; None leaves a dimension to the exporter (docs/suites.md)."""
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Smallest and largest size of every symbol in ``dynamic``."""
    valid: Mapping[str, Callable[[Mapping[str, Any]], torch.Tensor]] = field(default_factory=dict)
    """Which elements of an output count, where not all do: output name -> function of a case's inputs that returns
    booleans, with as many dimensions as the output, each of its size or 1 (docs/suites.md)."""
    parts_valid: Mapping[str, Callable[[Mapping[str, Any]], torch.Tensor]] = field(default_factory=dict)
    """The same of the parts of ``parity parts``: ``MODULE:OUTPUT``, such as ``encoder.layer.*:output`` where ``*`` is
    any name between two dots -> function of the inputs of the whole model (docs/bring-up.md)."""
    given: Mapping[str, Callable[[], Mapping[str, torch.Tensor]]] = field(default_factory=dict)
    """Outputs that come with a case, by case: those of ``--cases``, or of another program. Where PyTorch FP32 confirms
    them they are the reference; where it does not, the request is wrong."""
    from_file: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] | None = None
    """Makes of what a file of ``--cases`` holds the inputs and outputs by their names, dtypes and shapes here, where
    those in the file are others."""
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    """Explicit limits by precision or by output name; each says why."""
    onnx: Path | Callable[[], Path] | None = None
    """The ONNX file, where the subject is one, or a function that returns its path; that may raise NotJudged, as where
    the package that carries the file is not installed."""
    weights_files: Sequence[str | Path] | Callable[[], Sequence[str | Path]] | None = None
    """The files that ``build`` reads its weights from, or folders of them, below the repository or absolute; ``()`` for
    none. With it a module of which nothing has changed is not built again (docs/modules.md), else always."""
    locator: str = ""
    """What to type to reach it, where that is not its name; filled in by the command line."""
    source: str = ""
    """What declares it: a suite's file or an ONNX file, below the repository; filled in when it is found."""
    typed: str = ""
    """What was typed to reach it, with the options that go with it, as a shell reads it; filled in as above."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Extra keyword arguments for ``torch.onnx.export``."""
    parts: str = ""
    """The module whose children are the parts of ``parity parts`` and ``test_parts``, such as ``encoder.layer``; empty:
    the first level that has several."""
    owner: str = ""
    """Who answers for it: a team or a person, shown with what fails."""
    fold_bias: bool = False
    """Of an ONNX file: an INT32 bias and its DequantizeLinear become the floats that they give, as TensorRT needs."""
    quant_exclude: tuple[str, ...] = ()
    """Of a QDQ file: the operators that read floats all the same, by node names or patterns; plans give them too."""
    quantised: str | Path | Callable[[], torch.nn.Module] | None = None
    """The quantised model of a subject: an ONNX file, or a function that returns a module. It takes the subject's
    place, and the subject as it is declared becomes ``against``."""
    against: Subject | None = None
    """The unquantised subject, with the same inputs by name and shape: what quantisation costs is the distance from
    its FP32 outputs."""
    cost: Tolerance | Mapping[str, Tolerance] | None = None
    """What quantisation may cost: one limit for every output, or one by output name. Parity has limits of its own."""
    cost_metrics: Sequence[Any] = ()
    """Task metrics (:class:`harness.metrics.Metric`) of the engine's outputs against those of ``against``."""

    @property
    def as_typed(self) -> str:
        """What to type after ``parity verify`` to reach it, as a shell reads it."""
        file = None if callable(self.onnx) else self.onnx
        return self.typed or shlex.quote(str(file or self.locator or self.name))

    @property
    def onnx_file(self) -> Path:
        """The path of the ONNX file of a subject that is one."""
        assert self.onnx is not None
        if not callable(self.onnx):
            return Path(self.onnx)
        what = f"{self.name}: onnx()"
        with suite_code(what):
            path: object = self.onnx()
        if not isinstance(path, (str, Path)):
            raise UsageError(f"{what} is {described(path)}; return the path of an ONNX file")
        return Path(path)

    @property
    def range_cases(self) -> dict[str, dict[str, int]]:
        """The generated cases ``smallest`` and ``largest``: the sizes at the ends of the declared ranges, by symbol.

        Empty for an ONNX file, whose engine takes the shapes of its cases, without a dynamic dimension, and with one
        that is left to the exporter: nobody says what it would be. A case of the suite that has such a name stands in
        its place.
        """
        symbols = sorted({found.symbol for _, _, found in dimensions(self.dynamic)})
        left = any(symbol is None for dims in self.dynamic.values() for symbol in dims.values())
        if self.onnx is not None or not symbols or left:
            return {}
        ends = {name: {symbol: self.ranges[symbol][end] for symbol in symbols} for end, name in enumerate(RANGE_CASES)}
        return {name: sizes for name, sizes in ends.items() if name not in self.cases}

    def __post_init__(self) -> None:
        require(isinstance(self.name, str) and self.name.strip(), "Subject(...): name", self.name, "text")
        what = f"subject {self.name!r}"
        self._take_quantised(what)
        if (self.build is None) == (self.onnx is None):
            raise UsageError(f"{what} needs either build= (PyTorch) or onnx= (a file), and only one")
        require(self.build is None or callable(self.build), f"{what}: build", self.build, "a function")
        is_file = isinstance(self.onnx, (str, Path)) or callable(self.onnx)
        require(self.onnx is None or is_file, f"{what}: onnx", self.onnx, "a path, or a function that returns one")
        require_names(f"{what}: cases", self.cases, callable, "functions that return inputs, such as lambda: {...}")
        if not self.cases:
            raise UsageError(f"{what} has no cases; give cases={{'name': function_returning_inputs}}")
        self._check_targets(what)
        require_one_of(get_args(Weights), f"{what}: weights", self.weights)
        require_one_of(get_args(InputsKind), f"{what}: inputs", self.inputs)
        require(isinstance(self.weights_source, str), f"{what}: weights_source", self.weights_source, "text")
        give = "the path of a module, such as 'encoder.layer'"
        require(isinstance(self.parts, str), f"{what}: parts", self.parts, give)
        require(isinstance(self.owner, str), f"{what}: owner", self.owner, "text, such as 'team-x'")
        require_names(f"{what}: valid", self.valid, callable, "functions of the inputs, such as lambda inputs: ...")
        require_names(f"{what}: parts_valid", self.parts_valid, callable, "functions of the inputs of the model")
        for key in self.parts_valid:
            named = all(key.partition(":")[::2])
            require(named, f"{what}: a key of parts_valid", key, "MODULE:OUTPUT, such as 'encoder.layer.*:output'")
        require_names(f"{what}: given", self.given, callable, "functions that return outputs")
        for case in self.given:
            require_one_of(self.cases, f"{what}: a case of given", case)
        give = "a function of a file's tensors by name"
        require(self.from_file is None or callable(self.from_file), f"{what}: from_file", self.from_file, give)
        require_names(f"{what}: tolerances", self.tolerances, lambda it: isinstance(it, Tolerance), "Tolerance(...)")
        files = self.weights_files
        are_paths = isinstance(files, (list, tuple)) and all(isinstance(it, (str, Path)) for it in files)
        give = "a tuple of paths, or a function that returns one"
        require(files is None or callable(files) or are_paths, f"{what}: weights_files", files, give)
        require(files is None or self.onnx is None, f"{what}: weights_files", files, "it for a module only")
        require_names(f"{what}: options", self.options, lambda it: True, "options of torch.onnx.export")
        self._check_sizes(what)
        self._check_cost(what)
        names = isinstance(self.quant_exclude, (list, tuple)) and all(isinstance(it, str) for it in self.quant_exclude)
        require(names, f"{what}: quant_exclude", self.quant_exclude, "a tuple of node names")
        if self.quant_exclude and self.onnx is None:
            raise UsageError(f"{what}: quant_exclude= is for an ONNX file with Q/DQ")
        if self.fold_bias and self.onnx is None:
            raise UsageError(f"{what}: fold_bias= (--fold-bias) is for an ONNX file; a module keeps its bias in floats")

    def _take_quantised(self, what: str) -> None:
        """Put the quantised model in the place of the one declared, which becomes ``against``."""
        model = self.quantised
        if model is None:
            return
        is_file = isinstance(model, (str, Path))
        require(
            is_file or callable(model), f"{what}: quantised", model, "an ONNX file or a function returning a module"
        )
        if self.against is not None:
            raise UsageError(f"{what} has quantised= and against=, which say the same; leave one of them out")
        plain: dict[str, Any] = {
            "quantised": None,
            "cost": None,
            "cost_metrics": (),
            "tolerances": {},
            "fold_bias": False,
        }
        fields: dict[str, Any] = {"quantised": None, "weights_files": None, "given": {}}
        fields["against"] = replace(self, name=f"{self.name}-unquantised", **plain)
        if is_file:
            fields |= {"build": None, "onnx": model, "dynamic": {}, "ranges": {}, "options": {}}
        else:
            fields |= {"build": model, "onnx": None}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _check_cost(self, what: str) -> None:
        """Raise UsageError for limits of the cost of quantisation that limit nothing."""
        limits = self.cost if isinstance(self.cost, Mapping) else {} if self.cost is None else {"": self.cost}
        give = "Tolerance(...), or a dict of them by output"
        require(all(isinstance(one, Tolerance) for one in limits.values()), f"{what}: cost", self.cost, give)
        give = "a tuple of harness.metrics.Metric(...)"
        require(isinstance(self.cost_metrics, (list, tuple)), f"{what}: cost_metrics", self.cost_metrics, give)
        for metric in self.cost_metrics:
            is_metric = callable(getattr(metric, "function", None)) and hasattr(metric, "bound")
            require(is_metric, f"{what}: one of cost_metrics", metric, give)
        require(
            self.against is None or isinstance(self.against, Subject), f"{what}: against", self.against, "a Subject"
        )
        if self.against is None and (limits or self.cost_metrics):
            raise UsageError(f"{what} limits the cost of quantisation, but names no unquantised model; give quantised=")

    def _check_targets(self, what: str) -> None:
        give = "a tuple of them: targets=targets('rtx', precisions=('fp16',))"
        require(isinstance(self.targets, (list, tuple)), f"{what}: targets", self.targets, give)
        for target in self.targets:
            require(isinstance(target, Target), f"{what}: one of targets", target, give)
        if not self.targets:
            raise UsageError(f"{what} has no targets; give targets=targets('rtx', precisions=('fp16',))")
        object.__setattr__(self, "targets", tuple(dict.fromkeys(self.targets)))
        check_distinct(self.targets)

    def _check_sizes(self, what: str) -> None:
        """Raise UsageError where ``dynamic`` and ``ranges`` are not sizes of dimensions that belong together."""
        give = "{dimension: symbol}, such as {0: 'batch'}"
        require_names(f"{what}: dynamic", self.dynamic, lambda dims: isinstance(dims, Mapping), give)
        for name, dims in self.dynamic.items():
            for axis, symbol in dims.items():
                is_axis = isinstance(axis, int) and not isinstance(axis, bool) and axis >= 0
                where = f"{what}: dynamic[{name!r}]"
                require(is_axis, f"{where}: a dimension", axis, "its number, counted from 0")
                require(
                    symbol is None or dimension(symbol), f"{where}: the symbol of dimension {axis}", symbol,
                    "a name of letters, digits and _, what follows from one, such as '4*name' or 'name+1', or None for "
                    "what the exporter finds",
                )  # fmt: skip
        symbols = {found.symbol for _, _, found in dimensions(self.dynamic)}
        if not isinstance(self.ranges, Mapping):
            raise UsageError(f"{what}: ranges is {described(self.ranges)}; give {{symbol: (smallest, largest)}}")
        if missing := sorted(symbols - set(self.ranges)):
            raise UsageError(f"{what}: no range for dynamic dimension {', '.join(missing)}; add it to ranges=")
        for symbol, ends in self.ranges.items():
            if symbol not in symbols:
                raise UsageError(f"{what}: ranges has {symbol!r}, which no dimension of dynamic= is called")
            sizes = isinstance(ends, (list, tuple)) and len(ends) == 2 and all(type(end) is int for end in ends)
            require(
                sizes and 0 <= ends[0] <= ends[1] < 2**31, f"{what}: ranges[{symbol!r}]", ends,
                "(smallest, largest), two whole numbers below 2**31",
            )  # fmt: skip
        for name, axis, found in dimensions(self.dynamic):
            least, most = (found.size(end) for end in self.ranges[found.symbol])
            where = f"{what}: dynamic[{name!r}]: dimension {axis}"
            require(least >= 0 and most < 2**31, where, self.dynamic[name][axis], "sizes from 0 to below 2**31")
        if self.onnx is not None and (useless := [name for name in ("dynamic", "options") if getattr(self, name)]):
            raise UsageError(f"{what}: {useless[0]}= is for a PyTorch module; an ONNX file has the shapes of its cases")


def check_distinct(targets: Sequence[Target]) -> None:
    """Raise UsageError for two targets that go by one name: the result of one would take the place of the other's."""
    for one, other in combinations(dict.fromkeys(targets), 2):
        if str(one) == str(other):
            raise UsageError(f"{one.precision} and {other.precision} are both called {one}; rename one of the plans")

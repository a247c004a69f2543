"""What observing an engine's values found, as data: the error of each, and where it was made. See docs/json.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from harness.records.data import TargetRecord
from harness.records.diagnosis import Diagnosis, ErrorShape, Observed

if TYPE_CHECKING:
    from harness.records.stats import ErrorStats


Status = Literal["compared", "inner", "unmapped", "not_delivered", "not_compared"]
Mark = Literal["nonfinite", "flip", "suspect", "not_judged", "passed_on", "healed", "ok"]
MARKS: tuple[Mark, ...] = get_args(Mark)
"""From the worst to the best."""
MADE_HERE: tuple[Mark, ...] = ("nonfinite", "flip", "suspect")
"""Of values whose error is made where they are, and reaches the outputs as far as that is known."""
HARMLESS: Mark = "healed"
"""Made here, and dies out before the outputs; recorded documents keep the older word."""


@dataclass(frozen=True, kw_only=True)
class ValueFinding:
    """One value, or one tensor of the engine that is no value of the graph."""

    name: str
    """The value's name in the exported program or the ONNX graph; for an unmapped tensor the engine's own name."""
    op: str
    """The operator that makes it; for an unmapped tensor the kernel."""
    module: str
    """Dotted path of its PyTorch module; empty at the root or where it is not known."""
    source: str
    """``file:line`` of the Python code that makes it."""
    folded: tuple[str, ...] = ()
    """Other modules (or operators of its own) whose operations were folded into this value: they may be the wrong
    ones."""
    depth: int
    """Position in dataflow order, from 0."""
    status: Status
    """``compared``; ``inner`` (a kernel's own statistic, such as the mean of a fused normalisation); ``unmapped``;
    ``not_delivered`` (fused away, so no tap shows it); ``not_compared`` (integer, empty: see the reason)."""
    reason: str = ""
    """Why it was not compared, or what the mark means here; one sentence."""
    kernel: str = ""
    """The engine's kernel that made it."""
    tap: str = ""
    """The engine's name for it."""
    mapped_by: str = ""
    """``name``, ``contents`` or ``exact`` (the backend uses the graph's own names)."""
    layout: str = ""
    """How it lay in the engine: empty for as it is, ``strided``, ``permuted (0, 2, 1)``, ``padded``, ``part of x``."""
    stats: ErrorStats | None = None
    """The engine's value against the reference's: the accumulated error."""
    floor: float | None = None
    """Relative L2 error of the same value in PyTorch in the same precision, against the same reference."""
    local: float | None = None
    """Relative L2 error made here: against a replay of this region in the reference's precision on the engine's own
    inputs."""
    local_floor: float | None = None
    """The same replay in the plan's precision against the one in the reference's: what PyTorch loses in this region."""
    local_bias: float | None = None
    """Mean of the local error over its RMS, from -1 to 1: a bias adds up with depth where noise does not."""
    effect: float | None = None
    """Relative L2 error of the network outputs if only this region were as wrong as it is; None where it was not
    computed."""
    largest: float | None = None
    """Largest finite magnitude of the engine's value."""
    looks_like: ErrorShape | None = None
    """What its local error looks like; None for a value that is as good as PyTorch."""
    mark: Mark = "not_judged"
    """``ok``; ``suspect`` (made here, reaches the outputs); ``healed`` (made here, dies out); ``passed_on`` (wrong, but
    not made here); ``nonfinite``; ``flip`` (a discrete decision fell otherwise)."""


@dataclass(frozen=True, kw_only=True)
class ModuleFinding:
    """One module: the worst of its values."""

    module: str
    """Dotted path; empty for operations at the root."""
    values: int
    """Values of it that were compared."""
    worst: str
    """The value with the largest local error against its local floor."""
    op: str
    """The operator of that value."""
    local: float | None
    """Its local error."""
    local_floor: float | None
    """Its local floor."""
    propagated: float | None
    """Accumulated relative L2 error of the module's last value."""
    floor: float | None
    """The floor of that last value."""
    share: float | None
    """Effect of the module's local errors on the outputs, squared, over the squared error of the outputs; the shares of
    independent errors add up to 1. None where it was not computed."""
    mark: Mark
    """The worst mark of its values."""


@dataclass(frozen=True, kw_only=True)
class OutputEffect:
    """What observing did to one output."""

    name: str
    """Its declared name."""
    identical: bool
    """Whether the tapped engine gave the same bits as the untapped one."""
    difference: float
    """Relative L2 distance of the tapped engine's output from the untapped one's; infinite when only one is finite."""
    error: float
    """Relative L2 error of the untapped engine's output against the reference; infinite when it is not finite."""
    observed: Observed = ""
    """What that means, by the limits of the verdict. An output that passes is ``changed`` when observing made it fail.
    One that fails is ``hidden`` when the observed one passes, and ``changed`` when it fails by another error: the two
    differ by more than half of what is wrong. Else ``unchanged``, not by a bit, or ``rounding``; empty in older
    documents."""


@dataclass(frozen=True, kw_only=True)
class LayerReport(TargetRecord):
    """Every value of one engine, for one case."""

    mode: str
    """``unfused`` or ``outputs``."""
    values: tuple[ValueFinding, ...]
    """In dataflow order; nothing is left out."""
    modules: tuple[ModuleFinding, ...]
    """Worst first."""
    observer: tuple[OutputEffect, ...]
    """What observing did to the outputs."""
    trusted: bool
    """False when an output is ``changed`` or ``hidden``: what was observed is not what is wrong."""
    diagnosis: Diagnosis | None = None
    """Where the error of the outputs is made; None where the outputs are right."""
    first_nonfinite: str = ""
    """The first value that is non-finite while all it is computed from is finite; empty where there is none."""
    weights: str = ""
    """``trained``, ``random`` or ``file``."""
    inputs: str = ""
    """``real`` or ``random``."""
    device: str = ""
    """Where the engine ran: a GPU's name, or ``CPU``."""
    notes: tuple[str, ...] = ()
    """What was not seen and why, whether the observation can be trusted, and what to use instead."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Where the time went."""

"""What bringing up a model part by part found, as data. See docs/json.md."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import Failure
from harness.records.data import ResultVerdict, TargetRecord
from harness.records.known import Known


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """One module of a model, or the model cut after it, as an engine of its own."""

    module: str
    """Its dotted path, with ``#2`` for the second call of a module that is called more than once."""
    kind: str
    """The name of its class."""
    verdict: ResultVerdict
    """``pass``, ``fail``, ``not_judged``, or ``known``: it fails as the ledger says."""
    reason: str
    """One sentence: the worst output, what was found and what was allowed; or why there is no verdict."""
    failure: Failure = ""
    """As of a result."""
    reached: bool = True
    """False for a part behind the one at which the run stopped."""
    output: str = ""
    """The output that ``error``, ``floor`` and ``ratio`` are of: of those of this verdict the worst; empty without."""
    error: float | None = None
    """Relative L2 error of the engine against the reference on the reference's inputs."""
    floor: float | None = None
    """The same of PyTorch in the engine's precision: what the part itself loses there."""
    ratio: float | None = None
    """Error over floor; None without either, and where the floor is 0."""
    times_limit: float | None = None
    """How many times its limit the worst figure of what failed loses; None without such a figure."""
    shapes: dict[str, tuple[int, ...]]
    """The shapes of its inputs."""
    engine_sha256: str = ""
    """Hash of its engine file; empty where there is none."""
    seconds: float = 0.0
    """What its verdict took."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures."""
    next_step: str = ""
    """What to type next where it failed."""
    known: Known | None = None
    """The entry of the ledger that names it, whether it covers the verdict or not; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class BringUp(TargetRecord):
    """The parts of a model in the order in which they run, each judged by itself."""

    prefix: str
    """The module whose children they are; empty for the model itself."""
    upto: str
    """The module after which the last model is cut, where models are cut; empty where each part is alone."""
    verdict: ResultVerdict
    """``pass`` where every part passed, ``fail`` where one failed, ``not_judged`` where one was not judged, else
    ``known``."""
    reason: str
    """One sentence: the first part that failed, or was not judged."""
    weights: str
    """``trained``, ``random`` or ``file``."""
    inputs: str
    """``real`` or ``random``."""
    device: str = ""
    """What the engines ran on: a GPU's name, or ``CPU``; empty where none ran."""
    parts: tuple[ModelPart, ...] = ()
    """In the order in which they run."""
    not_run: tuple[str, ...] = ()
    """Modules beside them that no case runs."""
    owner: str = ""
    """Who answers for the subject."""

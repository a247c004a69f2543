"""Accuracy over time as data: what one run found of one engine's outputs, and the trend of each output over runs.

docs/json.md documents the JSON; docs/history.md says how a change is found.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.records.data import JsonRecord, TargetRecord, Verdict, plain


@dataclass(frozen=True, kw_only=True)
class OutputAccuracy:
    """One output in one run."""

    name: str
    """Its declared name."""
    verdict: Verdict
    """``pass``, ``fail`` or ``not_judged``."""
    error: float | None = None
    """Relative L2 error of the engine; None where there is none or it is not finite."""
    floor: float | None = None
    """The same of PyTorch in the engine's precision; None where there is no floor."""
    limit: float | None = None
    """The largest error that was allowed; None where no limit was applied."""

    @property
    def ratio(self) -> float | None:
        """Error over floor; None without either, and where the floor is 0."""
        return self.error / self.floor if self.error is not None and self.floor else None


@dataclass(frozen=True, kw_only=True)
class AccuracyRun(TargetRecord):
    """What one run found of one engine's outputs: one record of the history."""

    id: str
    """Unique; a record is never written twice."""
    recorded_at: str
    """UTC, ISO 8601."""
    run: str
    """Id of the run: of several records of one run and one series the worst verdict counts, once."""
    machine_key: str
    """Hash of the kind of device: the GPU's name, or the CPU's. Driver and versions are not in it."""
    device: str
    """The GPU's name, the CPU's, or ``unknown`` where nothing ran."""
    verdict: Verdict
    """On the engine as a whole."""
    reason: str = ""
    """Why, where it did not pass."""
    model: str = ""
    """Hash of the weights and the inputs; empty where the subject could not be made ready."""
    weights: str = ""
    """``trained``, ``random`` or ``file``."""
    inputs: str = ""
    """``real`` or ``random``."""
    sample: str = ""
    """How the inputs of a generated case were made; empty for a case of the suite."""
    engine_sha256: str = ""
    """Hash of the engine file; empty where there is none."""
    commit: str = ""
    """Of the suite's repository, with ``+changes``; empty outside git."""
    host: str = ""
    """Name of the computer."""
    versions: dict[str, str] = field(default_factory=dict)
    """By name: the backend's library, driver, CUDA, torch, onnx, onnxscript, trt-parity with a hash of its code."""
    seconds: float | None = None
    """What its tests took, with the build of an engine that was in the cache; None where that is not known."""
    outputs: tuple[OutputAccuracy, ...] = ()
    """Every output; empty when the engine did not run."""

    @property
    def benchmark(self) -> str:
        """The series, without the machine: another model, plan or precision is another one, another version is not."""
        named = f"{self.subject}/{self.case}/{self.backend}-{self.precision}/accuracy"
        return "/".join(part for part in (named, self.model, self.source, self.plan_source) if part)

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys, with ``benchmark`` and each ``ratio`` beside the fields."""
        outputs = [{**dataclasses.asdict(output), "ratio": output.ratio} for output in self.outputs]
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        data: dict[str, Any] = plain({**fields, "outputs": outputs, "benchmark": self.benchmark})
        return data


def accuracy_run_from_json(data: dict[str, Any]) -> AccuracyRun:
    """Return the record that ``AccuracyRun.to_json`` wrote. Raises TypeError, KeyError or ValueError for anything else.

    Fields that a later version added are left out.
    """
    outputs = tuple(_output(one) for one in data["outputs"])
    known = {one.name for one in dataclasses.fields(AccuracyRun)}
    found = AccuracyRun(**{**{name: value for name, value in data.items() if name in known}, "outputs": outputs})
    if found.verdict not in get_args(Verdict):
        raise ValueError(f"its verdict is {found.verdict!r}")
    if not _is_figure(found.seconds):
        raise ValueError(f"its time of {found.seconds!r} is no finite number from 0 on")
    return found


def _output(data: dict[str, Any]) -> OutputAccuracy:
    known = {one.name for one in dataclasses.fields(OutputAccuracy)}
    found = OutputAccuracy(**{name: value for name, value in data.items() if name in known})
    if not all(map(_is_figure, (found.error, found.floor, found.limit))):
        raise ValueError(f"a figure of the output {found.name!r} is no finite number from 0 on")
    if found.verdict not in get_args(Verdict):
        raise ValueError(f"the verdict of the output {found.name!r} is {found.verdict!r}")
    return found


def _is_figure(value: Any) -> bool:
    """Return whether this is None, or a finite number from 0 on."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf)


@dataclass(frozen=True, kw_only=True)
class VersionChange:
    """What was another one from one run to the next."""

    name: str
    """As in ``AccuracyRun.versions``; also ``commit``, ``host`` and ``engine``."""
    before: str
    """Empty where it was not known."""
    after: str
    """Likewise."""


@dataclass(frozen=True, kw_only=True)
class RatioChange:
    """A lasting change of an output's ratio to its floor."""

    index: int
    """Position of the first point of the new level, or of the rise."""
    before: float
    """Median of the ratios before it, back to the change before this one."""
    after: float
    """Median of those after it, up to the next change; of a creep the newest."""
    shape: Literal["step", "creep"]
    """Whether the level changed at once or little by little."""
    runs_after: int
    """Points that passed from it on, up to the next change."""
    recorded_at: str = ""
    """Of the point."""
    run: str = ""
    """Of the point."""
    changed: tuple[VersionChange, ...] = ()
    """What changed there, versions first: at the point itself, else at the nearest of three points to both sides."""
    runs_away: int = 0
    """How many points from there versions changed: below 0 before it, above 0 after it."""


@dataclass(frozen=True, kw_only=True)
class AccuracyPoint:
    """One output in one run, as a trend shows it."""

    run: str
    """Id of the run."""
    recorded_at: str
    """UTC, ISO 8601."""
    ratio: float | None
    """Error over floor; None where it is not known."""
    verdict: Verdict
    """On the output; ``not_judged`` also where the engine did not run."""


@dataclass(frozen=True, kw_only=True)
class AccuracyTrend(TargetRecord, JsonRecord):
    """One output of one engine on one kind of device, over the runs that the history holds."""

    benchmark: str
    """As of the records."""
    machine_key: str
    """Likewise."""
    device: str
    """The GPU's name, or the CPU's."""
    output: str
    """Its name; empty for an engine that never ran."""
    model: str = ""
    """As of the records."""
    weights: str = ""
    """``trained``, ``random`` or ``file``."""
    inputs: str = ""
    """``real`` or ``random``."""
    points: tuple[AccuracyPoint, ...]
    """Oldest first, one of each run; at most the newest hundred."""
    failed: int = 0
    """How many of them failed."""
    not_judged: int = 0
    """How many were not judged."""
    first: float | None = None
    """Ratio of the oldest that passed."""
    median: float | None = None
    """Of those that passed."""
    last: float | None = None
    """Ratio of the newest that passed."""
    limit: float | None = None
    """What was last allowed, in floors; None where it is not known."""
    change_points: tuple[RatioChange, ...] = ()
    """Oldest first."""
    creeps: bool = False
    """Whether the newest change is a rise: that is what warns."""
    accepted: str = ""
    """Why the level from the oldest of the points on was accepted; empty where none was."""

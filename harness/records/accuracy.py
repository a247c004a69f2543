"""What a run found, as data: one Result per subject, case and target. docs/json.md documents the JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import Failure
from harness.records.codes import CodesResult
from harness.records.contradictions import settled_result
from harness.records.data import ResultVerdict, TargetRecord, Verdict, plain
from harness.records.decisions import Decisions
from harness.records.diagnosis import ErrorShape
from harness.records.known import Known
from harness.records.parts import PartResult
from harness.records.stats import ErrorStats
from harness.sentences import Sentence, joined

if TYPE_CHECKING:
    from harness.records.layers import LayerReport


@dataclass(frozen=True, kw_only=True)
class OutputResult:
    """One network output."""

    name: str
    """Its declared name."""
    verdict: Verdict
    """``pass``, ``fail`` or ``not_judged``."""
    reason: str
    """One sentence: what was found and what was allowed."""
    stats: ErrorStats | None = None
    """The engine against the reference; None when they could not be compared."""
    floor: ErrorStats | None = None
    """PyTorch in the same precision against the same reference; None when it could not be had."""
    decisions: Decisions | None = None
    """The counts of an output of integers or booleans, which has no ``stats``; None for floats."""
    valid: int | None = None
    """How many elements count, where a suite's ``valid=`` leaves some out; None where all do."""
    allowed: dict[str, float] = field(default_factory=dict)
    """The limits that were applied, by figure name."""
    parts: tuple[PartResult, ...] = ()
    """The whole and the worst of its parts, with their limits; empty where nothing was held against a floor."""
    tf32_sized: bool = False
    """Whether an FP32 engine failed by about what TF32 loses: then it computes in TF32."""
    looks_like: ErrorShape | None = None
    """What the error of an output that failed looks like; None for any other."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys."""
        figures = self.stats.to_json() if self.stats else {}
        return {
            **figures,
            "name": self.name,
            "verdict": self.verdict,
            "reason": self.reason,
            "floor": self.floor.to_json() if self.floor else None,
            "decisions": self.decisions.to_json() if self.decisions else None,
            "valid": self.valid,
            "allowed": self.allowed,
            "parts": [part.to_json() for part in self.parts],
            "tf32_sized": self.tf32_sized,
            "looks_like": dataclasses.asdict(self.looks_like) if self.looks_like else None,
        }


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """One task metric of a suite, such as the similarity of sentence pairs."""

    name: str
    """The metric's name."""
    verdict: Verdict
    """``pass``, ``fail`` or ``not_judged``."""
    reason: str
    """One sentence: what was measured and what was allowed."""
    actual: float
    """The metric of the engine's outputs."""
    expected: float
    """The metric of the reference's outputs; NaN where the metric itself compares the two."""
    allowed: float
    """The limit that ``bound`` names."""
    bound: Literal["difference", "at_most", "at_least"] = "difference"
    """What is limited: the difference of ``actual`` and ``expected``, or ``actual`` itself, from above or below."""
    direction: Literal["lower", "higher", ""] = ""
    """Which values of the metric are better; empty where the suite does not say."""
    note: str = ""
    """What must be read beside the number: random weights, the normaliser."""


@dataclass(frozen=True, kw_only=True)
class CostResult:
    """What quantisation costs: the engine against the unquantised subject in FP32. It is no part of parity."""

    against: str
    """Name of the unquantised subject."""
    verdict: Verdict
    """``pass``, ``fail`` or ``not_judged``: without a limit there is no other."""
    reason: str
    """One sentence: what was found and what was allowed."""
    weights_sha256: str = ""
    """Hash of the unquantised subject's weights; empty where it could not be computed."""
    outputs: tuple[OutputResult, ...] = ()
    """Every output against the unquantised one; there is no floor."""
    metrics: tuple[MetricResult, ...] = ()
    """The task metrics that limit the cost."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        result: dict[str, Any] = plain({**data, "outputs": [output.to_json() for output in self.outputs]})
        return result


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """The engine a verdict is about."""

    sha256: str
    """Hash of the engine file."""
    path: str
    """Where the file lies."""
    cached: bool
    """True when it was built by an earlier run, or by another runner."""
    build_s: float
    """Seconds the build took, whenever it was."""
    bytes: int
    """Size of the file."""
    layers: int | None = None
    """Layers that the backend counts in it; None where it does not tell."""
    notes: tuple[str, ...] = ()
    """What its build had to note."""
    origin: str = ""
    """``built`` by this run, ``cached`` where an earlier run left it here, ``remote``: downloaded by this run."""
    fetched_from: str = ""
    """The shared engine cache that it was downloaded from, by this run or an earlier one; empty where built here."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the figures come from."""

    weights: str
    """``trained``, ``random`` or ``file``."""
    weights_source: str
    """Where the weights come from, in words."""
    weights_sha256: str
    """Hash of names, dtypes, shapes and bytes of the weights."""
    inputs: str
    """``real`` or ``random``."""
    inputs_sha256: str
    """The same of the case's inputs."""
    program_sha256: str
    """Hash of the traced program, or of the ONNX graph."""
    commit: str
    """The commit of the suite's repository, with ``+changes`` when its tree is not clean; empty outside git."""
    reference: str
    """``computed`` or ``stored``, in which dtype and on which device."""
    device: str
    """Where the engine ran: a GPU's name, or ``CPU``."""
    gpu: str = ""
    """That GPU's UUID; empty on the CPU."""
    plan: dict[str, Any] = field(default_factory=dict)
    """The precision plan: dtype, and the patterns kept in FP32."""
    valid_sha256: str = ""
    """Hash of the masks of what counts; empty where all elements do."""
    module: str = ""
    """``built`` in this run, ``not rebuilt`` where nothing that it is built from has changed since an earlier run built
    it, or then ``built, not traced``, for its weights alone; empty for an ONNX file."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One of several attempts at a verdict."""

    verdict: ResultVerdict
    failure: Failure
    """The class of its failure."""
    reason: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class Result(TargetRecord):
    """The verdict on one subject, case and target."""

    verdict: ResultVerdict
    """``pass``, ``fail``, ``not_judged``, or ``known``: it fails as the ledger says."""
    reason: str
    """One sentence: the worst output, what was found and what was allowed."""
    failure: Failure = ""
    """What class of failure it is; empty where it passed, and for what is none of them, such as a missing GPU."""
    limit: str = ""
    """The option whose time was over, such as ``--budget``; empty where none was."""
    attempts: tuple[Attempt, ...] = ()
    """All attempts, this one last, where there was more than one (``--retries``)."""
    attempts_allowed: int = 1
    """How many attempts there could have been."""
    engine: EngineInfo | None = None
    """The engine; None when there is none."""
    provenance: Provenance | None = None
    """Where the figures come from; None when nothing was computed."""
    outputs: tuple[OutputResult, ...] = ()
    """Every network output."""
    metrics: tuple[MetricResult, ...] = ()
    """The suite's task metrics."""
    cost: CostResult | None = None
    """What quantisation costs, where an unquantised subject was named; ``verdict`` is at most as good."""
    codes: CodesResult | None = None
    """The codes of a quantised engine; None for any other, and where none was compared."""
    repeatable: bool | None = None
    """Whether all runs of the engine gave the same bits; None when it did not run."""
    generated: str = ""
    """How the inputs of a generated case were made; empty for a case of the suite."""
    runs: int | None = None
    """How often the engine ran; None when it did not."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures: emulation, saturated constants, a rebuilt engine."""
    next_step: str = ""
    """What to type next, a command per line, where there is something."""
    layers: LayerReport | None = None
    """Every value of the engine; None where they were not observed."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Where the time of this verdict went, in seconds."""
    owner: str = ""
    """Who answers for it: of the ledger's entry, else of the subject; empty where nobody is named."""
    known: Known | None = None
    """The entry of the ledger that names it, whether it covers the verdict or not; None where there is none."""

    @property
    def target(self) -> str:
        """``rtx-fp16``, as in test ids."""
        return f"{self.backend}-{self.precision}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys; figures that are not finite become None."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["outputs"] = [output.to_json() for output in self.outputs]
        data["layers"] = self.layers.to_json() if self.layers else None
        data["cost"] = self.cost.to_json() if self.cost else None
        result: dict[str, Any] = plain(data)
        return result


def attempts_note(attempts: Sequence[Mapping[str, Any]], allowed: int) -> str:
    """Return how several attempts ended, as a reader is told beside a verdict: ``passed at attempt 2 of 2; ...``."""
    words = {
        "pass": Sentence("passed"), "fail": Sentence("failed"), "not_judged": Sentence("not_judged"),
        "known": Sentence("failed_as_known"),
    }  # fmt: skip
    ended = words[attempts[-1]["verdict"]]
    earlier = [
        Sentence("attempt_of", n=n, failure=one["failure"], reason=one["reason"])
        for n, one in enumerate(attempts[:-1], start=1)
    ]
    return joined([Sentence("ended_at_attempt", ended=ended, count=len(attempts), allowed=allowed), *earlier])


def with_earlier(result: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], allowed: int) -> dict[str, Any]:
    """Return a result's data with attempts of before in front of its own."""
    own = result["attempts"] or [{name: result[name] for name in ("verdict", "failure", "reason")}]
    attempts = [*earlier, *own]
    allowed = max(allowed, result["attempts_allowed"], len(attempts))
    notes = result["notes"][1:] if result["attempts"] else result["notes"]
    note = attempts_note(attempts, allowed)
    return {**result, "attempts": attempts, "attempts_allowed": allowed, "notes": [note, *notes]}


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Return fail if anything failed, else not_judged if anything was not judged or nothing was there, else pass."""
    seen = set(verdicts)
    if "fail" in seen:
        return "fail"
    return "pass" if seen == {"pass"} else "not_judged"


def worse(one: ResultVerdict, other: ResultVerdict) -> ResultVerdict:
    """Return the worse verdict on one target and case: fail, known, not judged, pass."""
    order: tuple[ResultVerdict, ...] = ("fail", "known", "not_judged", "pass")
    return min(one, other, key=order.index)


def is_nonfinite(result: Result) -> bool:
    """Return whether an output is not finite where its reference is, or the other way round."""
    return any(output.stats is not None and output.stats.mismatched_nonfinite for output in result.outputs)


def exit_status(results: Sequence[Result], require: Iterable[str] = ()) -> int:
    """Return 1 if anything failed, 3 if nothing or not all that was required could be judged, else 0.

    A failure that the ledger knows is none of these.
    """
    status = status_of(verdict_of(result) for result in results)
    return 3 if status == 0 and any(not all_judged(results, backend) for backend in require) else status


def all_judged(results: Sequence[Result], backend: str) -> bool:
    """Return whether every result of a backend carries a verdict, and there is at least one.

    A generated case that could not be judged is shown, and nobody required it; so is what is known to crash and was not
    launched.
    """
    found = [(verdict_of(r), r.generated) for r in results if r.backend == backend and was_launched(r)]
    verdicts = [verdict for verdict, generated in found if verdict != "not_judged" or not generated]
    return bool(verdicts) and "not_judged" not in verdicts


def was_launched(result: Result) -> bool:
    """Return whether a result is none of an engine that is known to crash and was not launched."""
    return result.known is None or bool(result.known.verdict)


def verdict_of(result: Result) -> ResultVerdict:
    """Return the verdict that counts: the result's own, or that of its worst part."""
    if result.verdict == "known":
        known: ResultVerdict = settled_result(result.to_json())["verdict"]
        return known
    outputs = [
        {
            "name": o.name,
            "verdict": o.verdict,
            "mismatched_nonfinite": o.stats and o.stats.mismatched_nonfinite,
            "nan_expected": o.stats and o.stats.nan_expected,
        }
        for o in result.outputs
    ]
    metrics = [{"name": metric.name, "verdict": metric.verdict} for metric in result.metrics]
    cost = result.cost.to_json() if result.cost else None
    codes = plain(dataclasses.asdict(result.codes)) if result.codes else None
    bare = {
        "verdict": result.verdict, "reason": result.reason, "outputs": outputs, "metrics": metrics, "cost": cost,
        "codes": codes,
    }  # fmt: skip
    verdict: ResultVerdict = settled_result(bare)["verdict"]
    return verdict


def status_of(verdicts: Iterable[ResultVerdict]) -> int:
    """Return 1 if one is ``fail``, 0 if one is ``pass`` or ``known``, 3 if nothing was judged."""
    given = set(verdicts)
    return 1 if "fail" in given else 0 if given & {"pass", "known"} else 3


def add_metric(data: dict[str, Any], metric: MetricResult) -> None:
    """Add a metric to a result's data; the result is at most as good as its worst metric."""
    data["metrics"].append(plain(metric))
    if overall([data["verdict"], metric.verdict]) != data["verdict"]:
        data["verdict"], data["reason"] = metric.verdict, Sentence("of", name=metric.name, reason=metric.reason)

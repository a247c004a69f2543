"""Everything that is recorded, as dataclasses, and its JSON: written, read back and checked. See docs/json.md."""

from __future__ import annotations

from harness.records.accuracy import (
    EngineInfo,
    MetricResult,
    OutputResult,
    Provenance,
    Result,
    all_judged,
    exit_status,
    is_nonfinite,
    overall,
    status_of,
)
from harness.records.bisection import Advice, Bisection, Goal, Kept, Kind, Price, Question, Trial
from harness.records.contest import ContestPicture, ContestResult
from harness.records.contradictions import (
    CONTRADICTORY,
    IS_WRONG,
    settled_result,
    settled_study,
)
from harness.records.data import Verdict, plain
from harness.records.decisions import Decisions, WrongDecision
from harness.records.diagnosis import Culprit, Diagnosis, ErrorShape, Observed, ShapeKind
from harness.records.documents import Entry, Json, Records
from harness.records.latency import (
    Acceptance,
    Comparison,
    Conditions,
    KernelTime,
    LatencyVerdict,
    Measured,
    Metric,
    NotMeasured,
    ProcessRun,
    Runner,
    Session,
    Summary,
    acceptance_from_json,
    contestant_name,
    run_from_json,
    session_from_json,
    utc,
)
from harness.records.layers import (
    HARMLESS,
    MARKS,
    LayerReport,
    Mark,
    ModuleFinding,
    OutputEffect,
    Status,
    ValueFinding,
)
from harness.records.parts import Figure, PartResult
from harness.records.plan_lines import plan_lines
from harness.records.reader import load
from harness.records.stats import ErrorStats
from harness.records.study import Picture, StepError, StudyResult, VariantResult
from harness.records.writer import document, save_json

__all__ = [
    "CONTRADICTORY",
    "HARMLESS",
    "IS_WRONG",
    "MARKS",
    "Acceptance",
    "Advice",
    "Bisection",
    "Comparison",
    "Conditions",
    "ContestPicture",
    "ContestResult",
    "Culprit",
    "Decisions",
    "Diagnosis",
    "EngineInfo",
    "Entry",
    "ErrorShape",
    "ErrorStats",
    "Figure",
    "Goal",
    "Json",
    "Kept",
    "KernelTime",
    "Kind",
    "LatencyVerdict",
    "LayerReport",
    "Mark",
    "Measured",
    "Metric",
    "MetricResult",
    "ModuleFinding",
    "NotMeasured",
    "Observed",
    "OutputEffect",
    "OutputResult",
    "PartResult",
    "Picture",
    "Price",
    "ProcessRun",
    "Provenance",
    "Question",
    "Records",
    "Result",
    "Runner",
    "Session",
    "ShapeKind",
    "Status",
    "StepError",
    "StudyResult",
    "Summary",
    "Trial",
    "ValueFinding",
    "VariantResult",
    "Verdict",
    "WrongDecision",
    "acceptance_from_json",
    "all_judged",
    "contestant_name",
    "document",
    "exit_status",
    "is_nonfinite",
    "load",
    "overall",
    "plain",
    "plan_lines",
    "run_from_json",
    "save_json",
    "session_from_json",
    "settled_result",
    "settled_study",
    "status_of",
    "utc",
]

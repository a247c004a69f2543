"""Everything that is recorded, as dataclasses, and its JSON: written, read back and checked. See docs/json.md."""

from __future__ import annotations

from harness.records.accuracy import (
    EngineInfo,
    MetricResult,
    OutputResult,
    Provenance,
    Result,
    Verdict,
    all_judged,
    exit_status,
    is_nonfinite,
    overall,
    status_of,
)
from harness.records.bisection import Advice, Answer, Bisection, Kind, Price, Question, Trial
from harness.records.contest import ContestPicture, ContestResult
from harness.records.data import plain
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
from harness.records.layers import HARMLESS, MARKS, LayerReport, ModuleFinding, OutputEffect, ValueFinding
from harness.records.plan_lines import plan_lines
from harness.records.reader import load
from harness.records.stats import ErrorStats
from harness.records.study import Picture, StepError, StudyResult, VariantResult
from harness.records.writer import document, save_json

__all__ = [
    "HARMLESS",
    "MARKS",
    "Acceptance",
    "Advice",
    "Answer",
    "Bisection",
    "Comparison",
    "Conditions",
    "ContestPicture",
    "ContestResult",
    "EngineInfo",
    "Entry",
    "ErrorStats",
    "Json",
    "KernelTime",
    "Kind",
    "LatencyVerdict",
    "LayerReport",
    "Measured",
    "Metric",
    "MetricResult",
    "ModuleFinding",
    "NotMeasured",
    "OutputEffect",
    "OutputResult",
    "Picture",
    "Price",
    "ProcessRun",
    "Provenance",
    "Question",
    "Records",
    "Result",
    "Runner",
    "Session",
    "StepError",
    "StudyResult",
    "Summary",
    "Trial",
    "ValueFinding",
    "VariantResult",
    "Verdict",
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
    "status_of",
    "utc",
]

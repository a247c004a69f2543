"""What people read, made from records alone: terminal text, pages, plots, and what CI shows.

Every module here is public; each takes plain data, as the JSON has it, and returns or writes text.
"""

from __future__ import annotations

from harness.report.against import changes, changes_text
from harness.report.ci import badge
from harness.report.facts import (
    BASELINE,
    case_label,
    error_ratio,
    figures,
    floor_ratio,
    is_invalid,
    is_reference,
    largest_error,
    newest_sessions,
    nonfinite_names,
    part_verdict,
    session_latency,
    session_target,
    speed_up_interval,
    target_name,
    throughput,
    trial_verdict,
    worst_output,
)
from harness.report.junit import junit_xml
from harness.report.markdown import code, escape, fence, image, table, verdict_cell
from harness.report.model_explorer import save_node_data
from harness.report.polygraphy import run_line, save_inputs
from harness.report.step_summary import summary, write_summary
from harness.report.verdicts import all_verdicts, latency_reason, missing_verdict, problems

__all__ = [
    "BASELINE",
    "all_verdicts",
    "badge",
    "case_label",
    "changes",
    "changes_text",
    "code",
    "error_ratio",
    "escape",
    "fence",
    "figures",
    "floor_ratio",
    "image",
    "is_invalid",
    "is_reference",
    "junit_xml",
    "largest_error",
    "latency_reason",
    "missing_verdict",
    "newest_sessions",
    "nonfinite_names",
    "part_verdict",
    "problems",
    "run_line",
    "save_inputs",
    "save_node_data",
    "session_latency",
    "session_target",
    "speed_up_interval",
    "summary",
    "table",
    "target_name",
    "throughput",
    "trial_verdict",
    "verdict_cell",
    "worst_output",
    "write_summary",
]

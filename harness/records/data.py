"""JSON data from dataclasses: what every record becomes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA = "parity/1"
Verdict = Literal["pass", "fail", "not_judged"]


def plain(value: Any) -> Any:
    """Return JSON data: tuples as lists, keys as text, NaN and infinities as None (JSON has neither)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class JsonRecord:
    """A dataclass whose JSON has one key per field."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys; figures that are not finite become None."""
        data: dict[str, Any] = plain(dataclasses.asdict(self))  # type: ignore[call-overload]
        return data


@dataclass(frozen=True, kw_only=True)
class TargetRecord(JsonRecord):
    """What is recorded of one target: a subject's case, on a backend, in a precision."""

    subject: str
    """The subject's name."""
    case: str
    """The case's name."""
    backend: str
    """As after ``-b``."""
    precision: str
    """A plain precision, or the stem of a plan file."""
    source: str = ""
    """What declares the subject: a suite's file or an ONNX file, below the repository; empty where that is unknown."""
    plan_source: str = ""
    """The plan file below the repository and the start of its content's hash; empty for a plain precision."""

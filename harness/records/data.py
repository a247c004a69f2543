"""JSON data from dataclasses: what every record becomes."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA = "parity/1"
Verdict = Literal["pass", "fail", "not_judged"]
ResultVerdict = Literal["pass", "fail", "not_judged", "known"]
"""Of a whole result: ``known`` is a failure that the ledger knows, and never a pass."""
_PLAIN = frozenset({str, int, bool, type(None)})


def plain(value: Any) -> Any:
    """Return JSON data: dataclasses by field, tuples as lists, keys as text, NaN and infinities as None (JSON has not).

    A record of a look at an engine has 100,000 values: what is plain already comes first, and nothing is copied twice.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _names(type(value))}
    return value


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


class JsonRecord:
    """A dataclass whose JSON has one key per field."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys; figures that are not finite become None."""
        data: dict[str, Any] = plain(self)
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

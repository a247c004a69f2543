"""JSON data from dataclasses: what every record becomes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

SCHEMA = "parity/1"


def plain(value: Any) -> Any:
    """Return JSON data: tuples as lists, keys as text, NaN and infinities as None (JSON has neither)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def plain_fields(record: Any) -> dict[str, Any]:
    """Return a dataclass as JSON data, by the names of its fields."""
    data: dict[str, Any] = plain(dataclasses.asdict(record))
    return data

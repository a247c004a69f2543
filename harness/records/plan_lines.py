"""A precision plan as the text of its file."""

from __future__ import annotations

import json
from collections.abc import Sequence


def plan_lines(precision: str, keep_fp32: Sequence[str], *, key: str = "keep_fp32") -> list[str]:
    """Return the lines of a plan file in TOML; an empty precision leaves its line out. ``key`` names the list."""
    first = [f'precision = "{precision}"'] if precision else []
    # A JSON string is a TOML string.
    kept = [f"    {json.dumps(pattern, ensure_ascii=False)}," for pattern in keep_fp32]
    return [*first, f"{key} = [", *kept, "]"] if kept else [*first, f"{key} = []"]

"""Records as earlier versions wrote them, in the form of today. Only here is a text split to learn what it says."""

from __future__ import annotations

from typing import Any

_COMMANDS = ("parity ", "pytest ", "python", "tox ", "cd ", "pip ")


def as_written_today(bisection: Any) -> Any:
    """Return a bisection from before ``commands`` was a key as it would be written today; anything else as it is.

    Its advice was text, ``indicator | meaning | action``, with the commands as the last entries; its finding began with
    its kind; and it went by the text of a question whether no is the good answer.
    """
    lines = bisection.get("advice") if isinstance(bisection, dict) and "commands" not in bisection else None
    if not isinstance(lines, list):
        return bisection
    end = len(lines)
    try:
        while end and lines[end - 1].startswith(_COMMANDS):
            end -= 1
        parts = [[*line.split(" | ", 2), "", ""] for line in lines[:end]]
        return {
            **bisection,
            "finding": bisection["finding"].removeprefix(f"{bisection['kind']}: "),
            "advice": [{"indicator": part[0], "meaning": part[1], "action": part[2]} for part in parts],
            "commands": lines[end:],
            "gates": [
                {"good": "no", **gate} if gate["question"] == "is the engine wrong?" else gate
                for gate in bisection["gates"]
            ],
        }
    except (AttributeError, KeyError, TypeError):  # as no version wrote it: the check that follows says where
        return bisection

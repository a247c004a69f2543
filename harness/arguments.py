"""What options take: functions from the text that was typed to a value, for the command line and for pytest alike.

Each raises ArgumentTypeError, whose words follow the option's name.
"""

from __future__ import annotations

import contextlib
import math
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import limit_options
from harness.errors import Failure, unknown_name
from harness.settings import RETRYABLE

REMOTE_MODES = ("read", "read-write")
"""What a run may do with the engine cache that runners share."""


def as_path(text: str) -> Path:
    """Return a path. Raises ArgumentTypeError for one of no letters, as of a variable that is not set."""
    if not text.strip():
        raise ArgumentTypeError(f"{text!r} is no path")
    return Path(text)


def at_least(least: int, most: int = 10**6) -> Callable[[str], int]:
    """Return an argument type: whole numbers from ``least`` to ``most``, which no run comes to an end beyond."""

    def number(text: str) -> int:
        if not text.isdecimal() or len(text) > len(str(most)) or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r} is not a whole number of at least {least}, at most {most}")
        return int(text)

    return number


def days(text: str) -> float:
    """Return a number of days, 0 or more."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise ArgumentTypeError(f"{text!r} is not a number of days, such as 30")


def remote_mode(text: str) -> str:
    """Return ``read`` or ``read-write``."""
    if text not in REMOTE_MODES:
        raise ArgumentTypeError(f"{text!r} is neither {' nor '.join(REMOTE_MODES)}")
    return text


def seconds(text: str) -> float:
    """Return a time in seconds; 0 is no limit."""
    try:
        return limit_options.seconds_of(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds, such as 600") from None


def gpus(text: str) -> tuple[str, ...]:
    """Return the GPUs of ``0,1,2``, by number or by UUID; none for ``all``, which chooses none."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise ArgumentTypeError(f"{text!r} names no GPUs; give numbers of nvidia-smi or UUIDs, such as 0,1,2, or all")
    return () if found == ("all",) else found


def relative_error(text: str) -> float:
    """Return a relative error above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (found := float(text)) < math.inf:
            return found
    raise ArgumentTypeError(f"{text!r} is not a relative error; give a number above 0, such as 1e-3")


def classes(text: str) -> tuple[Failure, ...]:
    """Return classes of failures that may be tried again, of text with commas between them."""
    given = names(text)
    if "wrong_answer" in given or "wrong" in given:
        raise ArgumentTypeError(f"{text!r}: a wrong answer is never retried into a pass; leave it out")
    if unknown := [name for name in given if name not in RETRYABLE]:
        raise ArgumentTypeError(str(unknown_name("class of failures", unknown[0], RETRYABLE)))
    if not given:
        raise ArgumentTypeError(f"{text!r} names no class; known: {', '.join(RETRYABLE)}")
    return tuple(failure for failure in RETRYABLE if failure in given)


def gib(text: str) -> float:
    """Return an amount of memory in GiB, above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (found := float(text)) < math.inf:
            return found
    raise ArgumentTypeError(f"{text!r} is not a number of GiB, such as 16")


def names(text: str) -> tuple[str, ...]:
    """Return the names of ``A,B``; empty ones are left out."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``NAME=1,3,224,224``."""
    name, _, dims = text.rpartition("=")
    sizes = dims.replace("x", ",").split(",")
    if not name or not are_sizes(sizes):
        raise ArgumentTypeError(f"{text!r} is not NAME=DIMS, such as x=1,3,224,224")
    return name, tuple(map(int, sizes))


def are_sizes(texts: Sequence[str]) -> bool:
    """Return whether all of these are whole numbers above 0."""
    return all(text.strip().isdecimal() and int(text) > 0 for text in texts)

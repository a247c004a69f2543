"""What the fields of a suite take: each check raises a UsageError that says what was given and what to give."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from harness.errors import UsageError, unknown_name

MOST_LETTERS = 60
"""Of a value in a sentence."""


T = TypeVar("T")


def named_fields(kind: type[T]) -> type[T]:
    """Let a dataclass of keywords say in one sentence which field it does not have, or needs."""
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    make = kind.__init__

    @functools.wraps(make)
    def init(self: Any, **given: Any) -> None:
        for name in given.keys() - known:
            raise unknown_name(f"field of {kind.__name__}(...)", name, known)
        for name, field in known.items():
            if name not in given and field.default is field.default_factory is dataclasses.MISSING:
                raise UsageError(f"{kind.__name__}(...) needs {name}=")
        make(self, **given)

    kind.__init__ = init  # type: ignore[method-assign]
    return kind


def require(holds: object, field: str, value: object, give: str) -> None:
    """Raise UsageError unless ``holds``: ``FIELD is VALUE; give GIVE``."""
    if not holds:
        raise UsageError(f"{field} is {described(value)}; give {give}")


def require_one_of(known: Iterable[str], field: str, value: object) -> None:
    """Raise UsageError for a value that is none of these, with the nearest."""
    names = tuple(known)
    require(isinstance(value, str), field, value, f"one of {', '.join(map(repr, names))}")
    if value not in names:
        what, _, name = field.rpartition(": ")
        raise UsageError(f"{what}: {unknown_name(name, str(value), names)}")


def require_names(field: str, value: object, holds: Callable[[Any], object], give: str) -> None:
    """Raise UsageError unless a field is a mapping from names to what ``holds``; ``give`` says what that is."""
    require(isinstance(value, Mapping), field, value, f"a dict of {give} by name")
    assert isinstance(value, Mapping)
    for name, item in value.items():
        require(isinstance(name, str) and name, f"{field}: a name", name, "text")
        require(holds(item), f"{field}: {name!r}", item, give)


def require_number(field: str, value: object, *, least: float, most: float = math.inf) -> None:
    """Raise UsageError unless a limit is None or a number in the range, infinity excepted."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    holds = number and least <= float(value) <= most and math.isfinite(float(value))  # type: ignore[arg-type]
    highest = f", at most {most:g}" if most < math.inf else ""
    require(value is None or holds, field, value, f"a number of at least {least:g}{highest}")


def described(value: object) -> str:
    """Return a value as a sentence shows it: text, numbers and small lists as they are written, all with their type."""
    items = value if isinstance(value, (list, tuple)) else [value]
    plain = all(item is None or isinstance(item, (str, int, float)) for item in items)
    shown, kind = repr(value) if plain else "", type(value).__name__
    if 0 < len(shown) <= MOST_LETTERS:
        return shown if value is None else f"{shown} ({kind})"
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def fits_path(path: str, pattern: str) -> bool:
    """Return whether a dotted path has as many names as a pattern, and each of them fits its own: ``layer.*``."""
    names, patterns = path.split("."), pattern.split(".")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))

"""Check JSON data against the dataclass that wrote it, and fill in what has been added to that since."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.records.data import plain
from harness.records.layers import LayerReport
from harness.records.stats import ErrorStats
from harness.sentences import Sentence

_ONLY_FOR_TYPES = {"ErrorStats": ErrorStats, "LayerReport": LayerReport}
"""Names that the dataclasses' own modules import for annotations alone."""


class ShapeError(Exception):
    """A value is not of the type that its dataclass declares; the text says where."""


_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def checked(value: Any, kind: Any, where: str) -> Any:
    """Return JSON data of a declared type, with missing fields at their defaults; keys beyond the declared ones stay.

    ``kind`` is a dataclass or an annotation of one of its fields. Raises ShapeError with the place of what does not
    fit. A float may be null: a figure that is not finite is written so.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _fields(value, kind, where)
    if origin in (Union, UnionType):
        return None if value is None and NoneType in arguments else _one_of(value, arguments, where)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ShapeError(f"{where} is {value!r:.60}, but must be one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ShapeError(f"{where} is not a list")
        if Ellipsis not in arguments and len(value) != len(arguments):
            raise ShapeError(f"{where} has {len(value)} entries, but must have {len(arguments)}")
        return [checked(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise ShapeError(f"{where} is not an object")
        return {key: checked(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if type(value) is int and abs(value) >= 2**63:
        raise ShapeError(f"{where} is {value!r:.60}, a number that nothing measures")
    if kind is float and (value is None or type(value) is int):
        return value
    if type(value) is not kind and not (kind is str and isinstance(value, Sentence)):
        raise ShapeError(f"{where} is {value!r:.60}, but must be {_WORDS[kind]}")
    return value


def _one_of(value: Any, kinds: Sequence[Any], where: str) -> Any:
    """Return the data by the first type that fits; the last one's complaint where none does."""
    rest = [kind for kind in kinds if kind is not NoneType]
    for kind in rest[:-1]:
        try:
            return checked(value, kind, where)
        except ShapeError:
            continue
    return checked(value, rest[-1], where)


def _fields(value: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ShapeError(f"{where} is not an object")
    hints = _hints(kind)
    data = dict(value)
    for item in dataclasses.fields(kind):
        if item.name in value:
            data[item.name] = checked(value[item.name], hints[item.name], f"{where}.{item.name}")
        elif item.default is not dataclasses.MISSING:
            data[item.name] = plain(item.default)
        elif item.default_factory is not dataclasses.MISSING:
            data[item.name] = plain(_as_data(item.default_factory()))
        else:
            raise ShapeError(f"{where} has no {item.name!r}")
    return data


def _as_data(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, localns=_ONLY_FOR_TYPES)

"""Values as text that is the same whenever their content is: what goes into the key of an engine or a reference."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.export import Dim

from harness.tensors import sha256_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None), PurePath, np.generic)
_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.SymInt, torch.SymFloat, torch.SymBool)
Known = Callable[[Any], str | None]
"""Returns the text of a value that the caller knows, or None."""


class Unstable(TypeError):
    """A value whose content cannot be told: a function, an object. Its text names it."""


def stable_text(value: Any, known: Known = lambda value: None) -> str:
    """Return a text that differs where the content does, and is the same in every process where it does not.

    A mapping and a set have no order. Raises Unstable for a value that has no such text, or holds one.
    """
    if (text := known(value)) is not None:
        return text
    if isinstance(value, enum.Enum):
        return f"{_name(value)}.{value.name}"
    if isinstance(value, _PLAIN):
        return f"{_name(value)}:{value!r}"
    if isinstance(value, _TORCH):
        return str(value)
    if isinstance(value, torch.Tensor):
        return f"tensor:{sha256_of({'': value})}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array:{value.dtype}:{value.shape}:{hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, (Dim, type(Dim.AUTO))):
        return f"{_name(value)}:{vars(value)!r}"
    if isinstance(value, Mapping):
        return _joined(value, sorted(_pair(key, item, known) for key, item in value.items()))
    if isinstance(value, AbstractSet):
        return _joined(value, sorted(stable_text(item, known) for item in value))
    if isinstance(value, (list, tuple)):
        return _joined(value, (stable_text(item, known) for item in value))
    if isinstance(value, slice):
        return _joined(value, (stable_text(item, known) for item in (value.start, value.stop, value.step)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return _joined(value, (_pair(name, item, known) for name, item in fields))
    raise Unstable(f"a {type(value).__qualname__}")


def _pair(key: Any, value: Any, known: Known) -> str:
    try:
        return json.dumps([stable_text(key, known), stable_text(value, known)])
    except Unstable as error:
        where = key if isinstance(key, str) else type(key).__qualname__
        raise Unstable(f"{error} under {where!r}") from error


def _joined(value: Any, parts: Iterable[str]) -> str:
    return _name(value) + json.dumps(list(parts))


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"

"""What goes between a run and the process that computes for it: a line of JSON, then the bytes of its arrays.

Nothing is unpickled: what comes back is data of a process in which somebody's graph has run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np

LARGEST_HEADER = 2**28
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def send(out: IO[bytes], message: Mapping[str, Any]) -> None:
    """Write a message: JSON data in which arrays, and lists of them, may stand anywhere."""
    arrays: list[np.ndarray[Any, Any]] = []
    header = json.dumps(_packed(message, arrays)).encode()
    out.write(header + b"\n")
    for array in arrays:
        out.write(array.data.cast("B") if array.size else b"")
    out.flush()


def buffer(size: int) -> Bytes:
    """Return bytes to read into; to fill them with zeros first, as ``bytearray`` does, takes as long as a copy."""
    return np.empty(size, np.uint8)


def receive(line: bytes, read: Callable[[int], Bytes]) -> Any:
    """Return the message whose first line has been read; ``read`` gives that many bytes more."""
    return _unpacked(json.loads(line), read)


def _packed(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OSU":  # strings
            return {"strings": [str(item) for item in value.ravel()], "shape": value.shape}
        array = np.ascontiguousarray(value)
        name = array.dtype.name if array.dtype.kind == "V" else array.dtype.str  # bfloat16 and its like have names
        arrays.append(array.view(np.uint8) if array.ndim and array.dtype.kind == "V" else array)
        return {"array": name, "shape": value.shape}
    if isinstance(value, Mapping):
        return {"map": {key: _packed(item, arrays) for key, item in value.items()}}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_packed(item, arrays) for item in value]
    return value


def _unpacked(value: Any, read: Callable[[int], Bytes]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, read) for item in value]
    if not isinstance(value, dict):
        return value
    if "map" in value:
        return {key: _unpacked(item, read) for key, item in value["map"].items()}
    shape = tuple(value["shape"])
    if "strings" in value:
        return np.array(value["strings"], dtype=object).reshape(shape)
    dtype = np.dtype(value["array"])
    return np.frombuffer(read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)

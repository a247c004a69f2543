"""What is done to a model: to its bytes, or to a field of its protobuf that is found by a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from google.protobuf.message import Message

Step = tuple[int, int, int]
"""What to do, where, and with which value: each counts modulo what there is."""
INTEGERS = (0, 1, -1, 2, 7, 10, 16, 100, 2**16, 2**31 - 1, -(2**31), 2**31, 10**12, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e38, 1e-45, math.nan, math.inf, -math.inf)
TEXTS = (
    "", "x", "y", "a", "\x1b[2J", "line\nbreak", "../../x", "/etc/passwd", "a" * 300, "é\u202e", "ai.onnx.ml",
    "com.microsoft", "Add", "MatMul", "Loop", "RandomNormal", "[" * 2000, "n",
)  # fmt: skip


def mutate_bytes(data: bytes, steps: list[Step]) -> bytes:
    """Return the bytes with some flipped, inserted, cut out or doubled."""
    changed = bytearray(data)
    for kind, place, value in steps:
        at = place % (len(changed) + 1)
        if kind % 16 > 3 and at < len(changed):  # mostly: other lengths hardly ever fit those inside
            changed[at] ^= 1 << value % 8
        elif kind % 16 == 1:
            changed[at:at] = bytes([value % 256])
        elif kind % 16 == 2:
            del changed[at : at + value % 16]
        elif kind % 16 == 3:
            changed[at:at] = changed[max(at - value % 32, 0) : at]
        else:
            del changed[at:]
    return bytes(changed)


def mutate_fields(model: onnx.ModelProto, steps: list[Step]) -> bytes:
    """Return the bytes of the model with some of its fields changed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for kind, place, value in steps:
        places = list(_places(proto, kind % 3 == 0))
        if places:
            places[place % len(places)](value)
    return proto.SerializeToString()


def _places(message: Message, lists: bool) -> Iterator[Callable[[int], Any]]:
    """Yield what changes each field of a message and of those in it; lists as such, or what is in them."""
    for field, value in message.ListFields():
        many = getattr(field, "is_repeated", None)
        many = field.label == field.LABEL_REPEATED if many is None else many
        if many and lists:
            yield lambda number, value=value: _change_list(value, number)
        for index, item in enumerate(value if many else [value]):
            if isinstance(item, Message):
                yield from _places(item, lists)
            elif not lists and many:
                yield lambda number, value=value, index=index: _set(value.__setitem__, index, value[index], number)
            elif not lists:
                yield lambda number, message=message, field=field: _set(
                    lambda name, new: setattr(message, name, new), field.name, getattr(message, field.name), number
                )


def _set(put: Callable[[Any, Any], Any], where: Any, old: Any, number: int) -> None:
    try:
        put(where, _other(old, number))
    except (ValueError, TypeError):  # beyond what the field holds, such as 64 bits in an enumeration
        put(where, 1)


def _other(old: Any, number: int) -> Any:
    if isinstance(old, int):
        known = (*INTEGERS, old + 1, old - 1, -old)
        return known[number % len(known)]
    if isinstance(old, float):
        return FLOATS[number % len(FLOATS)]
    if isinstance(old, bytes):
        return (b"", old[:-1], old + b"\0", old[: len(old) // 2], b"\xff" * len(old), b"\xff\xfe")[number % 6]
    known_texts = (*TEXTS, old + "_", old[:-1])
    return known_texts[number % len(known_texts)]


def _change_list(values: Any, number: int) -> None:
    """Take one out, double one, turn the order round, or leave none."""
    kind, at = number % 4, number // 4 % max(len(values), 1)
    if kind == 0 and len(values):
        del values[at]
    elif kind == 1 and len(values):
        values.extend([values[at]])
    elif kind == 2:
        turned = list(values)[::-1]
        copies = [
            type(item).FromString(item.SerializeToString()) if isinstance(item, Message) else item for item in turned
        ]
        del values[:]
        values.extend(copies)
    else:
        del values[:]

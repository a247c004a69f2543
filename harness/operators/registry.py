"""The table of ONNX operators that PyTorch computes, by name, domain and the opset from which a meaning holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

Function = Callable[..., Any]
_F = TypeVar("_F", bound=Function)
_TABLE: dict[tuple[str, str], dict[int, Function]] = defaultdict(dict)
MICROSOFT = "com.microsoft"


def operator(*names: str, since: int = 1, domain: str = "") -> Callable[[_F], _F]:
    """Register a function as the meaning of operators from an opset on, until a later registration.

    The function takes the node's inputs by position (a tensor, a list for a sequence, None for an absent one) and its
    attributes by keyword, those of the schema's defaults included. A parameter named ``outputs`` is given how many
    outputs the node has, one named ``input_types`` or ``output_types`` the ONNX names of their element types (None
    where that is not known), ``output_shapes`` their declared shapes, and ``to_type`` beside ``to`` the ONNX name of an
    attribute that names an element type.
    It returns the first output, or a tuple of several; an absent one may be left out.
    It computes in the dtype of its inputs, and raises :class:`Unsupported` for what it does not compute.
    """

    def register(function: _F) -> _F:
        for name in names:
            assert since not in _TABLE[domain, name], f"{name} is registered twice since opset {since}"
            _TABLE[domain, name][since] = function
        return function

    return register


def find(name: str, *, opset: int, domain: str = "") -> Function | None:
    """Return what computes an operator at an opset, or None where nothing here does."""
    versions = _TABLE.get((domain, name), {})
    known = [since for since in versions if since <= opset]
    return versions[max(known)] if known else None

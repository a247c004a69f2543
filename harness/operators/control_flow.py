"""If, Loop, Scan and SequenceMap: their bodies come as functions, which run in the precision of the graph around."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.operators.registry import operator
from harness.operators.values import CARRIED

Body = Callable[..., tuple[Any, ...]]


@operator("If")
def if_(condition: torch.Tensor, *, then_branch: Body, else_branch: Body) -> Any:
    return then_branch() if bool(condition.reshape(())) else else_branch()


@operator("Loop")
def loop(
    count: torch.Tensor | None,
    condition: torch.Tensor | None,
    *carried: Any,
    body: Body,
    output_types: Sequence[str | None],
    output_shapes: Sequence[Sequence[Any] | None],
) -> tuple[Any, ...]:
    """Return the carried values after the last step, then what every step gave, stacked; without a step, empty."""
    device = next((value.device for value in carried if isinstance(value, torch.Tensor)), torch.device("cpu"))
    most = None if count is None else int(count.reshape(()))
    go = torch.tensor(True, device=device) if condition is None else condition
    values, collected = carried, []
    for step in itertools.count():
        if step == most or not bool(go.reshape(())):
            break
        go, *results = body(torch.tensor(step, device=device), go, *values)
        values = tuple(results[: len(carried)])
        collected.append(results[len(carried) :])
    if not collected:
        empty = zip(output_types[len(values) :], output_shapes[len(values) :], strict=True)
        return (*values, *(_no_steps(kind, shape, device) for kind, shape in empty))
    return (*values, *(torch.stack(several) for several in zip(*collected, strict=True)))


def _no_steps(
    element_type: str | None, shape: Sequence[Any] | None, device: torch.device, *, axis: int = 0
) -> torch.Tensor:
    """Return what no step gave: of the declared type and sizes, where a size that is not known is 0."""
    sizes = [size if isinstance(size, int) else 0 for size in shape or (0,)]
    sizes[axis] = 0
    return torch.empty(sizes, dtype=CARRIED[element_type or "FLOAT"], device=device)


@operator("Scan", since=9)
def scan(
    *values: Any,
    body: Body,
    output_types: Sequence[str | None],
    output_shapes: Sequence[Sequence[Any] | None],
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] = (),
    scan_input_directions: Sequence[int] = (),
    scan_output_axes: Sequence[int] = (),
    scan_output_directions: Sequence[int] = (),
) -> tuple[Any, ...]:
    """Return the state after the last step, then what every step gave, stacked."""
    state, scanned = values[: len(values) - num_scan_inputs], values[len(values) - num_scan_inputs :]
    columns = []
    for index, tensor in enumerate(scanned):
        slices = list(tensor.unbind(_at(scan_input_axes, index)))
        columns.append(slices[::-1] if _at(scan_input_directions, index) else slices)
    collected = []
    for row in zip(*columns, strict=True):
        results = body(*state, *row)
        state = results[: len(state)]
        collected.append(results[len(state) :])
    if not collected:
        given = list(zip(output_types, output_shapes, strict=True))[len(state) :]
        axes = (_at(scan_output_axes, index) for index in range(len(given)))
        device = scanned[0].device
        return (*state, *(_no_steps(*it, device, axis=axis) for it, axis in zip(given, axes, strict=True)))
    stacked = []
    for index, several in enumerate(zip(*collected, strict=True)):
        ordered = several[::-1] if _at(scan_output_directions, index) else several
        stacked.append(torch.stack(ordered, dim=_at(scan_output_axes, index)))
    return (*state, *stacked)


@operator("SequenceMap", since=17)
def sequence_map(sequence: list[Any], *others: Any, body: Body, outputs: int) -> tuple[Any, ...]:
    """Return one sequence for each output of the body."""
    rows = (
        body(item, *(other[index] if isinstance(other, list) else other for other in others))
        for index, item in enumerate(sequence)
    )
    return tuple(map(list, zip(*rows, strict=True))) or tuple([] for _ in range(outputs))


def _at(numbers: Sequence[int], index: int) -> int:
    return numbers[index] if index < len(numbers) else 0

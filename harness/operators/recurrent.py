"""Recurrent layers, as loops over time: gates in the order that ONNX has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from harness.operators.activations import TAKES_ALPHA, TAKES_BETA, activate
from harness.operators.registry import operator

_Step = Callable[[torch.Tensor, tuple[torch.Tensor, ...], int], tuple[torch.Tensor, ...]]
"""From the inputs of a time step, the states and the direction to the next states; the first is what is given out."""


@operator("RNN")
def rnn(
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    h: torch.Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 1,
) -> tuple[torch.Tensor, ...]:
    functions = _functions(activations or ["Tanh"] * w.shape[0], activation_alpha, activation_beta)
    bias = _bias(b, w, r)

    def step(at: torch.Tensor, states: tuple[torch.Tensor, ...], number: int) -> tuple[torch.Tensor, ...]:
        total = at @ w[number].T + states[0] @ r[number].T + bias[number].sum(0)
        return (functions[number](_clipped(total, clip)),)

    return _run(x, step, lengths, (h,), w.shape[0], r.shape[-1], direction, layout)


@operator("GRU")
def gru(
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    h: torch.Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 1,
) -> tuple[torch.Tensor, ...]:
    """Gates: update, reset, hidden."""
    functions = _functions(activations or ["Sigmoid", "Tanh"] * w.shape[0], activation_alpha, activation_beta)
    bias = _bias(b, w, r)

    def step(at: torch.Tensor, states: tuple[torch.Tensor, ...], number: int) -> tuple[torch.Tensor, ...]:
        before = states[0]
        gate, hidden = functions[2 * number : 2 * number + 2]
        inputs = (at @ w[number].T + bias[number, 0]).chunk(3, -1)
        weights, biases = r[number].chunk(3), bias[number, 1].chunk(3)
        update, reset = (gate(_clipped(inputs[i] + before @ weights[i].T + biases[i], clip)) for i in range(2))
        if linear_before_reset:
            recurrent = reset * (before @ weights[2].T + biases[2])
        else:
            recurrent = (reset * before) @ weights[2].T + biases[2]
        return ((1 - update) * hidden(_clipped(inputs[2] + recurrent, clip)) + update * before,)

    return _run(x, step, lengths, (h,), w.shape[0], r.shape[-1], direction, layout)


@operator("LSTM")
def lstm(
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    h: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    p: torch.Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 1,
) -> tuple[torch.Tensor, ...]:
    """Gates: input, output, forget, cell; peepholes: input, output, forget."""
    defaults = ["Sigmoid", "Tanh", "Tanh"] * w.shape[0]
    functions = _functions(activations or defaults, activation_alpha, activation_beta)
    bias = _bias(b, w, r)
    peepholes = (p if p is not None else w.new_zeros(w.shape[0], 3 * r.shape[-1])).chunk(3, -1)

    def step(at: torch.Tensor, states: tuple[torch.Tensor, ...], number: int) -> tuple[torch.Tensor, ...]:
        hidden, cell = states
        gate, to_cell, to_hidden = functions[3 * number : 3 * number + 3]
        total = at @ w[number].T + hidden @ r[number].T + bias[number].sum(0)
        enter, leave, forget, new = total.chunk(4, -1)
        enter = gate(_clipped(enter + peepholes[0][number] * cell, clip))
        forget = 1 - enter if input_forget else gate(_clipped(forget + peepholes[2][number] * cell, clip))
        cell = forget * cell + enter * to_cell(_clipped(new, clip))
        leave = gate(_clipped(leave + peepholes[1][number] * cell, clip))
        return leave * to_hidden(cell), cell

    return _run(x, step, lengths, (h, c), w.shape[0], r.shape[-1], direction, layout)


def _run(
    x: torch.Tensor,
    step: _Step,
    lengths: torch.Tensor | None,
    initial: tuple[torch.Tensor | None, ...],
    directions: int,
    hidden: int,
    direction: str,
    layout: int,
) -> tuple[torch.Tensor, ...]:
    """Return all outputs and each last state, which is that of the last step within a sequence's length.

    Past the length outputs are zero. The reverse direction starts at the last step within it.
    """
    if layout:
        x, initial = x.transpose(0, 1), tuple(None if it is None else it.transpose(0, 1) for it in initial)
    steps, batch = x.shape[:2]
    outputs, finals = [], []
    for number in range(directions):
        states = tuple(x.new_zeros(batch, hidden) if it is None else it[number] for it in initial)
        given: list[torch.Tensor] = [x.new_zeros(batch, hidden)] * steps
        backward = direction == "reverse" or number == 1
        for time in reversed(range(steps)) if backward else range(steps):
            new = step(x[time], states, number)
            if lengths is None:
                given[time] = new[0]
            else:
                within = (lengths > time)[:, None]
                new = tuple(torch.where(within, after, before) for after, before in zip(new, states, strict=True))
                given[time] = torch.where(within, new[0], 0)
            states = new
        outputs.append(torch.stack(given) if given else x.new_zeros(0, batch, hidden))
        finals.append(states)
    y = torch.stack(outputs, dim=1)  # (steps, directions, batch, hidden)
    last = [torch.stack(it) for it in zip(*finals, strict=True)]  # each (directions, batch, hidden)
    if layout:
        return y.permute(2, 0, 1, 3), *(it.transpose(0, 1) for it in last)
    return y, *last


def _bias(b: torch.Tensor | None, w: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Return the biases as (directions, 2, gates * hidden): those of the input and of the recurrence."""
    return (w.new_zeros(w.shape[0], 2 * w.shape[1]) if b is None else b).reshape(w.shape[0], 2, -1)


def _clipped(x: torch.Tensor, clip: float | None) -> torch.Tensor:
    return x.clamp(-clip, clip) if clip else x


@dataclass(frozen=True, kw_only=True)
class _Activation:
    name: str
    parameters: tuple[float, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return activate(self.name, x, *self.parameters)


def _functions(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[_Activation]:
    """Return the activations with their numbers, which the lists hold in the order of those that take one."""
    alpha, beta = iter(alphas), iter(betas)
    found = []
    for name in names:
        parameters = []
        if name.lower() in TAKES_ALPHA and (given := next(alpha, None)) is not None:
            parameters.append(given)
            if name.lower() in TAKES_BETA and (given := next(beta, None)) is not None:
                parameters.append(given)
        found.append(_Activation(name=name, parameters=tuple(parameters)))
    return found

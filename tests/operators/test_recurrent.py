"""Recurrent layers against ONNX Runtime: directions, lengths, states, peepholes, clips and activations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_node import assert_agrees, here, model_of

STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 2
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "Tanh"], "LSTM": ["Sigmoid", "LeakyRelu", "Softsign"]}


def normal(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


@st.composite
def layers(draw: st.DrawFn, name: str) -> tuple[list[np.ndarray | None], dict]:
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    count = 2 if direction == "bidirectional" else 1
    gates, states = GATES[name], 2 if name == "LSTM" else 1
    biased, lengths, initial = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    inputs: list[np.ndarray | None] = [
        normal(STEPS, BATCH, INPUTS, seed=0),
        normal(count, gates * HIDDEN, INPUTS, seed=1),
        normal(count, gates * HIDDEN, HIDDEN, seed=2),
        normal(count, 2 * gates * HIDDEN, seed=3) if biased else None,
        np.array(draw(st.permutations([5, 3, 1])), np.int32) if lengths else None,
        *(normal(count, BATCH, HIDDEN, seed=4 + it) if initial else None for it in range(states)),
    ]
    chosen: dict = {"hidden_size": HIDDEN, "direction": direction, "outputs": 1 + states}
    if name == "LSTM":
        inputs.append(normal(count, 3 * HIDDEN, seed=7) if draw(st.booleans()) else None)
        chosen["input_forget"] = draw(st.integers(0, 1))
    if name == "GRU":
        chosen["linear_before_reset"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        chosen["clip"] = 0.5
    if draw(st.booleans()):
        chosen["activations"] = ACTIVATIONS[name] * count
    while inputs[-1] is None:
        inputs.pop()
    return inputs, chosen


@pytest.mark.parametrize("name", GATES)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_layer(name: str, data: st.DataObject):
    inputs, chosen = data.draw(layers(name))
    assert_agrees(name, inputs, opset=14, **chosen)


@pytest.mark.parametrize("name", GATES)
def test_batch_first_is_the_same_turned(name: str):
    """ONNX Runtime refuses this layout on the CPU."""
    gates = GATES[name]
    weights = [normal(1, gates * HIDDEN, INPUTS, seed=1), normal(1, gates * HIDDEN, HIDDEN, seed=2)]
    x, state = normal(STEPS, BATCH, INPUTS, seed=0), normal(1, BATCH, HIDDEN, seed=4)
    first = [x, *weights, None, None, state]
    second = [x.swapaxes(0, 1).copy(), *weights, None, None, state.swapaxes(0, 1).copy()]
    plain = here(model_of(name, first, opset=14, hidden_size=HIDDEN, outputs=2), first)
    turned = here(model_of(name, second, opset=14, hidden_size=HIDDEN, outputs=2, layout=1), second)
    np.testing.assert_array_equal(turned[0], plain[0].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(turned[1], plain[1].swapaxes(0, 1))

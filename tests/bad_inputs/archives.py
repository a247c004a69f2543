"""Inputs in .npz and JSON files."""

from __future__ import annotations

from typing import Any

import numpy as np

from bad_inputs.row import VERIFY, Make, Row, both, model, write

ONE = np.ones(2, np.float32)


def arrays(**named: Any) -> Make:
    """Return what writes ``m.onnx``, a Relu of two numbers, and these arrays to ``in.npz``."""
    return both(model(), lambda: np.savez("in.npz", **named))


def given(content: bytes | str, path: str = "in.npz") -> Make:
    """Return what writes ``m.onnx`` and a file of inputs as it is given."""
    return both(model(), write(path, content))


ROWS = (
    Row("missing file", model(), f"{VERIFY} --inputs in.npz", 2, ("in.npz", "does not exist")),
    Row("empty file", given(""), f"{VERIFY} --inputs in.npz", 2, ("in.npz", "neither")),
    Row("wrong name", arrays(z=ONE), f"{VERIFY} --inputs in.npz", 2, ("'z'", "x")),
    Row("missing input", arrays(), f"{VERIFY} --inputs in.npz", 2, ("missing", "'x'")),
    Row("wrong dtype", arrays(x=np.ones(2)), f"{VERIFY} --inputs in.npz", 2, ("'x'", "float64", "float32")),
    Row("wrong shape", arrays(x=np.ones(3, np.float32)), f"{VERIFY} --inputs in.npz", 2, ("'x'", "[3]", "[2]")),
    Row("NaN", arrays(x=ONE * np.nan), f"{VERIFY} --inputs in.npz", 3, ("'x'", "2 NaN")),
    Row("strings", arrays(x=np.array(["a", "b"])), f"{VERIFY} --inputs in.npz", 2, ("'x'", "<U1")),
    Row(
        "objects",
        arrays(x=np.array([{}, []], object)),
        f"{VERIFY} --inputs in.npz",
        2,
        ("in.npz", "'x'", "Python objects"),
    ),
)

"""Decisions of every operator that makes one, in ONNX files: an element near its boundary, and one in the midst."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from fake import CountedSession, FakeBackend, quiet
from graphs import parse

from harness import Subject, Target
from harness.backends import BACKENDS
from harness.records import Result
from harness.verify.verify import verify

DETECTOR = Path(__file__).parents[1] / "data" / "det.onnx"
FAR, NEAR = 0.3, 2.0**-15
"""How far from a boundary the elements 2 and 5 are, relative to their size: FP16 knows 11 bits."""


class FileBackend(FakeBackend):
    """Runs an ONNX file in ONNX Runtime, through a change of its outputs."""

    def __init__(self, file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        super().__init__()
        self.file, self.change = file, change

    def load(self, engine: Path) -> FileSession:
        return FileSession(self)


class FileSession(CountedSession):
    layers = None

    def __init__(self, backend: FileBackend) -> None:
        import onnxruntime

        self.backend = backend
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(str(backend.file), options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, given):
        results = self.session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        outputs = {name: torch.from_numpy(made.copy()) for name, made in zip(self.names, results, strict=True)}
        self.backend.change(outputs)
        return outputs


@pytest.fixture
def judged(tmp_path, monkeypatch) -> Callable[..., Result]:
    """Return a function that judges a file's outputs, changed in place."""

    def judge(
        file: Path, inputs: dict[str, torch.Tensor], change: Callable[..., Any] = lambda outputs: None, **options
    ):
        monkeypatch.setitem(BACKENDS, "fake", FileBackend(file, change))
        target = Target("fake", options.get("precision", "fp16"))
        subject = Subject(name="file", onnx=str(file), cases={"one": lambda: inputs}, targets=(target,), weights="file")
        [result] = verify(subject, targets=[target], cases=["one"], settings=quiet(tmp_path))
        return result

    return judge


def written(body: str, folder: Path, *, opset: int = 21) -> Path:
    path = folder / "graph.onnx"
    onnx.save(ir.to_proto(parse(body, opset=opset)), path)
    return path


ABOVE = "above = Greater(x, half)"
LARGEST = "r = Reshape(x, column) h = Concat <axis = 1> (r, halves)"
GRAPHS = {
    "Greater": ("Greater", "bool", "y = Greater(x, half)"),
    "LessOrEqual": ("LessOrEqual", "bool", "y = LessOrEqual(half, x)"),
    "Not": ("Greater", "bool", f"{ABOVE} y = Not(above)"),
    "Xor": ("Greater", "bool", f"{ABOVE} far = Greater(x, large) y = Xor(above, far)"),
    "Where": ("Greater", "int64", f"{ABOVE} y = Where(above, seven, nine)"),
    "moved": ("Greater", "bool", f"{ABOVE} row = Unsqueeze(above, axis) y = Concat <axis = 0> (row, row)"),
    "one-hot": ("Greater", "int64", f"{ABOVE} f = Cast <to = 1> (above) g = Mul(f, two) y = Cast <to = 7> (g)"),
    "compared again": ("Greater", "bool", f"{ABOVE} f = Cast <to = 1> (above) y = Greater(f, half)"),
    "Round": ("Round", "int32", "r = Round(x) y = Cast <to = 6> (r)"),
    "Floor": ("Floor", "uint8", "h = Add(x, half) r = Floor(h) c = Clip(r, zero, large) y = Cast <to = 2> (c)"),
    "Ceil": ("Ceil", "int8", "h = Add(x, half) r = Ceil(h) y = Cast <to = 3> (r)"),
    "Cast": ("Cast", "int64", "h = Add(x, half) y = Cast <to = 7> (h)"),
    "Sign": ("Sign", "int64", "h = Sub(x, half) s = Sign(h) y = Cast <to = 7> (s)"),
    "QuantizeLinear": ("QuantizeLinear", "uint8", "y = QuantizeLinear(x, one, zero_point)"),
    "ArgMax": ("ArgMax", "int64", f"{LARGEST} y = ArgMax <axis = 1, keepdims = 0> (h)"),
    "ArgMin": ("ArgMin", "int64", f"{LARGEST} y = ArgMin <axis = 1, keepdims = 0> (h)"),
    "TopK": ("TopK", "int64", f"{LARGEST} v, i = TopK <axis = 1> (h, two_of) y = Squeeze(i)"),
}
"""By name: the operator that decides, the dtype of the output, the nodes."""


def graph(name: str, folder: Path) -> Path:
    _, dtype, body = GRAPHS[name]
    shape = {"moved": "[2,8]", "TopK": "[8,2]"}.get(name, "[8]")
    halves = ", ".join(["0.5"] * 8)
    constants = (
        "float half = {0.5}, float zero = {0.0}, float one = {1.0}, float two = {2.0}, float large = {200.0}, "
        "int64 seven = {7}, int64 nine = {9}, int64[1] axis = {0}, uint8 zero_point = {100}, int64[2] column = {8, 1}, "
        f"int64[1] two_of = {{2}}, float[8,1] halves = {{{halves}}}"
    )
    return written(f"g (float[8] x) => ({dtype}{shape} y) <{constants}> {{ {body} }}", folder)


def flipped(place: int) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return a change of the decision at a place into the other one that is possible there."""

    def change(outputs):
        y = outputs["y"]
        if y.dim() == 2:
            across = (slice(None), place) if y.shape == (2, 8) else (place,)
            y[across] = y[(slice(None), 0) if y.shape == (2, 8) else (0,)]
        else:
            y[place] = y[0]  # which is on the other side of the boundary

    return change


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_decision_is_a_tie_near_its_boundary_and_wrong_in_the_midst(name, above, judged, tmp_path):
    sign = 1 if above else -1
    x = torch.full((8,), 0.5 + sign * FAR)
    x[0] = 0.5 - sign * FAR
    x[5] = 0.5 * (1 + sign * NEAR)
    file = graph(name, tmp_path)
    near = judged(file, {"x": x}, flipped(5))
    assert (near.verdict, near.outputs[0].decisions.ties) == ("pass", near.outputs[0].decisions.differ)
    assert near.outputs[0].decisions.differ > 0
    far = judged(file, {"x": x}, flipped(2))
    assert far.verdict == "fail"
    wrong = far.outputs[0].decisions.wrong
    assert wrong.operator == GRAPHS[name][0]
    assert wrong.margin == pytest.approx(FAR, rel=0.01)
    assert judged(file, {"x": x}).verdict == "pass"

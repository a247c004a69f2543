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

DETECTOR = Path(__file__).parents[1] / "data" / "onnx" / "detection" / "det.onnx"
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
    "mask of floats": ("Greater", "float", f"{ABOVE} y = Cast <to = 1> (above)"),
    "rounded floats": ("Round", "float", "y = Round(x)"),
    "label as a float": ("ArgMax", "float", f"{LARGEST} a = ArgMax <axis = 1, keepdims = 0> (h) y = Cast <to = 1> (a)"),
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
        "int64 seven = {7}, int64 nine = {9}, int64[1] axis = {0}, int64[2] column = {8, 1}, "
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


def detector(change: Callable[[dict[str, torch.Tensor]], Any], judged: Callable[..., Result]) -> Result:
    """Judge the detector: 20 of 100 boxes by their scores; those at 3 and 4 are 9e-5 apart, FP16 knows 5e-4."""
    f = torch.randn(1, 100, 32, generator=torch.Generator().manual_seed(0))
    return judged(DETECTOR, {"f": f}, change)


def exchanged(*names: str, pairs: tuple[tuple[int, int], ...]) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(outputs):
        for name, (first, second) in ((name, pair) for name in names for pair in pairs):
            outputs[name][0, [first, second]] = outputs[name][0, [second, first]]

    return change


@pytest.mark.parametrize("names", [("tb", "ts"), ("tb",)])
def test_boxes_of_near_ties_may_be_in_any_order(judged, names):
    """Where the scores are as near, they may be those of either order."""
    result = detector(exchanged(*names, pairs=((3, 4),)), judged)
    assert [(found.name, found.verdict) for found in result.outputs] == [("tb", "pass"), ("ts", "pass")]
    assert result.outputs[0].stats.relative_l2 < 1e-6  # the reference of either order, up to the rounding of FP32
    assert result.outputs[0].floor.relative_l2 < 1e-3


def box_twice(outputs):
    outputs["tb"][0, 4] = outputs["tb"][0, 3]


def box_moved(outputs):
    exchanged("tb", "ts", pairs=((3, 4),))(outputs)
    outputs["tb"][0, 3, 2] += 20


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(exchanged("tb", pairs=((2, 15),)), id="far apart"),
        pytest.param(exchanged("tb", "ts", pairs=((2, 15),)), id="far apart with their scores"),
        pytest.param(box_twice, id="one box twice"),
        pytest.param(box_moved, id="a box is wrong beside the tie"),
        pytest.param(lambda outputs: outputs["tb"].copy_(outputs["tb"].roll(1, 1)), id="shifted"),
        pytest.param(lambda outputs: outputs["tb"][0, 19].copy_(outputs["tb"][0, 0]), id="the best in the last place"),
    ],
)
def test_boxes_that_are_no_near_ties_fail(judged, change):
    result = detector(change, judged)
    assert result.outputs[0].verdict == "fail"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("seed", range(3))
def test_the_detector_on_onnx_runtime_passes(tmp_path, precision, seed):
    f = torch.randn(1, 100, 32, generator=torch.Generator().manual_seed(seed))
    target = Target("ort-cpu", precision)
    made = Subject(name="det", onnx=str(DETECTOR), cases={"one": lambda: {"f": f}}, targets=(target,), weights="file")
    [result] = verify(made, targets=[target], cases=["one"], settings=quiet(tmp_path))
    assert result.verdict == "pass", result.reason


def test_what_no_known_operator_decides_is_counted_and_fails(judged, tmp_path):
    """NonMaxSuppression keeps boxes by scores and overlaps of which no margin is known."""
    body = (
        "g (float[1,6,4] boxes, float[1,1,6] scores) => (int64[n,3] kept) "
        "<int64 most = {6}, float overlap = {0.5}> { kept = NonMaxSuppression(boxes, scores, most, overlap) }"
    )
    corners = torch.rand(1, 6, 2, generator=torch.Generator().manual_seed(0)) * 10
    inputs = {"boxes": torch.cat([corners, corners + 1], -1), "scores": torch.linspace(0.1, 0.9, 6)[None, None]}
    file = written(body, tmp_path)
    assert judged(file, inputs).verdict == "pass"
    wrong = judged(file, inputs, lambda outputs: outputs["kept"][[0, 1]].copy_(outputs["kept"][[1, 0]]))
    assert wrong.verdict == "pass", "a copy of rows was changed, nothing of the outputs"
    wrong = judged(file, inputs, exchanged_rows)
    assert wrong.verdict == "fail"
    assert "NonMaxSuppression" in wrong.reason
    assert wrong.outputs[0].decisions.ties == 0


def exchanged_rows(outputs):
    outputs["kept"][[0, 1]] = outputs["kept"][[1, 0]]


def test_what_follows_from_integers_alone_has_no_ties(judged, tmp_path):
    file = written("g (int64[4] x) => (int64[4] y) <int64 two = {2}> { y = Mul(x, two) }", tmp_path)
    result = judged(file, {"x": torch.arange(4)}, lambda outputs: outputs["y"].add_(1))
    assert result.verdict == "fail"
    assert result.outputs[0].decisions.differ == 4
    assert "none is excused" in result.reason


@pytest.mark.parametrize(("scale", "verdict"), [(2.0**17, "not_judged"), (1.0, "fail")])
def test_where_pytorch_overflows_nothing_is_decided(judged, tmp_path, scale, verdict):
    """Beyond 65504 FP16 has no numbers, and so no margin either."""
    nodes = "h = Mul(x, s) y = ArgMax <axis = 1, keepdims = 0> (h)"
    body = f"g (float[1,8] x) => (int64[1] y) <float s = {{{scale}}}> {{ {nodes} }}"
    file = written(body, tmp_path)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]])
    assert judged(file, {"x": x}, lambda outputs: outputs["y"].fill_(3)).verdict == verdict

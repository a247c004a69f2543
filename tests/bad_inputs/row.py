"""What a row of the table is, and what many rows make: ONNX files from text, suites from their fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import parser

Make = Callable[[], Any]
HEAD = '<ir_version: 9, opset_import: ["" : 18]>'
RELU = "g (float[2] x) => (float[2] y) { y = Relu(x) }"
VERIFY = "verify m.onnx -b ort-cpu -p fp32"


@dataclass(frozen=True)
class Row:
    """One bad input."""

    name: str
    make: Make
    """Makes it in the working folder, which is empty."""
    command: str
    """What is typed after ``parity``."""
    status: int
    """1: an engine is wrong; 2: the request is; 3: nothing could be judged."""
    facts: tuple[str, ...]
    """Words and figures that the one sentence about it must hold."""
    shows: bool = False
    """Whether results are shown all the same, where the request is wrong."""


def nothing() -> None:
    """Make nothing: the command alone is wrong."""


def both(*makes: Make) -> Make:
    """Return what makes several things."""
    return lambda: [make() for make in makes]


def write(path: str, content: bytes | str) -> Make:
    """Return what writes a file."""

    def make() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def folder(path: str) -> Make:
    """Return what makes a folder."""
    return lambda: Path(path).mkdir(parents=True)


def model(text: str = RELU, change: Callable[[onnx.ModelProto], Any] = lambda proto: None, *, head: str = HEAD) -> Make:
    """Return what writes ``m.onnx`` from ONNX's own text form, once ``change`` has changed the protobuf."""

    def make() -> None:
        proto = parser.parse_model(f"{head} {text}")
        change(proto)
        Path("m.onnx").write_bytes(proto.SerializeToString())

    return make


LINEAR = {
    "name": "'s'",
    "build": "lambda: torch.nn.Linear(4, 2).eval()",
    "cases": "{'one': lambda: {'input': torch.ones(2, 4)}}",
    "targets": "targets('ort-cpu', precisions=('fp32',))",
    "weights": "'random'",
}


def suite(code: str = "", *, path: str = "suites/test_s.py", **fields: str | None) -> Make:
    """Return what writes a suite of one linear layer whose fields are these expressions; None leaves one out.

    ``code`` stands in front of it.
    """
    given = {name: text for name, text in {**LINEAR, **fields}.items() if text is not None}
    subject = ", ".join(f"{name}={text}" for name, text in given.items())
    head = "import torch\nfrom harness import Subject, Target, Tolerance, targets\n"
    return write(path, f"{head}{code}\nSUBJECT = Subject({subject})\n")

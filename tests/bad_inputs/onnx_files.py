"""Files that are called .onnx and are something else, or only a part of one."""

from __future__ import annotations

from pathlib import Path

from bad_inputs.row import VERIFY, Row, both, folder, model, nothing, write


def cut(path: str, share: float) -> None:
    """Cut a file to a share of its length."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"

ROWS = (
    Row("missing", nothing, VERIFY, 2, ("m.onnx", "does not exist")),
    Row("folder", folder("m.onnx"), VERIFY, 2, ("m.onnx", "is a folder")),
    Row("empty", write("m.onnx", ""), VERIFY, 2, ("m.onnx", "empty")),
    Row("zip", write("m.onnx", b"PK\x03\x04" + bytes(100)), VERIFY, 2, ("m.onnx", "zip")),
    Row("text", write("m.onnx", "hello"), VERIFY, 2, ("m.onnx", "not an ONNX file")),
    Row("cut in half", both(model(), lambda: cut("m.onnx", 0.5)), VERIFY, 2, ("m.onnx", "truncated or damaged")),
)

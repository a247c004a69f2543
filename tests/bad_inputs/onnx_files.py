"""Files that are called .onnx and are something else, or only a part of one; weights in other files."""

from __future__ import annotations

import gzip
from pathlib import Path

import onnx

from bad_inputs.row import VERIFY, Row, both, folder, model, nothing, write

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
ADD = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"


def cut(path: str, share: float) -> None:
    """Cut a file to a share of its length."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


def compressed() -> None:
    Path("m.onnx").write_bytes(gzip.compress(Path("m.onnx").read_bytes()))


def followed(data: bytes) -> None:
    with Path("m.onnx").open("ab") as file:
        file.write(data)


def external(**fields: str):
    """Return what keeps the weight of ``ADD`` in another file, as these fields say."""

    def change(proto: onnx.ModelProto) -> None:
        (tensor,) = proto.graph.initializer
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=value)

    return model(ADD, change)


HALF = write("w.bin", bytes(4))

ROWS = (
    Row("missing", nothing, VERIFY, 2, ("m.onnx", "does not exist")),
    Row("folder", folder("m.onnx"), VERIFY, 2, ("m.onnx", "is a folder")),
    Row("empty", write("m.onnx", ""), VERIFY, 2, ("m.onnx", "empty")),
    Row("zip", write("m.onnx", b"PK\x03\x04" + bytes(100)), VERIFY, 2, ("m.onnx", "zip")),
    Row("gzip", both(model(), compressed), VERIFY, 2, ("m.onnx", "gzip")),
    Row("text", write("m.onnx", "hello"), VERIFY, 2, ("m.onnx", "not an ONNX file")),
    Row("JSON", write("m.onnx", "{}"), VERIFY, 2, ("m.onnx", "not an ONNX file")),
    Row("zeros", write("m.onnx", bytes(1000)), VERIFY, 2, ("m.onnx", "not an ONNX file")),
    Row("one byte", write("m.onnx", b"\x08"), VERIFY, 2, ("m.onnx", "truncated or damaged")),
    Row("version alone", write("m.onnx", b"\x08\x09"), VERIFY, 2, ("m.onnx", "no graph")),
    Row("pointer of Git LFS", write("m.onnx", LFS), VERIFY, 2, ("m.onnx", "Git LFS pointer", "git lfs pull")),
    Row("cut in half", both(model(), lambda: cut("m.onnx", 0.5)), VERIFY, 2, ("m.onnx", "truncated or damaged")),
    Row("bytes behind it", both(model(), lambda: followed(b"\xff" * 9)), VERIFY, 2, ("m.onnx", "truncated or damaged")),
    Row("a tensor instead of a model", lambda: onnx.save_tensor(onnx.helper.make_tensor("w", 1, [1], [1.0]), "m.onnx"), VERIFY, 2, ("m.onnx", "cannot be parsed")),
    Row("weights outside", external(location="/etc/passwd"), VERIFY, 2, ("'w'", "'/etc/passwd'", "outside")),
    Row("weights above", both(external(location="../w.bin"), write("../w.bin", bytes(8))), VERIFY, 2, ("'w'", "'../w.bin'", "outside")),
    Row("weights behind a link", both(external(location="w.bin"), lambda: Path("w.bin").symlink_to("/etc/passwd")), VERIFY, 2, ("'w'", "'w.bin'", "outside")),
    Row("weights missing", external(location="w.bin"), VERIFY, 2, ("'w'", "'w.bin'", "missing")),
    Row("weights without a place", external(), VERIFY, 2, ("m.onnx",)),
    Row("weights in a folder", both(external(location="w.bin"), folder("w.bin")), VERIFY, 2, ("'w'", "'w.bin'", "not a file")),
    Row("weights in an empty file", both(external(location="w.bin"), write("w.bin", "")), VERIFY, 2, ("'w'", "'w.bin'", "byte 8", "byte 0")),
    Row("weights cut in half", both(external(location="w.bin"), HALF), VERIFY, 2, ("'w'", "'w.bin'", "byte 8", "byte 4")),
    Row("weights in a pointer of Git LFS", both(external(location="w.bin"), write("w.bin", LFS)), VERIFY, 2, ("w.bin", "Git LFS pointer")),
    Row("weights before the file", both(external(location="w.bin", offset="-4"), write("w.bin", bytes(8))), VERIFY, 2, ("'w'", "-4")),
    Row("weights behind the file", both(external(location="w.bin", offset="4"), write("w.bin", bytes(8))), VERIFY, 2, ("'w'", "byte 12", "byte 8")),
    Row("offset in words", both(external(location="w.bin", offset="four"), write("w.bin", bytes(8))), VERIFY, 2, ("m.onnx", "four")),
    Row("too short a length", both(external(location="w.bin", length="4"), write("w.bin", bytes(8))), VERIFY, 2, ("'w'", "4 bytes", "8 bytes")),
)  # fmt: skip

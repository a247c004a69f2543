"""Files that are called .onnx and are something else, or only a part of one; weights in other files."""

from __future__ import annotations

import gzip
import os
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


def outside(tensor: onnx.TensorProto, **fields: str) -> None:
    """Let a tensor lie in a file of the machine."""
    for name, value in fields.items():
        setattr(tensor, name, value)
    for data in ("float_data", "raw_data"):
        tensor.ClearField(data)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


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
    Row("weights of a Constant outside", model("g (float[2] x) => (float[2] y) { w = Constant <value = float[2] {1, 2}> () y = Add(x, w) }", lambda proto: outside(proto.graph.node[0].attribute[0].t)), VERIFY, 2, ("'/etc/passwd'", "outside")),
    Row("weights of a function outside", model('g (float[2] x) => (float[2] y) { y = own.f(x) } <domain: "own", opset_import: ["" : 18]> f (a) => (b) { w = Constant <value = float[2] {1, 2}> () b = Add(a, w) }', lambda proto: outside(proto.functions[0].node[0].attribute[0].t), head='<ir_version: 9, opset_import: ["" : 18, "own" : 1]>'), VERIFY, 2, ("'/etc/passwd'", "outside")),
    Row("weights of a body outside", model("g (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] z) <float[2] w = {1, 2}> { z = Add(x, w) }, else_branch = e () => (float[2] v) { v = Neg(x) }> }", lambda proto: outside(proto.graph.node[0].attribute[0].g.initializer[0])), VERIFY, 2, ("'w'", "'/etc/passwd'", "outside")),
    Row("weights of a training graph outside", model(ADD, lambda proto: outside(proto.training_info.add().initialization.initializer.add(name="t", data_type=1, dims=[2]))), VERIFY, 0, ("1 passed",)),
    Row("sparse weights outside", model("g (float[2] x) => (float[2] y) { y = Add(x, w) }", lambda proto: outside(proto.graph.sparse_initializer.add(dims=[2]).values, name="w")), VERIFY, 2, ("'w'", "nothing computes")),
    Row("weights with NUL in their place", external(location="w.bin\0x"), VERIFY, 2, ("'w'", "outside")),
    Row("weights through a link of a folder", both(external(location="d/passwd"), lambda: Path("d").symlink_to("/etc")), VERIFY, 2, ("'w'", "'d/passwd'", "outside")),
    Row("weights in a pipe", both(external(location="w.bin"), lambda: os.mkfifo("w.bin")), VERIFY, 2, ("'w'", "'w.bin'", "not a file")),
    Row("weights of no place", external(location=""), VERIFY, 2, ("'w'", "not a file")),
    Row("weights at a place of 5000 letters", external(location="w" * 5000), VERIFY, 2, ("www",)),
    Row("weights with escapes in their place", external(location="\x1b[31mw\n"), VERIFY, 2, ("'w'", "missing")),
    Row("offset of 2^63", both(external(location="w.bin", offset=str(2**63)), write("w.bin", bytes(8))), VERIFY, 2, ("'w'", str(2**63 + 8), "byte 8")),
    Row("offset of 5000 digits", both(external(location="w.bin", offset="9" * 5000), write("w.bin", bytes(8))), VERIFY, 2, ("m.onnx", "digits")),
    Row("length below 0", both(external(location="w.bin", length="-8"), write("w.bin", bytes(8))), VERIFY, 2, ("'w'", "-8")),
)  # fmt: skip

"""Inputs in .npz and JSON files."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs.onnx_files import LFS
from bad_inputs.row import Make, Row, both, folder, model, suite, write

ONE = np.ones(2, np.float32)
NPZ = "verify m.onnx -b ort-cpu -p fp32 --inputs in.npz"
JSON = "verify m.onnx -b ort-cpu -p fp32 --inputs in.json"


def arrays(**named: Any) -> Make:
    """Return what writes ``m.onnx``, a Relu of two numbers, and these arrays to ``in.npz``."""
    return both(model(), lambda: np.savez("in.npz", **named))


def given(content: bytes | str, path: str = "in.npz") -> Make:
    """Return what writes ``m.onnx`` and a file of inputs as it is given."""
    return both(model(), write(path, content))


def npy(array: np.ndarray[Any, Any] = ONE) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def members(**named: bytes) -> Make:
    """Return what writes ``m.onnx`` and an archive of these members, whatever is in them."""

    def make() -> None:
        with zipfile.ZipFile("in.npz", "w") as archive:
            for name, content in named.items():
                archive.writestr(f"{name}.npy", content)

    return both(model(), make)


def claims(shape: tuple[int, ...]) -> bytes:
    """Return an array of two numbers whose header has another shape."""
    return npy().replace(b"(2,), }" + b" " * 20, f"{shape}, }}".encode().ljust(27))


def header(text: str) -> bytes:
    """Return what begins as an array does, with another header."""
    return b"\x93NUMPY\x01\x00" + (108).to_bytes(2, "little") + text.encode().ljust(107) + b"\n"


def twice() -> None:
    """Write an archive with two arrays of one name."""
    model()()
    with zipfile.ZipFile("in.npz", "w") as archive, warnings.catch_warnings(action="ignore"):
        for scale in (1, 9):
            archive.writestr("x.npy", npy(ONE * scale))


def polygraphy(item: object) -> str:
    return json.dumps([{"x": item}])


def damaged() -> None:
    data = bytearray(Path("in.npz").read_bytes())
    data[60] ^= 0xFF
    Path("in.npz").write_bytes(data)


ROWS = (
    Row("missing file", model(), NPZ, 2, ("in.npz", "does not exist")),
    Row("empty file", given(""), NPZ, 2, ("in.npz", "neither")),
    Row("text", given("hello"), NPZ, 2, ("in.npz", "neither")),
    Row("pointer of Git LFS", given(LFS), NPZ, 2, ("in.npz", "Git LFS pointer")),
    Row("gzip", given(gzip.compress(npy())), NPZ, 2, ("in.npz", "neither")),
    Row("one array", given(npy()), NPZ, 2, ("in.npz", "neither")),
    Row("wrong name", arrays(z=ONE), NPZ, 2, ("'z'", "x")),
    Row("one name too many", arrays(x=ONE, z=ONE), NPZ, 2, ("'z'", "x")),
    Row("no array", arrays(), NPZ, 2, ("missing", "'x'")),
    Row("wrong dtype", arrays(x=np.ones(2)), NPZ, 2, ("'x'", "float64", "float32")),
    Row("complex", arrays(x=ONE + 1j), NPZ, 2, ("'x'", "complex", "float32")),
    Row("wrong shape", arrays(x=np.ones(3, np.float32)), NPZ, 2, ("'x'", "[3]", "[2]")),
    Row("wrong rank", arrays(x=np.ones((1, 2), np.float32)), NPZ, 2, ("'x'", "[1, 2]", "[2]")),
    Row("no dimension", arrays(x=np.float32(1)), NPZ, 2, ("'x'", "[]", "[2]")),
    Row("nothing in it", arrays(x=np.ones(0, np.float32)), NPZ, 2, ("'x'", "[0]", "[2]")),
    Row("NaN", arrays(x=ONE * np.nan), NPZ, 3, ("'x'", "2 NaN")),
    Row("infinite", arrays(x=ONE * np.inf), NPZ, 3, ("'x'", "2 Inf")),
    Row("strings", arrays(x=np.array(["a", "b"])), NPZ, 2, ("'x'", "<U1")),
    Row("dates", arrays(x=np.array(["2020", "2021"], "datetime64[Y]")), NPZ, 2, ("'x'", "datetime64")),
    Row("records", arrays(x=np.zeros(2, [("a", "f4")])), NPZ, 2, ("'x'", "'a'")),
    Row("long doubles", arrays(x=np.ones(2, np.longdouble)), NPZ, 2, ("'x'", "float128")),
    Row("objects", arrays(x=np.array([{}, []], object)), NPZ, 2, ("in.npz", "'x'", "Python objects")),
    Row("other byte order", arrays(x=ONE.astype(">f4")), NPZ, 0, ("1 passed",)),
    Row("member that is no array", members(x=b"hello"), NPZ, 2, ("in.npz", "'x'", "no array")),
    Row("member that is empty", members(x=b""), NPZ, 2, ("in.npz", "'x'", "no array")),
    Row("member cut in its header", members(x=npy()[:30]), NPZ, 2, ("in.npz", "'x'", "no array")),
    Row("member cut in its data", members(x=npy()[:-4]), NPZ, 2, ("in.npz", "'x'", "8", "4")),
    Row("member that claims a terabyte", members(x=claims((2**38,))), NPZ, 2, ("in.npz", "'x'", str(2**40))),
    Row("member of a negative size", members(x=claims((-2,))), NPZ, 2, ("in.npz", "'x'", "-8")),
    Row("member that runs code", members(x=b"cos\nsystem\n(S'true'\ntR."), NPZ, 2, ("in.npz", "'x'", "no array")),
    Row("damaged", both(arrays(x=ONE), damaged), NPZ, 2, ("in.npz",)),
    Row("a checkpoint of PyTorch", given(b"PK\x03\x04" + bytes(40)), NPZ, 2, ("in.npz",)),
    Row("folder without a file", both(model(), folder("in.npz")), NPZ, 2, ("in.npz", "no .json")),
    Row("JSON of a list", given("[]", "in.json"), JSON, 2, ("in.json", "no inputs")),
    Row("JSON of a number", given("7", "in.json"), JSON, 2, ("in.json", "no inputs")),
    Row("JSON of 100,000 brackets", given("[" * 100_000, "in.json"), JSON, 2, ("in.json", "neither")),
    Row("JSON of an array", given(polygraphy([1, 2]), "in.json"), JSON, 2, ("in.json", "'x'")),
    Row("JSON of a pickle", given(polygraphy({"tensor": "gASVAAAA"}), "in.json"), JSON, 2, ("in.json", "'x'", "pickled")),
    Row("JSON of no base64", given(polygraphy({"array": "!!!"}), "in.json"), JSON, 2, ("in.json", "'x'", "decoded")),
    Row("JSON of half an array", given(polygraphy({"array": base64.b64encode(npy()[:-4]).decode()}), "in.json"), JSON, 2, ("in.json", "'x'")),
    Row("JSON that claims a terabyte", given(polygraphy({"array": base64.b64encode(claims((2**38,))).decode()}), "in.json"), JSON, 2, ("in.json", "'x'", str(2**40))),
    Row("inputs and a shape", arrays(x=ONE), f"{NPZ} --shape x=2", 2, ("--shape", "--inputs")),
    Row("wrong name for a module", both(suite(), lambda: np.savez("in.npz", x=ONE)), "verify s --inputs in.npz", 2, ("'x'", "input")),
    Row("wrong shape for a module", both(suite(), lambda: np.savez("in.npz", input=ONE)), "verify s --inputs in.npz", 2, ("'input'", "[2]", "2, 4")),
    Row("two members of one name", twice, NPZ, 2, ("in.npz", "'x'", "twice")),
    Row("member at an absolute path", members(**{"/etc/x": npy()}), NPZ, 2, ("'/etc/x'", "x")),
    Row("member above the folder", members(**{"../x": npy()}), NPZ, 2, ("'../x'", "x")),
    Row("header of open brackets", members(x=header("(" * 7)), NPZ, 2, ("in.npz", "'x'", "no array")),
    Row("header that is code", members(x=header("open('owned', 'w')")), NPZ, 2, ("in.npz", "'x'", "no array")),
    Row("header of 4 GB", members(x=b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"), NPZ, 2, ("in.npz", "'x'", "no array")),
    Row("member with escapes in its name", members(**{"\x1b[31mx": npy()}), NPZ, 2, ("unknown input", "31m")),
    Row("pipe", both(model(), lambda: os.mkfifo("in.npz")), NPZ, 2, ("in.npz", "pipe")),
    Row("array in the order of Fortran", both(model("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }"), lambda: np.savez("in.npz", x=np.asfortranarray(np.ones((2, 3), np.float32)))), NPZ, 0, ("1 passed",)),
)  # fmt: skip

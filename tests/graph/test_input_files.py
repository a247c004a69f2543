"""Inputs from files: what is read, and what is refused in one sentence before memory is taken."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import UsageError
from harness.graph import input_files
from harness.graph.input_files import load_inputs
from harness.graph.onnx_inputs import InputSpec

SPECS = (
    InputSpec(name="x", dtype="float32", shape=("n", 2)),
    InputSpec(name="ids", dtype="int64", shape=("n",)),
)


def good() -> dict[str, torch.Tensor]:
    return {"x": torch.ones(3, 2), "ids": torch.zeros(3, dtype=torch.int64)}


def test_npz_inputs(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, **{name: tensor.numpy() for name, tensor in good().items()})
    loaded = load_inputs(path, SPECS)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in good().items())


def test_npz_problems(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match=r"inputs\.npz cannot be read as \.npz: 'x' holds Python objects"):
        load_inputs(path, SPECS)
    np.savez(path, x=np.array(["a"]))
    with pytest.raises(UsageError, match="'x' has dtype <U1, which PyTorch does not have"):
        load_inputs(path, SPECS)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", "no array")
    with pytest.raises(UsageError, match=r"inputs\.npz cannot be read as \.npz: 'x'"):
        load_inputs(path, SPECS)
    with pytest.raises(UsageError, match=r"none\.npz does not exist"):
        load_inputs(tmp_path / "none.npz", SPECS)


def encoded(array: np.ndarray, *, pickled: bool = False) -> dict[str, str]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return {"array": base64.b64encode(file.getvalue()).decode(), "polygraphy_class": "ndarray"}


def feed(scale: float = 1) -> dict[str, dict[str, str]]:
    return {"x": encoded(good()["x"].numpy() * np.float32(scale)), "ids": encoded(good()["ids"].numpy())}


def test_polygraphy_inputs(tmp_path: Path) -> None:
    path, said = tmp_path / "inputs.json", []
    path.write_text(json.dumps([feed(2), feed(3)]))
    assert load_inputs(path, SPECS, say=said.append)["x"].unique().tolist() == [2]
    assert said == [f"{path} holds 2 iterations; the first is used"]
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index:010d}.json").write_text(json.dumps(feed(4 + index)))
    assert load_inputs(folder, SPECS, say=said.append)["x"].unique().tolist() == [4]
    assert said[1:] == [f"{folder} holds 3 iterations; the first is used"]


def test_what_polygraphy_itself_writes_is_read(tmp_path: Path) -> None:
    polygraphy = pytest.importorskip("polygraphy.json", reason="polygraphy is not installed")
    path = tmp_path / "inputs.json"
    polygraphy.save_json([{name: tensor.numpy() for name, tensor in good().items()}], str(path))
    assert torch.equal(load_inputs(path, SPECS)["x"], good()["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is neither an .npz file nor JSON"),
        ("[]", "holds no inputs"),
        ('[["x"]]', "holds no inputs"),
        ('[{"x": 1}]', "input 'x' is not an array as Polygraphy saves it"),
        ('[{"x": {"array": "AAAA"}}]', "input 'x' cannot be decoded"),
        ('[{"x": {"array": "%"}}]', "input 'x' cannot be decoded"),
        ('[{"x": {"tensor": "AAAA"}}]', "input 'x' is a pickled torch tensor, which is never loaded"),
        (json.dumps({"x": encoded(np.array([{}], dtype=object), pickled=True)}), "holds Python objects"),
    ],
)
def test_bad_polygraphy_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(UsageError, match=r"inputs\.json") as error:
        load_inputs(tmp_path / "inputs.json", SPECS)
    assert message in str(error.value)


def test_empty_input_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no \.json file"):
        load_inputs(tmp_path, SPECS)


def npy(shape: str, data: bytes) -> bytes:
    """Return a .npy file whose header claims this shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("shape", "data", "number"),
    [("(1000000000000,)", b"", "4000000000000 bytes"), ("(4,)", b"abcd", "16 bytes"), ("(1,)", bytes(8), "4 bytes")],
)
def test_an_array_that_claims_other_bytes_than_it_holds_is_refused_by_the_number(tmp_path, shape, data, number):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy(shape, data))
    with pytest.raises(UsageError, match=number):
        load_inputs(tmp_path / "x.npz", SPECS)


def test_an_array_larger_than_what_is_free_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1000, 2), np.float32))
    monkeypatch.setattr(input_files, "available_bytes", lambda: 7999)
    with pytest.raises(UsageError, match="has 8000 bytes, and 7999 are free"):
        load_inputs(tmp_path / "x.npz", SPECS)


def test_brackets_without_end_are_no_inputs(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="nor JSON"):
        load_inputs(tmp_path / "deep.json", SPECS)

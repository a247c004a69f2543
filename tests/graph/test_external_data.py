"""Weights in other files: those of the model's folder are read, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from harness import UsageError
from harness.graph.onnx_file import open_onnx

SIZE = 4096


def weight(location: str, **fields: int) -> TensorProto:
    """Return a float32 weight of 32 x 32 that lies in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[32, 32], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **fields}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write(folder: Path, tensor: TensorProto, *, constant: bool = False) -> Path:
    """Write a model that multiplies by the weight, as an initializer or as a Constant's attribute, and the weight."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in "xy")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], name="constant", value=tensor))
    graph = helper.make_graph(nodes, "g", [x], [y], [] if constant else [tensor])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.bin").write_bytes(np.eye(32, dtype=np.float32).tobytes())
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    return path


@pytest.mark.parametrize("constant", [False, True])
def test_a_weight_beside_the_model_is_read(tmp_path, monkeypatch, constant):
    write(tmp_path, weight("weights.bin"), constant=constant)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "model.onnx", Path("model.onnx")):
        model = open_onnx(path)
        value = next(
            v for v in (*model.graph.initializers.values(), *(n.outputs[0] for n in model.graph)) if v.name == "w"
        )
        tensor = value.const_value or value.producer().attributes["value"].value
        assert tensor.numpy()[3, 3] == 1


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("name", ["absolute", "above", "above and back", "link", "link to a folder"])
def test_what_lies_outside_the_folder_is_not_read(tmp_path, monkeypatch, name, constant):
    secret = tmp_path / "secret" / "weights.bin"
    secret.parent.mkdir()
    secret.write_bytes(bytes(SIZE))
    folder = tmp_path / "model"
    location = {
        "absolute": str(secret), "above": "../secret/weights.bin", "above and back": "../model/weights.bin",
        "link": "link.bin", "link to a folder": "folder/weights.bin",
    }[name]  # fmt: skip
    path = write(folder, weight(location), constant=constant)
    (folder / "link.bin").symlink_to(secret)
    (folder / "folder").symlink_to(secret.parent)
    monkeypatch.chdir(folder)
    for given in (path, Path("model.onnx")):  # a folder that is not named is the current one
        with pytest.raises(UsageError, match="outside the model's folder") as refused:
            open_onnx(given)
        assert repr(location) in str(refused.value)


def test_a_model_and_its_weights_may_both_be_links_into_one_store(tmp_path):
    store, shown = tmp_path / "blobs", tmp_path / "snapshot"
    write(store, weight("weights.bin")).rename(store / "0a1b")
    shown.mkdir()
    (shown / "model.onnx").symlink_to(store / "0a1b")
    (shown / "weights.bin").symlink_to(store / "weights.bin")
    assert open_onnx(shown / "model.onnx").graph.initializers["w"].const_value.numpy()[3, 3] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset": 1}, "truncated at byte 4096"),
        ({"offset": -4}, "-4"),
        ({"length": 4}, "needs 4096 bytes"),
        ({"length": -1}, "-1"),
        ({"offset": 2**62}, "truncated"),
    ],
)
def test_a_weight_lies_inside_its_file(tmp_path, fields, message):
    with pytest.raises(UsageError, match=message):
        open_onnx(write(tmp_path, weight("weights.bin", **fields)))


def test_a_weight_larger_than_any_memory_is_refused_by_its_number(tmp_path):
    tensor = weight("weights.bin")
    tensor.dims[:] = [2**40, 4]
    with pytest.raises(UsageError, match=str(2**44)):
        open_onnx(write(tmp_path, tensor))


def test_a_file_that_is_missing_short_or_no_file_is_named(tmp_path):
    path = write(tmp_path, weight("weights.bin"))
    (tmp_path / "weights.bin").write_bytes(bytes(SIZE - 1))
    with pytest.raises(UsageError, match="truncated at byte 4095"):
        open_onnx(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UsageError, match="missing"):
        open_onnx(path)
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(UsageError, match="not a file"):
        open_onnx(path)


@pytest.mark.parametrize("dims", [[2**40], [3], [-4], [2**62, 4]])
def test_a_weight_in_the_file_has_as_many_bytes_as_its_shape(tmp_path, dims):
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.dims[:] = dims
    with pytest.raises(UsageError, match="tensor 'w'"):
        open_onnx(write(tmp_path, tensor))

"""Models in a process of their own: what goes in and out, and what becomes of one that raises, crashes or hangs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from harness import limits
from harness.errors import TookTooLong
from harness.isolated import Crashed, Model, Raised, infer_shapes

FLOAT = TensorProto.FLOAT


def serialized(
    nodes: list[onnx.NodeProto],
    *,
    shape: list[int | str | None] | None = None,
    dtype: int = FLOAT,
    output: int | None = None,
    constants: dict[str, np.ndarray] | None = None,
) -> bytes:
    """Return a model from x to y."""
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info("x", dtype, ["n"] if shape is None else shape)],
        [helper.make_tensor_value_info("y", dtype if output is None else output, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def loaded(model: bytes, library: str = "onnxruntime") -> Model:
    return Model(library=library, model=np.frombuffer(model, np.uint8))


DOUBLE = serialized([helper.make_node("Add", ["x", "x"], ["y"])])


def still_computes() -> bool:
    """Return whether another model still runs."""
    (result,) = loaded(DOUBLE).run({"x": np.ones(3, np.float32)}, ["y"])
    return bool((result[0] == 2).all())


@pytest.mark.parametrize("library", ["onnxruntime", "onnx.reference"])
@pytest.mark.parametrize(
    ("number", "array"),
    [
        (FLOAT, np.arange(6, dtype=np.float32)[::2]),
        (TensorProto.DOUBLE, np.array([np.pi, np.nan, -np.inf])),
        (TensorProto.INT64, np.array([], np.int64)),
        (TensorProto.BOOL, np.array([True, False])),
        (TensorProto.STRING, np.array(["a", "\u00e9\n"], dtype=object)),
    ],
)
def test_what_goes_in_comes_out(library, number, array):
    model = loaded(serialized([helper.make_node("Identity", ["x"], ["y"])], dtype=number), library)
    first, second = model.run({"x": array}, ["y"], times=2)
    for (result,) in (first, second):
        np.testing.assert_array_equal(result, array)
        assert result.dtype == array.dtype


def test_sequences_come_back_as_lists():
    nodes = [helper.make_node("SplitToSequence", ["x"], ["y"], keepdims=0)]
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", FLOAT, [3])],
        [helper.make_tensor_sequence_value_info("y", FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    ((found,),) = loaded(model.SerializeToString()).run({"x": np.arange(3, dtype=np.float32)})
    assert [float(item) for item in found] == [0, 1, 2]


@pytest.mark.parametrize("library", ["onnxruntime", "onnx.reference"])
def test_what_the_library_says_is_raised_and_others_run_on(library):
    constants = {"s": np.array([7], np.int64)}
    model = loaded(serialized([helper.make_node("Reshape", ["x", "s"], ["y"])], constants=constants), library)
    with pytest.raises(Raised, match="reshape"):
        model.run({"x": np.ones(3, np.float32)})
    assert still_computes()


def test_a_model_that_cannot_be_loaded():
    with pytest.raises(Raised, match="Foo"):
        loaded(serialized([helper.make_node("Foo", ["x"], ["y"])]))


def lstm_of_nothing(path: Path) -> bytes:
    """Write a model whose LSTM is given a batch of none, which ends ONNX Runtime's process."""
    generator = np.random.default_rng(0)
    weights = {"w": (1, 16, 3), "r": (1, 16, 4)}
    constants = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    nodes = [
        helper.make_node("Slice", ["x", "none", "none", "one"], ["nothing"]),
        helper.make_node("LSTM", ["nothing", "w", "r"], ["z"], hidden_size=4),
        helper.make_node("ReduceSum", ["z"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    constants |= {"none": np.array([0]), "one": np.array([1])}
    model = serialized(nodes, shape=[5, 2, 3], constants=constants)
    path.write_bytes(model)
    return model


def test_a_model_that_crashes_the_library_ends_its_process_and_nothing_else(tmp_path):
    model = loaded(lstm_of_nothing(tmp_path / "m.onnx"))
    for _ in range(2):  # the second time it is loaded into another process
        with pytest.raises(Crashed, match=r"^ONNX Runtime died with signal 6 \(SIGABRT\)"):
            model.run({"x": np.ones((5, 2, 3), np.float32)})
        assert still_computes()


def test_an_engine_that_crashes_is_a_verdict_and_the_run_goes_on(tmp_path, forks):
    lstm_of_nothing(tmp_path / "m.onnx")
    typed = ["verify", str(tmp_path / "m.onnx"), "-b", "ort-cpu", "--engines", str(tmp_path / "e")]
    ended = forks.run(["-m", "harness", *typed], cwd=tmp_path, env=os.environ, timeout=120)
    assert ended.returncode == 1, ended.stderr
    said = " ".join(ended.stdout.split())
    assert "2 verdicts: 0 passed, 2 failed (2 crash), 0 not judged" in said
    assert "ONNX Runtime died with signal 6 (SIGABRT)" in said


def endless() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [None]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", FLOAT, [None]),
        ],
    )
    return serialized([helper.make_node("Loop", ["", "on", "x"], ["y"], body=body)], constants={"on": np.array(True)})


@pytest.mark.parametrize("library", ["onnxruntime", "onnx.reference"])
def test_a_model_without_an_end_is_ended(library):
    name = "ONNX Runtime" if library == "onnxruntime" else library
    model = loaded(endless(), library)
    limits.about("")
    with limits.allowed(0.3), pytest.raises(TookTooLong, match=f"^{name} running the graph took longer than 0.3 s"):
        model.run({"x": np.ones(3, np.float32)})
    assert still_computes()


def test_a_file_is_found_from_another_working_folder(tmp_path, monkeypatch):
    assert still_computes()  # its process is there before
    (tmp_path / "m.onnx").write_bytes(DOUBLE)
    monkeypatch.chdir(tmp_path)
    (result,) = Model(path="m.onnx").run({"x": np.ones(3, np.float32)})
    assert result[0].tolist() == [2, 2, 2]


def test_every_thread_has_a_process_of_its_own():
    model, found = loaded(DOUBLE), []

    def run():
        found.append(model.run({"x": np.ones(1, np.float32)})[0][0].item())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    run()
    assert found == [2.0, 2.0]


def test_shapes_are_inferred_from_values_where_that_is_asked():
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("ConstantOfShape", ["s"], ["y"])]
    model = serialized(nodes, shape=[2, 3])

    def sizes(values: bool) -> list[int]:
        found = onnx.load_from_string(infer_shapes(model, values=values, most_bytes=2**30))
        return [dimension.dim_value for dimension in found.graph.output[0].type.tensor_type.shape.dim]

    assert sizes(True) == [2, 3]
    assert sizes(False) in ([], [0, 0])

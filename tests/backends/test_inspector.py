"""What the engine inspector says of kernels: their ONNX nodes, their tensors, their tactics."""

from __future__ import annotations

import json

import pytest

from harness.backends.inspector import Kernel, read_kernels


def layer(metadata: str | None, **fields: object) -> dict[str, object]:
    return {"Name": "k", "Metadata": metadata, **fields}


def inspected(*layers: dict[str, object]) -> str:
    return json.dumps({"Layers": layers})


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("[ONNX Layer: node_a]", ("node_a",)),
        ("[ONNX Layer: node_a]\x1f[ONNX Layer: node_b]", ("node_a", "node_b")),
        ("[ONNX Layer: node_a]\x1e[ONNX Layer: node_b]", ("node_a", "node_b")),
        ("[ONNX Layer: node_a]\x1f[ONNX Layer: node_b]\x1e[ONNX Layer: node_a]", ("node_a", "node_b")),
        ("[ONNX Layer: /layers[0]/mlp[gelu]]\x1f[ONNX Layer: b[1]]", ("/layers[0]/mlp[gelu]", "b[1]")),
        ("", ()),
        (None, ()),
    ],
)
def test_metadata_names_the_nodes_each_once(metadata, nodes):
    _, found = read_kernels(inspected(layer("[ONNX Layer: before]"), layer(metadata)))
    assert found.nodes == nodes


def test_kernels_keep_their_order_and_the_names_of_tensors():
    first = layer("[ONNX Layer: a]", Name="one", Inputs=[{"Name": "x"}], Outputs=[{"Name": "t"}, {"Name": "u"}])
    assert read_kernels(inspected(first, {"Name": "two", "TacticName": "t", "TacticValue": "0x1"})) == [
        Kernel(index=0, name="one", nodes=("a",), reads=("x",), writes=("t", "u")),
        Kernel(index=1, name="two", nodes=(), reads=(), writes=(), tactic=("t", "0x1")),
    ]

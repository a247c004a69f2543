"""Models of one node, run by the operators here and by ONNX Runtime: two computations that share no line."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnx import helper

from harness.operators import Call, bind

Arrays = list[np.ndarray | None]


def model_of(
    name: str, inputs: Arrays, *, opset: int, domain: str = "", outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """Return a model whose inputs are named i0, i1 ... and outputs o0, o1 ...; None is an absent input."""
    names = [f"i{index}" if array is not None else "" for index, array in enumerate(inputs)]
    node = helper.make_node(name, names, [f"o{index}" for index in range(outputs)], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(it, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for it, array in zip(names, inputs, strict=True)
            if array is not None
        ],
        [helper.make_empty_tensor_value_info(it) for it in node.output],
    )
    opsets = [helper.make_opsetid("", 21 if domain else opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, opset))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def call_of(model: onnx.ModelProto) -> Call:
    graph = ir.serde.deserialize_model(model)
    node = next(iter(graph.graph))
    call = bind(node, opset=graph.opset_imports[node.domain], body=lambda body: body)
    assert call is not None, f"{node.op_type} is not bound"
    return call


def here(model: onnx.ModelProto, inputs: Arrays, *, dtype: torch.dtype | None = None) -> list[np.ndarray]:
    """Return the outputs that the operators here give; the floats of the inputs in ``dtype`` if one is given."""
    tensors = [None if array is None else torch.from_numpy(array.copy()) for array in inputs]
    if dtype is not None:
        tensors = [it.to(dtype) if it is not None and it.is_floating_point() else it for it in tensors]
    call = call_of(model)
    got = call.function(*tensors, **call.settings, **call.dtypes)
    several = got if isinstance(got, tuple) else (got,)
    return [it.float().numpy() if it.dtype == torch.bfloat16 else it.numpy() for it in several if it is not None]


def onnxruntime_gives(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fed = {f"i{index}": array for index, array in enumerate(inputs) if array is not None}
    return session.run(None, fed)


def assert_agrees(
    name: str, inputs: Arrays, *, rtol: float = 1e-4, atol: float = 1e-5, twice: bool = True, **settings: Any
) -> None:
    """Assert that FP32 here is what ONNX Runtime gives, shapes and dtypes as well; if ``twice``, that FP64 is near."""
    model = model_of(name, inputs, **settings)
    theirs = onnxruntime_gives(model, inputs)
    ours = here(model, inputs)
    assert len(ours) >= len(theirs)
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype), f"output {index}"
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol, err_msg=f"output {index}")
    if not twice:
        return
    exact = here(model, inputs, dtype=torch.float64)
    for mine, other in zip(ours, exact, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4, err_msg="FP64")

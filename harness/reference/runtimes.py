"""What runs ONNX graphs on the CPU without optimising them: ONNX Runtime, and ``onnx.reference`` for FP64."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun


def cpu_session(model: bytes | str, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Load a serialised model or a file. Raises what ONNX Runtime raises.

    ``threads`` is for the many small sessions of single nodes, which must not spin for each other; 0 stands for all.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    if threads is not None:
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def reference_evaluator(proto: onnx.ModelProto) -> ReferenceEvaluator:
    """Load a model into ``onnx.reference``. Raises what that raises."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(proto, new_ops=[_gather_elements()])


@cache
def _gather_elements() -> type[OpRun]:
    """Return GatherElements for ``onnx.reference``, whose own fails on tables of more than 64 rows (onnx 1.23)."""
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        op_domain = ""

        def _run(self, data: Any, indices: Any, axis: int = 0) -> tuple[Any]:
            length = data.shape[axis]
            positive = torch.from_numpy(indices.astype("int64") % length)
            return (torch.gather(torch.from_numpy(data.copy()), axis, positive).numpy(),)

    return GatherElements

"""Which operator of a graph a builder refuses, and the plan that keeps it in FP32."""

from __future__ import annotations

import re

from harness.errors import EngineRefused
from harness.graph import Plan, Values, is_fp32
from harness.sentences import Sentence

_NODE = re.compile(r"(?<![A-Za-z0-9_])node_(\w+)")
"""A node of an exported graph, which is called after its value."""


def with_operator(error: EngineRefused, values: Values, plan: Plan) -> EngineRefused:
    """Return a refusal that says which operator it names, and what plan to try; the same one where it names none.

    TensorRT names a node by what its compiler made of it: ``deconv: ... node_convolution filterWeightsBFloat16``.
    """
    named = (values[name] for name in _NODE.findall(str(error)) if name in values)
    value = next(named, None)
    if value is None or is_fp32(plan) or plan.as_file:
        return error
    said = Sentence(
        "refused_operator", op=value.op, module=value.module or value.name, dtype=plan.computes_in, said=str(error)
    )
    found = EngineRefused(said)
    found.failure = error.failure
    return found

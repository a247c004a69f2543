"""The share of ONNX's own node tests that operators in PyTorch cover and pass, in each precision.

    python benchmarks/operators.py               # every node test of the onnx package, half a minute
    python benchmarks/operators.py --match pad   # those whose name holds a word

A test is covered where every node of its model is bound to an operator here. In FP64, FP16 and BF16 every FP32 tensor,
constant and dtype attribute takes that type, and the result is compared with the same expected values: in FP64 at the
same tolerance, in the others at some roundings of theirs.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from harness.operators import Unsupported, bind, tensor_of

TOLERANCES = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 2**-6, torch.bfloat16: 2**-3}
"""The least tolerance, relative and absolute, by precision; a test has its own for FP32."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a node test in one precision."""

    test: str
    refused: str = ""
    """The operator that nothing here computes, empty where all are bound."""
    failure: str = ""
    """What was wrong, empty where the test passed or was refused."""


@cache
def node_tests() -> tuple[Any, ...]:
    """Return the node tests of the installed onnx: model, data sets and tolerances."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow on purpose
        from onnx.backend.test.case.node import collect_testcases

        return tuple(collect_testcases(None))


def outcome(test: Any, precision: torch.dtype) -> Outcome:
    """Run one node test in a precision and compare each output with the expected one."""
    model = ir.serde.deserialize_model(test.model)
    rtol, atol = max(test.rtol, TOLERANCES[precision]), max(test.atol, TOLERANCES[precision])
    refused = failure = ""
    try:
        for inputs, expected in test.data_sets:
            known = dict(zip((value.name for value in model.graph.inputs), map(_value, inputs), strict=False))
            results = _run(model, known, precision)
            for value, result, wanted in zip(model.graph.outputs, results, map(_value, expected), strict=True):
                difference = _difference(result, wanted, precision, rtol=rtol, atol=atol)
                failure = failure or (f"{value.name}: {difference}" if difference else "")
    except _Refused as error:
        refused = str(error)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(test=test.name, refused=refused, failure=failure)


class _Refused(Exception):
    """An operator that is not computed here."""


def _run(model: ir.Model, known: Mapping[str, Any], precision: torch.dtype) -> list[Any]:
    """Return the outputs of a model, node by node."""
    values: dict[str, Any] = {name: _in_precision(it, precision) for name, it in known.items()}
    for name, constant in model.graph.initializers.items():
        values.setdefault(name, _in_precision(tensor_of(constant.const_value), precision))
    for node in model.graph:
        call = bind(node, opset=model.opset_imports.get(node.domain, 1), body=_no_body)
        if call is None:
            raise _Refused(_qualified(node))
        settings = {name: _in_precision(it, precision) for name, it in call.settings.items()}
        dtypes = {name: precision if it == torch.float32 else it for name, it in call.dtypes.items()}
        inputs = [values[value.name] if value is not None and value.name else None for value in node.inputs]
        try:
            results = call.function(*inputs, **settings, **dtypes)
        except Unsupported as error:
            raise _Refused(f"{_qualified(node)}: {error}") from None
        results = results if isinstance(results, tuple) else (results,)
        values |= {value.name: _in_precision(it, precision) for value, it in zip(node.outputs, results, strict=False)}
    return [values[value.name] for value in model.graph.outputs]


def _no_body(graph: ir.Graph) -> Any:
    raise _Refused("control flow")


def _qualified(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _in_precision(value: Any, precision: torch.dtype) -> Any:
    if isinstance(value, list):
        return [_in_precision(it, precision) for it in value]
    return value.to(precision) if isinstance(value, torch.Tensor) and value.dtype == torch.float32 else value


def _value(given: Any) -> Any:
    """Return an input or an expected output as operators take it."""
    if isinstance(given, list):
        return [_value(it) for it in given]
    if isinstance(given, onnx.TensorProto):
        return _tensor(ir.serde.deserialize_tensor(given))
    return None if given is None else _tensor(ir.tensor(np.asarray(given, order="C")))


def _tensor(constant: ir.TensorProtocol) -> torch.Tensor:
    try:
        return tensor_of(constant)
    except Unsupported as error:
        raise _Refused(str(error)) from None


def _difference(result: Any, wanted: Any, precision: torch.dtype, *, rtol: float, atol: float) -> str:
    """Return how a result differs from the expected one; empty where it does not."""
    if isinstance(wanted, list):
        if len(result) != len(wanted):
            return f"{len(result)} elements of a sequence for {len(wanted)}"
        pairs = zip(result, wanted, strict=True)
        return next(filter(None, (_difference(*pair, precision, rtol=rtol, atol=atol) for pair in pairs)), "")
    if wanted is None or result is None:
        return "" if wanted is result else "no value"
    expected = precision if wanted.dtype == torch.float32 else wanted.dtype
    if result.dtype != expected or result.shape != wanted.shape:
        return f"{result.dtype} {list(result.shape)} for {expected} {list(wanted.shape)}"
    if not wanted.dtype.is_floating_point:
        return (
            "" if torch.equal(result, wanted) else f"{result.flatten()[:8].tolist()}, {wanted.flatten()[:8].tolist()}"
        )
    try:
        np.testing.assert_allclose(result.double().numpy(), wanted.double().numpy(), rtol=rtol, atol=atol)
    except AssertionError as error:
        return " ".join(str(error).split())
    return ""


def outcomes(match: str, precision: torch.dtype) -> Iterator[Outcome]:
    """Yield what became of each node test whose name holds ``match``."""
    for test in node_tests():
        if match in test.name:
            yield outcome(test, precision)


def main() -> None:
    """Print the coverage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="", help="only tests whose name holds this")
    arguments = parser.parse_args()
    print(f"onnx {onnx.__version__}, PyTorch {torch.__version__}")
    for precision in TOLERANCES:
        found = list(outcomes(arguments.match, precision))
        covered = [it for it in found if not it.refused]
        failed = [it for it in covered if it.failure]
        passed = len(covered) - len(failed)
        name = str(precision).removeprefix("torch.")
        print(
            f"\n{name}: {len(found)} tests, {len(covered)} covered, {passed} passed ({passed / len(found):.1%} of all)"
        )
        for operator, count in Counter(it.refused for it in found if it.refused).most_common():
            print(f"  refused {count:4} {operator}")
        for it in failed:
            print(f"  failed {it.test}: {it.failure}")


if __name__ == "__main__":
    main()

"""The share of ONNX's own node tests that the interpreter of references covers and passes, in each precision.

    python benchmarks/operators.py               # every node test of the onnx package, a minute
    python benchmarks/operators.py --match pad   # those whose name holds a word
    python benchmarks/operators.py --device cuda # on a GPU

A test is covered where PyTorch computes every node of its model; ONNX Runtime runs the others. In FP64, FP16 and BF16
the results are compared with the same expected values: in FP64 at the tolerance of FP32, in the others at some
roundings of theirs.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch.utils._pytree import tree_map

from harness.errors import NotJudged
from harness.operators import tensor_of
from harness.reference import RunGraph, RunNotes, onnx_run_graph, run_graph

TOLERANCES = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 2**-6, torch.bfloat16: 2**-3}
"""The least tolerance, relative and absolute, by precision; each test has one for FP32."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a node test in one precision."""

    test: str
    precision: torch.dtype
    elsewhere: frozenset[str]
    """The operators that PyTorch has not here: ONNX Runtime ran them, or nobody."""
    failure: str
    """What was wrong, empty where the test passed."""


@cache
def node_tests() -> tuple[Any, ...]:
    """Return the node tests of the installed onnx: model, data sets and tolerances."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow on purpose
        from onnx.backend.test.case.node import collect_testcases

        return tuple(collect_testcases(None))


def outcomes(test: Any, device: str = "cpu") -> Iterator[Outcome]:
    """Run one node test in every precision and compare each output with the expected one."""
    model = ir.serde.deserialize_model(test.model)
    graph = onnx_run_graph(model)
    names = [str(value.name) for value in model.graph.inputs]
    data = [tuple([_value(it) for it in side] for side in pair) for pair in test.data_sets]
    where = torch.device(device)
    plain = _outcome(test, graph, names, data, torch.float32, where)
    for precision in TOLERANCES:
        is_same = precision == torch.float32 or not graph.floats  # no value that a precision changes
        yield replace(plain, precision=precision) if is_same else _outcome(test, graph, names, data, precision, where)


def _outcome(
    test: Any, graph: RunGraph, names: list[str], data: list[Any], precision: torch.dtype, device: torch.device
) -> Outcome:
    notes = RunNotes()
    failure = ""
    try:
        for inputs, expected in data:
            feeds = dict(zip(names, inputs, strict=False))
            results = run_graph(graph, feeds, dtype=precision, device=device, notes=notes)
            for (name, result), wanted in zip(results.items(), expected, strict=True):
                result = tree_map(lambda it: it.cpu() if isinstance(it, torch.Tensor) else it, result)
                difference = _difference(result, wanted, precision, rtol=test.rtol, atol=test.atol)
                failure = failure or (f"{name}: {difference}" if difference else "")
    except NotJudged as error:
        failure = str(error)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(test=test.name, precision=precision, elsewhere=frozenset(notes.elsewhere), failure=failure)


def _value(given: Any) -> Any:
    """Return an input or an expected output as the interpreter takes it: strings stay an array."""
    if isinstance(given, list):
        return [_value(it) for it in given]
    if given is None:
        return None
    known = isinstance(given, onnx.TensorProto)
    constant = ir.serde.deserialize_tensor(given) if known else ir.tensor(np.asarray(given, order="C"))
    return constant.numpy() if constant.dtype == ir.DataType.STRING else tensor_of(constant)


def _difference(result: Any, wanted: Any, precision: torch.dtype, *, rtol: float, atol: float) -> str:
    """Return how a result differs from the expected one; empty where it does not."""
    if isinstance(wanted, list):
        if len(result) != len(wanted):
            return f"{len(result)} elements of a sequence for {len(wanted)}"
        pairs = zip(result, wanted, strict=True)
        return next(filter(None, (_difference(*pair, precision, rtol=rtol, atol=atol) for pair in pairs)), "")
    if wanted is None or result is None:
        return "" if wanted is result else "no value"
    if isinstance(wanted, np.ndarray):
        return "" if result.tolist() == wanted.tolist() else f"{result.tolist()} for {wanted.tolist()}"
    planned = wanted.dtype in (torch.float32, torch.float16, torch.bfloat16)
    allowed = (precision, torch.float32) if planned else (wanted.dtype,)  # FP32: what no plan rounds
    if result.dtype not in allowed or result.shape != wanted.shape:
        return f"{result.dtype} {list(result.shape)} for {wanted.dtype} {list(wanted.shape)}"
    if not wanted.dtype.is_floating_point:
        first, second = (it.flatten()[:8].tolist() for it in (result, wanted))
        return "" if result.tolist() == wanted.tolist() else f"{first} for {second}"
    # What was expected of FP16 or BF16 was rounded to it, step by step.
    least = max(TOLERANCES[precision], TOLERANCES[wanted.dtype] if planned else 0)
    result = result.to(wanted.dtype) if planned and wanted.dtype.itemsize == 2 else result
    try:
        np.testing.assert_allclose(
            result.double().numpy(), wanted.double().numpy(), rtol=max(rtol, least), atol=max(atol, least)
        )
    except AssertionError as error:
        return " ".join(str(error).split())
    return ""


def main() -> None:
    """Print the coverage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="", help="only tests whose name holds this")
    parser.add_argument("--device", default="cpu", help="where PyTorch computes: cpu or cuda")
    arguments = parser.parse_args()
    print(f"onnx {onnx.__version__}, PyTorch {torch.__version__}, {arguments.device}")
    every = [it for test in node_tests() if arguments.match in test.name for it in outcomes(test, arguments.device)]
    for precision in TOLERANCES:
        found = [it for it in every if it.precision == precision]
        covered = [it for it in found if not it.elsewhere]
        passed, others = (sum(not it.failure for it in part) for part in (covered, found))
        print(
            f"\n{str(precision).removeprefix('torch.')}: {len(found)} tests, {len(covered)} covered by PyTorch"
            f" ({len(covered) / len(found):.1%}), {passed} of these passed; {others - passed} of the rest passed"
        )
        for operators, count in Counter(it.elsewhere for it in found if it.elsewhere).most_common():
            print(f"  elsewhere {count:4} {', '.join(sorted(operators))}")
        for it in found:
            if it.failure:
                print(f"  {'failed elsewhere' if it.elsewhere else 'failed'} {it.test}: {it.failure}")


if __name__ == "__main__":
    main()

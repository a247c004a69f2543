"""One quantised file per method, what each costs on the data, and what was left in floats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import limits
from harness.calibration.data import calibration_data, excluded_nodes, name_nodes
from harness.calibration.quantisers import TYPES, quantise
from harness.compare import relative_l2
from harness.errors import NotJudged
from harness.files import write_bytes
from harness.graph import Program, in_floats, open_onnx, quantised_units, save_model, weight_bytes
from harness.lazy import onnx_ir as ir
from harness.metrics import measure
from harness.records import MetricResult
from harness.reference import run_onnxruntime
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import Subject
from harness.temporary import temporary_folder
from harness.tensors import Tensors
from harness.verify import Run

LARGEST = 1.8e9
"""Bytes of weights: protobuf holds 2 GB, and the graph beside them."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What one method gave."""

    method: str
    errors: dict[str, float] = field(default_factory=dict)
    """By output of floats: the largest relative error over all inputs, by ONNX Runtime without optimisation."""
    metrics: tuple[MetricResult, ...] = ()
    """The subject's task metrics of the cost, of all inputs the worst."""
    quantised: int = 0
    """Operators that read quantised inputs."""
    problem: str = ""
    """Why there is no file."""
    model: bytes = field(default=b"", repr=False)
    """The file."""

    @property
    def worst(self) -> float:
        """The largest error of any output; infinite without a file."""
        return max(self.errors.values(), default=0.0) if not self.problem else float("inf")


def calibrate(
    subject: Subject,
    program: Program,
    data: Sequence[Tensors],
    target: Path,
    *,
    methods: Sequence[str],
    quantiser: str,
    types: Sequence[str],
    exclude: Sequence[str],
) -> list[Calibrated]:
    """Quantise a program by each method, write the file of the one that costs least, and return them, that one first.

    The cost is measured on the data that the ranges are taken from. Raises NotJudged where no method gives a file.
    """
    if (size := weight_bytes(program.model)) > LARGEST:
        raise NotJudged(Sentence("too_large_to_write", name=subject.name, size=size / 1e9))
    with temporary_folder() as folder:
        plain = folder / "plain.onnx"
        save_model(name_nodes(program.model), plain)
        model = open_onnx(plain)
        with limits.step("running the unquantised model", subject=subject.name):
            expected = [run_onnxruntime(model, inputs)[0] for inputs in data]
        found = []
        for method in methods:
            path = folder / f"{method}.onnx"
            try:
                with limits.step(f"calibrating by {method}", subject=subject.name):
                    quantise(quantiser, plain, path, data, method=method, types=types, exclude=exclude)
                    found.append(_measured(subject, method, path, types, data, expected))
            except NotJudged as error:
                found.append(Calibrated(method=method, problem=str(error)))
    found.sort(key=lambda one: one.worst)
    if found[0].problem:
        raise NotJudged(Sentence("no_file", name=subject.name, found=[one.problem for one in found]))
    write_bytes(found[0].model, target)
    return found


def _measured(
    subject: Subject,
    method: str,
    path: Path,
    types: Sequence[str],
    data: Sequence[Tensors],
    expected: Sequence[Tensors],
) -> Calibrated:
    model = open_onnx(path)
    beside = [unit.name for unit in quantised_units(model).values() if unit.op not in types]
    if beside:  # they read a tensor that was quantised for another operator
        model = in_floats(model, beside)
        save_model(model, path)
    errors: dict[str, float] = {}
    metrics: dict[str, MetricResult] = {}
    for inputs, wanted in zip(data, expected, strict=True):
        [given] = run_onnxruntime(model, inputs)
        for name, tensor in wanted.items():
            if tensor.is_floating_point():
                error = relative_l2(given[name], tensor)
                errors[name] = max(errors.get(name, 0.0), math.inf if math.isnan(error) else error)
        for metric in subject.cost_metrics:
            found = measure(metric, given, wanted)
            if metric.name not in metrics or _is_worse(found, metrics[metric.name]):
                metrics[metric.name] = found
    return Calibrated(
        method=method, errors=errors, metrics=tuple(metrics.values()), quantised=len(quantised_units(model)),
        model=path.read_bytes(),
    )  # fmt: skip


def _is_worse(one: MetricResult, other: MetricResult) -> bool:
    def loss(found: MetricResult) -> float:
        if found.bound == "difference":
            return abs(found.actual - found.expected)
        return found.actual if found.bound == "at_most" else -found.actual

    return not loss(one) <= loss(other)


def left_in_floats(model: ir.Model, types: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Return a line per operator that could have been quantised and was not, and one that counts all others."""
    quantised = quantised_units(model)
    lines: list[str] = []
    others = Counter[str]()
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or str(node.name) in quantised:
            continue
        if node.op_type in types:
            why = Sentence("excluded") if node.name in exclude else Sentence("quantiser_left_it")
            lines.append(Sentence("op_why", name=node.name, op_type=node.op_type, why=why))
        else:
            others[node.op_type] += 1
    counted = ", ".join(f"{kind} {count}" for kind, count in sorted(others.items()))
    return [*lines, Sentence("not_quantised_types", counted=counted)] if counted else lines


def quantised_file(
    subject: Subject,
    path: Path,
    *,
    method: str = "max",
    quantiser: str = "onnxruntime",
    types: Sequence[str] = TYPES,
    exclude: Sequence[str] = (),
    settings: Settings | None = None,
) -> Path:
    """Return the path of a subject quantised by one method with its own cases, written where it is not there yet.

    For a suite's ``onnx=``. ``exclude`` has patterns as ``parity calibrate --exclude``. Raises what calibrate raises.
    """
    if not path.is_file():
        prepared = Run(subject, settings or Settings()).prepared
        left = excluded_nodes(prepared.program, exclude)
        data = calibration_data(prepared, list(subject.cases))
        path.parent.mkdir(parents=True, exist_ok=True)
        calibrate(
            subject, prepared.program, data, path, methods=(method,), quantiser=quantiser, types=types, exclude=left
        )  # fmt: skip
    return path

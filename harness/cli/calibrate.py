"""``parity calibrate``: a quantised ONNX file of a subject, and what it costs by each method."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from harness.arguments import as_path, names
from harness.cli.options import add_cases, add_command, add_computing, add_subject, request_of, settings_of
from harness.errors import unknown_name
from harness.files import check_writable

if TYPE_CHECKING:
    from harness.calibration import Calibrated


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "calibrate", run, "write a subject as a quantised ONNX file, and what that costs")
    add_subject(command)
    command.add_argument("-o", "--output", type=as_path, required=True, metavar="Q.onnx", help="the file to write")
    add_cases(command)
    command.add_argument(
        "--method", type=names, default=(), metavar="A,B",
        help="max, entropy, percentile; default: all of them, and the one that costs least is written",
    )  # fmt: skip
    command.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN",
        help="what stays in floats: a node's name, a module, op:... or value:..., as in plans; repeatable",
    )  # fmt: skip
    command.add_argument(
        "--types", type=names, default=(), metavar="A,B", help="operators; default: Conv,ConvTranspose,MatMul,Gemm"
    )
    command.add_argument(
        "--quantiser", default="onnxruntime", metavar="NAME", help="onnxruntime or modelopt; default: onnxruntime"
    )
    add_computing(command, builds=False, budget=False)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import calibration
    from harness.verify import Run

    for what, given, known in (
        ("method", options.method, calibration.METHODS),
        ("operator of --types", options.types, calibration.TYPES),
        ("quantiser", [options.quantiser], calibration.QUANTISERS),
    ):
        for name in given:
            if name not in known:
                raise unknown_name(what, name, known)
    check_writable(options.output)
    subject, _, cases = request_of(options)
    prepared = Run(subject, settings_of(options)).prepared
    data = calibration.calibration_data(prepared, cases)
    exclude = calibration.excluded_nodes(prepared.program, options.exclude)
    types = options.types or calibration.TYPES
    found = calibration.calibrate(
        subject, prepared.program, data, options.output, methods=options.method or calibration.METHODS,
        quantiser=options.quantiser, types=types, exclude=exclude,
    )  # fmt: skip
    _show(options, found, len(data))
    from harness.graph import open_onnx

    lines = calibration.left_in_floats(open_onnx(options.output), types, exclude)
    print("\n".join(["", "left in floats:", *(f"  {line}" for line in lines)]))
    given = f" --inputs {options.inputs}" if options.inputs else ""
    print(f"\nnext: parity verify {options.output} --against {options.subject}{given} -b rtx --cost-limit ERROR")
    return 0


def _show(options: argparse.Namespace, found: list[Calibrated], inputs: int) -> None:
    """Print what each method costs; the first is the one that was written."""
    from harness.report.text import aligned, number

    columns = list(found[0].errors)
    rows = [["method", *columns, *(metric.name for metric in found[0].metrics), "quantised"]]
    for one in found:
        figures = [number(one.errors.get(name)) for name in columns]
        figures += [number(metric.actual, ".6g") for metric in one.metrics] or ["-"] * len(found[0].metrics)
        rows.append([one.method, *figures, "-" if one.problem else str(one.quantised)])
    print(f"{options.output}: INT8 by {options.quantiser}, method {found[0].method}")
    print("\n".join([*aligned(rows, words=1), *(f"{one.method}: {one.problem}" for one in found if one.problem)]))
    print(
        f"relative error of each output in ONNX Runtime without optimisation, the worst of {inputs} inputs, which "
        "are those that the ranges are taken from: verify on others"
    )

"""The unquantised model that a quantised one is held against: ``--against`` and ``--cost-limit``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from harness.arguments import relative_error
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.subject import Subject


def add_against(parser: argparse.ArgumentParser) -> None:
    """Add the unquantised model, and what quantisation may cost."""
    parser.add_argument(
        "--against", metavar="SUBJECT",
        help="the unquantised model: what quantisation costs is the distance from its FP32 outputs (docs/quantised.md)",
    )  # fmt: skip
    parser.add_argument(
        "--cost-limit", type=relative_error, metavar="ERROR",
        help="relative error (2-norm) that quantisation may cost every output; without a limit it is not judged",
    )  # fmt: skip


def with_against(options: argparse.Namespace, subject: Subject) -> Subject:
    """Return a subject with what the options say of its quantisation: it may be held against the unquantised model.

    That of a file computes on the subject's own inputs. One that declares cases gives them to an ONNX file that has
    only generated ones. Raises UsageError for a limit that limits nothing.
    """
    from harness import discovery
    from harness.subject import Tolerance
    from harness.verify import case_inputs

    if options.fold_bias:
        subject = replace(subject, fold_bias=True)
    if options.against:
        find = partial(discovery.find_subject, options.against, suites=options.suites, runs=False)
        other = find()
        if other.onnx is not None:
            other = replace(other, cases=subject.cases)
        elif options.inputs or options.cases:
            given = find(inputs=options.inputs, cases=options.cases).cases.values()
            other = replace(other, cases=dict(zip(subject.cases, given, strict=True)))
        elif subject.onnx is not None and not options.shape:
            cases = {name: partial(case_inputs, other, name) for name in other.cases}
            subject = replace(subject, cases=cases, inputs=other.inputs)
        other = replace(other, given=subject.given)  # what comes with a case is what the unquantised model gives
        subject = replace(subject, against=other, given={})
    if options.cost_limit is not None:
        if subject.against is None:
            raise UsageError("--cost-limit limits the cost of quantisation; name the unquantised model with --against")
        limit = Tolerance(why="--cost-limit", relative_l2=options.cost_limit)
        subject = replace(subject, cost=limit, cost_metrics=())
    return subject

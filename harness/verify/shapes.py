"""What the errors of outputs that failed look like, from all that lies at hand once a case is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from harness.compare import error_shape
from harness.records import OutputResult
from harness.verify.run import Repeats
from harness.verify.settling import Settled
from harness.verify.target import OpenTarget


def with_shapes(
    opened: OpenTarget, case: str, outputs: Sequence[OutputResult], repeats: Repeats, settled: Settled
) -> tuple[OutputResult, ...]:
    """Return the outputs, those that failed and can be compared with what their error looks like.

    An output may hold another one, differ from run to run, or be what the engine gave for a case before: only cases
    that this target was judged on already are asked for that.
    """
    counted = partial(opened.run.prepared.valid.counted, case)
    right, low, worst = (counted(it) for it in (settled.expected, settled.floor or {}, repeats.worst))
    another = {} if repeats.another is None else counted(repeats.another)
    before = {name: outcome.expected for name, outcome in opened.outcomes.items() if outcome.expected and name != case}
    found = []
    for output in outputs:
        expected, actual = right[output.name], worst.get(output.name)
        if output.verdict == "fail" and actual is not None and actual.shape == expected.shape:
            shape = error_shape(
                actual,
                expected,
                low.get(output.name),
                precision=opened.plan.computes_in,
                others={name: tensor for name, tensor in right.items() if name != output.name},
                previous={name: counted(tensors)[output.name] for name, tensors in before.items()},
                runs=[another[output.name]] if another else (),
                made_here=output.tf32_sized,
            )
            output = replace(output, looks_like=shape)
        found.append(output)
    return tuple(found)

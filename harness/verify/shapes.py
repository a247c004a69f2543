"""What the errors of outputs that failed look like, from all that lies at hand once a case is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    before = {name: outcome.expected for name, outcome in opened.outcomes.items() if outcome.expected and name != case}
    found = []
    for output in outputs:
        expected, actual = settled.expected[output.name], repeats.worst.get(output.name)
        if output.verdict == "fail" and actual is not None and actual.shape == expected.shape:
            shape = error_shape(
                actual,
                expected,
                (settled.floor or {}).get(output.name),
                precision=opened.plan.computes_in,
                others={name: tensor for name, tensor in settled.expected.items() if name != output.name},
                previous={name: tensors[output.name] for name, tensors in before.items()},
                runs=[repeats.another[output.name]] if repeats.another is not None else (),
                made_here=output.tf32_sized,
            )
            output = replace(output, looks_like=shape)
        found.append(output)
    return tuple(found)

"""Time a subject's engines and PyTorch on it: fresh processes in turns, one session per contestant, case and size.

The process is the unit of statistics, so every contestant is measured in several of them, interleaved A B B A: what
drifts while they run drifts for all of them. docs/latency.md says what the figures mean.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.errors import ParityError, UsageError
from harness.history import History
from harness.latency.contestants import Contestant, open_contestant
from harness.latency.group import Group, measure
from harness.latency.options import Options
from harness.latency.sizes import Sizes, check_sizes
from harness.latency.workload import Workload
from harness.records import Measured, NotMeasured
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.verify import OpenTarget, Run


def bench(
    subject: Subject,
    *,
    targets: Sequence[Target],
    cases: Sequence[str],
    settings: Settings,
    sizes: Sequence[Sizes] = ({},),
    options: Options | None = None,
    history: History | None = None,
) -> Iterator[Measured | NotMeasured]:
    """Yield every engine and baseline, timed and compared, as soon as its case and size are through.

    ``sizes`` gives the dynamic dimensions by symbol; an empty one leaves a case as it is. An interruption yields what
    was measured and then raises KeyboardInterrupt. Raises UsageError for sizes that the subject does not hold, and for
    an L2 cache that is to be flushed where only CPUs compute.
    """
    options = options or Options()
    for size in sizes:
        check_sizes(subject, size)
    run = Run(subject, settings)
    workloads = [Workload(run=run, case=case, sizes=size) for case, size in itertools.product(cases, sizes)]
    with contextlib.ExitStack() as stack:
        contestants = []
        for target in targets:
            contestant = open_contestant(stack.enter_context(run.target(target)))
            if isinstance(contestant, Contestant):
                contestants.append(contestant)
            else:
                yield from (_not_measured(workload, target, contestant) for workload in workloads)
        if options.l2 == "flush" and contestants and all(one.device == "cpu" for one in contestants):
            raise UsageError("only a GPU's L2 cache can be flushed; leave out --l2 flush on the CPU")
        for workload in workloads:
            for device in dict.fromkeys(one.device for one in contestants):
                here = tuple(one for one in contestants if one.device == device)
                yield from measure(Group(workload=workload, contestants=here, options=options, history=history))


def bench_opened(opened: OpenTarget, case: str, options: Options, history: History | None) -> Measured | NotMeasured:
    """Return one target that is open already, timed and compared at one case as it is."""
    (found,) = repeat(opened, Workload(run=opened.run, case=case, sizes={}), options, history=history)
    return found


def repeat(
    opened: OpenTarget, workload: Workload, options: Options, *, sessions: int = 1, history: History | None = None
) -> Iterator[Measured | NotMeasured]:
    """Yield sessions of one target and no baselines, one after the other; one NotMeasured where there are none."""
    contestant = open_contestant(opened)
    if not isinstance(contestant, Contestant):
        yield _not_measured(workload, opened.target, contestant)
        return
    alone = replace(options, baselines=())
    for _ in range(sessions):
        yield from measure(Group(workload=workload, contestants=(contestant,), options=alone, history=history))


def _not_measured(workload: Workload, target: Target, error: ParityError) -> NotMeasured:
    return workload.not_measured(error, backend=target.backend, precision=target.precision_name)

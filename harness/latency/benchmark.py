"""A subject's engines and PyTorch timed in turns: one session per contestant, case and size, and the exit status.

The process is the unit of statistics, so every contestant is measured in several processes, interleaved A B B A: a
drift during the measurement affects them all. docs/measuring.md says what the figures mean.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from harness import limits
from harness.errors import ParityError, TookTooLong, UsageError
from harness.history import History
from harness.latency.contestants import Contestant, NotOpened, Workload, open_contestant
from harness.latency.group import Group, measure
from harness.latency.options import Options
from harness.latency.sizes import Sizes, check_sizes
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
    """Yield every engine and baseline, timed and compared, as soon as its case and size are measured.

    ``sizes`` gives the dynamic dimensions by symbol; an empty one keeps the sizes of a case. An interruption yields the
    results so far and then raises KeyboardInterrupt; what there is no time for is not measured. Raises UsageError for
    sizes outside the ranges of the subject, and for ``l2="flush"`` where every contestant runs on the CPU.
    """
    options = options or Options()
    for size in sizes:
        check_sizes(subject, size)
    run = Run(subject, settings)
    workloads = [Workload(run=run, case=case, sizes=size) for case, size in itertools.product(cases, sizes)]
    found: list[Measured | NotMeasured] = []
    try:
        for item in _bench(run, targets, workloads, options, history):
            found.append(item)
            yield item
    except limits.TimeIsUp as end:
        error = TookTooLong(str(end), option=end.option)
        reached = {_place(item) for item in found if not item.baseline}
        for workload, target in itertools.product(workloads, targets):
            if _place(missing := _not_measured(workload, target, error)) not in reached:
                yield missing


def _bench(
    run: Run, targets: Sequence[Target], workloads: Sequence[Workload], options: Options, history: History | None
) -> Iterator[Measured | NotMeasured]:
    with contextlib.ExitStack() as stack:
        contestants = []
        for target in targets:
            with limits.search(run.subject.name, "making the engine ready"):
                contestant = open_contestant(stack.enter_context(run.target(target)))
            if isinstance(contestant, Contestant):
                contestants.append(contestant)
            else:
                yield from (_not_opened(workload, target, contestant) for workload in workloads)
        if options.l2 == "flush" and contestants and all(one.device == "cpu" for one in contestants):
            raise UsageError("only a GPU's L2 cache can be flushed; leave out --l2 flush on the CPU")
        for workload in workloads:
            for device in dict.fromkeys(one.device for one in contestants):
                here = tuple(one for one in contestants if one.device == device)
                yield from measure(Group(workload=workload, contestants=here, options=options, history=history))


def _place(item: Measured | NotMeasured) -> tuple[object, ...]:
    """Return which engine at which sizes this is about."""
    about = item.session if isinstance(item, Measured) else item
    return about.case, tuple(sorted(about.sizes.items())), about.backend, about.precision, about.plan_source


def bench_opened(opened: OpenTarget, case: str, options: Options, history: History | None) -> Measured | NotMeasured:
    """Return an open target, timed and compared at the sizes of one case."""
    workload = Workload(run=opened.run, case=case, sizes={})
    try:
        (found,) = repeat(opened, workload, options, history=history)
    except limits.TimeIsUp as end:
        return _not_measured(workload, opened.target, TookTooLong(str(end), option=end.option))
    return found


def repeat(
    opened: OpenTarget, workload: Workload, options: Options, *, sessions: int = 1, history: History | None = None
) -> Iterator[Measured | NotMeasured]:
    """Yield sessions of one target without baselines, in succession; one NotMeasured where there are none."""
    with limits.search(opened.run.subject.name, "making the engine ready"):
        contestant = open_contestant(opened)
    if isinstance(contestant, NotOpened):
        yield _not_opened(workload, opened.target, contestant)
        return
    alone = replace(options, baselines=())
    for _ in range(sessions):
        yield from measure(Group(workload=workload, contestants=(contestant,), options=alone, history=history))


def _not_opened(workload: Workload, target: Target, found: NotOpened) -> NotMeasured:
    return replace(_not_measured(workload, target, found.error), failed_attempts=found.failed)


def _not_measured(workload: Workload, target: Target, error: ParityError) -> NotMeasured:
    return workload.not_measured(
        error,
        backend=target.backend,
        precision=target.precision_name,
        plan_source=target.plan_source(workload.run.settings.root),
    )


def exit_status(found: Sequence[Measured | NotMeasured], require: Iterable[str] = ()) -> int:
    """Return 1 for a regression that a second look confirmed or an engine that failed, 0 where nothing is wrong.

    What the ledger knows is not wrong; an entry of it that does not hold is. Else 3: figures are missing or invalid, or
    an engine looks slower and nothing was there for a second look. Baselines do not count: where no engine could be
    timed, the status is 3.
    """
    measured = [item for item in found if isinstance(item, Measured)]
    new = [item for item in found if item.known is None or not item.known.covers]
    verdicts = [(one.comparison.verdict, one.comparison.repeated) for one in new if isinstance(one, Measured)]
    failed = any(isinstance(item, NotMeasured) and item.failed for item in new)
    if ("regressed", True) in verdicts or failed or any(item.known and item.known.why for item in new):
        return 1
    unsure = any(verdict in ("regressed", "invalid_environment") for verdict, _ in verdicts)
    if unsure or any(one.session.invalid for one in measured) or lacking(found, require):
        return 3
    known = any(isinstance(item, NotMeasured) and item.known for item in found)
    return 3 if all(one.baseline for one in measured) and not known else 0


def lacking(found: Sequence[Measured | NotMeasured], require: Iterable[str]) -> list[str]:
    """Return the required backends that were not timed, or not everywhere."""
    sound = {item.session.backend for item in found if isinstance(item, Measured) and not item.session.invalid}
    missing = {item.backend for item in found if isinstance(item, NotMeasured) and not item.baseline and not item.known}
    return [name for name in dict.fromkeys(require) if name not in sound or name in missing]

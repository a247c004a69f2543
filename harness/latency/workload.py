"""What contestants are timed on: one case of a subject at one size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from harness.errors import EngineFailed, ParityError
from harness.latency.sizes import Sizes, resized, size_label
from harness.records import NotMeasured, Runner
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify import Run


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One case of a subject at one size."""

    run: Run
    case: str
    sizes: Sizes

    @cached_property
    def inputs(self) -> Tensors:
        """The case's inputs at these sizes."""
        return resized(self.run.prepared.inputs[self.case], self.subject.dynamic, self.sizes)

    @property
    def subject(self) -> Subject:
        """The subject."""
        return self.run.subject

    def say(self, words: str) -> None:
        """Say what is happening."""
        label = size_label(self.sizes)
        self.run.settings.progress(f"{self.subject.name}/{self.case}{f' {label}' if label else ''} {words}")

    def not_measured(
        self, error: ParityError, *, backend: str, precision: str, runner: Runner = "engine", baseline: bool = False
    ) -> NotMeasured:
        """Return why one contestant has no figures; an engine that misbehaves has failed, a baseline never."""
        return NotMeasured(
            subject=self.subject.name, case=self.case, backend=backend, precision=precision, runner=runner,
            sizes=dict(self.sizes), reason=str(error), failed=isinstance(error, EngineFailed) and not baseline,
            baseline=baseline,
        )  # fmt: skip

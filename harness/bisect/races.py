"""Whether kernels of an engine overlap that must not.

The engine runs once more in a process where each kernel starts after the one before it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from harness.backends import run_serialised
from harness.bisect.questions import answered, computes_in_tf32
from harness.compare import bitwise_equal, total_error
from harness.errors import ParityError
from harness.records import OutputResult, Question, overall
from harness.sentences import Sentence
from harness.subject import Target
from harness.tensors import Tensors, like
from harness.verify import Run, judged_by, verify_case, worst_reason


@dataclass(frozen=True, kw_only=True)
class Race:
    """Whether kernels of an engine overlap that must not, and the question that was asked."""

    races: bool = False
    questions: tuple[Question, ...] = ()
    """One; none on a CPU, where no kernels overlap."""


@dataclass(frozen=True, kw_only=True)
class Alone:
    """The outputs of an engine in a normal run, and with one kernel at a time."""

    together: Tensors
    """Of the worst normal run."""
    alone: Tensors
    """With one kernel at a time."""
    expected: Tensors
    """The reference of both."""
    judged: tuple[OutputResult, ...]
    """The verdicts on the outputs with one kernel at a time."""


def race_in(run: Run, target: Target, case: str) -> Race:
    """Return whether a wrong engine races: with one kernel at a time its error is less than half.

    Other bits with an error as large come from another order of summation, not from overlapping kernels.
    """
    question = Sentence("q_race")
    found = _ask(question, run, target, case)
    if isinstance(found, Race):
        return found
    if all(bitwise_equal(found.alone[name], tensor) for name, tensor in found.together.items()):
        return Race(questions=(answered(question, True, Sentence("bit_for_bit")),))
    alone, together = total_error(found.alone, found.expected), total_error(found.together, found.expected)
    passes = Sentence("which_passes") if overall(output.verdict for output in found.judged) == "pass" else ""
    detail = Sentence("race_errors", alone=alone, passes=passes, together=together)
    return Race(races=alone < together / 2, questions=(answered(question, False, detail),))


def race_in_fp32(run: Run, target: Target, case: str) -> Race:
    """Return whether a wrong FP32 engine races: with one kernel at a time it is right."""
    question = Sentence("q_race_fp32")
    found = _ask(question, run, target, case)
    if isinstance(found, Race):
        return found
    verdict = overall(output.verdict for output in found.judged)
    right = verdict == "pass" or computes_in_tf32(target, found.judged)
    return Race(races=right, questions=(answered(question, right, worst_reason(found.judged, verdict)),))


def _ask(question: str, run: Run, target: Target, case: str) -> Alone | Race:
    """Return the outputs to judge by, or the answer where there are none."""
    try:
        return run_alone(run, target, case) or Race()
    except ParityError as problem:
        return Race(questions=(Question(question=question, answer="not asked", detail=str(problem)),))


def run_alone(run: Run, target: Target, case: str) -> Alone | None:
    """Run an engine normally and with one kernel at a time; None for an engine that does not run on a GPU.

    Raises ParityError where the second run fails.
    """
    with run.target(target) as opened:
        outcome = verify_case(opened, case)
        if outcome.repeats is None or outcome.expected is None or opened.engine is None or not opened.on_gpu:
            return None
        opened.say("running the engine once more, one kernel at a time", case)
        alone = like(outcome.expected, run_serialised(target.backend, opened.engine.path, opened.inputs(case)))
        counted = partial(run.prepared.valid.counted, case)
        return Alone(
            together=counted(outcome.repeats.worst), alone=counted(alone), expected=counted(outcome.expected),
            judged=judged_by(opened, case, actual=alone),
        )  # fmt: skip

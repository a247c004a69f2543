"""How long things may take: a step (``--timeout``), a build, a subject, and the run as a whole (``--budget``).

A timer raises in the main thread when a time is over; that ends Python and whatever lets signals in. What does not,
code in C, is ended with the process by :mod:`harness.last_resort`, a process beside this one. What waits for another
process, in any thread, asks how much time is left.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from harness import memory, stopping, watcher
from harness.errors import TookTooLong
from harness.sentences import Sentence

AGAIN_S = 0.5
"""Code that catches everything swallows the first exception: it comes again."""
GRACE_S = 1.5
"""After a time that is over, before the process is ended from outside."""
TIDY_UP_S = 30.0
"""The same where Python has seen that the time is over, and deletes what was begun."""


class TimeIsUp(KeyboardInterrupt):
    """The time of a subject or of the run is over, and ends a search as Ctrl-C does; the text says which."""

    def __init__(self, sentence: str, *, option: str) -> None:
        """``option`` is the one that gives the time."""
        super().__init__(sentence)
        self.option = option


class _OutOfTime(BaseException):
    """Ends what is over its time; no Exception, so that what catches those does not end it."""


@dataclass(kw_only=True, eq=False)
class _Limit:
    """One time that passes."""

    what: str
    """Begins the sentence; empty for the run as a whole."""
    option: str
    seconds: float
    ends: float
    """By the monotonic clock."""
    is_over: bool = False
    """Whether Python has seen that it is over."""
    tidy_up_until: float = math.inf
    phase: str = ""
    """What was being done then."""
    told: bool = False
    """Whether it has ended a search."""

    @property
    def is_span(self) -> bool:
        """Whether it is that of a subject or of the run."""
        return self.option in ("--run-timeout", "--budget")

    @property
    def dies(self) -> float:
        """When the process is ended that does not heed it."""
        return self.tidy_up_until if self.is_over else self.ends + GRACE_S

    def __str__(self) -> str:
        """Return the sentence."""
        took = Sentence("took_longer", what=self.what, seconds=self.seconds) if self.what else _spent(self.seconds)
        phase = Sentence("took_while", phase=self.phase) if self.phase else ""
        return Sentence("took_option", took=took, option=self.option, phase=phase)

    def error(self) -> TookTooLong:
        """Return what to raise."""
        return TookTooLong(Sentence("give_more_time", it=self), option=self.option)

    def note_over(self) -> None:
        """Note that it is over, and what was being done."""
        if not self.is_over:
            self.is_over, self.tidy_up_until = True, time.monotonic() + TIDY_UP_S
            self.phase = _thread.frame.what if self.is_span and _thread.frame else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """What a thread is doing."""

    what: str
    limit: _Limit | None
    is_step: bool
    outer: _Frame | None


class _Thread(threading.local):
    frame: _Frame | None = None
    subject: str = ""
    searches: int = 0
    """How many searches it is in, which an end of the time ends as Ctrl-C does."""


@dataclass(frozen=True, kw_only=True)
class _Allowed:
    step: float | None = None
    build: float | None = None
    subject: float | None = None
    spent_s: dict[str, float] = field(default_factory=dict)


_allowed = _Allowed()
_spans: list[_Limit] = []
"""That of the run as a whole, then those of the subjects at work in any thread."""
_found: tuple[Any, float, Callable[[Any], Any]] | None = None
"""The handler of the timer's signal, when it would have rung, and what is told of exceptions that nobody can catch, as
they were before the main thread's first frame."""
_thread = _Thread()
_time_is_up: TimeIsUp | None = None


@contextlib.contextmanager
def allowed(
    step: float | None = None,
    *,
    build: float | None = None,
    subject: float | None = None,
    budget: float | None = None,
    started: float | None = None,
    spent_s: dict[str, float] | None = None,
) -> Iterator[None]:
    """Let things in here take so many seconds at most; None or 0 for no limit.

    ``step`` is about each step that runs somebody's graph or module outside a build, ``build`` about each build,
    ``subject`` about all that is done for one, ``budget`` about everything since ``started`` by the monotonic clock, by
    default now. ``spent_s`` is what was spent on each subject before; it is added to.
    """
    global _allowed, _time_is_up
    _time_is_up = None
    before, spans = _allowed, list(_spans)
    _allowed = _Allowed(step=step, build=build, subject=subject, spent_s={} if spent_s is None else spent_s)
    began = time.monotonic() if started is None else started
    _spans[:] = [_Limit(what="", option="--budget", seconds=budget, ends=began + budget)] if budget else []
    try:
        yield
    finally:
        _allowed, _spans[:] = before, spans


def allowed_s() -> float | None:
    """Return how long a step may take; None for no limit."""
    return _allowed.step or None


def remaining_s() -> float | None:
    """Return how long what this thread does may still take; None for no limit."""
    ends = [limit.ends for limit in _applying()]
    return max(0.0, min(ends) - time.monotonic()) if ends else None


def out_of_time() -> BaseException:
    """Return what to raise where something that was waited for did not end in time."""
    first = min(_applying(), key=lambda limit: limit.ends)
    first.note_over()
    return _ending(first)


def check(*, met: bool = False) -> None:
    """Raise TookTooLong, or TimeIsUp in a search, where the time of what this thread does is over.

    With ``met`` only where something has met with that already, and may have been left out because of it.
    """
    for limit in _applying():
        if limit.is_over if met else time.monotonic() >= limit.ends:
            limit.note_over()
            raise _ending(limit)


def spent_budget() -> str:
    """Return that the time of the run as a whole is over, in words; empty where it is not, or has no limit."""
    over = [span for span in _spans if not span.what and time.monotonic() >= span.ends]
    return Sentence("spent_option", spent=_spent(over[0].seconds), option=over[0].option) if over else ""


def time_was_up() -> TimeIsUp | None:
    """Return what ended a search, where that was its time and no signal."""
    return None if stopping.received() else _time_is_up


def about(subject: str) -> None:
    """Let the sentence of this thread's next steps name this subject."""
    _thread.subject = subject


@contextlib.contextmanager
def step(what: str, *, subject: str = "") -> Iterator[None]:
    """Raise TookTooLong when what happens in here takes longer than is allowed, NotJudged when memory runs out.

    ``what`` begins a sentence: ``tracing the module``. A step within a step has all the time for itself, and the outer
    one begins anew after it. The sentence names the ``subject``, or the last one that was named.
    """
    if subject:
        about(subject)
    name = Sentence("name_doing", name=_thread.subject, doing=what) if _thread.subject else what
    with memory.guarded(name), _timed(what, _limit(name, "--timeout", _allowed.step), is_step=True):
        yield


@contextlib.contextmanager
def build(whose: str) -> Iterator[None]:
    """Raise TookTooLong when the build in here takes longer than is allowed; ``whose`` says of which engine."""
    what = Sentence("building_the_engine")
    with _timed(what, _limit(Sentence("name_doing", name=whose, doing=what), "--build-timeout", _allowed.build)):
        yield


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Let what happens in here be named so where the time of its subject or of the run is over."""
    with _timed(what, None):
        yield


@contextlib.contextmanager
def work(subject: str, what: str) -> Iterator[None]:
    """Raise TookTooLong when the time of the subject or of the run is over; ``what`` says what happens in here.

    Each piece of work counts, and what is done between them does not.
    """
    about(subject)
    began, limit = time.monotonic(), None
    if not any(span.what == subject for span in _spans):
        limit = _limit(subject, "--run-timeout", _allowed.subject)
    if limit is not None:
        limit.ends -= _allowed.spent_s.get(subject, 0.0)
        _spans.append(limit)
    try:
        with _timed(what, None):
            yield
    finally:
        if limit is not None:
            _spans.remove(limit)
            _allowed.spent_s[subject] = _allowed.spent_s.get(subject, 0.0) + time.monotonic() - began


@contextlib.contextmanager
def search(subject: str, what: str) -> Iterator[None]:
    """Work on a subject; the end of its time or the run's raises TimeIsUp, once, so that what was found is kept."""
    _thread.searches += 1
    try:
        with work(subject, what):
            yield
    finally:
        _thread.searches -= 1


def _spent(seconds: float) -> str:
    return Sentence("budget_spent", seconds=seconds)


def _limit(what: str, option: str, seconds: float | None) -> _Limit | None:
    return _Limit(what=what, option=option, seconds=seconds, ends=time.monotonic() + seconds) if seconds else None


def _frames() -> Iterator[_Frame]:
    """Yield what this thread is doing, the innermost first."""
    frame = _thread.frame
    while frame is not None:
        yield frame
        frame = frame.outer


def _applying() -> list[_Limit]:
    """Return what holds for this thread, the outermost first; of steps within each other the innermost."""
    found: list[_Limit] = []
    steps = 0
    for frame in _frames():
        steps += frame.is_step
        if frame.limit is not None and (steps <= 1 or not frame.is_step):
            found.insert(0, frame.limit)
    return [span for span in _spans if not (span.told and _thread.searches)] + found


def _ending(limit: _Limit) -> BaseException:
    """Return the exception for a limit that is over."""
    global _time_is_up
    words, error = str(limit), limit.error()
    limit.phase = ""  # what is asked for after it was not being done
    if not (limit.is_span and _thread.searches):
        return error
    limit.told = True
    _time_is_up = TimeIsUp(words, option=limit.option)
    return _time_is_up


@contextlib.contextmanager
def _timed(what: str, limit: _Limit | None, *, is_step: bool = False) -> Iterator[None]:
    """Let a limit, and those around it, hold in here: what is raised when one of them is over becomes its error."""
    outer = _thread.frame
    if limit is None and outer is None and not _spans:
        yield
        return
    check()
    try:
        _enter(_Frame(what=what, limit=limit, is_step=is_step, outer=outer))
        try:
            yield
            over = _first_over(limit)
        finally:
            _leave(outer, is_step=is_step)
    except (KeyboardInterrupt, TookTooLong):
        _leave(outer)
        raise
    except BaseException as error:  # code that was ended may raise anything instead
        _leave(outer)
        if over := _first_over(limit):
            raise _ending(over) from error
        raise
    if over and (is_step or limit is not None):  # it has swallowed the exception
        raise _ending(over)


def _first_over(own: _Limit | None) -> _Limit | None:
    """Return the outermost limit that is over."""
    return next((limit for limit in [*_applying(), *filter(None, [own])] if limit.is_over), None)


def _enter(frame: _Frame | None) -> None:
    """Make this what the thread is doing."""
    _thread.frame = frame
    if threading.current_thread() is threading.main_thread():
        _set_timer()
    _watch()


def _leave(outer: _Frame | None, *, is_step: bool = False) -> None:
    """Go back to what the thread was doing; after a step within it the time of a step begins anew."""
    _thread.frame = outer
    around = next((frame.limit for frame in _frames() if frame.is_step), None)
    if is_step and around is not None and not around.is_over:
        around.ends = time.monotonic() + around.seconds
    _enter(outer)


def _set_timer() -> None:
    """Let the timer ring when the first time is over; without frames it is as it was found: pytest-timeout has it."""
    global _found
    ends = [limit.ends for limit in _applying() if not limit.is_over]
    if _thread.frame is not None and (_found or ends):
        if _found is None:
            left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            handler = signal.signal(signal.SIGALRM, _alarm)
            _found = handler, time.monotonic() + left if left else math.inf, sys.unraisablehook
            sys.unraisablehook = _unraisable
        first = min([*ends, _found[1]])
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(first - time.monotonic(), 1e7)), AGAIN_S)
    elif _thread.frame is None and _found is not None:
        (handler, rings, sys.unraisablehook), _found = _found, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0 if rings == math.inf else max(0.01, rings - time.monotonic()))


def _alarm(number: int, frame: Any) -> None:
    global _found
    now, is_step = time.monotonic() + 0.01, any(frame.is_step for frame in _frames())
    for limit in _applying():
        if now >= limit.ends and (is_step or not limit.is_over):
            limit.note_over()
            _watch()
            if limit.is_span and _thread.searches and not is_step:
                raise _ending(limit)
            raise _OutOfTime
    if _found is not None and now >= _found[1]:
        handler, _, hook = _found
        _found = handler, math.inf, hook
        if callable(handler):
            handler(number, frame)


def _unraisable(given: Any) -> None:
    """Say nothing where the timer has rung in a destructor, which Python lets go on: it rings again."""
    if _found is not None and given.exc_type not in (_OutOfTime, TimeIsUp):
        _found[2](given)


def _watch() -> None:
    """Let the process be ended from outside where it does not heed what holds for this thread."""
    applying = _applying() if _thread.frame is not None else []
    if not applying:
        watcher.forget()
        return
    first = min(applying, key=lambda limit: limit.dies)
    watcher.watch(first.dies, Sentence("in_uninterrupted", error=first.error()))

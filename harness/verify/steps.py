"""A backend's steps, run so that nothing unforeseen ends the whole run, and timed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from harness import limits
from harness.errors import EngineFailed, NotJudged, ParityError, is_disk_full, room
from harness.gpu_errors import gpu_error
from harness.sentences import Sentence

T = TypeVar("T")
_DOING = {
    "building": Sentence("step_building"), "loading": Sentence("step_loading"), "running": Sentence("step_running"),
    "tapping": Sentence("step_tapping"), "profiling": Sentence("step_profiling"),
}  # fmt: skip
IN_PROCESS = ("loading", "running", "tapping")
"""Steps whose time is limited: a build is a process of its own, and may take hours."""


class Steps:
    """Runs the steps of one target and adds up their seconds."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.spent_s: dict[str, float] = {}
        """Seconds spent so far, by step: building (with exporting), loading, running, tapping."""

    def run(self, doing: str, step: Callable[[], T]) -> T:
        """Return what a step gives; what a backend did not foresee becomes a ParityError, so that other targets run."""
        started = time.perf_counter()
        try:
            with (
                limits.step(Sentence("step_of_engine", doing=_DOING[doing], backend=self._backend))
                if doing in IN_PROCESS
                else nullcontext()
            ):
                return step()
        except (ParityError, KeyboardInterrupt):
            raise
        except Exception as error:
            if known := gpu_error(str(error), Sentence("gpu_while", doing=_DOING[doing], backend=self._backend)):
                raise known from error
            if isinstance(error, OSError) and is_disk_full(error):
                where = Path(error.filename or tempfile.gettempdir())
                left = room(where.parent)
                raise NotJudged(
                    Sentence("step_disk_full", doing=_DOING[doing], backend=self._backend, where=where, room=left)
                ) from error
            if (
                isinstance(error, OSError) and error.errno and doing in ("building", "loading")
            ):  # no fault of the engine
                said = f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
                raise NotJudged(
                    Sentence("step_system_error", doing=_DOING[doing], backend=self._backend, said=said)
                ) from error
            kind = type(error).__name__
            what = Sentence("step_raised", doing=_DOING[doing], backend=self._backend, kind=kind, error=str(error))
            raise EngineFailed(what, failure="crash") from error
        finally:
            self.spent_s[doing] = self.spent_s.get(doing, 0.0) + time.perf_counter() - started

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Return the seconds spent since ``spent_s`` was ``before``, without what took none."""
        took = {doing: seconds - before.get(doing, 0.0) for doing, seconds in self.spent_s.items()}
        return {doing: seconds for doing, seconds in took.items() if seconds > 0}

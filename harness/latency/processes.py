"""Processes that time, as the parent sees them: it starts them, lets them measure, and reads their results."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import errors, limits
from harness.errors import EngineFailed, NotJudged, ParityError, TookTooLong, UsageError
from harness.gpu_errors import gpu_error
from harness.process import how_it_ended, python_child
from harness.records import ProcessRun, run_from_json
from harness.sentences import Sentence
from harness.stopping import child

READY_S = 180.0
"""Importing PyTorch takes seconds; sixteen imports at once on a slow disk take a minute."""
RESULT_S = 900.0
MODULE = "harness.timing.worker"
_STATUS_ERROR = 3
"""The exit status of a worker that wrote an error in place of a result."""
_KINDS: dict[str, type[ParityError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ParityError)
} | {"CannotWrite": UsageError, "TookTooLong": NotJudged}  # these are made of more than a sentence


def _within(seconds: float) -> float:
    """Return how long to wait: not longer than any step may take, nor than there is time left."""
    left = limits.remaining_s()
    return min(seconds, limits.allowed_s() or seconds, seconds if left is None else left)


class Worker:
    """One process of :mod:`harness.timing.worker`; :meth:`close` it."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        """Start it. ``request["result"]`` is the path of its result; the request is written beside that."""
        self.result_file = Path(request["result"])
        self._what = f"{request['backend']}-{request['precision']} ({request['runner']})"
        file = self.result_file.with_suffix(".request.json")
        file.write_text(json.dumps(dict(request)), encoding="utf-8")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        command, environment = python_child(MODULE, str(file))
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._stderr.close)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._stderr}
        # Without a buffer close() has nothing to flush into a broken pipe.
        self._process = self._stack.enter_context(child(command, bufsize=0, env=environment, **pipes))

    def ready(self, timeout_s: float = READY_S) -> None:
        """Wait until its imports are done.

        Raises the error that it wrote (UsageError, NotJudged), EngineFailed when it died, NotJudged after the timeout.
        """
        assert self._process.stdout is not None
        timeout_s = _within(timeout_s)
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, end - time.monotonic())):
                limits.check()
                raise TookTooLong(Sentence("process_not_ready", what=self._what, timeout_s=timeout_s))
        if not self._process.stdout.readline():
            raise self._problem(self._process.wait())

    def go(self) -> None:
        """Let it measure. Raises as :meth:`ready` does when it died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._problem(self._process.wait()) from None

    def result(self, timeout_s: float = RESULT_S) -> ProcessRun:
        """Wait for the end and return what was measured; raises as :meth:`ready` does."""
        timeout_s = _within(timeout_s)
        try:
            status = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            limits.check()
            raise TookTooLong(Sentence("timing_not_ended", what=self._what, timeout_s=timeout_s)) from None
        if status:
            raise self._problem(status)
        return run_from_json(json.loads(self.result_file.read_text(encoding="utf-8")))

    def close(self) -> None:
        """Kill the process, and close its streams."""
        self._stack.close()

    def _problem(self, status: int) -> ParityError:
        """Return the error of a process that ended without a result."""
        if status == _STATUS_ERROR and self.result_file.is_file():
            answer = json.loads(self.result_file.read_text(encoding="utf-8"))
            return _KINDS.get(answer["kind"], ParityError)(answer["error"], failure=answer.get("failure"))
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else Sentence("no_reason_given")
        text = Sentence("process_ended", what=self._what, how_it_ended=how_it_ended(status), last=last)
        return gpu_error(text) or EngineFailed(text, failure="crash")

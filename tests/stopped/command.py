"""A command that waits in a phase, or is refused what it writes there: ``python -m stopped.command REQUEST``.

The request is ``{"run": ARGUMENTS, "place": ..., "after": ..., "error": ...}``. File 3 is closed when the command waits
at the place, or ends; it goes on when the file ``go`` appears in its folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from planted import PLANTED, PlantedBackend

from harness.backends import BACKENDS
from stopped.phases import wait_in


def main() -> int:
    """Be the command, a process group of its own."""
    request = json.loads(sys.argv[1])
    os.setsid()
    _made_up_times()
    BACKENDS["planted"] = PlantedBackend(*PLANTED["swamping"].faults)

    def wait() -> None:
        os.close(3)
        while not Path("go").exists():
            time.sleep(0.01)

    def refuse() -> None:
        raise OSError(request["error"], os.strerror(request["error"]))

    if request["place"]:
        refused = request["error"] != 0
        wait_in(request["place"], request["after"], refuse if refused else wait, always=refused)
    return _command(request["run"])


def _command(arguments: list[str]) -> int:
    if arguments[0] == "pytest":
        import pytest

        return int(pytest.main(arguments[1:]))
    from harness.cli import script

    sys.argv = ["parity", *arguments]
    script()
    return 0


def _made_up_times() -> None:
    """Let the processes that time say what they found at once: what they measure is not what is tested."""
    from latencies import process

    from harness.latency.processes import Worker
    from harness.timing import median

    def untimed(*_: Any) -> None:
        return None

    median.WARM_UP_S, median.MEASURE_S = 0.0, 0.01
    Worker.go = untimed  # type: ignore[method-assign]
    Worker.ready = untimed  # type: ignore[method-assign]
    Worker.result = lambda *_: process(1.0)  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())

"""A process beside a run that ends it when a step is over its time and nothing else could end it: ``--timeout``.

It reads lines of JSON from the run that started it: ``{"thread": ID, "ends": SECONDS, "say": SENTENCE}`` for a step of
a thread and when it must have ended by the monotonic clock, the same without ``ends`` when it has, and
``{"record": [PATH, DOCUMENT]}`` for what is to be written. When the time of a step is over it prints the sentence,
writes the document with it as its error, and sends SIGQUIT. It ends with the run, whose end closes its input.

Started as a file, without the package: it imports nothing but what Python brings, and is there in 10 ms.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from typing import Any


def main() -> None:
    """Serve the parent process until it ends, or end it."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle
    steps: dict[int, dict[str, Any]] = {}
    record: tuple[str, dict[str, Any]] | None = None
    rest = b""
    while True:
        first = min(steps.values(), key=lambda step: step["ends"], default=None)
        wait = None if first is None else max(0.0, first["ends"] - time.monotonic())
        if select.select([0], [], [], wait)[0]:
            chunk = os.read(0, 1 << 20)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for message in map(json.loads, lines):
                if "record" in message:
                    path, document = message["record"]
                    record = (path, document)
                elif "ends" in message:
                    steps[message["thread"]] = message
                else:
                    steps.pop(message["thread"], None)
        elif first is not None and os.getppid() == parent:
            end(parent, first["say"], record)
            return


def end(process: int, sentence: str, record: tuple[str, dict[str, Any]] | None) -> None:
    """Say why, write the record, and end the process."""
    os.write(2, f"{sentence}\n".encode())
    if record is not None:
        path, document = record
        try:
            with open(f"{path}.tmp", "w", encoding="utf-8") as file:  # noqa: PTH123 - importing pathlib takes 10 ms
                ending = {"error": sentence.removeprefix("parity: "), "failure": "timeout"}
                json.dump({**document, **ending}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{path}.tmp", path)  # noqa: PTH105
        except OSError as error:
            os.write(2, f"parity: {path} cannot be written: {error.strerror}\n".encode())
    os.kill(process, signal.SIGQUIT)


if __name__ == "__main__":
    main()

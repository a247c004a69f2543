"""``python -m mutated.worker``: runs ``parity verify`` in each folder it is told, and answers with a line of JSON.

A process of its own, since a backend may crash, and one for many folders, since an import of PyTorch takes seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import traceback
from pathlib import Path

from harness.cli.commands import main

COMMAND = ["verify", "m.onnx", "-b", "ort-cpu", "-p", "fp32", "--timeout", "10"]
MOST_BYTES = 10 * 2**30
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_written: list[str] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    writes = event == "open" and (not isinstance(arguments[2], int) or arguments[2] & _WRITES)
    if writes or event in ("os.mkdir", "os.rename", "os.remove"):
        _written.extend(os.fsdecode(path) for path in arguments[:1] if isinstance(path, str | bytes | os.PathLike))


def _run(folder: Path) -> dict[str, object]:
    os.chdir(folder)
    out, err, trace = io.StringIO(), io.StringIO(), ""
    status: object = None
    _written.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(COMMAND)
        except SystemExit as end:
            status = end.code
        except BaseException:
            trace = traceback.format_exc()
    allowed = (os.path.realpath(folder), os.path.realpath(os.environ["TMPDIR"]), "/dev")
    outside = [path for path in _written if not os.path.realpath(path).startswith(allowed)]
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "trace": trace, "outside": outside}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))  # what takes too much is refused, not the machine
    sys.addaudithook(_audit)
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints goes beside
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(_run(Path(line.rstrip("\n")))) + "\n")
        answers.flush()

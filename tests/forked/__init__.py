"""Python processes that are there at once: forks of one process that has imported what any of them may.

A run of ``python -m pytest`` spends most of its time with imports. :class:`Forks` has that process; its ``run`` is
``subprocess.run`` of Python with these arguments, and ``command`` does the same from a shell, with the standard streams
and the status of the caller. The workers that a run of pytest starts by xdist are such forks, too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Forks:
    """The process whose forks others are; it starts when it is first asked for."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forks-")  # a socket's path has 107 bytes at most
        self._address = str(Path(self._folder.name) / "socket")
        self._process: subprocess.Popen[bytes] | None = None
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        given = {name: value for name, value in os.environ.items() if not name.startswith("PARITY_") and name != "CI"}
        self._environment = {**given, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    @property
    def command(self) -> list[str]:
        """What a command line has in place of ``python``."""
        client = Path(__file__).with_name("client.py")
        command = [sys.executable, "-I", "-S", str(client), self._address]
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "forked.server", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                cwd=ROOT, env=self._environment,
            )  # fmt: skip
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == b"ready\n", "it did not come up"
        return command

    def start(
        self, arguments: Sequence[str], files: Sequence[int], *, cwd: Path, env: Mapping[str, str]
    ) -> tuple[int, socket.socket]:
        """Start Python with these arguments and standard streams, a fourth as 3; return its pid, and for ``wait``."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(self.command[-1])
        request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
        socket.send_fds(connection, [json.dumps(request).encode()], files)
        return int(connection.recv(64)), connection

    def run(
        self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments to its end; what is run past its time is killed."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, Path(os.devnull).open() as none:
            files = [file.fileno() for file in (none, out, err)]
            status = wait(*self.start(arguments, files, cwd=cwd, env=env), timeout=timeout)
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(list(arguments), status, out.read(), err.read())

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(20)
        self._folder.cleanup()


def wait(pid: int, connection: socket.socket, *, timeout: float) -> int:
    """Return the status of a process that ends; one that does not is killed."""
    with connection:
        connection.settimeout(timeout)
        try:
            return int(connection.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(pid), timeout) from None

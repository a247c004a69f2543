"""Runs a fork as if it were this process: ``python -I -S client.py ADDRESS ARGUMENTS``; it imports little."""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """Ask for the fork and end as it ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(sys.argv[1])
        request = {"arguments": sys.argv[2:], "cwd": os.getcwd(), "env": dict(os.environ)}  # noqa: PTH109
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        for number in range(3):  # the fork has them: who reads them sees their end when it ends
            os.close(number)
        connection.recv(64)
        status = int(connection.recv(64) or 1)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


main()

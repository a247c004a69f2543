"""A signal ends a run where it is, and everything that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from harness import stopping

BEGIN = """
import ctypes, os, signal, subprocess, sys, threading, time
from harness import stopping
def ready(): print("ready", flush=True)
"""


def run(body: str) -> subprocess.Popen[str]:
    """Start a process that runs a body, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return status, output and errors of a process that ends soon."""
    output, errors = process.communicate(timeout=20)
    return process.returncode, output, errors


STOPPED = """
with stopping.stoppable(for_good=True):
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        print(stopping.words())
sys.exit(stopping.exit_status())
"""


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
    ],
)
def test_a_signal_raises_where_the_run_is(number: signal.Signals, status: int, words: str):
    process = run(STOPPED)
    process.send_signal(number)
    process.send_signal(number)  # as `timeout` and tox do: to a process, and then to its group
    ended_with, *said = ended(process)
    assert said == [f"{words}\n", ""]
    assert ended_with in (status, -number), "the second one may come when Python handles none any more"


def test_one_that_is_ignored_stays_ignored():
    process = run("signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + STOPPED)  # nohup
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


def test_a_library_that_does_not_come_back_is_ended_after_last_words():
    body = """
with stopping.stoppable(), stopping.last_words(lambda: print("kept", flush=True)):
    stopping.GRACE_S, mutex = 0.3, ctypes.create_string_buffer(128)
    threading.Timer(0.2, ready).start()
    for _ in range(2):  # the second waits for ever, and no signal ends that
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
    process = run(body)
    process.send_signal(signal.SIGTERM)
    status, output, errors = ended(process)
    assert (status, output) == (143, "kept\n")
    assert errors.splitlines() == [
        "parity: stopped by SIGTERM while a library computed that could not be asked to stop"
    ]


def test_a_second_signal_ends_at_once():
    body = """
with stopping.stoppable():
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        stopping.AGAIN_S = 0.1
        ready()
        time.sleep(60)
"""
    process = run(body)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    status, _, errors = ended(process)
    assert status == 143
    assert errors.splitlines() == ["parity: stopped by SIGTERM, and ended at the second signal"]


def test_one_that_python_drops_is_raised_again():
    body = """
class Slow:
    def __del__(self):
        ready()
        time.sleep(60)
with stopping.stoppable():
    try:
        del [Slow()][0]
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(stopping.exit_status())
"""
    process = run(body)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "", "")


def test_a_forked_child_dies_of_the_signal_alone():
    body = """
with stopping.stoppable():
    child = os.fork()
    if not child:
        time.sleep(60)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    time.sleep(0.6)
    ready()
"""
    process = subprocess.run([sys.executable, "-c", BEGIN + body], capture_output=True, text=True, timeout=20)
    assert (process.returncode, process.stdout, process.stderr) == (0, "-15\nready\n", "")


CHILD = """
with stopping.stoppable(), stopping.child(["sh", "-c", "sleep 60 & echo $!; wait"], group=GROUP, stdout=subprocess.PIPE) as child:
    print("ready", flush=True)
    print(child.pid, int(child.stdout.readline()), flush=True)
    time.sleep(60)
"""  # noqa: E501


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("group", [False, True])
def test_a_child_ends_with_its_parent_whatever_ends_that(number: signal.Signals, group: bool):
    process = run(CHILD.replace("GROUP", str(group)))
    assert process.stdout is not None
    shell, inner = map(int, process.stdout.readline().split())
    process.send_signal(number)
    process.wait(20)
    assert gone(shell)
    if group:
        assert gone(inner)
    else:
        os.kill(inner, signal.SIGKILL)
    process.communicate()


def gone(pid: int) -> bool:
    """Return whether a process ends within seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("group", [False, True])
def test_the_status_of_a_child_is_its_own(group: bool):
    with stopping.child(["sh", "-c", "exit 7"], group=group) as process:
        assert process.wait(20) == 7
    with stopping.child(["sh", "-c", "kill -TERM $$"], group=group) as process:
        assert process.wait(20) == -signal.SIGTERM
    with stopping.child(["sleep", "60"], group=group) as process:
        pass
    assert process.returncode == -signal.SIGKILL


def test_no_child_is_started_once_the_run_ends():
    body = """
with stopping.stoppable():
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    try:
        with stopping.child(["true"]):
            print("started")
    except stopping.Stopped as error:
        print(error)
"""
    process = run(body)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[1] == "stopped by SIGTERM\n"

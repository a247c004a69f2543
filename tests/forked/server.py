"""The process whose forks others are: ``python -m forked.server CLIENT``, CLIENT being the command that asks for one.

A request comes through a Unix socket with the three standard streams: ``{"arguments": those of Python, "cwd": ...,
"env": ...}``; a fourth file is open as 3. The answers are the pid and, when it has ended, the status. It ends when its
input does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.metadata
import io
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import Any

GIVEN = os.environ["PYTHONPATH"].split(os.pathsep)
INSTALLED = [path for path in sys.path[1:] if path not in GIVEN]
EAGER = (
    "torch", "numpy", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "scipy.special", "sqlalchemy.dialects.sqlite",
    "pytest", "xml.etree.ElementTree", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
)  # fmt: skip
SUITE = """
import torch
from harness import Subject, targets

SUBJECT = Subject(
    name="tiny", build=lambda: torch.nn.Linear(4, 2).eval(), cases={"one": lambda: {"input": torch.ones(2, 4)}},
    targets=targets("ort-cpu", precisions=("fp32", "fp16")), weights="random", inputs="random",
)
"""


def warm_up(client: list[str]) -> None:
    """Import what any process may; let xdist start its workers as forks."""
    import _pytest.assertion.rewrite
    import _pytest.config
    import execnet.gateway_io
    import operator_table

    for name in (*EAGER, *(f"_pytest.{name}" for name in _pytest.config.default_plugins)):
        importlib.import_module(name)
    for plugin in importlib.metadata.entry_points(group="pytest11"):
        plugin.load()
    operator_table.share()
    judge_and_report()
    for name in [name for name in sys.modules if name.partition(".")[0] == "harness"]:
        del sys.modules[name]  # a process knows of no run before it
    import harness

    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    given = execnet.gateway_io.popen_args
    execnet.gateway_io.popen_args = lambda spec: [*client, *given(spec)[1:]]
    # It would warn of what was imported before it could rewrite that.
    _pytest.assertion.rewrite.AssertionRewritingHook._warn_already_imported = lambda self, name: None
    # What libraries clean up at the end of a process would copy much of it; its child processes have to end.
    atexit._clear()
    atexit.register(harness.isolated.models._end_all)
    gc.collect()
    gc.freeze()  # the garbage collections of the forks need not look at all of this, which would copy it


def judge_and_report() -> None:
    """Let be made what is made once in a process: tables of operators, fonts, templates."""
    from harness.cli import main
    from harness.isolated import models

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        os.chdir(folder)
        Path("test_tiny.py").write_text(SUITE)
        with contextlib.redirect_stderr(said):
            status = main(["verify", "test_tiny.py", "--json", "reports/out.json"])
            status |= main(["report", "reports", "--html"])
        os.chdir(before)
    assert status == 0, said.getvalue()
    models._end_all()


def be(request: dict[str, Any]) -> int:
    """Be Python with these arguments, ``-m MODULE`` or ``-c CODE`` among them; return the status."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    options = request["arguments"]
    at = next(place for place, option in enumerate(options) if option in ("-m", "-c"))
    flags, (kind, what, *arguments) = options[:at], options[at:]
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
    sys.dont_write_bytecode = "-B" in flags or bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    here = [] if "-P" in flags else ["" if kind == "-c" else request["cwd"]]
    sys.path[:] = [*here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *INSTALLED]
    sys.argv = [what if kind == "-m" else "-c", *arguments]
    sys.modules["__main__"] = main_module = types.ModuleType("__main__")
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, main_module.__dict__)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return int(error.code or 0)
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def fork(connection: socket.socket, theirs: list[socket.socket]) -> int:
    """Start what is asked for; return its pid."""
    request, streams, *_ = socket.recv_fds(connection, 1 << 20, 4)
    pid = os.fork()
    if not pid:
        status = 70
        try:
            for one in (connection, *theirs):
                one.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number, inheritable=number < 3)
                os.close(stream)
            status = be(json.loads(request))
        finally:
            _end(status)
    for stream in streams:
        os.close(stream)
    connection.send(str(pid).encode())
    return pid


def _end(status: int) -> None:
    """End this process as Python would: threads, what is to be called at exit, the streams."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)


def main() -> None:
    """Serve requests until the input ends."""
    client = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warm_up(client)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(client[-1])
    listener.listen(32)
    print("ready", flush=True)
    asking: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    os._exit(0)
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    pid = fork(connection, [listener, *(one for _, one in asking.values())])
                    ends = os.pidfd_open(pid)
                    asking[ends] = pid, connection
                    selector.register(ends, selectors.EVENT_READ)
                else:
                    pid, connection = asking.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    with contextlib.suppress(OSError), connection:
                        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


if __name__ == "__main__":
    main()

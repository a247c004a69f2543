"""Folders where files belong, files where folders belong, and places where nothing can be written."""

from __future__ import annotations

import os
from pathlib import Path

from bad_inputs.row import VERIFY, Row, both, folder, model, nothing, suite, write

REFERENCE = "verify s --update-references --references"
RECORD = '{"schema": "parity/1"}'


def engine_is_a_folder() -> None:
    """Put a folder where the engine of ``m.onnx`` was built."""
    from harness.cli.commands import main

    main(VERIFY.split())
    (engine,) = Path("engines").glob("*.engine")
    engine.unlink()
    engine.mkdir()


def link(path: str, to: str) -> None:
    Path(path).symlink_to(to)


ROWS = (
    Row("engines in /proc", model(), f"{VERIFY} --engines /proc/x", 2, ("/proc/x",)),
    Row("engines in a file", both(model(), write("e", "")), f"{VERIFY} --engines e", 2, (" e",)),
    Row("engines below a file", both(model(), write("e", "")), f"{VERIFY} --engines e/f", 2, ("e/f",)),
    Row("engines in /dev/full", model(), f"{VERIFY} --engines /dev/full", 2, ("/dev/full",)),
    Row("engines in an empty name", model(), f"{VERIFY} --engines ''", 2, ("--engines",)),
    Row("engine that is a folder", both(model(), engine_is_a_folder), VERIFY, 2, (".engine", "is no file")),
    Row("link to nowhere for engines", both(model(), lambda: link("e", "none/there")), f"{VERIFY} --engines e", 0, ("1 passed",)),
    Row("clean in a file", write("e", ""), "clean --engines e", 2, (" e",)),
    Row("clean in nothing", nothing, "clean --engines e", 0, ("e: removed 0",)),
    Row("history without an ending", suite(), "history s --history h", 2, ("h is no place", ".sqlite")),
    Row("references in a file", both(suite(), write("r", "")), f"{REFERENCE} r", 2, ("r is no folder", "--references")),
    Row("references in /proc", suite(), f"{REFERENCE} /proc/x", 2, ("/proc/x",)),
    Row("reference in /proc", suite(), "reference s --references /proc/x", 2, ("/proc/x",)),
    Row("suites in a file", write("s", ""), "verify t --suites s", 2, ("folder s",)),
    Row("list of a file", write("s", ""), "list --suites s", 2, ("folder s",)),
    Row("JSON in a folder", both(model(), folder("d")), f"{VERIFY} --json d", 2, (" d", "folder")),
    Row("JSON below a file", both(model(), write("f", "")), f"{VERIFY} --json f/r.json", 2, ("f/r.json",)),
    Row("JSON in /proc", model(), f"{VERIFY} --json /proc/r.json", 2, ("/proc/r.json",)),
    Row("JSON to /dev/full", model(), f"{VERIFY} --json /dev/full", 2, ("/dev/full", "No space left"), shows=True),
    Row("JSON of an empty name", model(), f"{VERIFY} --json ''", 2, ("--json",)),
    Row("doctor's JSON in a folder", folder("d"), "doctor --json d", 2, (" d", "folder")),
    Row("inputs in a folder", both(model(), folder("d")), f"{VERIFY} --inputs d", 2, (" d", "no .json")),
    Row("inputs in /dev/null", model(), f"{VERIFY} --inputs /dev/null", 2, ("/dev/null",)),
    Row("plan in a folder", both(model(), folder("p.toml")), "verify m.onnx -b ort-cpu -p p.toml", 2, ("p.toml", "directory")),
    Row("suite that is a folder", folder("suites/test_s.py"), "verify suites/test_s.py", 2, ("test_s.py",)),
    Row("suite by name that is a folder", folder("suites/test_s.py"), "verify s", 2, ("test_s.py",)),
    Row("report in a file", both(write("r/r.json", RECORD), write("o", "")), "report r -o o", 2, (" o",)),
    Row("report in /proc", write("r/r.json", RECORD), "report r -o /proc/x", 2, ("/proc/x",)),
    Row("README that is a folder", both(write("r/r.json", RECORD), folder("r/README.md")), "report r -o r", 2, ("README.md",)),
    Row("page that is a folder", both(write("r/r.json", RECORD), folder("r/report.html")), "report r -o r --html", 2, ("report.html",)),
    Row("badge in a folder", both(write("r/r.json", RECORD), folder("d")), "report r -o r --badge d", 2, (" d",)),
    Row("records that are not there", nothing, "report none", 2, ("none",)),
    Row("history that is a folder", both(suite(), folder("h.sqlite")), "history s --history h.sqlite", 2, ("h.sqlite",)),
    Row("history in /proc", suite(), "bench s --history /proc/h.sqlite -b ort-cpu --baseline none", 2, ("/proc/h.sqlite",)),
    Row("history below a file", both(suite(), write("f", "")), "bench s --history f/h.sqlite", 2, ("f/h.sqlite",)),
    Row("history that is no database", both(suite(), write("h.sqlite", "hello " * 99)), "history s --history h.sqlite", 3, ("h.sqlite", "not a database", "kept as")),
    Row("import of a folder", folder("d"), "history import parity d --history h.sqlite", 2, (" d",)),
    Row("import of nothing", nothing, "history import parity none --history h.sqlite", 2, ("none",)),
    Row("export to a folder", folder("d"), "history export parity d --history h.sqlite", 2, (" d",)),
    Row("export in an unknown format", nothing, "history export xml f --history h.sqlite", 2, ("xml",)),
    Row("study in a file", write("s", ""), "study s", 2, ("s", "study.py")),
    Row("study in an empty folder", folder("s"), "study s", 2, ("s", "study.py")),
    Row("study that is a folder", folder("s/study.py"), "study s", 2, ("s", "study.py")),
    Row("score of nothing", nothing, "score none", 2, ("none",)),
    Row("score of a file", write("f", ""), "score f", 2, ("f",)),
    Row("plan of a bisection in a folder", both(model(), folder("d")), "bisect m.onnx -b ort-cpu -p fp16 -o d", 2, (" d", "folder")),
    Row("plan of a bisection in /proc", model(), "bisect m.onnx -b ort-cpu -p fp16 -o /proc/p.toml", 2, ("/proc/p.toml",)),
    Row("reproducer in a file", both(model(), write("f", "")), "bisect m.onnx -b ort-cpu -p fp16 --reproducer f", 2, (" f",)),
    Row("name of 300 letters", nothing, "verify " + "m" * 300 + ".onnx", 2, ("mmm",)),
    Row("name of 5000 letters", nothing, "verify " + "m" * 5000, 2, ("mmm",)),
    Row("NUL in a name", nothing, "verify 'm\0.onnx'", 2, ("m", "onnx")),
    Row("link to itself", lambda: link("m.onnx", "m.onnx"), VERIFY, 2, ("m.onnx",)),
    Row("pipe for a model", lambda: os.mkfifo("m.onnx"), VERIFY, 2, ("m.onnx",)),
    Row("device for a model", nothing, "verify /dev/zero", 2, ("suites",)),
    Row("JSON to a pipe that nobody reads", both(model(), lambda: os.mkfifo("p")), f"{VERIFY} --json p", 2, (" p", "No such device")),
    Row("badge to a pipe that nobody reads", both(write("r/r.json", RECORD), lambda: os.mkfifo("p")), "report r -o r --badge p", 2, (" p", "No such device"), shows=True),
    Row("history in a pipe", both(suite(), lambda: os.mkfifo("h.sqlite")), "history s --history h.sqlite", 2, ("h.sqlite", "pipe")),
    Row("engines in a link to itself", both(model(), lambda: link("engines", "engines")), VERIFY, 3, ("Too many levels of symbolic links", "engines")),
    Row("engines in a pipe", both(model(), lambda: os.mkfifo("engines")), VERIFY, 2, ("engines is no folder",)),
    Row("file in the place of .parity", both(suite(), write(".parity", "")), "bench s -b ort-cpu --baseline none --processes 2", 2, (".parity", "PARITY_HISTORY")),
)  # fmt: skip

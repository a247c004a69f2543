"""Recorded JSON that a report is made of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import recorded

from bad_inputs.onnx_files import LFS
from bad_inputs.row import Make, Row, folder, nothing, write

REPORT = "report r"
RESULT = recorded.result().to_json()


def record(**keys: Any) -> Make:
    """Return what writes a record with these keys."""
    return write("r/r.json", json.dumps({"schema": "parity/1", **keys}))


def result(**keys: Any) -> Make:
    """Return what writes a record of one result with these keys."""
    return record(results=[{**RESULT, **keys}])


ROWS = (
    Row("nothing there", nothing, REPORT, 2, ("there is no r",)),
    Row("no default folder", nothing, "report", 2, ("there is no reports",)),
    Row("empty folder", folder("r"), REPORT, 2, ("r", "no .json")),
    Row("no JSON", write("r/r.json", "hello"), REPORT, 2, ("r.json", "not JSON")),
    Row("empty file", write("r/r.json", ""), REPORT, 2, ("r.json", "not JSON")),
    Row("half a file", write("r/r.json", '{"schema": "parity/1", "results": ['), REPORT, 2, ("r.json", "not JSON")),
    Row("bytes", write("r/r.json", b"\xff\xfe\0"), REPORT, 2, ("r.json", "not JSON")),
    Row("100,000 brackets", write("r/r.json", "[" * 100_000), REPORT, 2, ("r.json", "not JSON")),
    Row("NaN", write("r/r.json", '{"schema": NaN}'), REPORT, 2, ("r.json", "NaN")),
    Row("a number of 5000 digits", write("r/r.json", '{"schema": ' + "1" * 5000 + "}"), REPORT, 2, ("r.json", "digits")),
    Row("pointer of Git LFS", write("r/r.json", LFS), REPORT, 2, ("r.json", "Git LFS pointer")),
    Row("a list", write("r/r.json", "[]"), REPORT, 2, ("r.json", "not a document of parity")),
    Row("another program's", write("r/r.json", '{"version": 1}'), REPORT, 2, ("r.json", "not a document of parity")),
    Row("another program's schema", write("r/r.json", '{"schema": "other/1"}'), REPORT, 2, ("r.json", "'other/1'")),
    Row("a newer version", write("r/r.json", '{"schema": "parity/2"}'), REPORT, 2, ("r.json", "'parity/2'", "'parity/1'", "record it again")),
    Row("a version that is a list", write("r/r.json", '{"schema": ["parity/1"]}'), REPORT, 2, ("r.json", "['parity/1']")),
    Row("results of no kind", record(results=3), REPORT, 2, ("r.json", "results")),
    Row("a result of no kind", record(results=[3]), REPORT, 2, ("r.json", "results[0]")),
    Row("a result without a subject", record(results=[{}]), REPORT, 2, ("r.json", "results[0]", "subject")),
    Row("an unknown verdict", result(verdict="fine"), REPORT, 2, ("r.json", "results[0]", "verdict", "'fine'")),
    Row("outputs of no kind", result(outputs={}), REPORT, 2, ("r.json", "results[0].outputs")),
    Row("a number for a name", result(subject=7), REPORT, 2, ("r.json", "results[0]", "subject")),
    Row("text for an environment", record(environment="H200"), REPORT, 2, ("r.json", "environment")),
    Row("bench of no kind", record(bench=[{}]), REPORT, 2, ("r.json", "bench[0]")),
    Row("a study of no kind", record(study=7), REPORT, 2, ("r.json", "study")),
    Row("a bisection of no kind", record(bisect=[]), REPORT, 2, ("r.json", "bisect")),
    Row("a pass that is none", result(outputs=[{**RESULT["outputs"][0], "verdict": "fail"}]), REPORT, 1, ("r.json", "results[0]", "contradict")),
    Row("check of a README that is not there", record(), "report r --check", 1, ("README.md",)),
    Row("check and a page", record(), "report r --check --html", 2, ("--check", "--html")),
    Row("an unknown language", record(), "report r --lang fr", 2, ("--lang", "'fr'")),
    Row("an unknown template", record(), "report r --template 2024", 2, ("--template", "'2024'")),
    Row("WeNet without a subject", record(), "report r --wenet encoder", 2, ("encoder", "ROLE=SUBJECT")),
    Row("WeNet of an unknown role", record(), "report r --wenet singer=s", 2, ("singer", "encoder")),
    Row("a number of 400 digits", write("r/r.json", json.dumps({"schema": "parity/1", "results": [{**RESULT, "timings_s": {"judge": 10**400}}]})), REPORT, 2, ("r.json", "timings_s.judge")),
    Row("a number beyond all", write("r/r.json", '{"schema": "parity/1", "complete": 1e999}'), REPORT, 2, ("r.json", "complete")),
    Row("a boolean for a number", result(runs=True), REPORT, 2, ("r.json", "runs", "True")),
    Row("a key twice", write("r/r.json", '{"schema": "parity/1", "schema": "x"}'), REPORT, 2, ("r.json", "'x'")),
    Row("UTF-16", write("r/r.json", '{"schema": "parity/1"}'.encode("utf-16")), REPORT, 2, ("r.json", "not JSON")),
    Row("a link to itself", lambda: [folder("r")(), Path("r/r.json").symlink_to("r.json")], REPORT, 2, ("r", "no .json")),
    Row("a pipe", lambda: [folder("r")(), os.mkfifo("r/r.json")], REPORT, 2, ("r", "no .json")),
    Row("names with escapes", result(subject="\x1b[31mred\n"), "report r --html", 0, ("report.html",)),
    Row("half of a letter in a name", result(subject="\ud800"), "report r --html", 0, ("report.html",)),
)  # fmt: skip

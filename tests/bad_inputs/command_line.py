"""Options and their values."""

from __future__ import annotations

from bad_inputs.row import VERIFY, Row, model, nothing, suite

ROWS = (
    Row("no command", nothing, "", 2, ("COMMAND",)),
    Row("unknown command", nothing, "verfy m.onnx", 2, ("verfy", "verify")),
    Row("no subject", nothing, "verify", 2, ("SUBJECT",)),
    Row("no suites", nothing, "verify s", 2, ("suites", "--suites")),
    Row("unknown subject", suite(), "verify t", 2, ("'t'", "known: s")),
    Row("unknown backend", model(), "verify m.onnx -b rtz", 2, ("'rtz'", "rtx")),
    Row("unknown required backend", model(), f"{VERIFY} --require rtz", 2, ("'rtz'", "rtx")),
    Row("unknown case", model(), f"{VERIFY} --case two", 2, ("'two'", "default")),
    Row("unknown option", model(), f"{VERIFY} --dtype fp16", 2, ("--dtype",)),
    Row("shape without sizes", model(), f"{VERIFY} --shape x", 2, ("'x'", "NAME=DIMS")),
    Row("negative size", model(), f"{VERIFY} --shape x=-2", 2, ("'x=-2'", "NAME=DIMS")),
    Row("size 0", model(), f"{VERIFY} --shape x=0", 2, ("'x=0'", "NAME=DIMS")),
    Row("shape of another rank", model(), f"{VERIFY} --shape x=2,2", 2, ("'x'", "[2, 2]", "[2]")),
    Row("shape of an unknown input", model(), f"{VERIFY} --shape z=2", 2, ("'z'", "x")),
    Row("shape of a suite", suite(), "verify s --shape input=2", 2, ("--shape", "ONNX")),
    Row("one run", model(), f"{VERIFY} --runs 1", 2, ("--runs", "'1'", "2")),
    Row("limit of 0", model(), f"{VERIFY} --limit 0", 2, ("--limit", "0.0")),
    Row("limit of NaN", model(), f"{VERIFY} --limit nan", 2, ("--limit", "nan")),
    Row("no CUDA", model(), f"{VERIFY} --device cuda", 2, ("--device cuda", "CPU")),
)  # fmt: skip

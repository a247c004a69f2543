"""Precision plans."""

from __future__ import annotations

import os

from bad_inputs.row import Make, Row, both, model, write

PLAN = "verify m.onnx -b ort-cpu -p p.toml"


def plan(content: bytes | str) -> Make:
    """Return what writes ``m.onnx`` and a plan."""
    return both(model(), write("p.toml", content))


ROWS = (
    Row("missing", model(), PLAN, 2, ("p.toml", "No such file")),
    Row("no TOML", plan("precision =\n"), PLAN, 2, ("p.toml", "TOML", "line 1")),
    Row("bytes", plan(b"\xff\xfe\x00"), PLAN, 2, ("p.toml", "TOML")),
    Row("empty", plan(""), PLAN, 2, ("p.toml", "precision must be one of")),
    Row("unknown key", plan('precision = "fp16"\nkeep = []'), PLAN, 2, ("p.toml", "'keep'", "keep_fp32")),
    Row("unknown precision", plan('precision = "fp61"'), PLAN, 2, ("p.toml", "'fp61'", "fp16")),
    Row("number for a precision", plan("precision = 16"), PLAN, 2, ("p.toml", "precision", "string")),
    Row("string for a list", plan('precision = "fp16"\nkeep_fp32 = "a"'), PLAN, 2, ("p.toml", "keep_fp32", "list")),
    Row("numbers in the list", plan('precision = "fp16"\nkeep_fp32 = [1]'), PLAN, 2, ("p.toml", "keep_fp32", "list")),
    Row("keeps in fp32", plan('precision = "fp32"\nkeep_fp32 = ["a"]'), PLAN, 2, ("p.toml", "keep_fp32", "'fp32'")),
    Row("nothing of that name", plan('precision = "fp16"\nkeep_fp32 = ["value:z"]'), PLAN, 2, ("p.toml", "'value:z'")),
    Row("called as a precision", both(model(), write("fp16.toml", 'precision = "bf16"')), "verify m.onnx -b ort-cpu -p fp16.toml", 2, ("fp16.toml", "fp16", "rename")),
    Row("two of one name", both(model(), write("a/p.toml", 'precision = "bf16"'), write("b/p.toml", 'precision = "fp16"')), "verify m.onnx -b ort-cpu -p a/p.toml -p b/p.toml", 2, ("a/p.toml", "b/p.toml", "ort-cpu-p")),
    Row("unknown precision by name", model(), "verify m.onnx -b ort-cpu -p fp61", 2, ("'fp61'", "fp16")),
    Row("number of 5000 digits", plan("precision = " + "9" * 5000), PLAN, 2, ("p.toml", "TOML", "digits")),
    Row("100,000 brackets", plan("precision = " + "[" * 100_000), PLAN, 2, ("p.toml", "TOML")),
    Row("date for a precision", plan("precision = 1979-05-27"), PLAN, 2, ("p.toml", "precision", "string")),
    Row("lists in the list", plan('precision = "fp16"\nkeep_fp32 = [["a"]]'), PLAN, 2, ("p.toml", "keep_fp32", "list")),
    Row("100,000 patterns that match nothing", plan('precision = "fp16"\nkeep_fp32 = [' + "'z'," * 100_000 + "]"), PLAN, 2, ("'z'", "and 99992 more")),
    Row("pattern with NUL", plan('precision = "fp16"\nkeep_fp32 = ["a\\u0000b"]'), PLAN, 2, ("keep_fp32", "a\\x00b")),
    Row("a key twice", plan('precision = "fp16"\nprecision = "bf16"'), PLAN, 2, ("p.toml", "TOML")),
    Row("pipe", both(model(), lambda: os.mkfifo("p.toml")), PLAN, 2, ("p.toml", "pipe")),
)  # fmt: skip

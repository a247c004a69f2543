"""Masks that a format cannot hold: wherever they stand and however they are made, a right engine passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fake import quiet
from graphs import parse_proto

from harness import targets
from harness.discovery import onnx_subject
from harness.graph import load_plan
from harness.verify.prepare import prepare
from harness.verify.verify import verify

LOWEST = "-3.4028234663852886e38"
SOFTMAX = "s = Add(x, bias) y = Softmax<axis = -1>(s)"
MASKS = {
    "stored": f"low = Constant<value = float {{{LOWEST}}}>() bias = Where(seen, zero, low)",
    "filled": f"""sizes = Shape(x) low = ConstantOfShape<value = float[1] {{{LOWEST}}}>(sizes)
                  bias = Where(seen, zero, low)""",
    "cast from doubles": f"""d = Constant<value = double {{{LOWEST}}}>() low = Cast<to = 1>(d)
                             bias = Where(seen, zero, low)""",
    "cast from integers": """i = Constant<value = int64 {-1000000000}>() low = Cast<to = 1>(i)
                             bias = Where(seen, zero, low)""",
    "a product": """a = Constant<value = float {300}>() b = Mul(a, a) low = Neg(b)
                    f = Cast<to = 1>(seen) hidden = Sub(one, f) bias = Mul(hidden, low)""",
}


def model_of(mask: str, *, in_a_body: bool) -> onnx.ModelProto:
    graph = f"{MASKS[mask]} {SOFTMAX}"
    if in_a_body:
        graph = f"""go = Constant<value = bool {{1}}>() y = If(go) <
            then_branch = a () => (float[4, 6] p) {{ {MASKS[mask]} t = Add(x, bias) p = Softmax<axis = -1>(t) }},
            else_branch = b () => (float[4, 6] q) {{ q = Identity(x) }}>"""
    return parse_proto(
        f"g (float[4, 6] x, bool[4, 6] seen) => (float[4, 6] y) <float zero = {{0}}, float one = {{1}}> {{ {graph} }}"
    )


@pytest.mark.parametrize("in_a_body", [False, True], ids=["plain", "in a body"])
@pytest.mark.parametrize("mask", MASKS)
def test_a_masked_row_is_no_fault_of_the_engine(tmp_path: Path, mask: str, in_a_body: bool) -> None:
    onnx.save(model_of(mask, in_a_body=in_a_body), tmp_path / "masked.onnx")
    seen = np.tile(np.arange(6) < 3, (4, 1))
    seen[3] = False  # a row of which nothing is seen
    scores = 30 * np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=scores, seen=seen)
    subject = onnx_subject(tmp_path / "masked.onnx", inputs=tmp_path / "x.npz", shapes={})
    results = verify(
        subject, targets=targets("ort-cpu", "torch", precisions=("fp16",)), cases=["default"], settings=quiet(tmp_path)
    )
    assert {result.backend: result.verdict for result in results} == {"ort-cpu": "pass", "torch": "pass"}


def test_an_infinity_within_the_range_says_what_it_reads_there(tmp_path: Path) -> None:
    onnx.save(
        parse_proto(
            "g (float[2, 3] x) => (float[2, 3] y) <float tiny = {1e-10}> { s = Mul(x, x) t = Add(s, tiny) y = Log(t) }"
        ),
        tmp_path / "log.onnx",
    )
    np.savez(tmp_path / "x.npz", x=np.array([[1, 2, 3], [4, 0, 5]], np.float32))
    subject = onnx_subject(tmp_path / "log.onnx", inputs=tmp_path / "x.npz", shapes={})
    prepared = prepare(subject, quiet(tmp_path))
    found = prepared.graph.first_beyond(prepared.inputs["default"], load_plan("fp16"))
    assert found == "y is -inf at [1, 1] (-23 in FP32), where it reads t: 0 (1e-10 in FP32)"

"""Masks that a format cannot hold: wherever they stand and however they are made, a right engine passes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fake import quiet
from graphs import parse_proto

from harness import Subject, targets
from harness.compare import relative_l2
from harness.discovery import onnx_subject
from harness.graph import load_plan
from harness.verify.judging import compare_outputs
from harness.verify.prepare import prepare
from harness.verify.tolerance import judge_output
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


class Logarithm(torch.nn.Module):
    """A power that FP16 cannot hold, and the logarithm of what is left of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x + torch.log((1e-4 * x).square() + 1e-9)


def test_what_low_precision_cannot_hold_is_found_each_from_right_values(tmp_path: Path) -> None:
    x = torch.linspace(0.1, 1, 64).reshape(8, 8)
    subject = Subject(
        name="log", build=lambda: Logarithm().eval(), cases={"one": lambda: {"x": x}}, weights="random",
        targets=targets("torch", precisions=("fp16",)), weights_source="none",
    )  # fmt: skip
    prepared = prepare(subject, quiet(tmp_path))
    plan = load_plan("fp16")
    assert prepared.graph.held_wide(prepared.inputs["one"], plan) == {"pow_1", "add", "log"}
    floor = prepared.references.floor_with_wide("one", plan)["output"]
    assert 0 < relative_l2(floor, prepared.references.reference("one", "fp32")["output"]) < 2**-10
    assert not bool(prepared.references.floor("one", plan).outputs["output"].isfinite().any())


@pytest.mark.parametrize(("lost", "verdict"), [(2**-12, "pass"), (2**-7, "not_judged"), (0.09, "not_judged")])
def test_an_engine_that_holds_what_pytorch_does_not_may_lose_what_pytorch_does_with_that_in_fp32(lost, verdict):
    expected = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
    wide, nothing = expected * (1 + 2**-12 * noise.flip(0)), torch.full_like(expected, math.nan)
    [compared] = compare_outputs(
        {"y": expected * (1 + lost * noise)}, {"y": expected}, {"y": nothing}, precision="fp16",
        wide=lambda: {"y": wide},
    )  # fmt: skip
    judged = judge_output("y", compared.stats, precision="fp16", floor=compared.floor, parts=compared.parts)
    assert judged.verdict == verdict
    assert "cannot hold this model" in judged.reason

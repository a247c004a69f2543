"""A refusal says which operator it names, and offers the plan that keeps it in FP32."""

from __future__ import annotations

from harness.errors import EngineRefused
from harness.graph import Value, load_plan
from harness.verify.refused import with_operator

VALUES = {
    "convolution": Value(
        name="convolution", origin="convolution", op="aten.convolution.default", module="decoder.upscale_conv1"
    ),
    "view_38": Value(name="view_38", origin="view_38", op="aten.view.default"),
}
SAID = "Could not infer output types: deconv: view_38-(bf16[1,16,8,8]), node_convolution filterWeightsBFloat16-{0.2}"


def test_the_operator_and_a_plan_are_named():
    found = str(with_operator(EngineRefused(SAID), VALUES, load_plan("bf16")))
    for fact in ("aten.convolution.default", "decoder.upscale_conv1", "bf16", SAID, 'keep_fp32 = ["op:aten.conv'):
        assert fact in found


def test_a_refusal_of_nothing_that_is_known_or_of_fp32_stays_as_it_is():
    for text, plan in (("no memory", "bf16"), ("__mye14002node_convolution_alpha", "bf16"), (SAID, "fp32")):
        error = EngineRefused(text, failure="crash")
        assert with_operator(error, VALUES, load_plan(plan)) is error
    assert with_operator(EngineRefused(SAID, failure="crash"), VALUES, load_plan("fp16")).failure == "crash"

"""Codes of right engines pass, each planted fault fails, and what is one apart is held against computed rounding."""

from __future__ import annotations

import pytest
import torch

from benchmarks.quantised import faults_of, files, in_pytorch, is_wrong, on_onnxruntime, unsigned
from harness.quantised import judge_codes, judging, quantisers, spread

SEEDS = 20
FILES = ("conv_mo_int8_fp16", "conv_mo_int8_fp32", "conv_ort_fp8", "conv_sym21")


@pytest.fixture(autouse=True)
def _few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "RUNS", 16)


@pytest.fixture(scope="module")
def small():
    return unsigned()


def test_right_engines_of_a_small_net_pass_on_twenty_inputs(small):
    for seed in range(SEEDS):
        inputs = small.inputs(seed)
        for given in (
            on_onnxruntime(small, inputs, optimised=True),
            on_onnxruntime(small, inputs, optimised=False),
            in_pytorch(small, inputs),
        ):
            assert not is_wrong(small, inputs, given), seed


def test_every_fault_of_a_small_net_fails_on_twenty_inputs(small):
    found: dict[str, int] = {}
    for seed in range(SEEDS):
        inputs = small.inputs(seed)
        for name, given in faults_of(small, inputs).items():
            found[name] = found.get(name, 0) + is_wrong(small, inputs, given)
    saturated = "saturation at 127 on the wrong side"  # only where something saturates
    assert found.pop(saturated) >= SEEDS // 4
    assert found == dict.fromkeys(
        ("a scale off by 1 %", "truncation", "one channel's scale swapped", "a missing zero point"), SEEDS
    )


@pytest.mark.parametrize("name", FILES)
def test_right_engines_of_convolutions_pass(name: str):
    net = files(name)
    inputs = net.inputs(0)
    assert not is_wrong(net, inputs, on_onnxruntime(net, inputs, optimised=True))
    assert not is_wrong(net, inputs, on_onnxruntime(net, inputs, optimised=False))


@pytest.mark.parametrize("name", FILES)
def test_every_fault_of_convolutions_fails(name: str):
    net = files(name)
    inputs = net.inputs(0)  # three times as large as usual, so that codes saturate
    assert not [fault for fault, given in faults_of(net, inputs).items() if not is_wrong(net, inputs, given)]


def test_the_first_wrong_quantiser_is_named(small):
    inputs = small.inputs(1)
    given = faults_of(small, inputs)["a scale off by 1 %"]
    verdicts = {one.name: one for one in judge_codes(small.case(inputs), given.codes, {})}
    assert [one.verdict for one in verdicts.values()] == ["pass", "fail"]
    wrong = verdicts["h_codes"]
    assert wrong.elements == 64 * 12
    assert wrong.far_from_ties > 0
    assert wrong.one_apart >= wrong.far_from_ties
    assert wrong.explained < 1


def test_codes_two_apart_fail_wherever_the_tie_is(small):
    inputs = small.inputs(1)
    codes = dict(in_pytorch(small, inputs).codes)
    codes["h_codes"] = codes["h_codes"].clone()
    codes["h_codes"][3, 2] += 2
    [wrong] = [one for one in judge_codes(small.case(inputs), codes, {}) if one.verdict != "pass"]
    assert (wrong.verdict, wrong.two_apart, wrong.most_apart, wrong.worst) == ("fail", 1, 2, (3, 2))


def test_what_cannot_be_seen_is_not_judged(small):
    inputs = small.inputs(1)
    codes = {"x_codes": in_pytorch(small, inputs).codes["x_codes"]}
    first, second = judge_codes(small.case(inputs), codes, {"h_codes": "refused"})
    assert first.verdict == "pass"
    assert (second.verdict, second.reason) == ("not_judged", "refused")


def test_the_spread_is_of_flipped_codes(small):
    case = small.case(small.inputs(1))
    exact = case.run()["y"]
    apart = [(it["y"] - exact).abs() for it in spread(case, runs=32)]
    step = 0.031
    assert max(float(it.max()) for it in apart) < 1.01 * step
    assert quantisers(small.graph) == ("x_codes", "h_codes")
    assert torch.equal(case.run()["y"], exact)

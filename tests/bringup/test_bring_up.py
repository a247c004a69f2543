"""A model brought up module by module: what is found, in which part, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bringup.conftest import Net, inputs, subject

from harness import Target, Tolerance, UsageError
from harness.records import BringUp

BLOCKS = ["blocks.0", "blocks.1"]


def brought_up(begun: Any) -> BringUp:
    for _ in begun.run():
        pass
    return begun.records()[0]


def verdicts(found: BringUp) -> dict[str, str]:
    return {part.module: part.verdict if part.reached else "not reached" for part in found.parts}


def test_a_right_model_passes_all_parts_in_the_order_in_which_they_run(start: Any):
    found = brought_up(start(subject()))
    assert [part.module for part in found.parts] == [*BLOCKS, "head", "head#2"]
    assert found.verdict == "pass"
    assert set(verdicts(found).values()) == {"pass"}
    assert (found.prefix, found.upto, found.not_run) == ("", "", ("idle",))
    assert [part.kind for part in found.parts] == ["Block"] * 2 + ["Linear"] * 2
    block = found.parts[1]
    assert block.output == "output_0"
    assert block.shapes == {"x": (1, 3, 8), "mask": (1, 3, 8)}
    assert block.error is not None
    assert block.floor
    assert block.ratio == block.error / block.floor
    assert any("scale=0.5" in note for note in block.notes)


def test_a_wrong_kernel_is_found_in_its_part_and_stops_there(start: Any, wrong_softmax: Any):
    begun = start(subject(), wrong_softmax)
    found = brought_up(begun)
    assert verdicts(found) == {
        "blocks.0": "pass", "blocks.1": "fail", "head": "not reached", "head#2": "not reached",
    }  # fmt: skip
    assert found.verdict == "fail"
    assert "blocks.1" in found.reason
    failed = found.parts[1]
    assert failed.ratio is not None
    assert failed.ratio > 10
    assert failed.failure == "wrong_answer"
    assert failed.next_step == "parity parts net -b planted -p fp16 --prefix blocks.1"
    assert [result.verdict for result in begun.results] == ["pass", "fail"]


def test_it_goes_on_behind_a_wrong_part(start: Any, wrong_softmax: Any):
    found = brought_up(start(subject(), wrong_softmax, keep_going=True))
    assert verdicts(found) == {"blocks.0": "pass", "blocks.1": "fail", "head": "pass", "head#2": "pass"}


def test_level_by_level_to_the_module_that_is_wrong(start: Any, wrong_softmax: Any):
    found = brought_up(start(subject(), wrong_softmax, prefix="blocks.1"))
    assert verdicts(found) == {"blocks.1.linear": "pass", "blocks.1.weigh": "fail"}
    assert found.parts[1].next_step == "parity verify net -b planted -p fp16 --layers outputs:blocks.1.weigh"
    assert verdicts(brought_up(start(subject(), wrong_softmax, prefix="blocks.1.weigh"))) == {"blocks.1.weigh": "fail"}


def test_cut_after_each_module(start: Any, wrong_softmax: Any):
    declared = subject(
        valid={"output": lambda given: given["mask"] > 0}, tolerances={"output": Tolerance(why="no", cosine=0)}
    )
    found = brought_up(start(declared, wrong_softmax, upto="head", keep_going=True))
    assert (found.prefix, found.upto) == ("", "head")
    # The error stays in what comes behind the wrong module: that is what a cut model has and a part has not.
    assert verdicts(found) == {"blocks.0": "pass", "blocks.1": "fail", "head": "fail"}
    assert all(part.shapes == {"x": (1, 3, 8), "mask": (1, 3, 8)} for part in found.parts)


def test_one_target_stops_and_the_other_goes_on(start: Any, wrong_softmax: Any):
    begun = start(subject(targets=(Target("planted", "fp16"), Target("planted", "fp32"))), wrong_softmax)
    for _ in begun.run():
        pass
    half, full = begun.records()
    assert (half.verdict, full.verdict) == ("fail", "pass")


def test_sizes_that_differ_between_cases_are_dynamic(start: Any):
    dynamic = subject(dynamic={"x": {1: "rows"}, "mask": {1: "rows"}}, ranges={"rows": (1, 5)})
    begun = start(dynamic, cases=("one", "smallest", "largest"), prefix="blocks")
    for _ in begun.run():
        pass
    found = {record.case: record for record in begun.records()}
    assert {case: one.parts[0].shapes["x"][1] for case, one in found.items()} == {"one": 3, "smallest": 1, "largest": 5}
    assert all(one.verdict == "pass" for one in found.values())
    assert len({part.engine_sha256 for one in found.values() for part in one.parts}) == 2


def test_other_sizes_without_a_range_have_engines_of_their_own(start: Any):
    begun = start(subject(cases={"one": inputs, "two": lambda: inputs(2)}), cases=("one", "two"), prefix="blocks.0")
    for _ in begun.run():
        pass
    one, two = begun.records()
    assert (one.verdict, two.verdict) == ("pass", "pass")
    assert one.parts[0].engine_sha256 != two.parts[0].engine_sha256


def test_a_plan_keeps_what_lies_in_the_part(start: Any, tmp_path: Path):
    plan = tmp_path / "plan.toml"
    plan.write_text('precision = "fp16"\nkeep_fp32 = ["blocks.1", "head"]\n')
    found = brought_up(start(subject(targets=(Target("planted", str(plan)),))))
    errors = {part.module: part.error for part in found.parts}
    assert found.verdict == "pass"
    assert errors["blocks.1"] is not None
    assert errors["blocks.1"] < errors["blocks.0"] / 100


class InPlace(Net):
    """Writes into what it is given, hands over infinities, and has a part without a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([Doubling(), Adding(), Number()])

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        infinite = torch.zeros(8)
        infinite[3] = -torch.inf
        x = self.blocks[0](x + 0)
        return self.blocks[1](x, infinite) * self.blocks[2](2)


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)


class Adding(torch.nn.Module):
    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x + bias, -1)


class Number(torch.nn.Module):
    def forward(self, factor: int) -> torch.Tensor:
        return torch.full((1,), float(factor))


def test_what_is_written_in_place_infinite_or_no_tensor(start: Any):
    found = brought_up(start(subject(build=lambda: InPlace().eval()), prefix="blocks"))
    assert verdicts(found) == {"blocks.0": "pass", "blocks.1": "pass", "blocks.2": "not_judged"}
    assert found.parts[1].shapes == {"x": (1, 3, 8)}
    assert found.verdict == "not_judged", "a part without a verdict is no pass"


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"prefix": "block"}, ["blocks"]),
        ({"prefix": "blocks.3"}, ["blocks.1"]),
        ({"upto": "blocks.7"}, ["blocks.1"]),
        ({"prefix": "blocks", "upto": "head"}, ["blocks.1"]),
        ({"prefix": "idle"}, []),
    ],
)
def test_a_module_that_is_not_there_is_one_sentence(start: Any, request_: dict[str, str], names: list[str]):
    with pytest.raises(UsageError) as error:
        start(subject(), **request_)
    assert all(name in str(error.value) for name in names)


def test_an_onnx_file_has_no_modules(start: Any, tmp_path: Path):
    with pytest.raises(UsageError, match="--layers"):
        start(subject(build=None, onnx=tmp_path / "net.onnx"))


def test_the_prefix_that_a_subject_declares(start: Any):
    assert [call.path for call in start(subject(parts="blocks.1")).found.calls] == [
        "blocks.1.linear", "blocks.1.weigh",
    ]  # fmt: skip


class Bound(torch.nn.Module):
    """Takes two tensors of which one is twice as long as the other."""

    def forward(self, long: torch.Tensor, short: torch.Tensor) -> torch.Tensor:
        return long.reshape(1, -1, 16).sum(-1, keepdim=True) + short


class Joined(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bound = Bound()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.bound(torch.cat([x, mask], 1), x)


def test_sizes_that_are_bound_to_each_other_have_engines_of_their_own(start: Any):
    dynamic = subject(
        build=lambda: Joined().eval(), dynamic={"x": {1: "rows"}, "mask": {1: "rows"}}, ranges={"rows": (2, 5)}
    )
    begun = start(dynamic, cases=("one", "largest"), prefix="bound")
    for _ in begun.run():
        pass
    one, largest = begun.records()
    assert (one.verdict, largest.verdict) == ("pass", "pass")
    assert one.parts[0].engine_sha256 != largest.parts[0].engine_sha256
    assert any("for each size" in note for note in one.parts[0].notes)

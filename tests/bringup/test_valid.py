"""Elements of parts that do not count: only where the suite says so, part by part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bringup.conftest import subject
from planted import Fault

from harness import UsageError

ROWS = {"blocks.*:output_0": lambda given: _but_the_last(given["x"])}
PADDED = {
    "one": lambda: {"x": torch.linspace(-1, 1, 24).reshape(1, 3, 8), "mask": torch.ones(1, 3, 8)},
    "two": lambda: {"x": torch.linspace(-2, 1, 40).reshape(1, 5, 8), "mask": torch.ones(1, 5, 8)},
}
SIZES = {"x": {1: "n"}, "mask": {1: "n"}}


def _but_the_last(x: torch.Tensor) -> torch.Tensor:
    """Return a mask [1, rows, 1] of all rows but the last one."""
    return torch.arange(x.shape[1])[None, :, None] < x.shape[1] - 1


def _wrong(row: int) -> Fault:
    def change(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[:, row] += 1
        return value

    return Fault(value="softmax", change=change)


def judged(begun: Any) -> dict[tuple[str, str], Any]:
    for _ in begun.run():
        pass
    return {(one.case, part.module): part for one in begun.records() for part in one.parts}


@pytest.mark.parametrize("upto", ["", "blocks.1"])
def test_elements_that_do_not_count_are_left_out_of_the_parts_that_are_named(start: Any, upto: str):
    sizes = {"dynamic": SIZES, "ranges": {"n": (2, 6)}} if upto else {}
    declared = subject(parts_valid=ROWS, cases=PADDED, parts="blocks", **sizes)
    found = judged(start(declared, _wrong(-1), cases=("one", "two"), upto=upto))
    assert {part.verdict for part in found.values()} == {"pass"}
    for case, words in (("one", "16 of 24"), ("two", "32 of 40")):
        part = found[case, "blocks.1"]
        assert f"valid {words} elements" in part.reason
        assert any(words in note for note in part.notes)


@pytest.mark.parametrize("valid", [{}, {"blocks.0:output_0": ROWS["blocks.*:output_0"]}], ids=["none", "of another"])
def test_every_element_of_another_part_counts(start: Any, valid: Any):
    declared = subject(parts_valid=valid, valid={"output": lambda given: _but_the_last(given["x"])}, parts="blocks")
    found = judged(start(declared, _wrong(-1)))
    assert [part.verdict for part in found.values()] == ["pass", "fail"]


def test_a_valid_element_that_is_wrong_fails(start: Any):
    found = judged(start(subject(parts_valid=ROWS, parts="blocks"), _wrong(0)))
    assert [part.verdict for part in found.values()] == ["pass", "fail"]


def test_a_star_stands_for_one_name(start: Any):
    declared = subject(parts_valid={"blocks.*:output": ROWS["blocks.*:output_0"]}, parts="blocks.1")
    found = judged(start(declared, _wrong(-1)))
    assert [part.verdict for part in found.values()] == ["pass", "fail"], "blocks.1.weigh is no blocks.*"


def test_a_dynamic_part_has_a_mask_for_each_of_its_sizes(start: Any):
    declared = subject(parts_valid=ROWS, cases=PADDED, parts="blocks", dynamic=SIZES, ranges={"n": (2, 6)})
    begun = start(declared, _wrong(-1), cases=("one", "two", "smallest", "largest"))
    found = judged(begun)
    assert {part.verdict for part in found.values()} == {"pass"}
    assert "valid 40 of 48 elements" in found["largest", "blocks.1"].reason


@pytest.mark.parametrize(
    ("key", "mask", "words"),
    [
        ("blocks.*:output_0", torch.ones(1, 3, dtype=torch.bool), "[1, 3]"),
        ("blocks.*:output_0", torch.zeros(1, 3, 1, dtype=torch.bool), ""),
        ("blocks.*:hidden", torch.ones(1, 3, 1, dtype=torch.bool), "hidden"),
    ],
    ids=["shape", "empty", "output"],
)
@pytest.mark.parametrize("dynamic", [{}, SIZES], ids=["static", "dynamic"])
def test_a_mask_that_fits_no_output_leaves_its_part_without_a_verdict(start: Any, key, mask, words, dynamic):
    ranges = {"n": (2, 6)} if dynamic else {}
    declared = subject(parts_valid={key: lambda given: mask}, parts="blocks", dynamic=dynamic, ranges=ranges)
    found = judged(start(declared, _wrong(-1)))
    assert {part.verdict for part in found.values()} == {"not_judged"}
    assert all(words in part.reason for part in found.values())


def test_a_mask_that_names_no_part_is_a_wrong_request(start: Any):
    with pytest.raises(UsageError, match="block"):
        start(subject(parts_valid={"block.*:output": _but_the_last}))
    with pytest.raises(UsageError, match="the same part"):
        start(subject(parts_valid=ROWS | {"blocks.1:output_0": _but_the_last}))
    with pytest.raises(UsageError, match="MODULE:OUTPUT"):
        subject(parts_valid={"blocks": _but_the_last})

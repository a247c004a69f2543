"""Indices, labels, booleans and codes: what is a tie, what is wrong, and how a wrong one is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from decided import NEAR, TOKENS, VOCABULARY, Decides, altered, flip, given, random, swap, together
from fake import ModuleBackend, Tensors, quiet, subject

from harness import Target, Tolerance, UsageError
from harness.backends import BACKENDS
from harness.records import Decisions, OutputResult, Result, WrongDecision
from harness.verify.target import Run
from harness.verify.verify import verify, verify_case


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = subject(name="decides", build=lambda: Decides().eval(), cases={"one": given})
    made = Run(made, quiet(tmp_path_factory.mktemp("decides")))
    assert made.prepared.graph.output_names
    return made


@pytest.fixture
def judged(run, monkeypatch) -> Callable[..., Any]:
    """Return a function that gives the result of an engine: the module in a dtype, through a change of outputs."""

    def judge(change=None, *, dtype=torch.float32, precision="fp16") -> Result:
        fault = None if change is None else lambda outputs, given, number: change(outputs)
        monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(Decides, dtype, fault))
        with run.target(Target("fake", precision)) as target:
            return verify_case(target, "one").result

    return judge


def output(result: Result, name: str) -> OutputResult:
    return next(found for found in result.outputs if found.name == name)


def counts(found: OutputResult) -> Decisions:
    assert found.decisions is not None
    return found.decisions


def wrong(found: OutputResult) -> WrongDecision:
    """Return the first wrong decision of an output that failed."""
    assert found.verdict == "fail"
    first = counts(found).wrong
    assert first is not None
    return first


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float16, "fp16"), (torch.bfloat16, "bf16"), (torch.float32, "fp32")]
)
def test_the_module_in_the_precision_itself_passes(judged, dtype, precision):
    result = judged(dtype=dtype, precision=precision)
    assert [found.name for found in result.outputs if found.verdict != "pass"] == []


def test_what_equals_the_reference_passes_without_a_norm(judged):
    found = output(judged(), "ids")
    assert (found.verdict, found.stats, found.floor, found.allowed) == ("pass", None, None, {})
    assert (counts(found).elements, counts(found).differ, counts(found).wrong) == (TOKENS, 0, None)


@pytest.mark.parametrize("flips", [1, 2, 4, 6, 8, 9, 10, 12])
def test_random_token_ids_fail_even_where_pytorch_flips_one_itself(judged, flips):
    places = [place for place in range(TOKENS) if place != NEAR][-flips:]
    found = output(judged(altered("ids", flip(*places, by=977))), "ids")
    first, number = wrong(found), counts(found)
    assert (number.differ, number.ties, number.floor_differ) == (flips, 0, 1)
    assert (first.index, first.operator, first.value) == ((places[0],), "ArgMax", "ids")
    assert first.margin > 10 * first.excused
    assert f"{flips} of 64 differ" in found.reason.replace("differs", "differ")
    assert f"at [{places[0]}] the engine gives {first.actual}, the reference {first.expected}" in found.reason


def test_a_nearly_tied_flip_is_a_tie_and_shown_as_one(judged):
    found = output(judged(altered("ids", flip(NEAR, by=1500))), "ids")
    assert (found.verdict, found.reason) == ("pass", "1 of 64 differs, a tie")
    assert counts(found).ties == 1


def test_a_tie_excuses_no_other_element(judged):
    def change(ids):
        flip(NEAR, by=1500)(ids)
        flip(9)(ids)

    found = output(judged(altered("ids", change)), "ids")
    assert (counts(found).differ, counts(found).ties, wrong(found).index) == (2, 1, (9,))


def test_the_next_index_is_no_nearer_than_any_other(judged):
    assert output(judged(altered("ids", flip(3, by=1))), "ids").verdict == "fail"


@pytest.mark.parametrize("index", [-1, VOCABULARY, 2**40])
def test_an_index_that_does_not_exist_fails(judged, index):
    found = output(judged(altered("ids", lambda ids: ids.__setitem__(3, index))), "ids")
    assert wrong(found).margin == float("inf")


@pytest.mark.parametrize(("by", "verdict"), [(500, "pass"), (1, "fail"), (1500, "fail")])
def test_arithmetic_on_indices_is_followed(judged, by, verdict):
    """The near tie of row 5 is 1500 indices away: 500 of a thousand."""

    def change(shifted):
        shifted[NEAR] = (shifted[NEAR] - 7 + by) % 1000 + 7 if by != 1500 else 999999

    found = output(judged(altered("shifted", change)), "shifted")
    assert found.verdict == verdict
    if verdict == "fail":
        assert wrong(found).operator == "ArgMax"


@pytest.mark.parametrize("flips", [1, 5, 9, 10, 20])
def test_booleans_that_are_not_near_fail(judged, flips):
    found = output(judged(altered("above", flip(*range(512 - flips, 512)))), "above")
    assert (counts(found).differ, counts(found).ties) == (flips, 0)
    assert (wrong(found).operator, wrong(found).index) == ("Greater", (512 - flips,))


@pytest.mark.parametrize("name", ["above", "band"])
def test_a_boolean_near_its_threshold_is_a_tie(judged, name):
    found = output(judged(altered(name, flip(7))), name)
    assert (found.verdict, found.reason) == ("pass", "1 of 512 differs, a tie")


def test_both_comparisons_of_a_band_are_asked(judged):
    found = output(judged(altered("band", flip(20))), "band")
    assert found.verdict == "fail"


def test_places_of_a_mask_are_compared_as_the_mask(judged, run):
    def without(index):
        def change(outputs):
            listed = outputs["where"]
            return {**outputs, "where": listed[listed[:, 0] != index].clone()}

        return change

    listed = run.prepared.references.reference("one", "fp32")["where"][:, 0].tolist()
    assert 7 in listed
    found = output(judged(without(7)), "where")
    assert (found.verdict, found.reason) == ("pass", "1 of 512 differs, a tie")
    far = next(place for place in listed if place != 7)
    found = output(judged(without(far)), "where")
    assert (wrong(found).index, wrong(found).operator) == ((far,), "Greater")
    assert (
        output(judged(altered("where", lambda listed: listed.__setitem__(0, listed[1].clone()))), "where").verdict
        == "fail"
    )


class Classifier(torch.nn.Module):
    """One class id of a thousand; 281 and 285 are too near for FP16."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0009))

    def forward(self, x):
        return {"label": (self.scale * x).argmax(-1)}


def image() -> Tensors:
    values = random(1, 1000, seed=5)
    values[0, 281], values[0, 285] = 8.0, 8.0 * (1 - 2.0**-13)
    return {"x": values}


@pytest.mark.parametrize(
    ("label", "verdict"), [(281, "pass"), (285, "pass"), (900, "fail"), (300, "fail"), (0, "fail")]
)
def test_one_class_id(tmp_path, monkeypatch, label, verdict):
    fault = lambda outputs, given, number: {"label": torch.tensor([label])}  # noqa: E731
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(Classifier, torch.float16, fault))
    made = subject(build=lambda: Classifier().eval(), cases={"one": image})
    [result] = verify(made, targets=made.targets, cases=["one"], settings=quiet(tmp_path))
    assert result.verdict == verdict
    if verdict == "fail":
        assert f"at [0] the engine gives {label}, the reference 281" in result.reason


def test_near_ties_of_a_sort_may_stand_in_any_order(judged):
    found = output(judged(altered("sorted", swap((3, 4), (39, 40)))), "sorted")
    assert (found.verdict, found.reason) == ("pass", "4 of 64 differ, all ties")


@pytest.mark.parametrize("pairs", [[(10, 11)], [(10, 11), (20, 21), (30, 31), (41, 42)], [(3, 4), (10, 11)], [(3, 5)]])
def test_sorted_indices_that_are_not_near_fail(judged, pairs):
    found = output(judged(altered("sorted", swap(*pairs))), "sorted")
    assert wrong(found).operator == "TopK"


def test_an_index_of_a_near_tie_that_stands_twice_fails(judged):
    found = output(judged(altered("sorted", lambda order: order[0].__setitem__(4, order[0, 3].clone()))), "sorted")
    assert found.verdict == "fail"


def names_that_fail(result: Result) -> list[str]:
    return [found.name for found in result.outputs if found.verdict == "fail"]


def test_all_outputs_of_one_top_k_follow_the_engines_order(judged):
    result = judged(together(swap((3, 4))))
    assert names_that_fail(result) == []
    assert output(result, "order").reason == "2 of 40 differ, both ties"
    boxes = output(result, "corners")
    assert boxes.stats is not None
    assert boxes.floor is not None
    assert boxes.stats.relative_l2 == 0
    assert boxes.floor.relative_l2 < 1e-3, "the floor is in the same order"


def test_boxes_in_another_order_than_their_indices_fail(judged):
    assert names_that_fail(judged(altered("corners", swap((3, 4))))) == ["corners"]


def test_boxes_whose_scores_are_not_near_fail_when_exchanged(judged):
    assert names_that_fail(judged(together(swap((10, 11))))) == ["best", "order", "corners"]


def test_a_box_that_is_wrong_beside_a_tie_fails(judged):
    def change(outputs):
        outputs = together(swap((3, 4)))(outputs)
        outputs["corners"][0, 3] += 30
        return outputs

    assert names_that_fail(judged(change)) == ["corners"]


def test_a_candidate_beyond_the_last_place_is_a_tie(judged):
    values = given()
    scores, boxes = values["unsorted"][0] * 1.0009, values["boxes"][0]
    beyond = int(scores.argsort(descending=True)[40])

    def change(outputs):
        outputs["best"][0, 39], outputs["order"][0, 39], outputs["corners"][0, 39] = (
            scores[beyond],
            beyond,
            boxes[beyond],
        )
        return outputs

    result = judged(change)
    assert names_that_fail(result) == []
    assert output(result, "order").reason == "1 of 40 differs, a tie"


def test_codes_near_a_boundary_are_ties(judged):
    found = output(judged(dtype=torch.float16), "picture")
    assert found.verdict == "pass"
    assert 0 < counts(found).ties == counts(found).differ


def codes() -> torch.Tensor:
    """Return the picture's numbers before they are rounded to codes, [3, 16, 16]."""
    return given()["pixels"].double() * torch.tensor(1.0009).double() * 254


@pytest.mark.parametrize("by", [1, -1, 5])
def test_a_code_in_the_midst_of_its_interval_fails(judged, by):
    """Half a code from both boundaries; below 64 FP16 loses a twentieth of one at most."""
    numbers = codes().flatten()
    place = int(torch.where((numbers > 16) & (numbers < 64), (numbers - numbers.round()).abs(), 1.0).argmin())
    found = output(judged(altered("picture", lambda picture: picture.view(-1)[place].add_(by))), "picture")
    assert wrong(found).operator == "Round"
    assert wrong(found).margin == pytest.approx(abs(by) - 0.5, abs=0.05)


def test_codes_cut_off_instead_of_rounded_fail(judged):
    found = output(judged(lambda outputs: {**outputs, "picture": outputs["cut"].clone()}), "picture")
    assert found.verdict == "fail"


def test_more_near_ties_than_a_right_engine_decides_otherwise_fail(judged):
    """Every one of them is near enough; a right engine, even one that loses three times as much, turns some."""
    numbers = codes()
    away = numbers - numbers.floor() - 0.5

    def picture_where(near):
        def change(picture):
            picture[near] = torch.where(away > 0, numbers.floor(), numbers.floor() + 1)[near].to(torch.uint8)

        return output(judged(altered("picture", change)), "picture")

    found = picture_where((away.abs() < 0.2) & (numbers > 64))
    assert found.verdict == "fail"
    assert counts(found).wrong is None
    assert counts(found).ties > counts(found).most_ties > 0
    assert picture_where((away.abs() < 0.04) & (numbers > 64)).verdict == "pass"


def test_a_tolerance_in_codes(judged, run, monkeypatch):
    def with_tolerance(tolerance, change):
        monkeypatch.setattr(run, "subject", replace(run.subject, tolerances={"picture": tolerance}))
        return output(judged(altered("picture", change)), "picture")

    three = Tolerance(max_absolute=3, why="seen on a screen")
    assert with_tolerance(three, lambda codes: codes.sub_(3).clamp_(0)).verdict == "fail"  # below 3 it wraps round
    assert with_tolerance(three, lambda codes: codes[codes > 8].sub_(0)).verdict == "pass"
    found = with_tolerance(three, lambda codes: codes.copy_((codes.int() - 3).clamp(0).to(torch.uint8)))
    assert (found.verdict, found.allowed) == ("pass", {"max_absolute": 3})
    assert "seen on a screen" in found.reason
    found = with_tolerance(three, lambda codes: codes.copy_((codes.int() - 4).clamp(0).to(torch.uint8)))
    assert found.verdict == "fail"


@pytest.mark.parametrize("limits", [{"relative_l2": 0.9}, {"cosine": 0.5}, {"relative_l2": 0.9, "max_absolute": 2.0}])
def test_a_norm_is_no_tolerance_for_integers(judged, run, monkeypatch, limits):
    monkeypatch.setattr(run, "subject", replace(run.subject, tolerances={"ids": Tolerance(why="a test", **limits)}))
    with pytest.raises(UsageError, match=r"'ids' sets (relative_l2|cosine), but ids holds int64"):
        judged()


def test_booleans_have_no_distance(judged, run, monkeypatch):
    monkeypatch.setattr(
        run, "subject", subject(name="decides", tolerances={"above": Tolerance(why="a", max_absolute=1)})
    )
    with pytest.raises(UsageError, match="above holds bool"):
        judged()


def test_a_tolerance_of_a_precision_is_for_floats(judged, run, monkeypatch):
    loose = {"fp16": Tolerance(relative_l2=1e6, max_absolute=1e6, why="a test")}
    monkeypatch.setattr(run, "subject", replace(run.subject, tolerances=loose))
    assert output(judged(altered("ids", flip(3))), "ids").verdict == "fail"


class Crowded(torch.nn.Module):
    """The best 50 of 5000 scores: in BF16 each is a near tie of dozens."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(0.1 * random(64, 5000))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        values, indices = (x @ self.weight).topk(50, dim=-1)
        return {"values": values, "indices": indices}


@pytest.mark.parametrize(("twice", "verdict"), [(False, "pass"), (True, "fail")])
def test_the_best_of_a_crowd_may_stand_in_any_order_but_once(tmp_path, monkeypatch, twice, verdict):
    def repeat(outputs, given, number):
        if twice:
            outputs["indices"][3, 20] = outputs["indices"][3, 21]
        return outputs

    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(Crowded, torch.bfloat16, repeat))
    torch.manual_seed(0)
    made = subject(name="crowd", build=lambda: Crowded().eval(), cases={"one": lambda: {"x": random(20, 64, seed=1)}})
    (result,) = verify(made, targets=[Target("fake", "bf16")], cases=["one"], settings=quiet(tmp_path))
    assert output(result, "indices").verdict == verdict
    assert counts(output(result, "indices")).differ > 200

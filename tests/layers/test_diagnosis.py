"""The diagnosis of a look: all places that make the outputs wrong, what each explains, and no others."""

from __future__ import annotations

import functools

import pytest
import torch
from fake import quiet
from planted import (
    PLANTED,
    Experts,
    Fault,
    Healthy,
    Planted,
    all_nan,
    install,
    named_values,
    plant_of,
    ready,
    scaled,
    signed_rows,
)

from harness import Target
from harness.layers.comparison import compare_layers
from harness.layers.observer import KeptError, Observer
from harness.records import Diagnosis, LayerReport, ValueFinding
from harness.verify.target import Run


def noise(tensor: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return tensor + 0.05 * tensor.std() * torch.randn(tensor.shape, generator=generator)


def some_nan(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.index_fill(-1, torch.tensor([3]), float("nan"))


def other_expert(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(tensor.shape[-1]) == 2, 1 - tensor, tensor)


class Heads(torch.nn.Module):
    """Two outputs that share nothing but the input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Healthy(), Healthy()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"left": self.left(x), "right": self.right(x * 0.5)}


class Squares(torch.nn.Module):
    """The squares of moderate values; FP16 ends at that of 256."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        return self.second(hidden * hidden)


class Read(torch.nn.Module):
    """Two outputs, of which one reads the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Healthy()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.stem(x)
        return {"hidden": hidden, "sum": hidden + x}


def engine(build=Healthy, /, **faults) -> Planted:
    """Return an engine whose values are changed so."""
    wrong = tuple(Fault(value=name, change=change, only_dtype=None) for name, change in faults.items())
    return plant_of("look", build, kind="engine", backend="planted", faults=wrong, why="a test")


@functools.cache
def looked(name: str, mode: str, precision: str, tmp) -> LayerReport:
    with pytest.MonkeyPatch.context() as patch:
        plant = ENGINES[name] if name in ENGINES else PLANTED[name]
        install(patch, plant)
        run = Run(plant.subject, quiet(tmp))
        with run.target(Target("planted", precision)) as target:
            return compare_layers(target, "one", mode=mode)


ENGINES = {
    "three": engine(linear=scaled(1.05), layer_norm_2=scaled(0.93), linear_3=noise),
    "unlike": engine(linear_1=scaled(4), layer_norm_3=scaled(1.02)),
    "heads": engine(Heads, linear_1=scaled(1.05), linear_6=scaled(1.02)),
    "nan": engine(linear_1=scaled(1.2), layer_norm_3=all_nan),
    "nan_here_and_there": engine(linear_3=some_nan),
    "flips": plant_of(
        "look", Experts, kind="engine", backend="planted", inputs=signed_rows, why="a row flips",
        faults=(Fault(value="argmax", change=other_expert, only_dtype=None),),
    ),
    "healthy": engine(),
    "squares": engine(Squares, linear=scaled(1000)),
    "read": engine(Read, hidden=scaled(1.05)),
}  # fmt: skip


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    return lambda name, mode="outputs", precision="fp16": looked(name, mode, precision, folder)


def names(diagnosis: Diagnosis) -> list[str]:
    return [culprit.value for culprit in diagnosis.culprits]


@pytest.mark.parametrize("mode", ["outputs", "unfused"])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_all_culprits_of_an_engine_are_named_and_explain_it_together(look, mode, precision):
    diagnosis = look("three", mode, precision).diagnosis
    assert set(names(diagnosis)) == {"linear", "layer_norm_2", "linear_3"}
    assert diagnosis.complete
    assert diagnosis.left < 1e-3
    shares = [culprit.explains for culprit in diagnosis.culprits]
    assert shares == sorted(shares, reverse=True)
    assert all(0.05 < share < 1 for share in shares)
    assert {culprit.value: culprit.error for culprit in diagnosis.culprits} == {
        "linear": pytest.approx(0.05, rel=0.05), "layer_norm_2": pytest.approx(0.07, rel=0.05),
        "linear_3": pytest.approx(0.05, rel=0.2),
    }  # fmt: skip
    assert all(culprit.floor < 1e-3 for culprit in diagnosis.culprits)


def test_a_culprit_that_explains_next_to_nothing_is_named_where_it_alone_is_too_much(look):
    diagnosis = look("unlike").diagnosis
    assert names(diagnosis) == ["linear_1", "layer_norm_3"]
    assert diagnosis.culprits[0].explains > 0.97
    assert diagnosis.culprits[1].explains < 0.03
    assert diagnosis.complete


def test_the_culprits_of_several_outputs_are_all_named(look):
    diagnosis = look("heads").diagnosis
    assert set(names(diagnosis)) == {"linear_1", "linear_6"}
    assert all(culprit.explains > 0.99 for culprit in diagnosis.culprits)
    assert diagnosis.left < 0.01


def test_values_are_counted_before_and_behind_the_first_culprit(look):
    report = look("wrong_kernel")
    diagnosis = report.diagnosis
    compared = [value for value in report.values if value.status == "compared"]
    [culprit] = [value for value in compared if value.name == "linear_1"]
    assert diagnosis.compared == len(compared) == 16
    assert diagnosis.right_before == sum(value.depth < culprit.depth for value in compared)
    assert diagnosis.wrong_later == sum(value.depth > culprit.depth for value in compared)
    [found] = diagnosis.culprits
    assert (found.op, found.module) == ("aten.linear.default", "blocks.1.linear")
    assert found.source.startswith("networks.py:") or ".py:" in found.source


@pytest.mark.parametrize("mode", ["outputs", "unfused"])
def test_right_outputs_have_no_diagnosis(look, mode):
    assert look("healthy", mode).diagnosis is None
    assert look("healthy", mode, "fp32").diagnosis is None


def test_nan_comes_first_and_what_it_hides_stays_listed(look):
    report = look("nan")
    diagnosis = report.diagnosis
    assert names(diagnosis) == ["layer_norm_3", "linear_1"]
    assert diagnosis.culprits[0].error is None
    assert diagnosis.culprits[0].explains == 1
    assert diagnosis.culprits[1].explains is None
    assert diagnosis.culprits[1].error == pytest.approx(0.2, rel=0.01)
    assert (diagnosis.left, diagnosis.complete) == (0, True)


def test_an_output_that_is_no_number_in_places_is_explained_there(look):
    diagnosis = look("nan_here_and_there").diagnosis
    assert names(diagnosis) == ["linear_3"]
    assert diagnosis.complete


def test_both_overflows_that_make_a_nan_are_named(look):
    assert names(look("overflow").diagnosis) == ["pow_5", "pow_6"]


def test_what_overflows_because_its_input_is_wrong_is_passed_on(look):
    report = look("squares")
    assert names(report.diagnosis) == ["linear"]
    assert report.diagnosis.complete
    assert report.diagnosis.left == 0  # as many elements are no number as in the engine
    square = found(report, "mul")
    assert square.mark == "passed_on"
    assert square.reason.startswith(f"{square.stats.nonfinite_actual} of {square.stats.elements}")


def test_what_reads_an_output_is_computed_from_the_engine_s(look):
    report = look("read", precision="fp32")
    assert names(report.diagnosis) == ["hidden"]
    assert found(report, "sum").mark == "passed_on"


def test_a_decision_is_propagated(look):
    report = look("flips", precision="fp32")
    [culprit] = report.diagnosis.culprits
    assert culprit.value == "argmax"
    assert culprit.explains == pytest.approx(1)
    assert culprit.error is None
    assert culprit.reason.startswith("2 of its 16 decisions differ")
    assert [value.mark for value in report.values if value.name == "argmax"] == ["flip"]


@pytest.mark.parametrize(
    ("name", "culprits"),
    [("swamping", ["add"]), ("non_monotonic", ["add"]), ("group_norm", ["sum_1"]), ("flipped_decision", ["linear"])],
)
def test_what_pytorch_loses_as_well_is_found_by_what_it_does_to_the_outputs(look, name, culprits):
    diagnosis = look(name).diagnosis
    assert names(diagnosis) == culprits
    assert diagnosis.complete
    assert diagnosis.left < 0.01


def test_two_errors_of_which_each_shows_only_with_the_other_are_found(look):
    diagnosis = look("two_culprits").diagnosis
    assert names(diagnosis) == ["add", "add_1"]
    assert all(culprit.explains > 0.99 for culprit in diagnosis.culprits)


@pytest.mark.parametrize("name", ["nan_unobserved", "wrong_when_fused"])
def test_nothing_is_named_where_what_was_seen_explains_nothing(look, name):
    diagnosis = look(name).diagnosis
    assert (names(diagnosis), diagnosis.left, diagnosis.complete) == ([], 1, False)


def found(report: LayerReport, name: str) -> ValueFinding:
    [value] = [value for value in report.values if value.name == name]
    return value


@pytest.mark.parametrize(
    ("name", "culprits", "value"),
    [
        ("swamping", ["add"], "sub"), ("large_softmax", ["add"], "softmax"), ("non_monotonic", ["add"], "output"),
        ("group_norm", ["sum_1"], "view_1"), ("overflow", ["pow_5", "pow_6"], "mul_2"),
    ],
)  # fmt: skip
def test_what_a_kernel_loses_is_found_inside_it(look, name, culprits, value):
    """Every row of the table is as good as PyTorch: its own replay in the format loses as much."""
    report = look(name, "unfused")
    diagnosis = report.diagnosis
    assert names(diagnosis) == culprits
    assert diagnosis.complete
    shown = found(report, value)
    assert {culprit.inside for culprit in diagnosis.culprits} == {shown.kernel}
    assert shown.kernel
    assert shown.mark in ("suspect", "nonfinite")
    assert shown.reason.endswith(f"made inside, at {', '.join(culprits)}")
    assert {found(report, name).status for name in culprits} == {"not_delivered"}
    assert names(look(name).diagnosis) == culprits
    assert {culprit.inside for culprit in look(name).diagnosis.culprits} == {""}


@pytest.mark.parametrize("mode", ["outputs", "unfused"])
def test_an_overflow_says_how_far_it_went_where_and_where_the_format_ends(look, mode):
    first, second = look("overflow", mode).diagnosis.culprits
    values = named_values(ready("overflow"))
    for culprit in (first, second):
        size = values[culprit.value].abs()
        index = [int(i) for i in torch.unravel_index(size.argmax(), size.shape)]
        word, number, place = culprit.reason.split(" ", 2)
        assert (word, place) == ("reached", f"at {index}, FP16 ends at 65504")
        assert float(number) == pytest.approx(float(size.max()), rel=1e-3)  # on the engine's own inputs


def test_nan_that_no_range_explains_is_counted(look):
    [culprit] = look("nan_here_and_there").diagnosis.culprits
    assert culprit.reason.startswith("16 of 512 elements are not finite, the first at [0, 0, 3]")


@pytest.mark.parametrize("name", ["three", "unlike", "nan", "overflow", "wrong_kernel", "swamping", "flips"])
def test_marks_agree_with_the_diagnosis(look, name):
    report = look(name)
    made = {value.name for value in report.values if value.mark in ("suspect", "nonfinite", "flip")}
    assert made == set(names(report.diagnosis))


def test_noise_of_the_same_size_explains_nothing(tmp_path, monkeypatch):
    """An error that the engine made elsewhere in the same amount must not stand for the one it made."""
    add = Observer.add_value

    def shuffled(self: Observer, name: str, tensor: torch.Tensor, *again: torch.Tensor | None, **record: str) -> None:
        add(self, name, tensor, *again, **record)
        if name == "linear_1":
            kept = next(kept for kept in self.errors if kept.name == name)
            self.errors.remove(kept)
            order = torch.randperm(kept.error.numel(), generator=torch.Generator().manual_seed(1))
            signs = torch.sign(torch.randn(kept.error.numel(), generator=torch.Generator().manual_seed(2)))
            self.errors.append(kept._replace(error=(kept.error.flatten()[order] * signs).reshape(kept.error.shape)))

    monkeypatch.setattr(Observer, "add_value", shuffled)
    diagnosis = looked.__wrapped__("wrong_kernel", "outputs", "fp16", tmp_path).diagnosis
    assert not diagnosis.complete
    assert diagnosis.left > 0.5
    assert all(culprit.explains < 0.05 for culprit in diagnosis.culprits)


def test_what_cannot_be_run_with_the_errors_leaves_the_suspects(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(KeptError, "added_to", refuse)
    diagnosis = looked.__wrapped__("three", "outputs", "fp16", tmp_path).diagnosis
    assert set(names(diagnosis)) == {"linear", "layer_norm_2", "linear_3"}
    assert {culprit.explains for culprit in diagnosis.culprits} == {None}
    assert (diagnosis.left, diagnosis.complete) == (None, False)

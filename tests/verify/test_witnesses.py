"""The reference of a module is held against the module itself, and what is random or out of range is named."""

from __future__ import annotations

import pytest
import torch
from fake import CountedSession, FakeBackend, quiet

from harness import NotJudged, Subject, Target, targets
from harness.backends import BACKENDS
from harness.graph import load_plan
from harness.reference.interpreter import TypedInterpreter
from harness.verify.prepare import prepare
from harness.verify.verify import verify


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.middle = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 4))
        self.last = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)))


class Noisy(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped = torch.nn.functional.dropout(self.first(x), 0.5, training=True)
        return self.last(dropped + torch.rand_like(x))


class Masked(torch.nn.Module):
    """Adds a mask of FP32's lowest number to scores, whole rows of it where ``rows`` says so, and takes the softmax."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        mask = torch.full((6, 6), torch.finfo(torch.float32).min).triu(1)
        mask[:rows] = torch.finfo(torch.float32).min
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ x.T + self.mask, -1) @ x


class Squares(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean() + 1).sqrt()


def subject(build, shape=(3, 4), scale=1.0) -> Subject:
    def make() -> torch.nn.Module:
        torch.manual_seed(0)
        return build().eval()

    x = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Subject(name="net", build=make, cases={"one": lambda: {"x": x}}, weights="random",
                   targets=(Target("torch", "fp16"),))  # fmt: skip


def result_of(build, tmp_path, **options):
    given = subject(build)
    (result,) = verify(given, targets=given.targets, cases=["one"], settings=quiet(tmp_path, **options))
    return result


def test_a_right_interpreter_agrees_with_the_module(tmp_path):
    assert result_of(Net, tmp_path).verdict == "pass"


def test_a_wrong_interpreter_is_not_believed_and_the_value_is_named(tmp_path, monkeypatch):
    right = TypedInterpreter.run_node
    monkeypatch.setattr(TypedInterpreter, "run_node", lambda self, n: right(self, n) * (1.5 if n.name == "relu" else 1))
    result = result_of(Net, tmp_path)
    assert result.verdict == "not_judged"
    assert "two references disagree from value 'relu' on" in result.reason


def test_random_operators_of_a_module_are_named(tmp_path):
    result = result_of(Noisy, tmp_path)
    assert result.verdict == "not_judged"
    assert all(name in result.reason for name in ("aten.dropout.default", "aten.rand_like.default", "--seed-random"))


def test_stored_noise_makes_a_random_module_repeatable(tmp_path):
    first, again, other = (result_of(Noisy, tmp_path, seed_random=seed) for seed in (0, 0, 1))
    assert [result.verdict for result in (first, again, other)] == ["pass"] * 3
    assert first.outputs[0].stats == again.outputs[0].stats != other.outputs[0].stats
    assert any("aten.rand_like.default" in note and "seed 1" in note for note in other.notes)


@pytest.mark.parametrize(("rows", "kept"), [(0, False), (2, True)])
def test_softmaxes_stay_in_fp32_only_where_the_mask_needs_it(tmp_path, rows, kept):
    prepared = prepare(subject(lambda: Masked(rows), shape=(6, 6)), quiet(tmp_path))
    names = prepared.graph.kept_for_range(load_plan("fp16"))
    assert bool(names) == kept
    assert not prepared.graph.kept_for_range(load_plan("fp32"))
    if kept:
        assert {prepared.program.values[name].op for name in names} == {"aten.add.Tensor", "aten.softmax.int"}


@pytest.mark.parametrize(("scale", "trouble"), [(1.0, ""), (1e3, "overflows"), (1e-5, "underflows")])
def test_the_first_value_that_fp16_cannot_hold_is_named(tmp_path, scale, trouble):
    given = subject(Squares, shape=(64,), scale=scale)
    prepared = prepare(given, quiet(tmp_path))
    found = prepared.graph.first_beyond(prepared.inputs["one"], load_plan("fp16"))
    assert (trouble in found) if trouble else found == ""
    if trouble:
        assert found.split()[0] in prepared.program.values
        assert prepared.program.values[found.split()[0]].op.startswith("aten.pow")


def test_a_body_of_a_traced_module_is_rounded_inside(tmp_path):
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: (x + 1) - x, lambda x: x - 1, (x,))

    prepared = prepare(
        Subject(name="net", build=lambda: Branches().eval(), weights="random", targets=(Target("torch", "fp16"),),
                cases={"one": lambda: {"x": torch.full((2,), 2048.0)}}),
        quiet(tmp_path),
    )  # fmt: skip
    outputs = {dtype: prepared.graph.run(prepared.inputs["one"], dtype=dtype)[0] for dtype in ("float32", "float16")}
    assert next(iter(outputs["float32"].values())).tolist() == [1.0, 1.0]
    assert next(iter(outputs["float16"].values())).tolist() == [0.0, 0.0]


def test_a_traced_loop_is_run_in_every_precision(tmp_path):
    class Steps(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            zero = torch.zeros((), dtype=torch.int64)
            return torch.while_loop(lambda i, _: i < 4, lambda i, x: (i + 1, self.first(x).tanh()), (zero, x))[1]

    given = subject(Steps)
    results = verify(given, targets=targets("torch", precisions=("fp32", "fp16", "bf16")), cases=["one"],
                     settings=quiet(tmp_path))  # fmt: skip
    found = {result.precision: result.outputs[0].stats.relative_l2 for result in results}
    assert 0 < found["fp32"] < 2.0**-20 < found["fp16"] < 2.0**-9 < 4 * found["bf16"]


def test_noise_of_open_size_cannot_be_stored(tmp_path):
    given = subject(Noisy)
    dynamic = Subject(**{**vars(given), "dynamic": {"x": {0: "batch"}}, "ranges": {"batch": (2, 8)}})
    with pytest.raises(NotJudged, match="of no fixed shape"):
        prepare(dynamic, quiet(tmp_path, seed_random=0))


class Cancels(torch.nn.Module):
    """Zero by its mathematics: a product less itself, reshaped."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = x @ x.T
        return (product - product.T).reshape(-1)


@pytest.mark.parametrize(("noise", "verdict"), [(0.0, "not_judged"), (2.0**-10, "not_judged"), (2.0**-5, "fail")])
def test_what_is_zero_because_its_terms_cancel_is_no_failure_within_their_rounding(
    tmp_path, monkeypatch, noise, verdict
):
    class Session(CountedSession):
        layers = None

        def __init__(self, backend):
            self.backend = backend

        def run(self, given):
            return {"output": noise * (given["x"] @ given["x"].T).flatten()}

    backend = FakeBackend()
    backend.load = lambda engine: Session(backend)
    monkeypatch.setitem(BACKENDS, "fake", backend)
    given = subject(Cancels)
    (result,) = verify(given, targets=[Target("fake", "fp16")], cases=["one"], settings=quiet(tmp_path))
    assert result.verdict == verdict, result.reason
    assert ("cancel" in result.reason) == (0 < noise < 2.0**-6)

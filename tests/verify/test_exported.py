"""Exported programs that an earlier run has kept: the same graph in all that is asked of it, and never a stale one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet

from harness import Subject, Target
from harness.graph import graph_sha256, kept_program, load_plan
from harness.verify import exported
from harness.verify.prepare import Prepared, prepare


class Net(torch.nn.Module):
    """Sizes that feed operations, a split, a matrix of its own, a constant that is no weight, an integer output."""

    def __init__(self, *, bias: float = 0.0, table: float = 1.0, name: str = "layer") -> None:
        super().__init__()
        self.path = name
        layer = torch.nn.Linear(16, 32)
        with torch.no_grad():
            layer.bias += bias
        self.add_module(name, layer)
        self.embed = torch.nn.Embedding(64, 16)
        self.register_buffer("table", table * torch.arange(512.0).reshape(32, 16), persistent=False)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        places = torch.arange(x.shape[1], dtype=torch.float32).unsqueeze(1) / x.shape[1]
        first, gate = getattr(self, self.path)(x + places + self.embed(ids)).chunk(2, -1)
        hidden = self.last(first * gate.sigmoid())
        return {"hidden": hidden, "best": (hidden @ self.table.T).argmax(-1)}

    def last(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(hidden, (16,))


class Other(Net):
    def last(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(hidden, (16,))


class Elsewhere(Net):
    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        places = torch.arange(x.shape[1], dtype=torch.float32).unsqueeze(1) / x.shape[1]
        first, gate = getattr(self, self.path)(x + places + self.embed(ids)).chunk(2, -1)
        hidden = self.last(first * gate.sigmoid())
        return {"hidden": hidden, "best": (hidden @ self.table.T).argmax(-1)}


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": torch.cond(x.sum() > 0, lambda it: it.sin(), lambda it: it.cos(), (x,))}


def inputs() -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return {"x": torch.randn(2, 5, 16, generator=drawn), "ids": torch.randint(0, 64, (2, 5), generator=drawn)}


def opened(folder: Path, build: Callable[[], torch.nn.Module] = Net, settings: Any = None, **changes: Any) -> Prepared:
    given: dict[str, Any] = {
        "name": "net", "cases": {"one": inputs}, "targets": (Target("ort-cpu", "fp32"),), "weights": "random",
        "dynamic": {"x": {0: "batch", 1: "tokens"}, "ids": {0: "batch", 1: "tokens"}},
        "ranges": {"batch": (1, 8), "tokens": (2, 16)},
    }  # fmt: skip
    subject = Subject(build=lambda: build().eval(), **{**given, **changes})
    return prepare(subject, quiet(folder, **(settings or {})))


def is_kept(prepared: Prepared) -> bool:
    return prepared.program.exported is None


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Prepared]:
    folder = tmp_path_factory.mktemp("both")
    first = opened(folder)
    assert not is_kept(first)
    return first, opened(folder)


def test_a_second_run_takes_what_the_first_has_exported(both: tuple[Prepared, Prepared]) -> None:
    first, second = both
    assert is_kept(second)
    assert second.program.values == first.program.values
    assert list(second.program.values) == list(first.program.values)
    assert second.program.depths() == first.program.depths()
    assert second.program.outputs == first.program.outputs
    assert graph_sha256(second.program.model) == graph_sha256(first.program.model)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_it_computes_the_same_bits(dtype: str, both: tuple[Prepared, Prepared]) -> None:
    one, other = (it.graph.run(it.inputs["one"], dtype=dtype) for it in both)
    assert one[1] == other[1]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0] | other[0])


def test_every_value_is_the_same_in_every_evaluator(both: tuple[Prepared, Prepared]) -> None:
    names = list(both[0].program.values)
    plan = load_plan("fp16")
    one, other = (it.graph.evaluators(it.inputs["one"], plan, names) for it in both)
    shown = 0
    for name in names:
        for of in ("reference", "floor", "replay", "replay_low"):
            a, b = (several.value(getattr(several, of), name) for several in (one, other))
            assert (a is None) == (b is None), name
            if a is not None and b is not None:
                assert torch.equal(a, b), name
                shown += 1
    assert shown > len(names)


def test_weights_are_not_written_again(both: tuple[Prepared, Prepared], tmp_path: Path) -> None:
    net = Net()
    tensors, _ = kept_program.pack_program(both[0].program, both[0].graph.weights)
    assert sum(it.nbytes for name, it in tensors.items() if name != "onnx") <= 2 * net.table.nbytes


CHANGES: dict[str, dict[str, Any]] = {
    "a weight": {"build": lambda: Net(bias=1.0)},
    "a constant that is no weight": {"build": lambda: Net(table=2.0)},
    "an operation": {"build": Other},
    "the line of an operation": {"build": Elsewhere},
    "the name of a module": {"build": lambda: Net(name="other")},
    "the range of a size": {"ranges": {"batch": (1, 8), "tokens": (2, 32)}},
    "a size that is fixed": {"dynamic": {"x": {1: "tokens"}, "ids": {1: "tokens"}}, "ranges": {"tokens": (2, 16)}},
    "an option of the exporter": {"options": {"opset_version": 18}},
    "--no-engine-cache": {"settings": {"engine_cache": False}},
    "--require": {"settings": {"rebuild": True}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_exported_again(change: str, both: tuple[Prepared, Prepared]) -> None:
    folder = both[0].references._cache.folder.parent.parent
    assert is_kept(opened(folder))
    assert not is_kept(opened(folder, **CHANGES[change]))


@pytest.mark.parametrize("what", ["code_sha256", "package_versions"])
def test_other_code_exports_again(what: str, both: tuple[Prepared, Prepared], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, what, lambda: "another")
    assert not is_kept(opened(both[0].references._cache.folder.parent.parent))


def test_ci_exports(both: tuple[Prepared, Prepared], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert not is_kept(opened(both[0].references._cache.folder.parent.parent))


def test_a_damaged_file_is_exported_again(tmp_path: Path) -> None:
    assert not is_kept(opened(tmp_path))
    for file in tmp_path.rglob("*.outputs"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    assert not is_kept(opened(tmp_path))


def test_control_flow_is_exported_each_time(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        made = opened(
            tmp_path, Branches, {"progress": said.append}, cases={"one": lambda: {"x": torch.ones(3)}}, dynamic={},
            ranges={},
        )  # fmt: skip
        assert not is_kept(made)
    assert any("exported each time" in line for line in said)


def test_many_constants_are_exported_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_program, "MOST_CONSTANTS_BYTES", 1000)
    assert [is_kept(opened(tmp_path)) for _ in range(2)] == [False, False]

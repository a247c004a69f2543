"""Runs that go on from what another has computed, and products in FP16: the same numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
from graphs import INPUTS, Net, export, subject

from harness.compare import bitwise_equal
from harness.reference import KeptRun, exported_run_graph, kept_run, run_graph
from harness.reference.run_graph import RunGraph

HALF = torch.float16


@pytest.fixture(scope="module")
def graph() -> RunGraph:
    return exported_run_graph(export(subject(), Net().eval(), INPUTS, ["hidden", "scores", "best"]))


@pytest.mark.parametrize("room", [2**30, 200, 0])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_a_run_that_goes_on_gives_the_same_bits(
    dtype: torch.dtype, room: int, graph: RunGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_run, "KEPT_BYTES", room)
    other = HALF if dtype is torch.float32 else torch.float32
    kept = KeptRun()
    names = sorted(graph.floats)
    for chosen in [(), *itertools.combinations(names, 1), *itertools.combinations(names[::2], 2), tuple(names), ()]:
        dtypes = dict.fromkeys(chosen, other)
        given = run_graph(graph, INPUTS, dtype=dtype, dtypes=dtypes, kept=kept)
        alone = run_graph(graph, INPUTS, dtype=dtype, dtypes=dtypes)
        assert all(bitwise_equal(given[name], alone[name]) for name in alone)


def test_what_is_alike_is_not_run_again(graph: RunGraph) -> None:
    kept, seen = KeptRun(), list[str]()
    run_graph(graph, INPUTS, dtype=torch.float32, kept=kept)
    last = [node.name for node in graph.graph.nodes if node.op == "call_function" and node.name in graph.floats][-1]
    run_graph(
        graph, INPUTS, dtype=torch.float32, dtypes={last: HALF}, kept=kept, on_value=lambda name, _: seen.append(name)
    )
    assert seen[0] == last


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


class Products(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Conv2d(8, 16, 3, padding=1)
        self.deep = torch.nn.Conv2d(16, 16, 3, groups=16)
        self.line = torch.nn.Linear(36, 24)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        convolved = self.one(x)
        deep = self.deep(convolved)
        line = self.line(deep.flatten(2))
        return {"convolved": convolved, "deep": deep, "line": line, "product": line @ line.transpose(1, 2)}


def test_products_in_fp16_are_those_of_the_kernels() -> None:
    torch.manual_seed(0)
    module, x = Products().eval(), drawn(2, 8, 8, 8)
    program = export(subject(dynamic={}, ranges={}), module, {"x": x}, ["convolved", "deep", "line", "product"])
    found = run_graph(exported_run_graph(program), {"x": x}, dtype=HALF)
    with torch.no_grad():
        expected = module.half()(x.half())
    exact = run_graph(exported_run_graph(program), {"x": x}, dtype=torch.float64)
    for name, tensor in expected.items():
        assert found[name].dtype == HALF
        norm = exact[name].norm()
        errors = [float((it.double() - exact[name]).norm() / norm) for it in (found[name], tensor)]
        assert errors[0] == pytest.approx(errors[1], rel=0.05)
    assert (found["convolved"] != expected["convolved"]).float().mean() < 0.02

"""The interpreter behind reference, truth and floor."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from graphs import INPUTS, Net, export, subject

from harness.compare.norms import relative_l2
from harness.graph.export import Program, trace
from harness.pytorch import tf32_allowed
from harness.reference.interpreter import RunNotes, run_graph
from harness.reference.run_graph import exported_run_graph


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def program(module):
    return export(subject(), module, INPUTS, ["hidden", "scores", "best"])


X = {"x": torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), "mask": torch.tensor([0, 1, 0, 0, 1])}


def test_fp32_is_the_module_itself(program, module):
    outputs, eager = run_graph(exported_run_graph(program), X, dtype=torch.float32), module(**X)
    assert all(torch.equal(outputs[name], eager[name]) for name in eager)


def test_fp64_is_the_module_in_double(program, module):
    double = Net().eval().double()
    double.load_state_dict(module.state_dict())
    expected = double(X["x"].double(), X["mask"])
    outputs = run_graph(exported_run_graph(program), X, dtype=torch.float64)
    assert outputs["hidden"].dtype == torch.float64
    assert relative_l2(outputs["hidden"], expected["hidden"]) < 1e-15


@pytest.mark.parametrize(("dtype", "roundoff"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
def test_low_precision_loses_a_few_roundings(program, module, dtype, roundoff):
    outputs = run_graph(exported_run_graph(program), X, dtype=dtype)
    assert outputs["hidden"].dtype == dtype
    assert outputs["best"].dtype == torch.int64
    assert 0 < relative_l2(outputs["hidden"], module(**X)["hidden"]) < 10 * roundoff


def test_lowest_fp32_number_saturates_instead_of_overflowing(program):
    notes = RunNotes()
    outputs = run_graph(exported_run_graph(program), X, dtype=torch.float16, notes=notes)
    assert outputs["scores"].isfinite().all()
    assert notes.saturated == {"masked_fill"}
    assert "saturates 1 constant" in notes.lines()[0]


class Distances(torch.nn.Module):
    """An operator without a kernel for float16 on the CPU."""

    def forward(self, x):
        return torch.cdist(x, x, p=1.0)


def test_an_operator_without_a_kernel_is_computed_in_fp32_and_rounded():
    inputs = {"x": X["x"]}
    exported = trace(subject(dynamic={}, ranges={}), Distances(), inputs).run_decompositions()
    output = exported.graph_signature.output_specs[0].arg.name
    distances = Program(name="distances", model=None, values={}, outputs={"y": output}, exported=exported)
    notes = RunNotes()
    found = run_graph(exported_run_graph(distances), inputs, dtype=torch.float16, notes=notes)["y"]
    rounded = inputs["x"].half().float()
    assert torch.equal(found, torch.cdist(rounded, rounded, p=1.0).half())
    assert notes.emulated == {"aten._cdist_forward.default"}


def test_one_value_can_keep_another_dtype(program):
    seen = {}
    dtypes = {"linear": torch.float32}
    run_graph(
        exported_run_graph(program),
        X,
        dtype=torch.float16,
        dtypes=dtypes,
        on_value=lambda n, t: seen.update({n: t.dtype}),
    )
    assert seen["linear"] == torch.float32
    assert seen["linear_1"] == torch.float16


def test_values_are_freed_as_the_run_goes_on(program):
    alive, peak = weakref.WeakSet(), 0

    def watch(name, tensor):
        nonlocal peak
        alive.add(tensor)
        gc.collect()
        peak = max(peak, len(alive))

    gc.freeze()  # what other tests left is not looked through once per value, which takes seconds
    try:
        run_graph(exported_run_graph(program), X, dtype=torch.float32, on_value=watch)
    finally:
        gc.unfreeze()
    assert 0 < peak <= 4  # a chain with one value that three others read


class Deep(torch.nn.Module):
    """A chain of any length: what a run holds must not depend on it."""

    def __init__(self, depth):
        super().__init__()
        self.depth = depth

    def forward(self, x):
        for _ in range(self.depth):
            x = torch.sin(x) + 0.5
        return x


@pytest.mark.parametrize("depth", [5, 60])
def test_memory_does_not_grow_with_the_number_of_values(depth):
    inputs = {"x": torch.ones(3)}
    chain = export(subject(dynamic={}, ranges={}), Deep(depth).eval(), inputs, ["output"])
    alive, peak = weakref.WeakSet(), 0

    def watch(name, tensor):
        nonlocal peak
        alive.add(tensor)
        peak = max(peak, len(alive))

    run_graph(exported_run_graph(chain), inputs, dtype=torch.float16, on_value=watch)
    assert peak <= 3


def test_tf32_flags_are_restored():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with tf32_allowed(not before[0]):
        assert torch.backends.cuda.matmul.allow_tf32 is not before[0]
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before

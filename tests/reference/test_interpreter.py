"""The interpreter behind reference, truth and floor, and the references kept on disk."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from exported import INPUTS, Net, export, subject

from harness.compare.norms import relative_l2
from harness.pytorch import tf32_allowed
from harness.reference.interpreter import RunNotes, run_program
from harness.reference.store import Identity, OutputCache, ReferenceStore, StaleReference
from harness.tensors import sha256_of


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def program(module):
    return export(subject(), module, INPUTS, ["hidden", "scores", "best"])


X = {"x": torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), "mask": torch.tensor([0, 1, 0, 0, 1])}


def test_fp32_is_the_module_itself(program, module):
    outputs, eager = run_program(program, X, dtype=torch.float32), module(**X)
    assert all(torch.equal(outputs[name], eager[name]) for name in eager)


def test_fp64_is_the_module_in_double(program, module):
    double = Net().eval().double()
    double.load_state_dict(module.state_dict())
    expected = double(X["x"].double(), X["mask"])
    outputs = run_program(program, X, dtype=torch.float64)
    assert outputs["hidden"].dtype == torch.float64
    assert relative_l2(outputs["hidden"], expected["hidden"]) < 1e-15


@pytest.mark.parametrize(("dtype", "roundoff"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
def test_low_precision_loses_a_few_roundings(program, module, dtype, roundoff):
    outputs = run_program(program, X, dtype=dtype)
    assert outputs["hidden"].dtype == dtype
    assert outputs["best"].dtype == torch.int64
    assert 0 < relative_l2(outputs["hidden"], module(**X)["hidden"]) < 10 * roundoff


def test_lowest_fp32_number_saturates_instead_of_overflowing(program):
    notes = RunNotes()
    outputs = run_program(program, X, dtype=torch.float16, notes=notes)
    assert outputs["scores"].isfinite().all()
    assert notes.saturated == {"masked_fill"}
    assert "saturates 1 constant" in notes.lines()[0]


def test_one_value_can_keep_another_dtype(program):
    seen = {}
    dtypes = {"linear": torch.float32}
    run_program(program, X, dtype=torch.float16, dtypes=dtypes, on_value=lambda n, t: seen.update({n: t.dtype}))
    assert seen["linear"] == torch.float32
    assert seen["linear_1"] == torch.float16


def test_values_are_freed_as_the_run_goes_on(program):
    alive, peak = weakref.WeakSet(), 0

    def watch(name, tensor):
        nonlocal peak
        alive.add(tensor)
        gc.collect()
        peak = max(peak, len(alive))

    run_program(program, X, dtype=torch.float32, on_value=watch)
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

    run_program(chain, inputs, dtype=torch.float16, on_value=watch)
    assert peak <= 3


def test_hash_sees_values_and_not_strides():
    values = torch.arange(6.0).reshape(2, 3)
    assert sha256_of({"y": values}) == sha256_of({"y": values.t().contiguous().t()})
    assert sha256_of({"y": values[:, ::2][:1, :1]}) == sha256_of({"y": torch.zeros(1, 1)})
    assert sha256_of({"y": values}) != sha256_of({"y": values.t().contiguous()})
    assert sha256_of({"y": torch.zeros(0)}) != sha256_of({"x": torch.zeros(0)})


def test_tf32_flags_are_restored():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with tf32_allowed(not before[0]):
        assert torch.backends.cuda.matmul.allow_tf32 is not before[0]
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


IDENTITY = Identity(weights_sha256="w" * 64, inputs_sha256="i" * 64, program_sha256="p" * 64, torch="2.13.0")
TENSORS = {"y": torch.arange(3.0)}


def store(tmp_path):
    kept = ReferenceStore(tmp_path)
    doubles = {"y": TENSORS["y"].double()}
    kept.save("net", "one", IDENTITY, fp32=TENSORS, fp64=doubles, provenance={"device": "cpu"})
    return kept


def test_stored_reference_comes_back(tmp_path):
    stored = store(tmp_path).load("net", "one", IDENTITY)
    assert stored is not None
    assert torch.equal(stored.fp32["y"], TENSORS["y"])
    assert stored.fp64["y"].dtype == torch.float64
    assert ReferenceStore(tmp_path).load("net", "two", IDENTITY) is None


def test_outputs_that_share_memory_are_stored(tmp_path):
    hidden = torch.arange(4.0).reshape(1, 4)
    outputs = {"hidden": hidden, "again": hidden, "first": hidden[:, 0]}
    ReferenceStore(tmp_path).save("net", "one", IDENTITY, fp32=outputs, fp64=outputs, provenance={})
    stored = ReferenceStore(tmp_path).load("net", "one", IDENTITY)
    for _ in range(2):
        kept, _ = OutputCache(tmp_path, enabled=True).get({}, lambda: (outputs, ()), torch.device("cpu"))
        for name, tensor in outputs.items():
            assert torch.equal(stored.fp64[name], tensor)
            assert torch.equal(kept[name], tensor)


@pytest.mark.parametrize("part", ["weights", "inputs", "program"])
def test_stale_reference_says_what_changed(tmp_path, part):
    changed = Identity(**{**IDENTITY.__dict__, f"{part}_sha256": "x" * 64})
    with pytest.raises(StaleReference, match=f"the {part} .* changed; run: parity reference net --case one"):
        store(tmp_path).load("net", "one", changed)


def test_another_torch_exports_another_text_for_the_same_program(tmp_path):
    other = Identity(**{**IDENTITY.__dict__, "program_sha256": "x" * 64, "torch": "2.14.0"})
    assert store(tmp_path).load("net", "one", other) is not None


@pytest.mark.parametrize("damage", ["tensors", "record", "no record"])
def test_damaged_reference_is_an_error(tmp_path, damage):
    kept = store(tmp_path)
    path = kept.path("net", "one")
    record = path.with_suffix(".json")
    if damage == "tensors":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "record":
        record.write_text("{")
    else:
        record.unlink()
    with pytest.raises(StaleReference, match=r"damaged|cannot be read"):
        kept.load("net", "one", IDENTITY)


class TestOutputCache:
    """Outputs of an earlier run are the ones that would be computed again, or they are computed again."""

    def get(self, folder, key, *, enabled=True):
        calls = []

        def compute():
            calls.append(key)
            return {"y": torch.tensor([float(key), 2.0])}, (f"note {key}",)

        cache = OutputCache(folder, enabled=enabled)
        outputs, notes = cache.get({"key": key}, compute, torch.device("cpu"))
        assert outputs["y"].tolist() == [float(key), 2.0]
        assert notes == (f"note {key}",)
        return len(calls)

    def test_second_time_is_read_with_its_notes(self, tmp_path):
        assert [self.get(tmp_path, 1), self.get(tmp_path, 1), self.get(tmp_path, 2)] == [1, 0, 1]

    def test_a_damaged_file_is_computed_again(self, tmp_path):
        self.get(tmp_path, 1)
        file = next(tmp_path.glob("*.outputs"))
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert self.get(tmp_path, 1) == 1

    def test_disabled_neither_reads_nor_writes(self, tmp_path):
        assert self.get(tmp_path, 1, enabled=False) == 1
        assert list(tmp_path.iterdir()) == []

    def test_clear_frees_everything(self, tmp_path):
        self.get(tmp_path, 1)
        assert OutputCache(tmp_path, enabled=True).clear() > 0
        assert self.get(tmp_path, 1) == 1

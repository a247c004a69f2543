"""References kept on disk, and outputs that an earlier run computed."""

from __future__ import annotations

import pytest
import torch

from harness.errors import CannotWrite
from harness.reference.store import Identity, OutputCache, ReferenceStore, StaleReference

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

    def test_the_oldest_go_when_there_is_no_room(self, tmp_path, monkeypatch):
        self.get(tmp_path, 1)
        size = next(tmp_path.glob("*.outputs")).stat().st_size
        monkeypatch.setattr(OutputCache, "LIMIT_BYTES", 3 * size)
        cache = OutputCache(tmp_path, enabled=True)
        for key in range(10, 20):
            cache.get({"key": key}, lambda: ({"y": TENSORS["y"][:2]}, ("note 1",)), torch.device("cpu"))
        assert len(list(tmp_path.glob("*.outputs"))) == 3
        assert cache.get({"key": 19}, lambda: pytest.fail("it is the newest"), torch.device("cpu"))

    def test_a_folder_that_cannot_be_written_costs_time_alone(self, tmp_path):
        (tmp_path / "file").touch()
        assert [self.get(tmp_path / "file" / "outputs", 1) for _ in range(2)] == [1, 1]


def test_a_reference_that_cannot_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "net").touch()
    with pytest.raises(CannotWrite, match=r"cannot write .*net"):
        store(tmp_path)

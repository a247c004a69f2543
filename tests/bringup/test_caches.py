"""Parts that take and give caches, and wrappers around one module."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness import Settings, Subject, Target
from harness.bringup.calls import Call, Model
from harness.bringup.modules import Alone, cut_after
from harness.bringup.parts import find_parts

transformers = pytest.importorskip("transformers")


def model() -> Model:
    def build() -> torch.nn.Module:
        torch.manual_seed(0)
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20, bos_token_id=0, eos_token_id=0)
        return torch.nn.ModuleDict({"inner": transformers.GPT2Model(config)})["inner"].eval()

    case = {"input_ids": torch.arange(6).reshape(1, 6)}
    found = Subject(name="gpt", build=build, cases={"one": lambda: case}, weights="random",
                    targets=(Target("ort-cpu", "fp32"),))  # fmt: skip
    return Model(found, Settings(device="cpu"))


def test_a_block_takes_the_cache_that_the_blocks_before_it_filled():
    gpt = model()
    first, second = (gpt.taken("one", Call(path=f"h.{n}")) for n in (0, 1))
    assert first is not None
    assert second is not None
    assert not [name for name in first.tensors if name.endswith((".key", ".value"))]
    taken = [
        name.partition(".")[2] for name in second.tensors
    ]  # of past_key_values, or of cache since transformers 5.24
    assert sorted(filter(None, taken)) == ["0.key", "0.value"]
    alone = Alone(gpt.module.get_submodule("h.1"), "h.1", second, {})
    with torch.no_grad():
        once, again = alone(**second.tensors), alone(**second.tensors)
        expected = cut_after(gpt.module, Call(path="h.1"))(**gpt.arguments("one"))
    assert all(torch.equal(once[name], again[name]) for name in once), "the cache is not filled twice"
    assert torch.equal(once["output"], expected["output"])


def test_a_wrapper_of_one_module_is_gone_through():
    gpt = model()
    wrapper: Any = torch.nn.Module()
    wrapper.inner = gpt.module
    wrapper.forward = lambda input_ids: wrapper.inner(input_ids=input_ids)
    gpt.module = wrapper.eval()
    found = find_parts(gpt, ["one"], "", "")
    assert found.prefix == "inner"
    assert [call.path for call in found.calls][:2] == ["inner.wte", "inner.wpe"]

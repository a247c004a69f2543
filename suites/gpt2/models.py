"""GPT-2 medium (transformers), as the TensorRT hackathon of 2023 has it.

Weights come from the folder that ``PARITY_GPT2`` names (transformers' layout, with its tokenizer), or are random with a
fixed seed; ``PARITY_GPT2_SIZE`` is ``full`` (medium) or ``small``, the same architecture for a CPU.
"""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any

import torch

from harness import NotJudged
from harness.errors import install_hint
from suites.causal import Family
from suites.shared import asked_size, checkpoint, drawn, loaded, weights_words

CHECKPOINT = "PARITY_GPT2"
size = partial(asked_size, "PARITY_GPT2_SIZE")
SIZES = {
    "full": {"n_layer": 24, "n_embd": 1024, "n_head": 16, "vocab_size": 50257, "n_positions": 1024},
    "small": {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 211, "n_positions": 64},
}


@cache
def model(asked: str) -> Any:
    """Return the language model: of the checkpoint, or random. Raises NotJudged where it cannot be had."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        raise NotJudged(f"transformers is missing: {install_hint('canny2image')}") from error
    if (folder := checkpoint(CHECKPOINT)) is not None:
        return loaded(GPT2LMHeadModel, folder, CHECKPOINT).float().eval()
    last = SIZES[asked]["vocab_size"] - 1
    config = GPT2Config(**SIZES[asked], bos_token_id=last, eos_token_id=last)
    return drawn(lambda: GPT2LMHeadModel(config).apply(_draw))


def _draw(child: torch.nn.Module) -> None:
    """Draw GPT-2's own kind of linear layer, whose weight is [in, out], as PyTorch draws its own."""
    if type(child).__name__ == "Conv1D":
        bound = len(child.weight) ** -0.5
        torch.nn.init.uniform_(child.weight, -bound, bound)


@cache
def tokenizer() -> Any:
    """Return the checkpoint's tokenizer. Raises NotJudged where it cannot be loaded."""
    from transformers import AutoTokenizer

    folder = checkpoint(CHECKPOINT)
    assert folder is not None
    return loaded(AutoTokenizer, folder, CHECKPOINT)


def prompt(tokenizer: Any, article: str) -> list[int]:
    """Return the contest's prompt for a summary."""
    return tokenizer(f"{article} TL;DR: ".strip().replace(" n't", "n't"))["input_ids"]


def family() -> Family:
    """Return GPT-2 in the size that is asked for, or that the checkpoint has."""
    folder = checkpoint(CHECKPOINT)
    asked = "full" if folder else size()
    sizes = SIZES[asked]
    if folder is not None and (config := folder / "config.json").is_file():
        sizes = sizes | json.loads(config.read_text(encoding="utf-8"))
    return Family(
        name=f"gpt2{'' if asked == 'full' else '-small'}", model=partial(model, asked),
        tokenizer=tokenizer if folder else None, prompt=prompt, layers=sizes["n_layer"], words=sizes["vocab_size"],
        tokens=sizes["n_positions"], batch=8, new=100 if asked == "full" else 12, weights=weights_words(CHECKPOINT),
    )  # fmt: skip


FAMILY = family()

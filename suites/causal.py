"""Causal language models as two subjects, the prefill of prompts and the step of one token with a KV cache.

A family (``suites/gpt2``, ``suites/smollm2``) says what its model is. Prompts of a batch are padded on the left, and
positions count from the first token that is none of padding, as transformers' own ``generate`` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from harness import Subject, targets
from harness.metrics.text import one_sentence_per_line
from harness.metrics.vision import labels
from suites.articles import Article, articles

Inputs = Mapping[str, torch.Tensor]
Network = Callable[[Mapping[str, Any]], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model: what makes it, its tokenizer and its sizes, which are known before it is loaded."""

    name: str
    model: Callable[[], Any]
    """A model of transformers in FP32 and eval mode."""
    tokenizer: Callable[[], Any] | None
    """None for random weights, whose tokens mean nothing: texts are random then."""
    prompt: Callable[[Any, str], list[int]]
    """``(tokenizer, article)`` to the tokens after which a summary comes."""
    layers: int
    words: int
    """Of the vocabulary."""
    tokens: int
    """The most tokens of a text, prompt and all."""
    batch: int
    """The largest batch."""
    new: int
    """The most tokens of a summary."""
    weights: Mapping[str, Any]
    """``weights`` and ``weights_source`` of the subjects."""

    def encode(self, article: Article) -> list[int]:
        """Return the tokens of a prompt: the last ones, where there are too many to be followed by a summary."""
        if self.tokenizer is None:
            dice = torch.Generator().manual_seed(len(article.text))
            return torch.randint(0, self.words - 2, (8 + len(article.text) % 9,), generator=dice).tolist()
        return self.prompt(self.tokenizer(), article.text)[-(self.tokens - self.new - 1) :]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, each line a sentence."""
        assert self.tokenizer is not None
        return one_sentence_per_line(self.tokenizer().decode(tokens, skip_special_tokens=True))

    @property
    def end(self) -> int | None:
        """The token that ends a text; none with random weights."""
        return None if self.tokenizer is None else self.tokenizer().eos_token_id


class Prefill(torch.nn.Module):
    """Token ids and mask int64 [batch, tokens] to ``logits`` [batch, tokens, words] and the cache ``past``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, Any]:
        places = (attention_mask.cumsum(1) - 1).clamp_min(0)
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=places, use_cache=True)
        return {"logits": found.logits, "past": found.past_key_values}


class Step(torch.nn.Module):
    """Token ids int64 [batch, 1], the mask of all tokens [batch, past + 1] and the cache to logits and the next one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, past: Any) -> dict[str, Any]:
        found = self.model(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=past, use_cache=True,
            position_ids=attention_mask.sum(1, keepdim=True) - 1,
        )  # fmt: skip
        return {"logits": found.logits, "past": found.past_key_values}


def padded(prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return prompts as one batch, padded on the left with token 0."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def prompts_of(family: Family, first: int, last: int) -> dict[str, torch.Tensor]:
    """Return the prompts of some of the articles as one batch."""
    return padded([family.encode(article) for article in articles()[first:last]])


def _step_case(family: Family) -> dict[str, Any]:
    """Return the last token of two prompts, and what PyTorch keeps of those before it."""
    given = prompts_of(family, 0, 2)
    with torch.no_grad():
        before = Prefill(family.model()).eval()(given["input_ids"][:, :-1], given["attention_mask"][:, :-1])
    return {**given, "input_ids": given["input_ids"][:, -1:], "past": before["past"]}


def _subject(family: Family, kind: str, **given: Any) -> Subject:
    return Subject(
        name=f"{family.name}-{kind}", inputs="random" if family.tokenizer is None else "real", **given,
        targets=(
            *targets("trt", "rtx", precisions=("fp32", "tf32", "fp16", "bf16")),
            *targets("ort-cpu", "torch", precisions=("fp32", "fp16")),
        ),
        **family.weights,
    )  # fmt: skip


def prefill(family: Family) -> Subject:
    """Return the prefill: one prompt, and three of different lengths."""
    counts = {"logits": lambda inputs: (inputs["attention_mask"] != 0)[..., None]}
    for name in _cache(family):
        counts[name] = lambda inputs: (inputs["attention_mask"] != 0)[:, None, :, None]
    return _subject(
        family, "prefill", build=lambda: Prefill(family.model()).eval(), valid=counts,
        cases={"one": partial(prompts_of, family, 0, 1), "padded": partial(prompts_of, family, 0, 3)},
        dynamic={name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")},
        ranges={"batch": (1, family.batch), "tokens": (2, family.tokens)},
    )  # fmt: skip


def step(family: Family) -> Subject:
    """Return the step of one token."""
    sizes = {"input_ids": {0: "batch"}, "attention_mask": {0: "batch", 1: "past+1"}}
    return _subject(
        family, "step", build=lambda: Step(family.model()).eval(), cases={"two": partial(_step_case, family)},
        dynamic=sizes | {name: {0: "batch", 2: "past"} for name in _cache(family)},
        ranges={"batch": (1, family.batch), "past": (1, family.tokens - 1)},
    )  # fmt: skip


def _cache(family: Family) -> list[str]:
    return [f"past.{layer}.{part}" for layer in range(family.layers) for part in ("key", "value")]


def greedy(
    first: Network, then: Network, given: Inputs, count: int, *, forced: torch.Tensor | None = None,
    end: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return up to ``count`` tokens after each prompt, int64 [batch, count], and their logits [batch, count, words].

    Each is the best of its logits, -1 where these are not finite; with ``forced`` these tokens go in instead, and with
    ``end`` it stops when all have it.
    """
    made, mask = first(given), given["attention_mask"]
    tokens, logits = [], []
    while True:
        logits.append(made["logits"][:, -1])
        best = labels(logits[-1])
        tokens.append(best)
        if len(tokens) == count or (end is not None and bool((torch.stack(tokens) == end).any(0).all())):
            return torch.stack(tokens, 1).cpu(), torch.stack(logits, 1)
        chosen = best.clamp_min(0) if forced is None else forced[:, len(tokens) - 1].to(best.device)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        past = {name.removeprefix("output."): tensor for name, tensor in made.items() if name != "logits"}
        made = then({"input_ids": chosen[:, None], "attention_mask": mask, **past})

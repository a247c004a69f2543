"""A language model as a system: a prompt is read by the prefill, and its steps write what follows, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness import UsageError, systems
from harness.systems import CaseMetric, Step, Texts, Variant, Written, same_tokens
from suites.articles import articles
from suites.causal import Family, Inputs, greedy, padded, prefill, step

COUNT = 24
"""Tokens that are written."""


class Writer(systems.Pipeline):
    """A prompt to its most likely continuation."""

    family: Family

    def make(self, case: Inputs) -> Written:
        """Return the text that is written."""
        tokens = [int(step.state) for step in self.trajectory(case)]
        return Written(tokens=tuple(tokens), text=self.family.decode(tokens) if self.family.tokenizer else "")

    def trajectory(self, case: Inputs, *, forced: Sequence[Step] | None = None) -> list[Step]:
        """Return the logits of every token; with ``forced`` the reference's tokens go in."""
        given = {name: tensor.to(self.device) for name, tensor in case.items()}
        theirs = None if forced is None else torch.cat([step.state for step in forced])[None]
        tokens, logits = greedy(self._prefill, self._step, given, self.variant.steps, forced=theirs)
        return [Step(number=n, value=logits[:, n], state=tokens[:, n]) for n in range(tokens.shape[1])]

    def _prefill(self, inputs: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
        self.where = "at the first token"
        with self.stage("prefill"):
            return self.call("prefill", inputs)

    def _step(self, inputs: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
        self.where = f"at token {inputs['attention_mask'].shape[1]} of prompt and text"
        with self.stage("steps"):
            return self.call("step", inputs)


class Writing(systems.System):
    """Prompts, one at a time."""

    reference = Variant(name="pytorch-fp32", backend="torch", precision="fp32", steps=COUNT)
    variants = (
        Variant(name="pytorch-fp16", backend="torch", steps=COUNT),
        *(Variant(name=name, precision=name, steps=COUNT) for name in ("fp32", "tf32", "fp16", "bf16")),
        Variant(name="step-fp16", precision="fp32", precisions={"step": "fp16"}, steps=COUNT),
    )
    product = Texts()
    metrics = (CaseMetric(name="same tokens", function=same_tokens, better="higher"),)

    def __init__(self, family: Family) -> None:
        self.family, self.name = family, family.name
        self.subjects = {"prefill": prefill(family), "step": step(family)}
        self.weights, self.weights_source = family.weights.values()
        self.inputs = self.subjects["prefill"].inputs
        self.pipeline_type = type("Writer", (Writer,), {"family": family})
        self.notes = ["random weights: the texts mean nothing"] if family.tokenizer is None else []

    def cases(self, count: int) -> Mapping[str, Inputs]:
        """Return prompts for a summary."""
        known = articles()
        if count > len(known):
            raise UsageError(f"there are {len(known)} articles; ask for no more")
        return {f"article-{n}": padded([self.family.encode(article)]) for n, article in enumerate(known[:count], 1)}

    def check(self, variant: Variant) -> None:
        """Raise UsageError for more tokens than a text has beside its prompt."""
        if not 0 < variant.steps <= self.family.new:
            raise UsageError(f"{self.name} writes 1 to {self.family.new} tokens, not {variant.steps}: give --steps")

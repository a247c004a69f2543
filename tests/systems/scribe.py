"""A tiny system that writes: an encoder of noise and a decoder that is run token by token. Random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness import Subject, UsageError, targets
from harness.systems import CaseMetric, Pipeline, Step, System, Texts, Variant, Written, same_tokens

WIDTH, VOCABULARY, MOST = 16, 24, 12


class Encoder(torch.nn.Module):
    """Sound [1, 4, WIDTH] to memory of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, sound: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"memory": torch.tanh(self.mix(sound))}


class Decoder(torch.nn.Module):
    """Memory and token ids int64 [1, length] to the logits of the next token, [1, VOCABULARY]."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = torch.nn.Embedding(VOCABULARY, WIDTH), torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, memory: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.table(ids)
        hidden = hidden + (hidden @ memory.transpose(1, 2)).softmax(-1) @ memory
        return {"logits": self.out(hidden.cumsum(1)[:, -1])}


def sound(seed: int) -> torch.Tensor:
    return torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(seed))


SUBJECTS = {
    "encoder": Subject(
        name="scribe-encoder", build=lambda: Encoder().eval(), cases={"one": lambda: {"sound": sound(0)}},
        targets=targets("ort-cpu", precisions=("fp32", "fp16")), weights="random",
    ),
    "decoder": Subject(
        name="scribe-decoder", build=lambda: Decoder().eval(),
        cases={"one": lambda: {"memory": sound(0), "ids": torch.tensor([[1, 2]])}},
        dynamic={"ids": {1: "length"}}, ranges={"length": (1, MOST)},
        targets=targets("ort-cpu", precisions=("fp32", "fp16")), weights="random",
    ),
}  # fmt: skip


class Scribe(Pipeline):
    """Encodes once, then takes the best token each time."""

    def make(self, case: torch.Tensor) -> Written:
        with self.stage("encoder"):
            memory = self.encode(case)
        with self.stage("decoder"):
            ids = self.write(memory)[-1].state
        return Written(tokens=tuple(ids[0].tolist()))

    def trajectory(self, case: torch.Tensor, *, forced: Sequence[Step] | None = None) -> list[Step]:
        return self.write(self.encode(case), forced)

    def encode(self, case: torch.Tensor) -> torch.Tensor:
        return self.call("encoder", {"sound": case.to(self.device)})["memory"]

    def write(self, memory: torch.Tensor, forced: Sequence[Step] | None = None) -> list[Step]:
        ids = torch.ones(1, 1, dtype=torch.int64, device=self.device)
        taken: list[Step] = []
        for place in range(self.variant.steps):
            self.where = f"at token {place}"
            logits = self.call("decoder", {"memory": memory, "ids": ids})["logits"]
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
            taken.append(Step(number=place, value=logits, state=ids))
            if forced is not None:
                ids = forced[place].state
        return taken


class ScribeSystem(System):
    """The whole."""

    name, weights, weights_source = "scribe", "random", "seed 0"
    subjects, pipeline_type = SUBJECTS, Scribe
    notes = ("random weights: the texts mean nothing",)
    reference = Variant(name="pytorch-fp32", backend="torch", precision="fp32", steps=6)
    variants: Sequence[Variant] = (
        Variant(name="fp32", precision="fp32", steps=6),
        Variant(name="fp16", steps=6),
        Variant(name="decoder-fp32", precisions={"decoder": "fp32"}, steps=6),
        Variant(name="short", precision="fp32", steps=3),
    )
    product = Texts(prompt=lambda case: "noise")

    def __init__(self, limit: float | None = 0.5) -> None:
        self.metrics = [CaseMetric(name="same tokens", function=same_tokens, better="higher", limit=limit)]

    def cases(self, count: int) -> Mapping[str, Any]:
        return {f"noise-{seed}": sound(seed) for seed in range(count)}

    def check(self, variant: Variant) -> None:
        if variant.steps >= MOST:
            raise UsageError(f"{variant.steps} tokens are too many; ask for 1 to {MOST - 1}")


SYSTEM = ScribeSystem

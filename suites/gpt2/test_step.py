"""GPT-2 writes a token after those of its cache; texts and summaries by prefill and step together."""

import pytest

from harness import NotJudged
from harness.checks import test_outputs
from harness.metrics import Metric
from harness.metrics.text import ROUGE_KINDS
from suites.articles import articles
from suites.causal import greedy, padded, prefill, step
from suites.gpt2.models import CHECKPOINT, FAMILY
from suites.shared import checkpoint
from suites.texts import both_sides, rouge_of, test_summaries, test_text

SUBJECT = step(FAMILY)
ASKED, ANSWER = "Born in north-east France, Soyer trained as a", " chef and eventually became a chef at a"
"""Of TensorRT-LLM's example for GPT-2 medium: ``run.py --max_output_len=8``."""
with_checkpoint = pytest.mark.skipif(checkpoint(CHECKPOINT) is None, reason=f"the contest's weights need {CHECKPOINT}")


@with_checkpoint
def test_contest_text(parity):
    """The contest's first question: the eight tokens after its sentence, by the engine and by PyTorch."""
    first, tokenizer = parity.beside(prefill(FAMILY)), FAMILY.tokenizer()
    given, texts = padded([tokenizer(ASKED)["input_ids"]]), []
    for side in ("run", "run_reference"):
        tokens, _ = greedy(getattr(first, side), getattr(parity, side), given, 8)
        texts.append(tokenizer.decode(tokens[0].clamp_min(0).tolist()))
    parity.check_metric(Metric("contest's text", answered, at_least=1, why="its own answer"), of=tuple(texts))


def answered(engine, pytorch):
    """Return 1 where the engine's text is the contest's answer. Raises NotJudged where PyTorch's is not."""
    if pytorch != ANSWER:
        raise NotJudged(f"PyTorch writes {pytorch!r}, not {ANSWER!r}: these are not the weights of GPT-2 medium")
    return float(engine == ANSWER)


@with_checkpoint
def test_contest_rouge(parity):
    """The contest's second question: ROUGE of the first 20 articles within 1 of PyTorch's, by the means alone."""
    chosen = articles()[:20]
    made = both_sides(parity, FAMILY, chosen)
    for kind in ROUGE_KINDS:
        mean = Metric(
            f"{kind}, mean of {len(chosen)}", lambda side, kind=kind: float(rouge_of(side, chosen, kind).mean()),
            difference=1, why="the contest's rule; an interval needs more articles, and test_summaries gives it",
        )  # fmt: skip
        parity.check_metric(mean, of=made)

"""GPT-2 reads prompts: logits and the cache of every token."""

from harness.checks import test_outputs
from suites.causal import prefill
from suites.gpt2.models import FAMILY
from suites.texts import test_next_tokens

SUBJECT = prefill(FAMILY)

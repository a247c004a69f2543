"""SmolLM2 writes a token after those of its cache; texts and summaries by prefill and step together."""

from harness.checks import test_outputs
from suites.causal import step
from suites.smollm2.models import FAMILY
from suites.texts import test_summaries, test_text

SUBJECT = step(FAMILY)

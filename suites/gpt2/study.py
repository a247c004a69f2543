"""GPT-2 writes: prefill and steps as one system."""

from functools import partial

from suites.gpt2.models import FAMILY
from suites.writing import Writing

SYSTEM = partial(Writing, FAMILY)

"""SmolLM2 writes: prefill and steps as one system."""

from functools import partial

from suites.smollm2.models import FAMILY
from suites.writing import Writing

SYSTEM = partial(Writing, FAMILY)

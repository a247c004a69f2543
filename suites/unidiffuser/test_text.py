"""CLIP with the caption encoder's linear layer."""

from harness.checks import test_outputs
from suites.unidiffuser.models import subject

SUBJECT = subject("text")

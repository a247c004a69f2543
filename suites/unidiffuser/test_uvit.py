"""The U-ViT on a batch of two: with the text, and without."""

from harness.checks import test_outputs
from suites.unidiffuser.models import subject

SUBJECT = subject("uvit")

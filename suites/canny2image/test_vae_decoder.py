"""The decoder of the autoencoder."""

from harness.checks import test_outputs
from suites.canny2image.models import subject

SUBJECT = subject("vae-decoder")

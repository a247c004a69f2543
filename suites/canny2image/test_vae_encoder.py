"""The encoder of the autoencoder, on a real picture."""

from harness.checks import test_outputs
from suites.canny2image.models import subject

SUBJECT = subject("vae-encoder")

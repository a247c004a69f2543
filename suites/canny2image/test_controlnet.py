"""The ControlNet on a batch of two: 12 residuals of the UNet's encoder and one of its middle."""

from harness.checks import test_outputs
from suites.canny2image.models import subject

SUBJECT = subject("controlnet")

"""ControlNet and UNet as one network."""

from harness.checks import test_outputs
from suites.canny2image.models import subject

SUBJECT = subject("combined")

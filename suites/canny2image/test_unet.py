"""The UNet on a batch of two, with the ControlNet's residuals as inputs."""

from harness.checks import test_outputs
from suites.canny2image.models import subject

SUBJECT = subject("unet")

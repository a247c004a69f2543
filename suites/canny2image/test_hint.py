"""The network that embeds the edges; the ControlNet adds its output in every step."""

from harness.checks import test_outputs
from suites.canny2image.models import subject

SUBJECT = subject("hint")

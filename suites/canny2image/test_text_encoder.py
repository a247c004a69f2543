"""The CLIP-L text encoder: 12 layers, 768 wide, on two prompts."""

from harness.checks import test_outputs
from suites.canny2image.models import subject

SUBJECT = subject("text-encoder")

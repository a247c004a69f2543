"""The image encoder: windowed layers, and global ones."""

from harness.checks import test_outputs
from suites.sam.models import subject

SUBJECT = subject("image-encoder")

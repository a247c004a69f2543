"""A layer of the image encoder whose attention sees the whole picture, alone."""

from harness.checks import test_outputs
from suites.sam.models import subject

SUBJECT = subject("global-layer")

"""A layer of the image encoder whose attention sees a window, alone."""

from harness.checks import test_outputs
from suites.sam.models import subject

SUBJECT = subject("windowed-layer")

"""The decoder of the autoencoder."""

from harness.checks import test_outputs
from suites.unidiffuser.models import subject

SUBJECT = subject("decoder")

"""The encoder of Whisper tiny.en, on 30 s of speech."""

from harness.checks import test_layers, test_outputs, test_parts
from suites.whisper.models import subject

SUBJECT = subject("encoder")

"""What the formats of floats hold."""

from __future__ import annotations

UNIT_ROUNDOFF = {"fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of one rounding to nearest."""
SMALLEST_STEP = {"fp16": 2.0**-24, "bf16": 2.0**-133, "tf32": 2.0**-149, "fp32": 2.0**-149}
"""Spacing of the smallest numbers of a format: what is smaller is rounded absolutely, not relatively."""

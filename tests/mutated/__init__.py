"""Valid ONNX files, how they are mutated, and a process of its own in which ``parity`` meets the mutants."""

from __future__ import annotations

"""Whose fault it is when TensorRT says no: the graph's, the engine's, or a machine that is full."""

from __future__ import annotations

from harness.errors import EngineFailed, EngineRefused, NotJudged


def refusal(message: str) -> NotJudged:
    """Return EngineRefused, or NotJudged where the message is about memory or the disk and not about the graph."""
    if _is_out_of_memory(message):
        return NotJudged(f"out of GPU memory: {message}")
    return NotJudged(message) if "the engine cannot be written" in message else EngineRefused(message)


def failure(message: str) -> NotJudged | EngineFailed:
    """Return EngineFailed, or NotJudged where the message is about GPU memory and not about the engine."""
    return NotJudged(f"out of GPU memory: {message}") if _is_out_of_memory(message) else EngineFailed(message)


def _is_out_of_memory(message: str) -> bool:
    return "out of memory" in message.lower() or "outofmemory" in message.lower()

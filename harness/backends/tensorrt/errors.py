"""What a message of TensorRT means: the graph is refused, the engine failed, or GPU memory ran out.

TensorRT gives text and no code, so the text is searched here and nowhere else.
"""

from __future__ import annotations

from harness.errors import EngineFailed, EngineRefused, NotJudged
from harness.memory import is_out_of_memory, out_of_memory


def refusal(message: str) -> NotJudged:
    """Return EngineRefused, or NotJudged where the message is about memory and not about the graph."""
    if is_out_of_memory(message):
        return out_of_memory("the builder", message)
    return NotJudged(f"out of GPU memory: {message}") if _is_out_of_memory(message) else EngineRefused(message)


def failure(message: str) -> NotJudged | EngineFailed:
    """Return EngineFailed, or NotJudged where the message is about GPU memory and not about the engine."""
    return NotJudged(f"out of GPU memory: {message}") if _is_out_of_memory(message) else EngineFailed(message)


def _is_out_of_memory(message: str) -> bool:
    return "out of memory" in message.lower() or "outofmemory" in message.lower()

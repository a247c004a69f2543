"""What a message of TensorRT means: the graph is refused, the engine failed, or memory or the GPU did.

TensorRT gives text and no code.
"""

from __future__ import annotations

from harness.backends.gpu import no_gpu
from harness.errors import EngineFailed, EngineRefused, Failure, ParityError
from harness.gpu_errors import gpu_error
from harness.memory import is_out_of_memory, out_of_memory
from harness.sentences import Sentence


def refusal(message: str, *, failure: Failure = "refused") -> ParityError:
    """Return EngineRefused of this class, or NotJudged where the message is about memory or the GPU, not the graph."""
    if is_out_of_memory(message):
        return out_of_memory(Sentence("the_builder"), message)
    known = gpu_error(message, by=EngineRefused)
    # A builder without a GPU complains of the driver, whatever is wrong.
    if known is not None and not (known.failure == "device" and no_gpu()):
        return known
    return EngineRefused(message, failure=failure)


def failure(message: str) -> ParityError:
    """Return EngineFailed, or NotJudged where the message is about GPU memory or the GPU and not about the engine."""
    return gpu_error(message) or EngineFailed(message, failure="crash")

"""What ONNX Runtime says when it refuses a model or fails, as errors that name the op and the node."""

from __future__ import annotations

import re

from harness.errors import EngineFailed, EngineRefused, NoMemory, ParityError
from harness.gpu_errors import gpu_error
from harness.memory import is_out_of_memory
from harness.sentences import Sentence

_MISSING = re.compile(
    r"NOT_IMPLEMENTED|not (?:yet )?implemented|(?:MLFloat16|BFloat16|float16|data ?type|types?)\b[^.;]*\bnot supported"
    r"|not supported[^.;]*(?:MLFloat16|BFloat16|float16|data ?type)|unsupported (?:data ?|input |tensor )?type",
    re.IGNORECASE,
)
"""How ONNX Runtime says that a kernel lacks something."""


def load_error(name: str, error: Exception) -> ParityError:
    """Return the refusal, with the op and the node taken from ONNX Runtime's message."""
    message = " ".join(str(error).split())
    if _is_out_of_memory(message):
        return NoMemory(Sentence("no_memory_loading", name=name, message=message))
    if known := gpu_error(message, Sentence("gpu_while_loading"), by=EngineRefused):
        return known
    if _has_crashed(error):
        return EngineRefused(Sentence("cannot_build", name=name, message=message), failure="crash")
    kernel = re.search(r"Could not find an implementation for (\w[\w.]*)\(\d+\) node with name '([^']*)'", message)
    if kernel:
        return EngineRefused(Sentence("cannot_build_kernel", name=name, kernel=kernel[1], kernel_2=kernel[2]))
    unknown = re.search(r"In Node, \(\"([^\"]*)\", (\w+), .*?Error (.*)", message)
    if unknown:
        return EngineRefused(
            Sentence("cannot_build_op", name=name, unknown=unknown[2], unknown_2=unknown[1], unknown_3=unknown[3])
        )
    return EngineRefused(Sentence("cannot_build", name=name, message=message))


def run_error(name: str, error: Exception) -> ParityError:
    """Return a refusal, with the op and the node, for what ONNX Runtime has not implemented; else the engine failed.

    Some kernels are there for a dtype and refuse it only when they run.
    """
    message = " ".join(str(error).split())
    if _is_out_of_memory(message):
        return NoMemory(Sentence("no_memory_running", name=name, message=message))
    if known := gpu_error(message):
        return known
    if _has_crashed(error):
        return EngineFailed(Sentence("could_not_run", name=name, message=message), failure="crash")
    node = re.search(r"while running (\w+) node\. Name:'([^']*)' Status Message: (.*)", message)
    if node and _MISSING.search(message):
        return EngineRefused(Sentence("cannot_run_op", name=name, node=node[1], node_2=node[2], node_3=node[3]))
    return EngineFailed(Sentence("could_not_run", name=name, message=message), failure="crash")


def _has_crashed(error: Exception) -> bool:
    """Return whether the process that ran the model has died."""
    from harness.isolated import Crashed  # it imports NumPy, which `import harness.backends` does not

    return isinstance(error, Crashed)


def _is_out_of_memory(message: str) -> bool:
    return "out of memory" in message or is_out_of_memory(message)

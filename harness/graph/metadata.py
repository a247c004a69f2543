"""What PyTorch writes beside an operation: the scopes it is in, and the Python lines that it comes from."""

from __future__ import annotations

import ast
import re

import torch

from harness.lazy import onnx_ir as ir

LONGEST_LIST = 2**16
"""Letters of a list that are read; a module 50 deep has 5,000."""


def exported_list(node: ir.Node, key: str) -> list[str]:
    """Return a list that PyTorch's exporter left on an ONNX node as its repr; empty when it is absent or damaged."""
    text = node.metadata_props.get(f"pkg.torch.onnx.{key}", "[]")
    if len(text) > LONGEST_LIST:  # a parser of Python takes 100 times the memory of its text
        return []
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # of nested brackets each in its own version
        return []
    return [str(item) for item in items] if isinstance(items, list) else []


def source_line(trace: str) -> str:
    """Return ``file:line`` of the innermost frame of a stack trace that is not PyTorch's own; empty without frames."""
    frames: list[tuple[str, str]] = re.findall(r'File "([^"]+)", line (\d+)', trace)
    own = [frame for frame in frames if "/torch/" not in frame[0]] or frames
    return f"{own[-1][0].rsplit('/', 1)[-1]}:{own[-1][1]}" if own else ""


def module_path(node: torch.fx.Node) -> str:
    """Return the dotted module path; the exporter writes a later call as ``path@1``, which becomes ``path#2``."""
    stack = node.meta.get("nn_module_stack") or {}
    path, call = "", 0
    for key, entry in stack.items():
        path = entry[0] if isinstance(entry, tuple) else str(entry)
        match = re.search(r"@(\d+)$", key)
        call = max(call, int(match.group(1)) if match else 0)
    path = re.sub(r"@\d+$", "", path)
    if path.startswith("_empty_nn_module_stack"):
        return ""
    return f"{path}#{call + 1}" if call else path

"""Graphs written as ONNX text."""

from __future__ import annotations

import onnx_ir as ir


def parse(body: str, *, opset: int = 18) -> ir.Model:
    """Return the model of ONNX text, with initializers where it has them."""
    return ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{body}')

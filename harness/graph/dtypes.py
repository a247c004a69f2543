"""Element types of ONNX, by number (``onnx.TensorProto.DataType``) and by name."""

from __future__ import annotations

FLOAT, BOOL, FLOAT16, DOUBLE, BFLOAT16 = 1, 9, 10, 11, 16
NUMBERS = {"float32": FLOAT, "float16": FLOAT16, "bfloat16": BFLOAT16}
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
NAMES = {number: name for name, number in NUMBERS.items()}
HALF = (FLOAT16, BFLOAT16)

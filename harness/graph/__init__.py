"""The subject as one graph with named values: exported or opened, cut, typed by a precision plan, and hashed.

A module or an ONNX file goes in; a :class:`Program` and typed graphs come out.
"""

from __future__ import annotations

from harness.graph.dtypes import PRECISIONS
from harness.graph.export import Program, by_keyword, check_arguments, to_onnx, trace, traced_outputs, value_table
from harness.graph.file_typing import computes_in, file_dtypes, is_quantised, is_typed, port_dtypes
from harness.graph.hash import graph_sha256
from harness.graph.input_files import load_inputs, load_tensors
from harness.graph.ir import constant_of, copy_model, elements_of, plain_model, weight_bytes, weights_of
from harness.graph.kept_program import Unkept, pack_program, unpack_program
from harness.graph.node_typing import InputKind, node_typing
from harness.graph.onnx_checks import check_sizes
from harness.graph.onnx_file import node_names, onnx_values, open_onnx, save_for_now, save_model
from harness.graph.onnx_inputs import (
    UNKNOWN_DIM,
    InputSpec,
    check_inputs,
    generate_inputs,
    input_specs,
    require_tensors,
    torch_dtype,
    undeclared_shapes,
)
from harness.graph.plan import Plan, assign, is_fp32, load_plan, matching, write_plan
from harness.graph.program_hash import foreign_code, lines_sha256, program_sha256
from harness.graph.quantisation import fold_bias, why_refused
from harness.graph.quantised_units import QuantisedUnit, chosen_units, in_floats, known_floats, quantised_units
from harness.graph.random_calls import random_calls, with_noise_stored
from harness.graph.random_nodes import random_nodes, with_stored_noise
from harness.graph.stable import Unstable, stable_text
from harness.graph.subgraph import boundary, captured_values, extract, order, used_values, variable_values, with_outputs
from harness.graph.typed import Applied, apply
from harness.graph.types import infer_types, promote, to_float64
from harness.graph.values import Value, Values

__all__ = [
    "PRECISIONS",
    "UNKNOWN_DIM",
    "Applied",
    "InputKind",
    "InputSpec",
    "Plan",
    "Program",
    "QuantisedUnit",
    "Unkept",
    "Unstable",
    "Value",
    "Values",
    "apply",
    "assign",
    "boundary",
    "by_keyword",
    "captured_values",
    "check_arguments",
    "check_inputs",
    "check_sizes",
    "chosen_units",
    "computes_in",
    "constant_of",
    "copy_model",
    "elements_of",
    "extract",
    "file_dtypes",
    "fold_bias",
    "foreign_code",
    "generate_inputs",
    "graph_sha256",
    "in_floats",
    "infer_types",
    "input_specs",
    "is_fp32",
    "is_quantised",
    "is_typed",
    "known_floats",
    "lines_sha256",
    "load_inputs",
    "load_plan",
    "load_tensors",
    "matching",
    "node_names",
    "node_typing",
    "onnx_values",
    "open_onnx",
    "order",
    "pack_program",
    "plain_model",
    "port_dtypes",
    "program_sha256",
    "promote",
    "quantised_units",
    "random_calls",
    "random_nodes",
    "require_tensors",
    "save_for_now",
    "save_model",
    "stable_text",
    "to_float64",
    "to_onnx",
    "torch_dtype",
    "trace",
    "traced_outputs",
    "undeclared_shapes",
    "unpack_program",
    "used_values",
    "value_table",
    "variable_values",
    "weight_bytes",
    "weights_of",
    "why_refused",
    "with_noise_stored",
    "with_outputs",
    "with_stored_noise",
    "write_plan",
]

"""The subject's graph run in PyTorch in any dtype: the reference, the FP64 truth, the floor, and single values.

A graph and inputs go in; outputs or values by name come out. Stored references are read and written here.
"""

from __future__ import annotations

from harness.reference.helper_values import HelperValues, nodes_between
from harness.reference.interpreter import CANNOT_RUN, RunNotes, TypedInterpreter, run_graph
from harness.reference.kept_run import KeptRun
from harness.reference.onnx_calls import OnnxCall, onnx_run_graph
from harness.reference.region import Region
from harness.reference.replay import Evaluator, Evaluators, ProgramEvaluator
from harness.reference.run_graph import RunGraph, exported_run_graph
from harness.reference.store import Identity, OutputCache, ReferenceStore, StaleReference, Stored, update_command
from harness.reference.witness import run_onnx_reference, run_onnxruntime

__all__ = [
    "CANNOT_RUN",
    "Evaluator",
    "Evaluators",
    "HelperValues",
    "Identity",
    "KeptRun",
    "OnnxCall",
    "OutputCache",
    "ProgramEvaluator",
    "ReferenceStore",
    "Region",
    "RunGraph",
    "RunNotes",
    "StaleReference",
    "Stored",
    "TypedInterpreter",
    "exported_run_graph",
    "nodes_between",
    "onnx_run_graph",
    "run_graph",
    "run_onnx_reference",
    "run_onnxruntime",
    "update_command",
]

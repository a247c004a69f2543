"""The subject's graph run in PyTorch in any dtype: the reference, the FP64 truth, the floor, and single values.

A graph and inputs go in; outputs or values by name come out. Stored references are read and written here.
"""

from __future__ import annotations

from harness.reference.helper_values import HelperValues
from harness.reference.interpreter import CODE_SHA256, RunNotes, run_program
from harness.reference.node_runner import NodeRunner
from harness.reference.onnx_replay import OnnxEvaluator
from harness.reference.onnx_run import run_emulated, run_fp32, run_fp64
from harness.reference.replay import Evaluator, Evaluators, ProgramEvaluator
from harness.reference.store import Identity, OutputCache, ReferenceStore, StaleReference, Stored, update_command

__all__ = [
    "CODE_SHA256",
    "Evaluator",
    "Evaluators",
    "HelperValues",
    "Identity",
    "NodeRunner",
    "OnnxEvaluator",
    "OutputCache",
    "ProgramEvaluator",
    "ReferenceStore",
    "RunNotes",
    "StaleReference",
    "Stored",
    "run_emulated",
    "run_fp32",
    "run_fp64",
    "run_program",
    "update_command",
]

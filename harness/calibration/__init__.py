"""A quantised ONNX file of a subject, by onnxruntime's quantiser or NVIDIA's: ranges from data, Q/DQ for TensorRT."""

from __future__ import annotations

from harness.calibration.calibrate import Calibrated, calibrate, left_in_floats, quantised_file
from harness.calibration.data import calibration_data, excluded_nodes
from harness.calibration.quantisers import METHODS, QUANTISERS, TYPES

__all__ = [
    "METHODS",
    "QUANTISERS",
    "TYPES",
    "Calibrated",
    "calibrate",
    "calibration_data",
    "excluded_nodes",
    "left_in_floats",
    "quantised_file",
]

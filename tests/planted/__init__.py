"""Planted faults with a known answer, and a backend that runs the typed graph with faults in its kernels.

Every plant is certain: it follows from the number formats, not from the seed. tests/test_planted.py proves the answers
by trying every set of modules.
"""

from __future__ import annotations

from planted.backend import PlantedBackend, PlantedSession
from planted.faults import Fault, all_nan, scaled
from planted.kernels import OPS, base_name
from planted.networks import WIDTH, Experts, GrowingStream, Healthy, Masked, SquareRoot, linear, normal, signed_rows
from planted.plants import PLANTED, Planted, engine_plant, install, named_values, plant_of, ready, values_of

__all__ = [
    "OPS",
    "PLANTED",
    "WIDTH",
    "Experts",
    "Fault",
    "GrowingStream",
    "Healthy",
    "Masked",
    "Planted",
    "PlantedBackend",
    "PlantedSession",
    "SquareRoot",
    "all_nan",
    "base_name",
    "engine_plant",
    "install",
    "linear",
    "named_values",
    "normal",
    "plant_of",
    "ready",
    "scaled",
    "signed_rows",
    "values_of",
]

"""Exported programs that an earlier run has kept: the same module by the same code gives the same graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from harness.code_version import code_sha256, package_versions
from harness.graph import Program, Unkept, unpack_program
from harness.limit_options import in_ci
from harness.reference import OutputCache
from harness.settings import Settings
from harness.tensors import Tensors
from harness.verify.subject_graph import GraphIdentity

Packed = tuple[Tensors, str]


def kept_program(
    name: str,
    identity: GraphIdentity,
    settings: Settings,
    weights: Callable[[], Mapping[str, torch.Tensor]],
    export: Callable[[], tuple[Program, Packed | Unkept]],
) -> Program:
    """Return the program of a module with this identity and these weights, exported where no earlier run has kept it.

    ``export`` returns it with itself as data, or why it cannot be written so. A run that rebuilds exports as well.
    """
    made: list[Program] = []

    def compute() -> tuple[Tensors, tuple[str, ...]]:
        program, packed = export()
        made.append(program)
        if isinstance(packed, Unkept):
            raise packed
        return packed[0], (packed[1],)

    if not settings.engine_cache or identity.foreign:
        return export()[0]
    key = {
        "what": "exported program", "identity": dataclasses.asdict(identity), "code": code_sha256(),
        "packages": package_versions(),
    }  # fmt: skip
    cache = OutputCache(settings.engines / "programs", enabled=True)
    try:
        tensors, (text,) = cache.get(key, compute, torch.device("cpu"), anew=settings.rebuild or in_ci())
        return made[0] if made else unpack_program(name, tensors, text, weights())
    except Unkept as error:
        settings.progress(f"{name}: its graph is exported each time: no file holds {error}")
        return made[0] if made else export()[0]

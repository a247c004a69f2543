"""Exports that are made once in a process, and exports that are wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram

from harness import Subject
from harness.graph import Program, program_sha256, to_onnx, trace, value_table
from harness.tensors import sha256_of

TRACE, EXPORT = "harness.verify.torch_graph.trace", "harness.verify.torch_graph.to_onnx"
Tensors = dict[str, torch.Tensor]
_TRACES: dict[tuple[Any, ...], ExportedProgram] = {}
_EXPORTS: dict[tuple[str, ...], Program] = {}


def share_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let equal modules be traced and exported once per process: that takes most of the time of a small bisection."""

    def traced_once(subject: Subject, module: torch.nn.Module, inputs: Tensors, *more: Any) -> ExportedProgram:
        key = (subject.build, *((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()))
        if key not in _TRACES:
            _TRACES[key] = trace(subject, module, inputs, *more)
        return _TRACES[key]

    def shared(subject: Subject, traced: ExportedProgram, inputs: Tensors, names: list[str]) -> Program:
        key = (program_sha256(traced), sha256_of(traced.state_dict), repr(subject.options), *names)
        if key not in _EXPORTS:
            _EXPORTS[key] = to_onnx(subject, traced, inputs, names)
        program = _EXPORTS[key]
        return dataclasses.replace(program, name=subject.name, model=program.model.clone())

    monkeypatch.setattr(TRACE, traced_once)
    monkeypatch.setattr(EXPORT, shared)


def tamper_export(monkeypatch: pytest.MonkeyPatch, edit: Callable[[Program], object]) -> None:
    """Let the exporter write another graph; the exported program stays right.

    The engine cache does not see it: give every tampered subject an engine folder of its own.
    """
    export = resolve_name(EXPORT)

    def tampered(*arguments: Any) -> Program:
        program = export(*arguments)
        edit(program)
        assert program.exported is not None
        return dataclasses.replace(program, values=value_table(program.exported, program.model, program.outputs))

    monkeypatch.setattr(EXPORT, tampered)

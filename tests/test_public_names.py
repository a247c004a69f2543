"""The names a suite imports, and what importing them costs."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.machine import environment
from harness.records import writer as report
from harness.records.accuracy import CostResult, EngineInfo, MetricResult, OutputResult, Provenance, Result
from harness.records.bisection import Advice, Bisection, Price, Question, Trial
from harness.records.bringup import BringUp, ModelPart
from harness.records.decisions import Decisions, WrongDecision
from harness.records.stats import ErrorStats
from harness.settings import Settings

ROOT = Path(harness.__file__).parents[1]

HEAVY = {
    "torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "transformers", "numpy", "scipy",
    "matplotlib", "sqlalchemy", "psycopg", "jinja2", "safetensors", "PIL", "lpips", "pytorch_fid", "torchmetrics",
    "rouge_score", "nltk", "jiwer",
}  # fmt: skip
INNER = {"__init__", "binding", "networks", "paired", "remarks"}
METRICS = sorted({path.stem for path in (Path(harness.__file__).parent / "metrics").glob("*.py")} - INNER)
LIGHT = {
    **dict.fromkeys(("harness", "harness.cli", "harness.plugin", "harness.checks", "harness.discovery"), HEAVY),
    **dict.fromkeys(("harness.report.text", "harness.history"), HEAVY),
    **dict.fromkeys(("harness.backends", "harness.backends.tensorrt.build"), HEAVY),
    **dict.fromkeys((f"harness.metrics.{name}" for name in METRICS), HEAVY),
    **dict.fromkeys((f"harness.{name}" for name in ("records", "report", "hackathon")), HEAVY - {"numpy"}),
}
"""Modules, and what importing them may not import."""


@pytest.mark.parametrize("name", harness.__all__)
def test_public_name_resolves_and_is_documented(name: str):
    assert name in dir(harness)
    assert getattr(harness, name).__doc__


def test_all_is_what_is_reachable():
    homes = [name for names in harness._HOMES.values() for name in names]
    assert sorted(homes) == sorted(harness.__all__)
    for module, names in harness._HOMES.items():
        for name in names:
            assert getattr(harness, name) is getattr(importlib.import_module(module), name)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Subjekt'"):
        _ = harness.Subjekt  # type: ignore[attr-defined]


def loaded(code: str, names: set[str]) -> list[str]:
    """Return which of these modules a new interpreter has loaded after it ran the code."""
    code = f"import sys\n{code}\nprint(*[name for name in {sorted(names)!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stderr.split()


def test_imports_are_light():
    """What one of them imports is imported still when it is the next one's turn: a single interpreter shows all."""
    for may_not in (HEAVY, HEAVY - {"numpy"}):
        modules = [module for module, names in LIGHT.items() if names == may_not]
        assert modules
        for module in modules if (found := loaded(f"import {', '.join(modules)}", may_not)) else ():
            assert loaded(f"import {module}", may_not) == []
        assert found == []


RUN = "from harness import cli\ntry:\n    cli.main(['{}'])\nexcept SystemExit as end:\n    assert not end.code"
"""Code that runs a command line which ends the interpreter."""


def test_help_is_light():
    assert loaded(RUN.format("--help"), HEAVY) == []
    assert loaded(f"{RUN.format('--help')}\nimport numpy", HEAVY) == ["numpy"]


UNNEEDED = {
    "onnx", "onnx_ir", "onnxscript", "scipy", "sympy", "sqlalchemy", "matplotlib", "transformers", "jinja2", "PIL",
    "torch._dynamo",
}  # fmt: skip
"""What only building, exporting, charts and the history need: a verify that finds all in its caches needs none."""


def test_imports_load_nothing_that_a_cached_run_does_not_need():
    assert loaded("import harness.verify, harness.layers", UNNEEDED) == []


def test_list_loads_nothing_that_the_suites_do_not():
    assert loaded(RUN.format("list"), UNNEEDED) == []


def test_collecting_loads_nothing_that_the_suites_do_not():
    collect = "import pytest\npytest.main(['suites/test_minilm.py', '--collect-only', '-qq', '-p', 'no:cacheprovider'])"
    assert loaded(collect, UNNEEDED) == []


def test_version_is_light():
    assert loaded(RUN.format("--version"), HEAVY) == []


def test_a_process_that_times_loads_nothing_that_only_exporting_and_judging_need():
    """It is started anew for every figure, and others wait for it."""
    request = {"runner": "engine", "backend": "ort-cpu"}
    unneeded = {"harness.graph", "harness.reference", "harness.verify", "harness.latency", "onnxscript", "onnx_ir"}
    code = f"from harness.timing import worker\nworker.prepare({request!r})"
    assert loaded(code, {*unneeded, "torch", "onnxruntime", "scipy"}) == ["onnxruntime", "torch"]


def test_json_document_names_every_key():
    documented = set(
        re.findall(r"`(?:[a-z]+\.)?([a-z_0-9]+)`", (ROOT / "docs" / "json.md").read_text(encoding="utf-8"))
    )
    classes = (Result, OutputResult, MetricResult, EngineInfo, Provenance, ErrorStats, Decisions, WrongDecision)
    classes += (BringUp, ModelPart, Bisection, Question, Advice, Trial, Price, CostResult)
    keys = {field.name for one in classes for field in dataclasses.fields(one)} - {"stats"}
    environment_keys = set(environment.describe(Settings()))
    document_keys = set(report.document([], environment={}, command=""))
    assert sorted((keys | environment_keys | document_keys) - documented) == []

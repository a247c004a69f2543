"""The code's part of a key: it changes with each file that shapes an engine or a reference."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from test_architecture import ARROWS, MODULES, PACKAGE

from harness import code_version
from harness.code_version import SHAPES_NOTHING, code_sha256, package_versions

ENTRIES = (
    "harness.verify.target", "harness.verify.torch_graph", "harness.verify.onnx_graph", "harness.reference.interpreter",
    "harness.backends.tensorrt.build", "harness.backends.onnxruntime.file",
)  # fmt: skip
"""What makes engines and references."""
ONLY_JUDGES = {"__init__.py", "arguments.py", "compare", "errors.py", "files.py", "machine", "records", "settings.py"}
"""What of their imports gives them no bytes: sentences, files written whole, records, comparisons."""


def reached(*modules: str) -> set[str]:
    """Return the modules that these import, and so on."""
    found, left = set(modules), list(modules)
    while left:
        for other, _ in ARROWS[left.pop()]:
            if other not in found:
                found.add(other)
                left.append(other)
    return found


def test_all_that_makes_engines_and_references_is_hashed_or_known_to_give_them_nothing():
    tops = {MODULES[module].relative_to(PACKAGE).parts[0] for module in reached(*ENTRIES)}
    assert tops & SHAPES_NOTHING <= ONLY_JUDGES
    assert {"graph", "reference", "operators", "backends", "verify", "pytorch.py", "tensors.py"} <= tops


def test_each_file_that_shapes_one_changes_it(tmp_path):
    package = tmp_path / "harness"
    for path in PACKAGE.rglob("*.py"):
        copy = package / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    sha256 = code_sha256.__wrapped__  # type: ignore[attr-defined]
    before = sha256(package)
    assert before == code_sha256()
    changed = []
    for path in sorted(package.rglob("*.py")):
        old = path.read_bytes()
        path.write_bytes(old + b"#")
        if sha256(package) != before:
            changed.append(path.relative_to(package).parts[0])
        path.write_bytes(old)
    assert not set(changed) & SHAPES_NOTHING
    assert len(changed) == sum(p.relative_to(package).parts[0] not in SHAPES_NOTHING for p in package.rglob("*.py"))
    for path in (package / "graph" / "typed.py", package / "pytorch.py"):
        path.rename(path.with_name("moved.py"))
        assert sha256(package) != before


@pytest.mark.parametrize("name", ["torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime"])
def test_the_versions_of_what_exports_and_computes_are_known(name):
    assert package_versions()[name] == version(name)


def test_every_excluded_name_exists():
    assert all((Path(code_version.__file__).parent / name).exists() for name in SHAPES_NOTHING)

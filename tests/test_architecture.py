"""The rules of the house: imports run downwards and by faces, form no circle, and a module is read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import harness

PACKAGE = Path(harness.__file__).parent
ORDER = (
    "suites benchmarks examples",
    "__init__ __main__",
    "cli",
    "plugin",
    "pytest_attempts pytest_collector pytest_options",
    "pytest_state",
    "pytest_ledger",
    "pytest_shards pytest_workers",
    "arrivals junit watching",
    "checks",
    "pytest_endings",
    "hackathon systems",
    "report",
    "bisect bringup",
    "latency",
    "timing",
    "layers discovery calibration",
    "case_files",
    "verify",
    "quantised",
    "backends",
    "history ledger",
    "metrics",
    "reference",
    "graph",
    "compare operators",
    "shared_options",
    "shards",
    "records",
    "machine isolated",
    "pytorch",
    "structure arguments",
    "subject settings files process tensors code_version limits last_resort locks",
    "stopping watcher",
    "temporary fields dimensions repository memory gpu_errors limit_options",
    "errors lazy stamps reads",
    "sentences",
)
"""From the top to the ground: a package imports only from lines below its own."""
RANK = {name: number for number, line in enumerate(reversed(ORDER)) for name in line.split()}
PUBLIC_MODULES = ("harness.metrics.",)
"""Packages whose modules are public one by one: a suite imports only the metrics whose libraries it has."""
MOST_LINES = 400
DATA_TABLES = {"harness/report/words/en.py", "harness/report/words/zh.py", "harness/report/words/sentences_zh.py",
               "harness/sentences/en.py"}  # fmt: skip
OUTSIDE = ("suites", "benchmarks", "examples")
"""Folders beside harness: they import what anybody may."""
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("harness", *OUTSIDE)
    for path in sorted((PACKAGE.parent / folder).rglob("*.py"))
}


def is_face(module: str) -> bool:
    """Return whether a module is the face of a package."""
    return MODULES[module].name == "__init__.py" and module != "harness"


def package_of(module: str) -> str:
    """Return the package, or the module directly under ``harness``, that a module belongs to; or the folder outside."""
    folder, *names = module.split(".")
    return folder if folder in OUTSIDE else names[0] if names else "__init__"


def imported(tree: ast.AST, module: str) -> Iterator[tuple[str, int]]:
    """Yield what a module imports of the modules here, for types alone too, with the line."""
    base = module.split(".") if module in MODULES and is_face(module) else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*stem, *(node.module or "").split(".")]).strip(".")
            names = [(source, alias.name) for alias in node.names]
        else:
            continue
        for source, name in names:
            whole = f"{source}.{name}"  # a face may hand on a function that is called as its module
            found = whole if whole in MODULES and name not in HANDED_ON.get(source, ()) else source
            if found in MODULES and found not in ("harness", module):
                yield found, node.lineno


HANDED_ON = {
    module: [alias.name for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body
             if isinstance(node, ast.ImportFrom) for alias in node.names]
    for module in MODULES if is_face(module)
}  # fmt: skip
ARROWS = {
    module: sorted(imported(ast.parse(path.read_text(encoding="utf-8")), module)) for module, path in MODULES.items()
}


def wrong_arrows(module: str, arrows: list[tuple[str, int]]) -> list[str]:
    """Return the imports that run upwards, or past the face of another package."""
    own = package_of(module)
    found = []
    for other, line in arrows:
        theirs = package_of(other)
        arrow = f"{module}:{line} -> {other}"
        if theirs == own:
            continue
        if RANK[theirs] >= RANK[own]:
            found.append(f"{arrow}: runs upwards, from {own} to {theirs}")
        elif other.count(".") > 1 and not (is_face(other) or other.startswith(PUBLIC_MODULES)):
            found.append(f"{arrow}: reaches past the face of {theirs}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_packages_import_downwards_and_by_their_faces(module: str):
    assert package_of(module) in RANK, f"{module} has no place: add it to ORDER"
    wrong = wrong_arrows(module, ARROWS[module])
    assert not wrong, "\n".join(wrong)


def test_no_circle():
    # A face hands on its modules, so an arrow to a face is one to all of them; to its own face none may point.
    try:
        TopologicalSorter({module: {other for other, _ in arrows} for module, arrows in ARROWS.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_read_in_one_sitting(module: str):
    path = MODULES[module]
    if path.relative_to(PACKAGE.parent).as_posix() in DATA_TABLES:
        pytest.skip("a table of words")
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{module} has {lines} lines"


@pytest.mark.parametrize("module", [module for module in MODULES if is_face(module)])
def test_a_face_says_what_it_is_and_hands_on_names(module: str):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree)
    assert docstring, f"{module} does not say what it is"
    assert len(docstring.splitlines()) <= 10, f"{module} says it in more than ten lines"
    given = [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" not in MODULES  # a module of its own, imported for what it registers
    ]
    listed = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert sorted(set(given) - {"annotations"}) == (sorted(listed[0]) if listed else [])
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in tree.body), f"{module} holds code"


def test_the_check_sees_every_form_of_import():
    source = "import harness.cli\nfrom harness import verify\ndef f():\n    from harness.backends import EngineCache\n"
    assert [name for name, _ in imported(ast.parse(source), "harness.graph.plan")] == [
        "harness.cli",
        "harness.verify",
        "harness.backends",
    ]
    assert list(imported(ast.parse("if TYPE_CHECKING:\n    from harness import cli"), "harness.graph.plan"))
    assert list(imported(ast.parse("from ..errors import X"), "harness.graph.plan")) == [("harness.errors", 1)]
    assert list(imported(ast.parse("from . import ir"), "harness.graph.plan")) == [("harness.graph.ir", 1)]


def test_the_check_names_the_arrow():
    assert wrong_arrows("harness.graph.plan", [("harness.cli", 3)]) == [
        "harness.graph.plan:3 -> harness.cli: runs upwards, from graph to cli"
    ]
    assert wrong_arrows("harness.verify.run", [("harness.graph.plan", 7)]) == [
        "harness.verify.run:7 -> harness.graph.plan: reaches past the face of graph"
    ]
    assert wrong_arrows("harness.verify.run", [("harness.graph", 7), ("harness.metrics.image", 8)]) == []
    assert wrong_arrows("suites.net.study", [("harness.errors", 2), ("suites.net.sizes", 3)]) == []
    assert wrong_arrows("suites.net.study", [("harness.graph.plan", 1), ("benchmarks.subjects", 2)]) == [
        "suites.net.study:1 -> harness.graph.plan: reaches past the face of graph",
        "suites.net.study:2 -> benchmarks.subjects: runs upwards, from suites to benchmarks",
    ]

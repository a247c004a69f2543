"""A module imports only from its own row of the table in the design, or from rows above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

PACKAGE = Path(harness.__file__).parent
ROWS = tuple(
    row.split()
    for row in (
        "child errors settings subject values",
        """
        compare compare_cuda drift findings latency_estimate latency_sessions latency_spread
        latency_verdict metrics results search studies timings tolerance
        """,
        """
        export graph_hash onnx_file onnx_graph onnx_lanes onnx_operators precision reference replay
        subgraph taps typed_graph
        """,
        "backends engines environment gpu_state latency latency_gpu latency_sampling machine",
        """
        bench bench_group bench_kernels bench_sizes bisection gates hunt judging latency_processes layers
        observation plan_search prepare prepare_onnx regions reproducer reproducer_scripts
        reproducer_text screening verify
        """,
        "contest history history_formats history_recovery history_rows history_store report",
        """
        checks cli cli_bench cli_history cli_latency cli_options cli_report cli_study collector
        discovery __init__ latency_worker __main__ plugin
        """,
    )
)
ROW = {name: number for number, row in enumerate(ROWS) for name in row}
FILES = sorted(PACKAGE.rglob("*.py"))


def piece(path: Path) -> str:
    """Return a file's module or subpackage directly under harness/."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below this one, without the blocks under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield child
            yield from run_time_nodes(child)


def imported(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """Yield the modules and subpackages of harness that a file imports, anywhere but for annotations only."""
    for node in run_time_nodes(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                node.module or ""
                if not node.level
                else ".".join([*package[: 1 - node.level or None], node.module or ""])
            )
            names = [f"{base.rstrip('.')}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "harness" and len(parts) > 1 and (parts[1] in ROW or (PACKAGE / f"{parts[1]}.py").exists()):
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(PACKAGE).as_posix() for path in FILES])
def test_imports_only_from_rows_above(path: Path):
    name = piece(path)
    assert name in ROW, f"harness/{name} has no row: add it to the table in tests/test_architecture.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["harness", *path.relative_to(PACKAGE).parent.parts]
    wrong = sorted({other for other in imported(tree, package) if ROW.get(other, len(ROWS)) > ROW[name]})
    assert not wrong, f"{path.name} is in row {ROW[name]} and imports {', '.join(wrong)} from a row below"


def test_the_check_sees_every_form_of_import():
    source = "import harness.cli\nfrom harness import verify\ndef f():\n    from harness.engines import EngineCache\n"
    assert sorted(imported(ast.parse(source), ["harness"])) == ["cli", "engines", "verify"]
    assert not list(imported(ast.parse("if TYPE_CHECKING:\n    import harness.cli\n"), ["harness"]))
    assert list(imported(ast.parse("from ..errors import X"), ["harness", "backends"])) == ["errors"]

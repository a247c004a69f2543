"""A module that need not be built again: what is noticed, what keeps it from being taken, and what a run says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet

from harness import NotJudged, UsageError, reads
from harness.discovery import load_suite
from harness.repository import repository_root
from harness.verify.prepare import prepare
from harness.verify.remembered_graph import RememberedGraph
from harness.verify.subject_graph import SubjectGraph
from harness.verify.verify import verify

SUITE = """
import os
from pathlib import Path

import torch

import remembered_helper
from harness import Subject, Target

HERE = Path(__file__).parent
TABLE = (HERE / "table.txt").read_text()
SIZE = 4


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([float(it) for it in (HERE / "weights.bin").read_bytes()]))

    def forward(self, x):
        return x * self.weight[:SIZE].sum() * remembered_helper.FACTOR


def build():
    with (HERE / "counted").open("a") as counted:
        counted.write(".")
    (HERE / "data.txt").read_text()
    (HERE / "override.txt").exists()
    sorted(os.listdir(HERE / "folder"))
    os.environ.get("REMEMBERED_SCALE")
    try:
        import remembered_optional
    except ImportError:
        pass
    EXTRA
    return Net().eval()


SUBJECT = Subject(
    name="net", build=build, cases={"one": lambda: {"x": torch.arange(3.0)}}, targets=(Target("ort-cpu", "fp32"),),
    weights="file", weights_files=["weights.bin", "more"],
)
"""


class Project:
    """A suite in a folder of its own, loaded and prepared as by a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.new_processes = True
        self.write("test_net.py", SUITE.replace("EXTRA", "pass"))
        self.write("remembered_helper.py", "FACTOR = 2.0\n")
        for name in ("table.txt", "data.txt", "folder/one.txt", "more/one.bin"):
            self.write(name, "first")
        (folder / "weights.bin").write_bytes(bytes(range(8)))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def add_to_build(self, line: str) -> None:
        self.write("test_net.py", SUITE.replace("EXTRA", line))

    def graph(self, **changes: Any) -> SubjectGraph:
        for name in [name for name, it in sys.modules.items() if str(self.folder) in str(getattr(it, "__file__", ""))]:
            del sys.modules[name]
        reads.imports, reads.suites = reads.Seen(), {}
        reads.STARTED = time.time() if self.new_processes else reads.STARTED
        subject = load_suite(self.folder / "test_net.py")
        root = repository_root(self.folder / "test_net.py")
        settings = quiet(self.folder, root=root, progress=self.said.append, **changes)
        self.prepared = prepare(subject, settings)
        return self.prepared.graph

    def states(self, times: int, **changes: Any) -> list[str]:
        return [self.graph(**changes).module_state for _ in range(times)]

    @property
    def builds(self) -> int:
        return len((self.folder / "counted").read_text())

    @property
    def record(self) -> Path:
        (path,) = (self.folder / "engines" / "modules").glob("*.json")
        return path


warm: list[bool] = []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reads, "imports", reads.imports)
    monkeypatch.setattr(reads, "suites", reads.suites)
    monkeypatch.setattr(reads, "STARTED", reads.STARTED)
    made = Project(tmp_path)
    if not warm:  # what the first export of a process imports is there in the next one, as in the next process
        assert made.graph().program.exported is not None
        shutil.rmtree(tmp_path / "engines")
        (tmp_path / "counted").unlink()
        warm.append(True)
    yield made
    for name in [name for name in sys.modules if name.startswith("remembered_")]:
        del sys.modules[name]


def test_a_module_is_taken_once_two_runs_have_built_the_same(project: Project) -> None:
    assert project.states(4) == ["built", "built", "not rebuilt", "not rebuilt"]
    assert project.builds == 2


def test_two_builds_of_one_process_are_one(project: Project) -> None:
    project.new_processes = False
    assert project.states(4) == ["built"] * 4


def weights_of_the_same_size_and_time(project: Project) -> None:
    path = project.folder / "weights.bin"
    before = path.stat()
    path.write_bytes(bytes(range(1, 9)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


made = SUITE.replace("EXTRA", "pass")
CHANGES: dict[str, Callable[[Project], Any]] = {
    "weights of the same size and time": weights_of_the_same_size_and_time,
    "a file more in a folder of weights": lambda it: it.write("more/two.bin", "new"),
    "a file of a folder of weights": lambda it: it.write("more/one.bin", "other"),
    "a helper's constant": lambda it: it.write("remembered_helper.py", "FACTOR = 3.0\n"),
    "the suite's constant": lambda it: it.write(
        "test_net.py", SUITE.replace("EXTRA", "pass").replace("SIZE = 4", "SIZE = 5")
    ),
    "a file read by build()": lambda it: it.write("data.txt", "other"),
    "a file read by the import": lambda it: it.write("table.txt", "other"),
    "a file that was looked for": lambda it: it.write("override.txt", "now it is there"),
    "a name more in a folder that was listed": lambda it: it.write("folder/two.txt", "new"),
    "a module that could not be imported": lambda it: it.write("remembered_optional.py", ""),
    "a variable": lambda it: os.environ.update(REMEMBERED_SCALE="2"),
    "the default dtype": lambda it: torch.set_default_dtype(torch.float64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_built_again(change: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMEMBERED_SCALE", "1")
    assert project.states(3)[-1] == "not rebuilt"
    try:
        CHANGES[change](project)
        assert project.graph().module_state == "built"
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess; subprocess.run(['true'], check=True)",
        "import socket; socket.socket(socket.AF_UNIX).connect_ex(str(HERE / 'nobody'))",
        "open('/dev/urandom', 'rb').close()",
    ],
)
def test_what_no_file_tells_keeps_a_module_from_being_taken(line: str, project: Project) -> None:
    project.add_to_build(line)
    assert project.states(4) == ["built"] * 4
    assert any("the module is built each time: its suite" in line for line in project.said)


def test_a_module_drawn_without_a_seed_is_never_taken(project: Project) -> None:
    project.add_to_build("import numpy; net = Net().eval(); net.weight.data += numpy.random.default_rng().random(); "
                         "return net")  # fmt: skip
    assert project.states(5) == ["built"] * 5
    assert any("different modules" in line for line in project.said)


def test_a_build_function_that_holds_a_module_is_always_called(project: Project) -> None:
    made = "made = Net().eval()\nSUBJECT = Subject(\n"
    project.write("test_net.py", SUITE.replace("EXTRA", "pass").replace("SUBJECT = Subject(\n", made).replace(
        "build=build", "build=(lambda it: lambda: it)(made)"
    ))  # fmt: skip
    assert project.states(4) == ["built"] * 4


@pytest.mark.parametrize("changes", [{"rebuild": True}, {"engine_cache": False}])
def test_a_run_that_asks_for_it_builds(changes: dict[str, Any], project: Project) -> None:
    assert project.states(3)[-1] == "not rebuilt"
    assert project.graph(**changes).module_state == "built"


def test_ci_builds(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.states(3)[-1] == "not rebuilt"
    monkeypatch.setenv("CI", "true")
    assert project.states(3) == ["built"] * 3


def test_a_suite_that_declares_nothing_is_built(project: Project) -> None:
    project.write("test_net.py", SUITE.replace("EXTRA", "pass").replace('weights_files=["weights.bin", "more"],', ""))
    assert project.states(4) == ["built"] * 4


def test_after_a_day_it_is_built(project: Project) -> None:
    assert project.states(3)[-1] == "not rebuilt"
    record = json.loads(project.record.read_text())
    project.record.write_text(json.dumps({**record, "built": record["built"] - 25 * 3600}))
    assert project.graph().module_state == "built"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "parity-module/1"}'])
def test_a_damaged_record_is_none(text: str, project: Project) -> None:
    assert project.states(3)[-1] == "not rebuilt"
    project.record.write_text(text)
    assert project.graph().module_state == "built"


def test_a_module_that_comes_out_otherwise_is_not_judged_and_forgotten(project: Project) -> None:
    assert project.states(3)[-1] == "not rebuilt"
    record = json.loads(project.record.read_text())
    project.record.write_text(json.dumps({**record, "found": {**record["found"], "weights": "other"}}))
    graph = project.graph()
    assert isinstance(graph, RememberedGraph)
    with pytest.raises(NotJudged, match=r"build\(\) gives another module than in earlier runs"):
        _ = graph.weights
    assert project.states(1) == ["built"]


def test_the_values_of_a_remembered_module_need_its_weights_and_no_trace(project: Project) -> None:
    assert [project.graph().program.exported is None for _ in range(2)] == [False, True]
    graph = project.graph()
    assert isinstance(graph, RememberedGraph)
    assert graph.program.exported is None
    assert graph.run(project.prepared.inputs["one"], dtype="float32")[0]
    assert (graph.module_state, "built" in graph.__dict__, project.builds) == ("built, not traced", False, 3)


def test_a_remembered_module_with_other_weights_is_not_judged(project: Project) -> None:
    assert [project.graph().program.exported is None for _ in range(2)] == [False, True]
    graph = project.graph()
    assert isinstance(graph, RememberedGraph)
    (project.folder / "weights.bin").write_bytes(bytes(range(2, 10)))  # after it was found unchanged
    with pytest.raises(NotJudged, match=r"build\(\) gives another module than in earlier runs"):
        _ = graph.program


def test_a_verdict_says_that_its_module_was_not_rebuilt_and_is_the_same(project: Project) -> None:
    found = []
    for _ in range(3):
        graph = project.graph()
        subject = project.prepared.subject
        settings = quiet(project.folder, root=repository_root(project.folder / "test_net.py"))
        (result,) = verify(subject, targets=subject.targets, cases=["one"], settings=settings)
        assert result.provenance is not None
        found.append((result.verdict, result.provenance.module, result.outputs[0].stats))
        del graph
    assert [(verdict, module) for verdict, module, _ in found[::2]] == [("pass", "built"), ("pass", "not rebuilt")]
    assert found[0][2] == found[2][2]


@pytest.mark.parametrize("files", ["weights.bin", [3], 7])
def test_weights_files_that_are_no_paths_are_refused(files: Any, project: Project) -> None:
    text = SUITE.replace("EXTRA", "pass").replace('["weights.bin", "more"]', repr(files))
    project.write("test_net.py", text)
    with pytest.raises(UsageError, match="weights_files"):
        project.graph()


COMMAND = """
import sys
from harness import cli
status = cli.main(["verify", "test_net.py", "-b", "ort-cpu", "-p", "fp32", "--engines", "engines"])
assert status == 0
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_run_that_finds_all_in_its_caches_loads_no_library_that_only_building_needs(project: Project) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project.folder), *filter(None, sys.path)])}
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", COMMAND], cwd=project.folder, env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    assert "module not rebuilt" in done.stderr
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    unneeded = {"onnx", "onnx_ir", "onnxscript", "sympy", "matplotlib", "transformers", "jinja2", "PIL", "pytest"}
    assert loaded & unneeded == set()

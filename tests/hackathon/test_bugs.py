"""The bug reports of the README: what the issue beside a reproducer says, in the contest's form."""

from __future__ import annotations

from pathlib import Path

import recorded
import torch

from harness.bisect.reproducer.issue import issue
from harness.bisect.reproducer.text import Spec
from harness.hackathon.bugs import bugs
from harness.hackathon.context import Context
from harness.records import Entry, Records, load
from harness.report.words import Words

OUTPUT = "a table\nREPRODUCED: 1 of 1 outputs are wrong; y is off by 0.03"


def written(folder: Path, *, text: str | None = None) -> Records:
    """Write a bisection and its reproducer's issue; they lie below another folder than the one they name."""
    spec = Spec(
        title="GELU is wrong", backend="rtx", tf32=False, precision="fp16", graph=Path("graph.onnx"), inputs={},
        expected={"y": torch.ones(2, 3)}, limits={"y": 0.00123}, finding="it is wrong",
        environment=recorded.ENVIRONMENT, weights="random", inputs_kind="random", full_model="net",
    )  # fmt: skip
    (folder / "net-reproducer").mkdir()
    whole = issue(spec, OUTPUT) if text is None else text
    (folder / "net-reproducer" / "issue.md").write_text(whole, encoding="utf-8")
    return load([recorded.document(folder, bisect=recorded.bisection())])


def shown(records: Records) -> str:
    return "\n".join(bugs(Context(records=records, recorded=records, words=Words("zh"), template="2023")))


def test_environment_steps_and_figures_are_the_issues(tmp_path: Path):
    text = shown(written(tmp_path))
    for fact in (
        "TensorRT Version: rtx 1.6.1.120", "NVIDIA Driver Version: 580.1", "CUDNN Version: 9.15.1",
        "  cd reports/net-reproducer\n  pip install tensorrt-rtx-cu13-bindings==1.6.1.120", "\n  python reproduce.py\n",
        "0.00123", "REPRODUCED: 1 of 1 outputs are wrong; y is off by 0.03", "reports/net-reproducer/issue.md",
    ):  # fmt: skip
        assert fact in text
    assert "net.toml" not in text  # the plan that passes is no step to the fault


def test_without_an_issue_the_record_is_what_there_is(tmp_path: Path):
    for records in (
        recorded.load(tmp_path / "none", bisect=recorded.bisection()),
        written(tmp_path, text="# something else\n"),
    ):
        text = shown(records)
        assert "python reports/net-reproducer/reproduce.py" in text
        assert "backend rtx: 1.6.1.120" in text
        assert "container: none" in text
        assert "net.toml" not in text
        assert "issue.md" not in text


def test_a_reproducer_outside_the_records_folder_is_not_read(tmp_path: Path):
    found = written(tmp_path).bisections[0]
    (tmp_path / "inner").mkdir()
    moved = recorded.load(tmp_path / "inner", bisect=recorded.bisection(reproducer="../net-reproducer"))
    assert isinstance(found, Entry)
    assert "REPRODUCED" not in shown(moved)

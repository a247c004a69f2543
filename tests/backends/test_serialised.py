"""An engine run in a process of its own, one kernel at a time."""

from __future__ import annotations

import subprocess
import traceback
from pathlib import Path

import onnx
import pytest
import torch
from fake import quiet
from onnx import TensorProto, helper

from harness.backends import BACKENDS
from harness.backends import serialised as run_alone
from harness.backends.base import BuildRequest, ShapeRange
from harness.backends.serialised import run_serialised
from harness.errors import EngineFailed
from harness.process import how_it_ended


def engine(folder: Path) -> Path:
    """Build an engine of ONNX Runtime, y = relu(x) and z = x + x."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["x", "x"], ["z"])]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xyz"}
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"], values["z"]])
    model, file = folder / "model.onnx", folder / "engine"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), model)
    shape = ShapeRange(minimum=(1, 4), optimum=(2, 4), maximum=(8, 4))
    BACKENDS["ort-cpu"].build(BuildRequest(onnx=model, tf32=False, shapes={"x": shape}), file, quiet(folder))
    return file


def test_outputs_come_back_by_name(tmp_path: Path) -> None:
    x = torch.arange(-4.0, 4).reshape(4, 2).T  # not contiguous
    outputs = run_serialised("ort-cpu", engine(tmp_path), {"x": x})
    assert set(outputs) == {"y", "z"}
    assert torch.equal(outputs["y"], x.relu())
    assert torch.equal(outputs["z"], 2 * x)


def test_one_tensor_may_be_two_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_alone, "run_child", Child(1, "begun"))
    x = torch.ones(2, 4)
    with pytest.raises(EngineFailed, match="begun"):
        run_serialised("rtx", Path("engine"), {"x": x, "same": x, "row": x[0]})


def test_what_the_child_says_last_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"the ort-cpu engine ended with status 1, run on its own: .*'w'"):
        run_serialised("ort-cpu", engine(tmp_path), {"w": torch.ones(2, 4)})


def run_here(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Do the child's part in this process, in place of ``run_child``: a new one imports PyTorch for seconds."""
    try:
        run_alone.main(*command[4:])
    except Exception:
        return subprocess.CompletedProcess(command, 1, "", traceback.format_exc())
    return subprocess.CompletedProcess(command, 0, "", "")


def test_a_backend_that_is_not_known_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_alone, "run_child", run_here)
    with pytest.raises(EngineFailed, match="ended with status 1, run on its own: KeyError: 'no-such-backend'"):
        run_serialised("no-such-backend", tmp_path / "engine", {"x": torch.ones(2, 4)})


def test_a_file_that_is_no_engine_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_alone, "run_child", run_here)
    (tmp_path / "engine").write_bytes(b"no engine")
    with pytest.raises(EngineFailed, match="ended with status 1, run on its own: "):
        run_serialised("ort-cpu", tmp_path / "engine", {"x": torch.ones(2, 4)})


class Child:
    """What run_child is replaced by: keeps the command and its environment."""

    def __init__(self, code: int, said: str = "", *, error: Exception | None = None) -> None:
        self.code, self.said, self.error = code, said, error

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.command, self.options = command, options
        if self.error is not None:
            raise self.error
        return subprocess.CompletedProcess(command, self.code, "", self.said)


def test_kernels_are_launched_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(-11)
    monkeypatch.setattr(run_alone, "run_child", child)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineFailed, match=r"died with signal 11 \(SIGSEGV\), run on its own: it gave no reason"):
        run_serialised("rtx", Path("engine"), {"x": torch.ones(2)})
    environment = child.options["env"]
    assert isinstance(environment, dict)
    assert environment["CUDA_LAUNCH_BLOCKING"] == "1"
    assert child.command[3:6] == ["harness.backends.serialised", "rtx", str(tmp_path / "engine")]


def test_a_child_that_hangs_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_alone, "run_child", Child(0, error=subprocess.TimeoutExpired("python", 600)))
    with pytest.raises(EngineFailed, match="the rtx engine did not end within 600 s, run on its own"):
        run_serialised("rtx", tmp_path / "engine", {"x": torch.ones(2)})


def test_a_child_that_writes_nothing_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_alone, "run_child", Child(0, "a warning\n"))
    with pytest.raises(EngineFailed, match="ended with status 0, run on its own: a warning"):
        run_serialised("rtx", tmp_path / "engine", {"x": torch.ones(2)})


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-11, "died with signal 11 (SIGSEGV)"),
        (-9, "died with signal 9 (SIGKILL, as when memory runs out)"),
        (-50, "died with signal 50 (no name)"),
    ],
)
def test_how_a_process_ended(status: int, words: str) -> None:
    assert how_it_ended(status) == words


def test_the_childs_part(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({"x": torch.ones(2, 4)}, tmp_path / "in")
    run_alone.main("ort-cpu", str(engine(tmp_path)), str(tmp_path / "in"), str(tmp_path / "out"))
    assert torch.equal(load_file(tmp_path / "out")["z"], torch.full((2, 4), 2.0))

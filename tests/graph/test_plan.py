"""Plan files as they are written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from harness import UsageError
from harness.graph.plan import load_plan, write_plan


def test_a_plan_is_written_with_its_comment_and_read_again(tmp_path: Path):
    path = tmp_path / "new" / "plan.toml"
    write_plan(path, "bf16", ["blocks.1", "value:add"], comment=["Found by hand."])
    assert path.read_text().startswith("# Found by hand.\n")
    assert tomllib.loads(path.read_text()) == {"precision": "bf16", "keep_fp32": ["blocks.1", "value:add"]}
    assert load_plan(str(path)).keep_fp32 == ("blocks.1", "value:add")
    write_plan(path, "fp16", ['value:a"b\\c', "modüle"], comment=())
    assert load_plan(str(path)).keep_fp32 == ('value:a"b\\c', "modüle")
    write_plan(path, "fp16", [], comment=())
    assert load_plan(str(path)).keep_fp32 == ()
    assert [file.name for file in path.parent.iterdir()] == ["plan.toml"], "nothing is left behind"
    with pytest.raises(UsageError, match=r"cannot write .*below\.toml"):
        write_plan(path / "below.toml", "fp16", [], comment=())

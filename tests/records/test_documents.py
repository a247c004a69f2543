"""Two of one name are told apart by their sources, and are an error of a report."""

from __future__ import annotations

from dataclasses import replace

import pytest
from history_records import session
from recorded import result

from harness import Target, cli, records
from harness.report import badge
from harness.report.verdicts import problems


def save(folder, name, *results):
    data = records.document([one.to_json() for one in results], environment={}, command="parity verify", complete=True)
    records.save_json(data, folder / name)


SOURCES = [
    ({"source": "a/test_net.py"}, {"source": "b/test_net.py"}),
    ({"plan_source": "a/mixed.toml@11111111"}, {"plan_source": "b/mixed.toml@11111111"}),
    ({"plan_source": "mixed.toml@11111111"}, {"plan_source": "mixed.toml@22222222"}),
]


@pytest.mark.parametrize("changes", SOURCES)
def test_two_of_one_name_are_an_error_and_one_recorded_twice_is_none(changes, tmp_path, capsys):
    one, other = (replace(result(), **change) for change in changes)
    save(tmp_path, "one.json", one)
    save(tmp_path, "again.json", one)
    found = records.load([tmp_path])
    assert (len(found.twice), found.clashes, problems(found)) == (1, (), [])
    save(tmp_path, "other.json", other)
    found = records.load([tmp_path])
    (clash,) = found.clashes
    assert clash in problems(found)
    assert all(value in clash for change in changes for value in change.values())
    assert badge(found)["color"] == "yellow"
    assert cli.main(["report", str(tmp_path), "-o", str(tmp_path / "report")]) == 1
    assert clash in capsys.readouterr().err


@pytest.mark.parametrize("changes", SOURCES)
def test_two_of_one_name_are_two_series(changes):
    plain = session(1)
    names = {replace(plain, **change).benchmark for change in (*changes, {})}
    assert len(names) == 3
    assert plain.benchmark == replace(plain, source="", plan_source="").benchmark


def test_a_plan_is_known_by_its_path_below_the_repository_and_its_content(tmp_path):
    for name in ("a/mixed.toml", "b/mixed.toml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text('precision = "fp16"\n')
    names = [Target("rtx", str(tmp_path / folder / "mixed.toml")).plan_source(tmp_path) for folder in ("a", "b")]
    assert [name.partition("@")[0] for name in names] == ["a/mixed.toml", "b/mixed.toml"]
    (tmp_path / "a" / "mixed.toml").write_text('precision = "bf16"\n')
    changed = Target("rtx", str(tmp_path / "a" / "mixed.toml")).plan_source(tmp_path)
    assert changed != names[0]
    assert Target("rtx", "fp16").plan_source(tmp_path) == ""

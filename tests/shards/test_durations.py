"""How long tests take is read from a record: run time and build time, also of an engine that was in the cache."""

from __future__ import annotations

import hashlib
import json

import pytest
from recorded import result

from harness.errors import UsageError
from harness.records import EngineInfo, document, name_of
from harness.shards import read_durations

NAME = ("net", "one", "rtx", "fp16")


def record(path, *, cached=False, seconds=(2.0, 3.0), **changes):
    engine = EngineInfo(sha256="s", path="p", cached=cached, build_s=100.0, bytes=1)
    found = result(engine=engine).to_json()
    asked = {key: found[key] for key in ("subject", "case", "backend", "precision")}
    expected = [{**asked, "arrived": True, "seconds": took} for took in seconds]
    data = {**document([found], environment={}, command="pytest"), "expected": expected, **changes}
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(("cached", "seconds"), [(False, 5.0), (True, 105.0)])
def test_the_build_counts_whether_or_not_it_was_cached(cached, seconds, tmp_path):
    path = record(tmp_path / "last.json", cached=cached)
    found = read_durations(path)
    assert found.seconds == {NAME: seconds}
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_build_serves_all_cases(tmp_path):
    path = record(tmp_path / "last.json", cached=True)
    data = json.loads(path.read_text())
    data["expected"].append({**data["expected"][0], "case": "two"})
    data["results"].append({**data["results"][0], "case": "two"})
    path.write_text(json.dumps(data))
    assert sum(read_durations(path).seconds.values()) == 107.0
    assert {name_of(row) for row in data["results"]} == set(read_durations(path).seconds)


def test_before_the_first_run_there_are_none(tmp_path):
    for found in (read_durations(None), read_durations(tmp_path / "last.json")):
        assert (found.seconds, found.sha256) == ({}, "")
    empty = read_durations(record(tmp_path / "last.json", seconds=(None,)))
    assert (empty.seconds, len(empty.sha256)) == ({}, 64)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"results": 3}', '{"results": [], "expected": [{"seconds": 1}]}', "\x00"]
)
def test_what_is_no_record_is_refused(text, tmp_path):
    path = tmp_path / "last.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"last\.json"):
        read_durations(path)


@pytest.mark.parametrize("took", [-1.0, float("nan"), float("inf"), "long"])
def test_a_duration_is_a_time(took, tmp_path):
    with pytest.raises(UsageError, match=r"last\.json"):
        read_durations(record(tmp_path / "last.json", seconds=(took,)))


def test_a_folder_is_no_record(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_durations(tmp_path)

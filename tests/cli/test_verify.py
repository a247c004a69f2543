"""``parity verify --layers``: what it accepts, says, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import commands as cli
from harness.watching import Watched


def parity(*arguments: str) -> int:
    return cli.main([*arguments, "--device", "cpu"])


def verify(name: str, *options: str, backend: str = "planted") -> int:
    return parity("verify", name, "-b", backend, "-p", "fp16", "--json", "out/r.json", *options)


def layers_of(path: str = "out/r.json") -> Any:
    [result] = json.loads(Path(path).read_text())["results"]
    return result["layers"]


def test_layers_are_shown_recorded_and_drawn(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers") == 1
    shown = capsys.readouterr().out
    assert "parity bisect wrong_kernel -b planted -p fp16" in shown
    assert "SUSPECT" in shown
    report = layers_of()
    assert report["mode"] == "unfused"
    assert [value["name"] for value in report["values"] if value["mark"] == "suspect"] == ["linear_1"]
    assert report["modules"][0]["module"] == "blocks.1.linear"
    for kind in ("png", "svg"):
        picture = folder / "out" / f"wrong_kernel-planted-fp16-one-layers.{kind}"
        assert picture.stat().st_size > 1000
        assert str(picture.relative_to(folder)) in shown


def test_pictures_go_to_reports_without_a_json(plant: Any, folder: Path):
    plant("wrong_kernel")
    assert parity("verify", "wrong_kernel", "--layers") == 1
    assert sorted(path.suffix for path in (folder / "reports").iterdir()) == [".png", ".svg"]


def test_without_layers_nobody_looks(plant: Any, folder: Path):
    plant("wrong_kernel")
    assert verify("wrong_kernel") == 1
    assert layers_of() is None
    assert [path.name for path in (folder / "out").iterdir()] == ["r.json"]


def test_a_limit_stands_in_the_place_of_the_derived_one(plant: Any):
    plant("swamping")
    for limit, status in (("0.9", 0), ("0.02", 1)):
        assert verify("swamping", "--limit", limit) == status
        [result] = json.loads(Path("out/r.json").read_text())["results"]
        [output] = result["outputs"]
        assert output["allowed"] == {"relative_l2": float(limit)}
        assert output["reason"].endswith("; tolerance: --limit")
        assert output["floor"]["relative_l2"] == pytest.approx(output["relative_l2"], rel=0.5)
    assert result["next_step"].endswith(" --limit 0.02")


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_error_is_refused(limit: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        verify("swamping", "--limit", limit)
    assert end.value.code == 2
    assert "is not a relative error" in capsys.readouterr().err


def test_every_value_as_an_output(plant: Any):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers", "outputs") == 1
    report = layers_of()
    assert report["mode"] == "outputs"
    statuses = {value["name"]: value["status"] for value in report["values"]}
    assert len(statuses) >= 16
    assert set(statuses.values()) == {"compared"}


def test_some_values_as_outputs(plant: Any):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers", "outputs:blocks.1.linear") == 1
    statuses = {value["name"]: value["status"] for value in layers_of()["values"]}
    assert [name for name, status in statuses.items() if status == "compared"] == ["linear_1"]
    assert "not_delivered" in statuses.values()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("outputs:no.such.module", "no.such.module"),
        ("outputs:value:nothing", "nothing"),
        ("nonsense", "unknown --layers mode 'nonsense'; give unfused, outputs, or outputs:PATTERN"),
        ("unfused:linear", "unknown --layers mode 'unfused:linear'"),
    ],
)
def test_an_unknown_mode_exits_2(mode: str, words: str, plant: Any, capsys: pytest.CaptureFixture[str]):
    engine = plant("wrong_kernel")
    assert parity("verify", "wrong_kernel", "--layers", mode) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("parity: ")
    assert words in shown
    assert engine.builds == 0 or mode.startswith("outputs:"), "a pattern needs the graph, a mode needs nothing"


def test_an_unknown_mode_is_one_on_a_backend_that_cannot_be_looked_into_too(plant: Any):
    plant("masked_nan").tap_modes = ()
    assert parity("verify", "masked_nan", "--layers", "nonsense") == 2


@pytest.mark.parametrize("backend", ["ort-cpu", "torch"])
def test_a_mode_the_backend_has_not_is_a_note(backend: str, plant: Any, capsys: pytest.CaptureFixture[str]):
    plant("masked_nan")
    assert verify("masked_nan", "--layers", "unfused", backend=backend) == 0, "the outputs decide"
    assert layers_of() is None
    [result] = json.loads(Path("out/r.json").read_text())["results"]
    assert any(f"{backend} backend has no unfused taps" in note for note in result["notes"])
    assert "has no unfused taps" in capsys.readouterr().out, "who asked is told on the terminal"


@pytest.mark.parametrize("backend", ["ort-cpu", "torch"])
def test_layers_of_a_backend_with_every_value(backend: str, plant: Any):
    plant("wrong_kernel")
    assert verify("wrong_kernel", "--layers", backend=backend) == 0
    report = layers_of()
    assert len([value for value in report["values"] if value["status"] == "compared"]) >= 16
    assert report["trusted"] or any("cannot be trusted" in note for note in report["notes"])


def test_a_backend_without_taps_is_a_note(plant: Any):
    plant("masked_nan").tap_modes = ()
    assert verify("masked_nan", "--layers") == 0
    [result] = json.loads(Path("out/r.json").read_text())["results"]
    assert result["layers"] is None
    assert any(note.startswith("no layers: the values of a planted engine") for note in result["notes"])


def test_a_plot_that_cannot_be_written_costs_only_the_picture(
    plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]
):
    plant("wrong_kernel")
    (folder / "out" / "wrong_kernel-planted-fp16-one-layers.png").mkdir(parents=True)
    assert verify("wrong_kernel", "--layers") == 1
    assert "no chart: " in capsys.readouterr().out
    assert layers_of() is not None


def test_a_run_is_recorded_unless_it_is_not_to_be(plant: Any, folder: Path, capsys: pytest.CaptureFixture[str]):
    plant("swamping")
    assert verify("swamping", "--limit", "0.9", "--no-record") == 0
    assert not (folder / ".parity").exists()
    assert verify("swamping", "--limit", "0.9") == 0
    (trend,) = json.loads(Path("out/r.json").read_text())["accuracy_history"]
    assert (trend["subject"], len(trend["points"]), trend["creeps"]) == ("swamping", 1, False)
    assert verify("swamping", "--limit", "0.9", "--no-record", "--fail-on-creep") == 2
    (folder / "file").write_text("")
    assert verify("swamping", "--limit", "0.9", "--history", "file/h.sqlite") == 0
    assert "accuracy was not recorded: the history file/h.sqlite cannot be written" in capsys.readouterr().err
    assert verify("swamping", "--limit", "0.9", "--history", "file/h.sqlite", "--fail-on-creep") == 3


def test_a_rise_fails_where_it_is_to(plant: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    plant("swamping")
    rise = Watched(creeps=("swamping/one: ratio to the floor of y rose from 1.1 to 2.9",))
    monkeypatch.setattr("harness.cli.verify.watch", lambda *_, **__: rise)
    for options, status in (([], 0), (["--fail-on-creep"], 1)):
        assert verify("swamping", "--limit", "0.9", *options) == status
        assert "warning: swamping/one: ratio to the floor of y rose from 1.1 to 2.9" in capsys.readouterr().err
    assert json.loads(Path("out/r.json").read_text())["complete"] is False

"""``parity report``: options, exit status, and what is written where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import recorded

from harness.cli import commands as cli


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    recorded.document(tmp_path / "reports", results=[recorded.result()], bench=[recorded.measured()])
    return tmp_path


def test_it_reads_and_writes_the_folder_of_reports(here: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report"]) == 0
    assert capsys.readouterr().out == "wrote reports/README.md\n"
    assert "## Overview" in (here / "reports" / "README.md").read_text(encoding="utf-8")


def test_language_and_template_stay_those_of_the_readme(here: Path):
    assert cli.main(["report", "reports/all.json", "--lang", "zh", "--template", "2022", "-o", "out"]) == 0
    first = (here / "out" / "README.md").read_text(encoding="utf-8")
    assert "## 精度与加速效果" in first
    assert cli.main(["report", "-o", "out"]) == 0
    assert (here / "out" / "README.md").read_text(encoding="utf-8") == first


def test_a_readme_of_ones_own_is_refused(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "README.md").write_text("# Mine\n")
    assert cli.main(["report", "-o", "."]) == 2
    assert "README.md was left as it is" in capsys.readouterr().err
    assert (here / "README.md").read_text() == "# Mine\n"


def test_the_check_prints_a_line_per_finding_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "--check"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "reports/README.md" in line
    assert line.endswith("`parity report -o reports`")
    cli.main(["report"])
    text = (here / "reports" / "README.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["report", "--check"]) == 1
    assert "'topic'" in capsys.readouterr().out
    recorded.document(here / "reports", results=[recorded.result(subject="other")], bench=[recorded.measured()])
    assert cli.main(["report", "--check"]) == 1
    assert "is not what the records give now" in capsys.readouterr().out
    assert (here / "reports" / "README.md").read_text(encoding="utf-8") == text


def test_the_check_works_without_records(here: Path, capsys: pytest.CaptureFixture[str]):
    cli.main(["report", "-o", "out"])
    (here / "reports" / "all.json").unlink()
    capsys.readouterr()
    assert cli.main(["report", "--check", "-o", "out"]) == 1
    captured = capsys.readouterr()
    assert "there are none to compare with" in captured.err
    assert "is not what the records give" not in captured.out


@pytest.mark.parametrize("option", ["--html", "--open", "--badge=b.json", "--summary", "--lang=zh", "--template=2022"])
def test_the_check_refuses_what_it_would_not_do(option: str, here: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "--check", option]) == 2
    assert f"--check writes nothing, so {option.partition('=')[0]} would do nothing" in capsys.readouterr().err


def test_files_that_are_not_used_are_named(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "reports" / "x.json").write_text("{")
    assert cli.main(["report"]) == 0
    assert "parity: x.json is not used: it is not JSON" in capsys.readouterr().err
    assert "parity:missing broken" in (here / "reports" / "README.md").read_text(encoding="utf-8")


def test_summary_and_badge(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert cli.main(["report", "--summary", "--badge", "badge.json"]) == 0
    assert "1 passed · 1 without a baseline" in capsys.readouterr().out
    assert json.loads((here / "badge.json").read_text())["message"] == "1 passed, 1 not judged"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "s.md"))
    assert cli.main(["report", "--summary"]) == 0
    assert "1 passed · 1 without a baseline" in (here / "s.md").read_text()


def test_the_page_has_the_readmes_language(here: Path):
    assert cli.main(["report", "--html", "--lang", "zh"]) == 0
    assert 'lang="zh' in (here / "reports" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("has_browser", [True, False])
def test_the_page_is_shown_in_a_browser_or_where_it_is(
    has_browser: bool, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: shown.append(address) or has_browser)
    assert cli.main(["report", "--open"]) == 0
    page = (here / "reports" / "report.html").resolve()
    assert shown == [page.as_uri()]
    assert page.exists()
    assert (f"open {page} in one" in capsys.readouterr().err) != has_browser


def test_the_wenet_table_is_in_the_readme(here: Path):
    outputs = tuple(recorded.output(name) for name in ("encoder_out", "encoder_out_lens"))
    results = [recorded.result(subject="enc", case="1-64", outputs=outputs)]
    recorded.document(here / "reports", results=results, bench=[recorded.measured(subject="enc", case="1-64")])
    assert cli.main(["report", "--wenet", "encoder=enc", "--wenet", "decoder=dec"]) == 0
    text = (here / "reports" / "README.md").read_text(encoding="utf-8")
    assert "   1,  64,   2.000,3.200e+04,8.000e-03,1.000e-03,8.000e-03,1.000e-03, Good" in text
    assert "no verdict on dec" in text
    assert cli.main(["report", "--wenet", "encoder"]) == 2


def test_nothing_recorded_is_a_usage_error(here: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "gone"]) == 2
    assert "there is no gone" in capsys.readouterr().err

"""The evaluation table of the 2022 preliminary, from verdicts and latencies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded
import torch

from harness.compare.tensors import compare
from harness.errors import UsageError
from harness.hackathon import readme as hackathon
from harness.hackathon import wenet
from harness.hackathon.check import check_readme
from harness.records import reader as records
from harness.records.accuracy import Result
from harness.records.stats import ErrorStats


def stats(a: float, r: float, **changes: Any) -> ErrorStats:
    figures = {"relative": {"max": 1.0, "mean": r, "median": r, "p99": 10 * r, "undefined": 0}, **changes}
    return recorded.stats(absolute={"max": a, "mean": a / 2, "median": a / 4, "p99": a}, **figures)


def encoder(case: str, out: ErrorStats, lens: ErrorStats, **changes: Any) -> Result:
    outputs = (recorded.output("encoder_out_lens", stats=lens), recorded.output("encoder_out", stats=out))
    return recorded.result(subject="enc", case=case, outputs=outputs, **changes)


def tables(tmp_path: Path, results: list[Result], **changes: Any) -> tuple[list[wenet.Table], list[str]]:
    bench = [recorded.measured(2.0 + i, subject="enc", case=one.case, **changes) for i, one in enumerate(results)]
    found = records.load([recorded.document(tmp_path, results=results, bench=bench)])
    return wenet.tables(found, {"encoder": "enc"})


def test_rows_have_the_contests_columns_and_formats(tmp_path: Path):
    good, exact = stats(3.4e-2, 1.9e-3), stats(0.0, 0.0)
    results = [encoder("encoder-16-64", good, exact), encoder("encoder-1-64", stats(3.6e-2, 1e-3), exact)]
    found, lacking = tables(tmp_path, results)
    assert lacking == []
    assert (found[0].role, found[0].target, found[0].device) == ("encoder", "rtx-fp16", "NVIDIA H200")
    assert found[0].rows == (
        "   1,  64,   3.000,2.133e+04,3.600e-02,1.000e-03,0.000e+00,0.000e+00, Bad",
        "  16,  64,   2.000,5.120e+05,3.400e-02,1.900e-03,0.000e+00,0.000e+00, Good",
    )


@pytest.mark.parametrize(
    ("role", "first", "second", "check"),
    [
        ("encoder", (3.49e-2, 1.99e-3), (9.0, 9.9e-2), "Good"),
        ("encoder", (3.5e-2, 0.0), (0.0, 0.0), "Bad"),
        ("encoder", (0.0, 2e-3), (0.0, 0.0), "Bad"),
        ("encoder", (0.0, 0.0), (0.0, 1e-1), "Bad"),
        ("decoder", (3.9e-1, 1.9e-4), (9.0, 0.0), "Good"),
        ("decoder", (4e-1, 0.0), (0.0, 0.0), "Bad"),
        ("decoder", (0.0, 2e-4), (0.0, 0.0), "Bad"),
    ],
)
def test_the_limits_are_the_contests(role: str, first: tuple[float, float], second: tuple[float, float], check: str):
    known = wenet.ROLES[role]
    pairs = zip(known.outputs, (first, second), strict=True)
    outputs = [recorded.output(name, stats=stats(a, r)).to_json() for name, (a, r) in pairs]
    assert wenet.row(known, 1, 64, 1.0, outputs).split(", ")[-1] == check


@pytest.mark.parametrize(
    "changes",
    [
        {"mismatched_nonfinite": 1},
        {"relative": {"max": 1.0, "mean": 0.0, "median": 0.0, "p99": 1.0, "undefined": 1}},
        {"relative": {"max": 0.0, "mean": 0.0, "median": 0.0, "p99": 0.0, "undefined": 600}},
        {"relative": {"max": None, "mean": None, "median": None, "p99": None, "undefined": 0}},
    ],
)
def test_what_cannot_be_known_is_never_good(changes: dict[str, Any]):
    outputs = [
        recorded.output("encoder_out", stats=stats(0.0, 0.0, **changes)).to_json(),
        recorded.output("encoder_out_lens", stats=stats(0.0, 0.0)).to_json(),
    ]
    assert wenet.row(wenet.ROLES["encoder"], 1, 64, 1.0, outputs).endswith(", Bad")


@pytest.mark.parametrize("zeros", [0, 3, 400])
def test_the_printed_r_is_never_below_the_contests_own(zeros: int):
    generator = torch.Generator().manual_seed(zeros)
    expected = torch.randn(1001, generator=generator)
    expected[:zeros] = 0
    actual = expected + 1e-3 * torch.randn(1001, generator=generator)
    a, b = actual.numpy(), expected.numpy()
    contest = float(np.median(np.abs(a - b) / (np.abs(b) + 5e-5)))
    output = recorded.output("encoder_out", stats=compare(actual, expected)).to_json()
    exact = recorded.output("encoder_out_lens", stats=stats(0.0, 0.0)).to_json()
    row = wenet.row(wenet.ROLES["encoder"], 1, 64, 1.0, [output, exact])
    assert float(row.split(",")[5]) >= float(f"{contest:9.3e}")
    assert float(row.split(",")[4]) == pytest.approx(float(np.max(np.abs(a - b))), rel=1e-3)


def test_what_is_missing_is_said(tmp_path: Path):
    exact = stats(0.0, 0.0)
    short = recorded.result(subject="enc", case="1-64")
    refused = recorded.result("not_judged", subject="enc", case="4-64", reason="no GPU", outputs=())
    found, lacking = tables(tmp_path, [encoder("speech", exact, exact), short, refused])
    assert found == []
    assert "enc/speech [rtx-fp16]: the case's name must end with batch size and sequence length" in lacking[0]
    assert lacking[1].endswith("it has no output encoder_out and no output encoder_out_lens; it has y")
    assert lacking[2] == "enc/4-64 [rtx-fp16]: no GPU"


def test_a_latency_of_another_device_or_size_or_an_invalid_one_makes_no_row(tmp_path: Path):
    exact = stats(0.0, 0.0)
    runs = tuple(replace(run, invalid=("throttled",)) for run in recorded.session().runs)
    for changes in ({"device": "NVIDIA A10"}, {"sizes": {"batch": 2}}, {"runs": runs}, {"precision": "fp32"}):
        found, lacking = tables(tmp_path, [encoder("1-64", exact, exact)], **changes)
        assert found == []
        assert lacking == [
            "enc/1-64 [rtx-fp16]: no latency on NVIDIA H200; run parity bench enc --case 1-64 --json FILE"
        ]


def test_a_subject_without_verdicts_is_said(tmp_path: Path):
    found = records.load([recorded.document(tmp_path)])
    assert wenet.tables(found, {"decoder": "dec"}) == (
        [], ["no verdict on dec was recorded; run parity verify dec --json FILE"]
    )  # fmt: skip


def test_roles_are_checked():
    assert wenet.wenet_roles(["encoder=a", "decoder=b=c"]) == {"encoder": "a", "decoder": "b=c"}
    with pytest.raises(UsageError, match="is not ROLE=SUBJECT"):
        wenet.wenet_roles(["encoder"])
    with pytest.raises(UsageError, match="unknown WeNet role 'encoda'; did you mean encoder"):
        wenet.wenet_roles(["encoda=a"])


def test_a_table_that_lacks_rows_is_not_finished(tmp_path: Path):
    records_ = records.load([recorded.document(tmp_path, results=[recorded.result()])])
    path = hackathon.save_readme(records_, tmp_path / "out", wenet={"encoder": "net"})
    assert "<!-- parity:missing wenet -->" in path.read_text(encoding="utf-8")
    found = check_readme(tmp_path / "out", records=records_, wenet={"encoder": "net"})
    assert any("WeNet table lacks" in sentence for sentence in found)

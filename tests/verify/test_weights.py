"""Weights that are no numbers: named, of a module and of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fake import quiet
from onnx import numpy_helper, parser, save

from harness import NotJudged, targets
from harness.discovery import find_subject
from harness.verify.verify import verify
from harness.verify.weights import infinite_words, require_no_nan

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a": torch.tensor([1.0, NAN])}, "net: weight 'a' holds 1 NaN; repair"),
        ({"a": torch.ones(2), "b": torch.tensor([NAN, NAN]).bfloat16()}, "weight 'b' holds 2 NaN"),
        ({"a": torch.tensor([NAN]), "b": torch.ones(1), "c": torch.tensor([NAN])}, "'a' holds 1 NaN, as 1 more do"),
    ],
)
def test_a_weight_of_nan_is_named_with_its_count(weights, words):
    with pytest.raises(NotJudged, match=words):
        require_no_nan("net", weights.items())


def test_what_holds_no_nan_of_its_own_is_let_through():
    weights = {
        "infinite": torch.tensor([INF]), "filling": torch.tensor(NAN), "codes": torch.tensor([1]), "text": "nan",
        "small": torch.ones(2).to(torch.float8_e4m3fn),
    }  # fmt: skip
    require_no_nan("net", weights.items())
    assert infinite_words(weights.items()) == "weight 'infinite' holds 1 Inf"
    assert infinite_words({"a": torch.ones(2)}.items()) == ""


@pytest.mark.parametrize(
    ("row", "verdict", "words"),
    [
        ([1, NAN, 3], "not_judged", "'w' holds 1 NaN"),
        ([INF, -INF, INF], "not_judged", "'w' holds 3 Inf"),
        ([1, 2, 3], "pass", ""),
    ],
)
def test_an_initializer_of_a_file_is_named(tmp_path: Path, row: list[float], verdict: str, words: str):
    head = '<ir_version: 9, opset_import: ["" : 18]>'
    model = parser.parse_model(f"{head} g (float[2, 3] x) => (float[2] y) {{ y = MatMul(x, w) }}")
    model.graph.initializer.append(numpy_helper.from_array(np.array(row, dtype=np.float32), "w"))
    save(model, tmp_path / "m.onnx")
    subject = find_subject(str(tmp_path / "m.onnx"))
    [result] = verify(
        subject, targets=targets("ort-cpu", precisions=("fp32",)), cases=["default"], settings=quiet(tmp_path)
    )
    assert result.verdict == verdict
    assert words in result.reason

"""The suites of WeNet: the contest's shapes and files, and what its table does not judge."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from harness.metrics import Metric
from suites.wenet import cases, test_decoder, test_encoder
from suites.wenet.models import SIZE


def test_shapes_are_those_of_the_contest():
    encoder, decoder = test_encoder.build(), test_decoder.build()
    with torch.no_grad():
        heard = encoder(**cases.speech(2, 64))
        scored = decoder(**cases.hypotheses(2, 15))
    assert heard["encoder_out"].shape == (2, 15, SIZE.width)
    assert heard["encoder_out_lens"].tolist() == [15, 11]
    assert scored["decoder_out"].shape == (2, 10, 63, SIZE.characters)
    assert scored["best_index"].shape == (2,)


def test_what_lies_behind_the_end_of_speech_changes_nothing_within():
    encoder, given = test_encoder.build(), cases.speech(2, 64)
    other = {**given, "speech": given["speech"].clone()}
    other["speech"][1, 52:] = 100.0
    with torch.no_grad():
        one, two = (encoder(**inputs)["encoder_out"] for inputs in (given, other))
    assert torch.allclose(one[1, :11], two[1, :11], atol=1e-5)


def test_the_best_hypothesis_is_judged_by_agreement():
    expected = {"best_index": torch.tensor([0, 1, 2, 3])}
    assert test_decoder.agreement({"best_index": torch.tensor([0, 1, 2, 4])}, expected) == 0.75


def test_a_file_of_the_contest_has_the_masks_of_lengths():
    mask = torch.tensor([[[True, True, False]], [[True, True, True]]])
    assert cases.from_file({"encoder_out_lens": mask})["encoder_out_lens"].tolist() == [2, 3]
    lengths = torch.tensor([2, 3], dtype=torch.int32)
    assert torch.equal(cases.from_file({"encoder_out_lens": lengths})["encoder_out_lens"], lengths)


@dataclass
class Recorded:
    """What ``check_contest`` asks of a case."""

    given: dict[str, torch.Tensor]
    metrics: list[Metric] = field(default_factory=list)

    def check_metric(self, metric: Metric) -> None:
        self.metrics.append(metric)


def test_what_the_contest_asks_of_an_output_is_held_against_its_file():
    out = torch.linspace(1, 2, 8).reshape(1, 2, 4)
    one = Recorded({"encoder_out": out})
    cases.check_contest(one, "encoder_out", absolute=1, relative=1, epsilon=0)
    assert [metric.function({"encoder_out": out * 1.5}, {}) for metric in one.metrics] == pytest.approx([1.0, 0.5])
    with pytest.raises(pytest.skip.Exception):
        cases.check_contest(Recorded({}), "encoder_out", absolute=1, relative=1, epsilon=0)


def test_the_length_of_speech_is_dynamic_by_quarters():
    assert test_encoder.SUBJECT.range_cases == {
        "smallest": {"batch": 1, "quarters": 4}, "largest": {"batch": 4, "quarters": 32},
    }  # fmt: skip
    given = cases.speech(2, 64)
    assert test_encoder.SUBJECT.valid["encoder_out"](given).sum((1, 2)).tolist() == [15, 11]

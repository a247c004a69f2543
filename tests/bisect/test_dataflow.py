"""Which values of a graph are computed from which, and how near they lie."""

from __future__ import annotations

import pytest
from planted import ready

from harness.bisect.dataflow import Dataflow


@pytest.fixture(scope="module")
def flow() -> Dataflow:
    return Dataflow(ready("wrong_kernel").program.model)


def test_upstream_stops_at_what_is_known(flow: Dataflow):
    assert flow.upstream("add_1", {"linear_1", "add"}) == ["gelu_1", "add_1"]
    assert flow.upstream("linear_1", set(flow.order) - {"linear_1"}) == ["linear_1"]
    assert flow.upstream("x", set()) == [], "an input is not computed"


def test_what_is_connected_comes_by_its_distance(flow: Dataflow):
    ranked = flow.nearest("gelu_1")
    assert ranked[:3] == ["gelu_1", "linear_1", "add_1"]
    assert set(ranked) == set(flow.order)
    place = ranked.index
    assert place("layer_norm_1") < place("gelu_2") > place("layer_norm_2")


def test_what_is_in_the_same_kernel_comes_before_what_is_nearer(flow: Dataflow):
    assert flow.nearest("gelu_1", first={"add", "layer_norm_1"})[:4] == ["gelu_1", "layer_norm_1", "add", "linear_1"]


def test_nothing_is_reached_through_what_is_left_out(flow: Dataflow):
    assert flow.nearest("gelu_1", without={"linear_1", "add_1"}) == ["gelu_1"]


def test_pieces_are_connected_and_the_largest_comes_first(flow: Dataflow):
    assert flow.pieces(["gelu_3", "linear", "layer_norm", "linear_3"]) == [
        ["layer_norm", "linear"],
        ["linear_3", "gelu_3"],
    ]
    assert "linear" in flow
    assert "x" not in flow

"""Names in sentences are short, and never ambiguous."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.report.names import short_name


def test_a_long_name_is_its_end_where_that_tells_it_from_all_others():
    name = "StatefulPartitionedCall/model/dense/MatMul;StatefulPartitionedCall/model/dense/BiasAdd/y"
    assert short_name(name, [name, "y", "other/y"]) == "...dense/BiasAdd/y"
    assert short_name(name, [name, "b/dense/BiasAdd/y"]) == "...model/dense/BiasAdd/y"
    assert short_name(name, [name, f"x/{name}"]) == name
    assert short_name("layers.1.gelu", ["gelu"]) == "layers.1.gelu"
    endless = "a/" + "b" * 80
    assert short_name(endless, [endless]) == endless


@given(st.lists(st.lists(st.sampled_from(["model", "dense", "y", "a_1"]), min_size=1, max_size=16), max_size=12))
def test_no_two_names_are_shortened_alike(paths):
    names = {"/".join(path) for path in paths}
    assert len({short_name(name, names) for name in names}) == len(names)

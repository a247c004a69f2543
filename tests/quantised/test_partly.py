"""Any units in floats: the same numbers as the rewritten graph gives, and only what changed is computed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.quantised import Net, files, unsigned
from harness.graph import in_floats, quantised_units
from harness.quantised import PartlyQuantised
from harness.quantised.partly import _Partly


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["conv_mo_int8_fp32", "conv_sym21", "conv_ort_fp8"])
def test_any_units_in_floats_are_those_of_the_rewritten_graph(name: str):
    net = files(name)
    inputs, units = net.inputs(1), quantised_units(net.file)
    runs, names = PartlyQuantised(net.case(inputs), units), list(units)
    runs.outputs([], keep=True)
    runs.outputs(names, keep=True)
    for left in ([], names, *([one] for one in names), *([it for it in names if it != one] for one in names)):
        rewritten = Net.of(in_floats(net.file, left), name)
        assert same(runs.outputs(left), rewritten.case(inputs).run()), left


def test_what_a_change_does_not_reach_is_not_computed_again(monkeypatch):
    net = files("conv_sym21")
    units, computed = quantised_units(net.file), []
    run_node = _Partly.run_node

    def counted(self, n):
        computed.append(n.name)
        return run_node(self, n)

    monkeypatch.setattr(_Partly, "run_node", counted)
    runs = PartlyQuantised(net.case(net.inputs(1)), units)
    runs.outputs([], keep=True)
    whole, last = len(computed), list(units)[-1]
    computed.clear()
    runs.outputs([last])
    assert 0 < len([name for name in computed if name not in net.graph.weights]) < whole / 4


def test_a_weight_that_is_there_as_codes_alone_is_taken_from_others():
    net = unsigned().altered(lambda model: setattr(model.graph.node[3], "name", "product"))
    inputs = net.inputs(1)
    ((name, unit),) = quantised_units(net.file).items()
    assert unit.codes_only
    codes = next(codes for codes, before in zip(unit.codes, unit.before, strict=True) if not before)
    weight = torch.linspace(-1, 1, 24 * 12).reshape(24, 12)
    found = PartlyQuantised(net.case(inputs), {name: unit}, {codes: weight}).outputs([name])
    rewritten = Net.of(in_floats(net.file, [name], weights={codes: weight.numpy()}), "unsigned")
    assert same(found, rewritten.case(inputs).run())
    other = PartlyQuantised(net.case(inputs), {name: unit}, {codes: weight.T}).outputs([name])
    assert same(other, Net.of(in_floats(net.file, [name]), "unsigned").case(inputs).run())

"""The grid of codes: clipping, ties to even, distances and ties, for integers and FP8."""

from __future__ import annotations

import pytest
import torch

from harness.quantised import Grid

HALVES = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.6, 200.0, -128.5, -300.0, torch.inf, -torch.inf])


def grid(kind: str, *, scale: float = 1.0, zero: torch.Tensor | None = None) -> Grid:
    return Grid(kind=kind, scale=torch.tensor(scale).double(), zero=zero)


def test_int8_is_clipped_and_ties_go_to_even():
    codes = grid("INT8").codes(HALVES.double())
    assert codes.tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -128, -128, 127, -128]


def test_uint8_has_a_zero_point():
    zero = torch.tensor(117, dtype=torch.uint8)
    codes = grid("UINT8", zero=zero).codes(torch.tensor([0.0, 0.5, 1.5, 500.0, -118.0]).double())
    assert codes.tolist() == [117, 117, 119, 255, 0]


def test_fp8_is_clamped_at_448_and_keeps_nan():
    codes = grid("FLOAT8E4M3FN").codes(torch.tensor([464.0, 465.0, 1000.0, torch.inf, -torch.inf]).double())
    assert codes.float().tolist() == [448, 448, 448, 448, -448]
    assert grid("FLOAT8E4M3FN").codes(torch.tensor([torch.nan]).double()).float().isnan().all()


def test_the_reciprocal_is_rounded_to_fp32():
    by = grid("INT8", scale=float(torch.tensor(0.0237)))
    x = torch.tensor([0.0237 * 3]).double()
    rounded = float((1 / by.scale).float())
    assert float(by.ratio(x, reciprocal=True)) == float(x) * rounded
    assert float(by.ratio(x)) == float(x) / float(by.scale)


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_neighbours_are_one_apart(kind: str):
    dtype = {"FLOAT8E4M3FN": torch.float8_e4m3fn, "FLOAT8E5M2": torch.float8_e5m2}[kind]
    codes = torch.arange(256).to(torch.uint8).view(dtype)
    numbers = codes.float()[codes.float().isfinite()].unique()
    places = grid(kind).places(numbers.to(dtype))
    assert (places.diff() == 1).all()
    assert grid(kind).places(torch.tensor([-0.0, 0.0]).to(dtype)).tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["INT8", "INT4", "FLOAT8E4M3FN"])
def test_ties_lie_between_neighbours(kind: str):
    by, ratio = grid(kind), torch.linspace(-7.9, 6.9, 401).double()
    codes = by.codes(ratio)
    below, above = by.to_ties(ratio, by.places(codes))
    assert ((below >= 0) & (above >= 0)).all()
    moved = by.codes(ratio + above + 1e-6)
    inside = above.isfinite()
    assert (by.places(moved) - by.places(codes))[inside].tolist() == [1] * int(inside.sum())


def test_there_is_no_tie_beyond_the_ends():
    below, above = grid("INT8").to_ties(torch.tensor([500.0, -500.0]).double(), torch.tensor([127, -128]))
    assert above[0] == torch.inf
    assert below[1] == torch.inf
    below, above = grid("FLOAT8E4M3FN").to_ties(torch.tensor([900.0]).double(), torch.tensor([0x7E]))
    assert float(above) == torch.inf
    assert float(below) == 900 - 432

"""Random operators of a module: found in its trace and replaced by noise that does not depend on what it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graphs import subject
from torch.nn import functional

from harness import NotJudged
from harness.graph import random_calls, with_noise_stored
from harness.graph.export import trace

X = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0))


class Function(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def traced(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.export.ExportedProgram:
    return trace(subject(dynamic={}, ranges={}), Function(function).eval(), {"x": X})


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.scaled_dot_product_attention(x, x, x),
        lambda x: functional.dropout(x, 0.5, training=False),
        lambda x: functional.rrelu(x, training=False),
        lambda x: functional.alpha_dropout(x, 0.5, training=False),
    ],
)
def test_what_draws_nothing_is_not_random_and_stays(function):
    program = traced(function)
    assert random_calls(program) == []
    torch.testing.assert_close(with_noise_stored(program, 0)(x=X)["output"], function(X))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.rrelu(x, training=True),
        lambda x: functional.alpha_dropout(x, 0.5, training=True),
        lambda x: torch.bernoulli(x.sigmoid()),
        lambda x: torch.poisson(x.exp()),
        lambda x: torch.normal(x, 1.0),
        lambda x: x[0].softmax(-1).multinomial(2).float(),
        lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        lambda x: torch.cond(x.sum() > 0, lambda x: x + torch.rand_like(x), lambda x: 2 * x, (x,)),
    ],
    ids=["rrelu", "alpha dropout", "bernoulli", "poisson", "normal", "multinomial", "attention", "body"],
)
def test_what_noise_alone_cannot_replace_is_refused(function):
    program = traced(function)
    assert len(random_calls(program)) == 1
    with pytest.raises(NotJudged, match="random"):
        with_noise_stored(program, 0)


@pytest.mark.parametrize("dropout", [functional.dropout, functional.dropout1d])
def test_a_dropout_multiplies_by_stored_factors(dropout):
    module = with_noise_stored(traced(lambda x: dropout(x, 0.25, training=True)), 0)
    found = module(x=X)["output"]
    assert torch.equal(found, module(x=X)["output"])
    kept = found != 0
    assert 0 < kept.sum() < X.numel()
    torch.testing.assert_close(found[kept], X[kept] / 0.75)

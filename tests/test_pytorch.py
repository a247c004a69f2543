"""The mode of a subject's module: a forgotten .eval() is no reference, and a wrapper's own flag is no fault."""

from __future__ import annotations

import pytest
import torch
from fake import subject

from harness import NotJudged
from harness.pytorch import build_module


class Wrapper(torch.nn.Module):
    def __init__(self, *models: torch.nn.Module) -> None:
        super().__init__()
        self.models = torch.nn.ModuleList(models).eval()


def dropping() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())


def test_a_wrapper_around_a_model_in_eval_mode_is_put_in_that_mode():
    module = build_module(subject(build=lambda: Wrapper(dropping().eval())))
    assert not any(part.training for part in module.modules())


def one_in_training() -> torch.nn.Module:
    wrapper = Wrapper(dropping())
    wrapper.models[0][1].train()
    return wrapper


@pytest.mark.parametrize(
    ("build", "named"),
    [
        pytest.param(one_in_training, "'models.0.1'", id="inside a wrapper"),
        pytest.param(lambda: Wrapper(dropping()).train(), "'models'", id="all"),
        pytest.param(torch.nn.Dropout, "the module", id="nothing inside"),
    ],
)
def test_a_module_in_training_mode_is_refused_and_named(build, named):
    with pytest.raises(NotJudged, match=f"{named}.* is in training mode"):
        build_module(subject(build=build))

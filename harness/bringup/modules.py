"""A module in its place, and a model cut after a module, as models of their own."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch

from harness.bringup.calls import Call, Reached, Taken
from harness.structure import with_constants
from harness.tensors import Tensors


class Alone(torch.nn.Module):
    """One module of a model, called as the model calls it. It takes tensors by path, and gives them by path.

    It lies under its own dotted path, so that values and plans have the names that they have in the model.
    """

    def __init__(self, module: torch.nn.Module, path: str, taken: Taken, constants: Tensors) -> None:
        """``constants`` are those of its tensors that are no input of the engine."""
        super().__init__()
        *above, last = path.split(".")
        holder: torch.nn.Module = self
        for name in above:
            holder.add_module(name, torch.nn.Module())
            holder = holder.get_submodule(name)
        holder.add_module(last, module)
        self._path, self._taken, self._constants = path, taken, dict(enumerate(constants))
        for index, tensor in enumerate(constants.values()):
            self.register_buffer(f"_constant_{index}", tensor)
        self.eval()

    def forward(self, **given: torch.Tensor) -> Tensors:
        """Return every tensor that the module returns."""
        held = {name: self.get_buffer(f"_constant_{index}") for index, name in self._constants.items()}
        tensors = {name: one.clone() if name in self._taken.written else one for name, one in {**given, **held}.items()}
        args, kwargs = self._taken.arguments(tensors)
        return with_constants(self.get_submodule(self._path)(*args, **kwargs), "output")[0]


def cut_after(model: torch.nn.Module, call: Call) -> torch.nn.Module:
    """Return the model that ends when a call of a module returns, and gives the tensors that this returns.

    It is traced to its end, and what comes after that call leaves no trace: no output depends on it.
    """
    module, cut = model.get_submodule(call.path), copy.copy(model)

    @functools.wraps(model.forward)
    def forward(*args: Any, **kwargs: Any) -> Tensors:
        found: list[Tensors] = []
        calls = 0

        def leave(_: torch.nn.Module, given: Any, outputs: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == call.number:
                # Copies: what comes after it may write into them.
                found.append({name: one.clone() for name, one in with_constants(outputs, "output")[0].items()})
                if not torch.compiler.is_exporting():  # the tracer counts on every module to return
                    raise Reached

        hook = module.register_forward_hook(leave)
        try:
            model.forward(*args, **kwargs)
        except Reached:
            pass
        finally:
            hook.remove()
        return found[0] if found else {}

    cut.forward = forward
    return cut

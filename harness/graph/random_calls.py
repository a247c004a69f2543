"""Random operators of a PyTorch module: found in its trace, or replaced by stored noise."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from harness.errors import NotJudged

_DROPOUTS = (torch.ops.aten.dropout.default, torch.ops.aten.native_dropout.default)
_DRAWN_BY_VALUE = (torch.ops.aten.bernoulli.default, torch.ops.aten.multinomial.default)
"""What these draw depends on the values that they read."""


def random_calls(traced: ExportedProgram) -> list[str]:
    """Return the random operators of a traced module, as ``aten.rand_like.default (value 'rand_like')``."""
    return [f"{node.target} (value {node.name!r})" for node in traced.graph.nodes if _is_random(node)]


def with_noise_stored(traced: ExportedProgram, seed: int) -> GraphModule:
    """Return a traced module as one in which every random operator is a buffer of seeded noise.

    Raises NotJudged for one whose shape is not fixed, or whose draw depends on what it reads.
    """
    module: GraphModule = traced.module()
    graph = module.graph
    for index, node in enumerate([node for node in graph.nodes if _is_random(node)]):
        value = node.meta["val"]
        if node.target in _DRAWN_BY_VALUE or not isinstance(value, torch.Tensor):
            raise NotJudged(f"{node.target} (value {node.name!r}) is random, and --seed-random cannot replace it")
        if not all(isinstance(size, int) for size in value.shape):
            raise NotJudged(
                f"{node.target} (value {node.name!r}) is random and of no fixed shape ({list(value.shape)}), so that "
                "--seed-random cannot store its noise; take its dimension out of dynamic="
            )
        name = f"stored_noise_{index}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + index)
            module.register_buffer(name, _draw(node))
        with graph.inserting_before(node):
            made = graph.get_attr(name)
            if node.target in _DROPOUTS:
                made = graph.call_function(torch.ops.aten.mul.Tensor, (node.args[0], made))
        node.replace_all_uses_with(made)
        graph.erase_node(node)
    module.recompile()
    return module


def _is_random(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    return not (node.target in _DROPOUTS and node.args[2:3] == (False,))


def _draw(node: Node) -> torch.Tensor:
    """Return what a random operator draws on the CPU; for a dropout the factors it multiplies by."""
    if node.target in _DROPOUTS:
        share = float(node.args[1])  # type: ignore[arg-type]
        factors: torch.Tensor = torch.ops.aten.dropout.default(torch.ones(node.meta["val"].shape), share, True)
        return factors

    def example(item: object) -> object:
        if isinstance(item, Node):
            value = item.meta["val"]
            return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value
        return torch.device("cpu") if isinstance(item, torch.device) else item

    is_leaf = lambda item: isinstance(item, Node)  # noqa: E731
    args, kwargs = tree_map(example, (tuple(node.args), dict(node.kwargs)), is_leaf=is_leaf)
    assert callable(node.target)
    drawn: torch.Tensor = node.target(*args, **kwargs)
    return drawn

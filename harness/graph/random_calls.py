"""Random operators of a PyTorch module: found in its trace, or replaced by stored noise."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from harness.errors import NotJudged
from harness.sentences import Sentence

_DROPOUTS = (
    torch.ops.aten.dropout.default,
    torch.ops.aten.native_dropout.default,
    torch.ops.aten.feature_dropout.default,
)


def random_calls(traced: ExportedProgram) -> list[str]:
    """Return the random operators of a traced module, as ``aten.rand_like.default (value 'rand_like')``."""
    return [
        Sentence("op_of_value", target=node.target, name=node.name)
        for module in traced.graph_module.modules()  # bodies of control flow are modules in it
        if isinstance(module, GraphModule)
        for node in module.graph.nodes
        if _is_random(node)
    ]


def with_noise_stored(traced: ExportedProgram, seed: int) -> GraphModule:
    """Return a traced module as one in which every random operator is a buffer of seeded noise.

    Raises NotJudged for one whose shape is not fixed, or whose draw depends on what it reads.
    """
    module: GraphModule = traced.module()
    graph = module.graph
    inner = [it for it in module.modules() if isinstance(it, GraphModule) and it is not module]
    if found := [node for it in inner for node in it.graph.nodes if _is_random(node)]:
        raise NotJudged(Sentence("random_in_body", target=found[0].target, name=found[0].name))
    for index, node in enumerate([node for node in graph.nodes if _is_random(node)]):
        value = node.meta["val"]
        if not all(isinstance(size, int) for size in value.shape):
            raise NotJudged(
                Sentence("random_shape_dynamic", target=node.target, name=node.name, shape=list(value.shape))
            )
        name = f"stored_noise_{index}"
        drawn = _noise(node, seed + index)
        if drawn is None or not isinstance(value, torch.Tensor):
            raise NotJudged(Sentence("random_not_replaced", target=node.target, name=node.name))
        module.register_buffer(name, drawn)
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
    return _setting(node, "train", "training") is not False and _setting(node, "dropout", "dropout_p") != 0


def _setting(node: Node, *names: str) -> object:
    """Return the argument of a call that has one of these names, its default included; None where there is none."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name in names:
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            return argument.default_value if given is None else given
    return None


def _noise(node: Node, seed: int) -> torch.Tensor | None:
    """Return what a random operator draws on the CPU; None where that depends on the values that it reads."""
    drawn = []
    for fill in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                drawn.append(_drawn(node, fill))
            except RuntimeError:  # such as a distribution without any weight
                return None
    first, second = drawn
    return first if isinstance(first, torch.Tensor) and torch.equal(first, second) else None


def _drawn(node: Node, fill: int) -> torch.Tensor:
    """Return what a random operator draws for inputs of one value; for a dropout the factors it multiplies by."""
    if node.target in _DROPOUTS:
        fill = 1

    def example(item: object) -> object:
        if isinstance(item, Node):
            value = item.meta["val"]
            return torch.full(value.shape, fill, dtype=value.dtype) if isinstance(value, torch.Tensor) else value
        return torch.device("cpu") if isinstance(item, torch.device) else item

    is_leaf = lambda item: isinstance(item, Node)  # noqa: E731
    args, kwargs = tree_map(example, (tuple(node.args), dict(node.kwargs)), is_leaf=is_leaf)
    assert callable(node.target)
    drawn: torch.Tensor = node.target(*args, **kwargs)
    return drawn

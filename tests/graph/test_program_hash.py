"""A traced program's hash: each change of what is built changes it, in whichever of its graphs it is."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.export import Dim
from torch.utils.checkpoint import checkpoint

from harness.graph.program_hash import foreign_code, program_sha256

X = {"x": torch.arange(12.0).reshape(3, 4)}


class Net(torch.nn.Module):
    """Computes ``function(x)``."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def traced(function, inputs=X, **options):
    with torch.no_grad():
        return torch.export.export(Net(function).eval(), (), kwargs=inputs, **options)


def autocast_off(x, k):
    with torch.autocast("cpu", enabled=False):
        y = x * k
    return y + 1


def with_gradients(x, k):
    with torch.set_grad_enabled(True):
        y = x * k
    return y + 1


def loop(x, k):
    return torch.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * k), (torch.tensor(0), x))[1]


def loop_end(x, k):
    return torch.while_loop(lambda i, x: i < k, lambda i, x: (i + 1, x * 2), (torch.tensor(0), x))[1]


def mapped(x, k):
    from torch._higher_order_ops.map import map as map_rows

    return map_rows(lambda row: row * k, x)


def scanned(x, k):
    from torch._higher_order_ops.scan import scan

    return scan(lambda carry, row: (carry + row * k, carry * 2), torch.zeros(4), x)[0]


def nested(x, k):
    def inner(x):
        return torch.cond(x.sum() > 1, lambda x: x * k, lambda x: x - 1, (x,))

    return torch.cond(x.sum() > 0, inner, lambda x: x.clone(), (x,))


CHANGED = {
    "an operation's constant": lambda x, k: x * k,
    "a constant tensor": lambda x, k: x + torch.tensor([k]),
    "a branch of cond": lambda x, k: torch.cond(x.sum() > 0, lambda x: x * k, lambda x: x - 1, (x,)),
    "the other branch": lambda x, k: torch.cond(x.sum() > 0, lambda x: x - 1, lambda x: x * k, (x,)),
    "a tensor in a branch": lambda x, k: torch.cond(
        x.sum() > 0, lambda x: x * torch.tensor([k, 1.0, 1.0, 1.0]), lambda x: x - 1, (x,)
    ),
    "a branch in a branch": nested,
    "the body of while_loop": loop,
    "the condition of while_loop": loop_end,
    "the body of map": mapped,
    "the body of scan": scanned,
    "a region without autocast": autocast_off,
    "a region with gradients": with_gradients,
    "a checkpoint": lambda x, k: checkpoint(lambda y: y * k, x, use_reentrant=False),
    "a text": lambda x, k: torch.nn.functional.gelu(x, approximate="tanh" if k > 3 else "none"),
    "a dtype": lambda x, k: x.to(torch.float16 if k > 3 else torch.bfloat16),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_constant_changes_it_wherever_it_is(what):
    one, same, other = (program_sha256(traced(partial(CHANGED[what], k=k))) for k in (2.5, 2.5, 3.5))
    assert one == same
    assert one != other


def test_the_dtype_of_an_input_and_what_is_dynamic_change_it():
    whole, half = (program_sha256(traced(torch.neg, {"x": X["x"].to(dtype)})) for dtype in (torch.int64, torch.int32))
    assert whole != half
    sizes = [{"x": {0: Dim("n", min=2, max=high)}} for high in (8, 9)]
    found = {program_sha256(traced(torch.neg, dynamic_shapes=shapes)) for shapes in (*sizes, None)}
    assert len(found) == 3


class Held(torch.nn.Module):
    """Adds a tensor that is held in one of three ways."""

    def __init__(self, how: str, value: float) -> None:
        super().__init__()
        tensor = torch.tensor([value])
        if how == "attribute":
            self.held = tensor
        else:
            self.register_buffer("held", tensor, persistent=how == "weight")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.held


@pytest.mark.parametrize("how", ["attribute", "buffer", "weight"])
def test_a_tensor_is_in_the_hash_or_among_the_weights(how):
    one, other = (torch.export.export(Held(how, value), (), kwargs=X) for value in (1.0, 2.0))
    weights = [{name: tensor.item() for name, tensor in program.state_dict.items()} for program in (one, other)]
    assert (program_sha256(one) == program_sha256(other)) == (how == "weight")
    assert (weights[0] != weights[1]) == (how == "weight")


class Twice(torch.nn.Module):
    """Two layers without weights, in either order: the graph is the same, and the plan names modules."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        for name in ("first", "second"):
            self.add_module(name, torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            x = getattr(self, name)(x) * 2
        return x


def test_the_module_that_computes_a_value_is_in_it():
    names = [("first", "second"), ("second", "first")]
    one, other = (torch.export.export(Twice(*order), (), kwargs=X) for order in names)
    assert str(one.graph) == str(other.graph)
    assert program_sha256(one) != program_sha256(other)


def test_it_is_the_same_in_every_process():
    script = (
        "import torch\n"
        "from torch.export import Dim\n"
        "from harness.graph.program_hash import program_sha256\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.cond(x.sum() > 0, lambda x: x * 2.5, lambda x: x - 1, (x,))\n"
        "shapes = {'x': {0: Dim('n', min=2, max=8)}}\n"
        "found = torch.export.export(Net(), (), kwargs={'x': torch.ones(3, 4)}, dynamic_shapes=shapes)\n"
        "print(program_sha256(found), hash('x'))\n"
    )
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(script, {"__name__": "__main__"})
    mine, my_hash = here.getvalue().split()
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    other, other_hash = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert (mine, len(mine)) == (other, 64)
    assert my_hash != other_hash


def test_an_operator_of_the_user_is_code_that_no_key_holds():
    @torch.library.custom_op("parity_test::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    double.register_fake(torch.empty_like)
    assert foreign_code(traced(double)) == ["the operator parity_test.double.default"]
    branches = traced(lambda x: torch.cond(x.sum() > 0, lambda x: double(x), lambda x: x - 1, (x,)))
    assert foreign_code(branches) == ["the operator parity_test.double.default"]
    assert [foreign_code(traced(partial(CHANGED[what], k=2.5))) for what in CHANGED] == [[]] * len(CHANGED)

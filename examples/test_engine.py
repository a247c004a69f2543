"""An engine in tests of your own: `pytest examples/test_engine.py` times it, and draws inputs for it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Subject, targets

SUBJECT = Subject(
    name="myengine",
    build=lambda: torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)).eval(),
    cases={"one": lambda: {"input": torch.linspace(-3, 3, 8 * 64).reshape(8, 64)}},
    dynamic={"input": {0: "batch"}},
    ranges={"batch": (1, 8)},
    targets=targets("rtx", "ort-cpu", precisions=("fp32",)),
    weights="random",
)


def test_speed(benchmark, parity_engine):
    engine, inputs = parity_engine.load(), parity_engine.inputs("one")
    benchmark(engine.run, inputs)


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_a_row_is_the_same_alone(parity_engine, batch, seed):
    rows = torch.randn(batch, 64, generator=torch.Generator().manual_seed(seed))
    together, alone = (parity_engine.load().run({"input": given}) for given in (rows, rows[:1]))
    for name in together:
        torch.testing.assert_close(together[name][:1], alone[name], rtol=1e-5, atol=1e-5)

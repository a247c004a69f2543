"""A value that is disturbed changes the outputs as in a plain run of the ONNX graph, whatever lies behind it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
import torch
from fake import quiet
from torch import nn

from harness import Subject, Target
from harness.compare.norms import total_error
from harness.graph.plan import load_plan
from harness.reference.interpreter import TypedInterpreter
from harness.reference.onnx_calls import onnx_run_graph
from harness.reference.run_graph import RunGraph
from harness.tensors import Tensors
from harness.verify.prepare import Prepared, prepare


class Chunks(nn.Module):
    """The parts of a split and of a chunk, one of them read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 12), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        gate, value = self.first(x).chunk(2, -1)
        one, two, three = torch.split(gate.sigmoid() * value, [1, 2, 3], -1)
        return {"y": self.last(torch.cat([three, one, two], -1)), "one": one * value.mean(-1, keepdim=True)}


class Recurrent(nn.Module):
    """An RNN with several outputs."""

    def __init__(self, kind: type[nn.Module], *, both: bool = False, layers: int = 1) -> None:
        super().__init__()
        self.before, self.rnn = nn.Linear(12, 8), kind(8, 6, batch_first=True, bidirectional=both, num_layers=layers)
        self.after = nn.Linear(12 if both else 6, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        out, state = self.rnn(self.before(x).relu())
        last = state if isinstance(state, torch.Tensor) else state[0] * state[1]
        return {"y": self.after(out).tanh(), "state": last.mean(0)}


class Attending(nn.Module):
    """A fused attention behind one projection for all three."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(12), nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        heads = (part.unflatten(-1, (2, 6)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        attended = nn.functional.scaled_dot_product_attention(*heads)
        return {"y": x + self.out(attended.transpose(1, 2).flatten(2))}


class Folded(nn.Module):
    """Convolutions whose normalisation the exporter folds into them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.bn, self.two = nn.Conv1d(5, 6, 3, padding=1), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 1, bias=False)
        self.norm, self.pool = nn.BatchNorm1d(4), nn.AdaptiveAvgPool1d(3)
        for norm in (self.bn, self.norm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.bn(self.one(x)).relu()
        return {"y": self.pool(self.norm(self.two(hidden))), "hidden": hidden.amax(-1)}


class Several(nn.Module):
    """Operators with several results, and values that are outputs and read on."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        top, index = x.exp().topk(4, -1)
        largest, _ = x.max(-1, keepdim=True)
        variance, mean = torch.var_mean(top, -1, keepdim=True)
        return {"top": top, "y": (top - mean) / variance.sqrt() + largest + index.float().mean()}


class Encoder(nn.Module):
    """A layer of a transformer as PyTorch has it, with a group norm behind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, dropout=0.0, activation="gelu")
        self.norm = nn.GroupNorm(1, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.norm(self.layer(x))}


class Twice(nn.Module):
    """One module called twice on the same input: the exporter may compute it once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.last(self.layer(x).tanh() * self.layer(x).sigmoid())}


NETWORKS = {
    "chunks": Chunks,
    "lstm": lambda: Recurrent(nn.LSTM),
    "lstm of two layers": lambda: Recurrent(nn.LSTM, both=True, layers=2),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN, both=True),
    "attention": Attending,
    "folded": Folded,
    "several": Several,
    "encoder": Encoder,
    "multihead": lambda: Multihead(),
    "twice": Twice,
}


RECURRENT = {"lstm", "lstm of two layers", "gru", "rnn"}


class Multihead(nn.Module):
    """PyTorch's own attention, with the weights as an output."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y, weights = self.attention(x, x * 0.5, x + 1)
        return {"y": y, "weights": weights}


@functools.cache
def ready(name: str) -> Prepared:
    def build() -> nn.Module:
        torch.manual_seed(3)
        return NETWORKS[name]().eval()

    def inputs() -> Tensors:
        steps = 3 if name in RECURRENT else 5  # each is unrolled
        return {"x": torch.randn(2, steps, 12, generator=torch.Generator().manual_seed(5))}

    subject = Subject(
        name=name, build=build, cases={"one": inputs}, targets=(Target("torch", "fp16"),), weights="random"
    )
    with tempfile.TemporaryDirectory() as folder:
        return prepare(subject, quiet(Path(folder), engine_cache=False))


class Disturbed(TypedInterpreter):
    """A plain run of the ONNX graph in which one value gets an error."""

    def __init__(self, *arguments, name: str, error: torch.Tensor | None, **options) -> None:
        super().__init__(*arguments, **options)
        self.disturbed, self.error = name, error
        self.values: Tensors = {}

    def run_node(self, n):
        result = super().run_node(n)
        if n.name == self.disturbed and self.error is not None:
            result = result + self.error
        if isinstance(result, torch.Tensor) and n.op == "call_function":
            self.values[n.name] = result
        return result


@functools.cache
def graph_of(name: str) -> RunGraph:
    return onnx_run_graph(ready(name).program.model)


def plain(prepared: Prepared, name: str = "", error: torch.Tensor | None = None) -> tuple[Tensors, Tensors]:
    """Return the outputs and all values of the ONNX graph where one has an error."""
    graph = graph_of(prepared.subject.name)
    runner = Disturbed(graph, prepared.inputs["one"], dtype=torch.float64, name=name, error=error)
    with torch.inference_mode():
        made = dict(zip(graph.result_names, runner.results(), strict=True))
    return {output: made[node] for output, node in graph.outputs.items()}, runner.values


def error_of(tensor: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(tensor.shape, dtype=tensor.dtype, generator=torch.Generator().manual_seed(11))
    return 1e-3 * (tensor.std() if tensor.numel() > 1 else tensor.abs()) * noise


@functools.cache
def truth_of(network: str, value: str) -> Tensors:
    """Return the outputs where one value has its error."""
    prepared = ready(network)
    return plain(prepared, value, error_of(floats(network)[value]))[0]


@functools.cache
def floats(network: str) -> dict[str, torch.Tensor]:
    """Return every float value that the ONNX graph computes from the inputs."""
    prepared = ready(network)
    _, values = plain(prepared)
    depths = prepared.program.depths()
    return {name: tensor for name, tensor in values.items() if tensor.is_floating_point() and name in depths}


def away_from_truth(outputs: Tensors, truth: Tensors, expected: Tensors) -> str:
    """Return how far outputs are from what they should be, where that is more than rounding; else nothing."""
    change, away = total_error(truth, expected), total_error(outputs, truth)
    return "" if away <= 1e-3 * change + 1e-9 else f"{total_error(outputs, expected):.3g} for {change:.3g}"


def in_one_run(prepared: Prepared, names: list[str], errors: dict[str, torch.Tensor]) -> dict[str, Tensors | None]:
    """Disturb a fork before each value in turn, as the effects of many errors are computed."""
    evaluators = prepared.graph.evaluators(prepared.inputs["one"], load_plan("fp32"), names)
    found: dict[str, Tensors | None] = {}
    for name in names:
        own = evaluators.canonical(name)
        value = evaluators.reference.value(own)
        fork = evaluators.reference.fork()
        if value is not None:
            fork.observe(own, value + errors[name].reshape(value.shape))
        found[name] = None if value is None else fork.outputs()
        evaluators.done([name])
    return found


def in_runs_of_their_own(prepared, names, errors):
    """Disturb each value in a run of its own, which keeps nothing else."""
    found = {}
    for name in names:
        found |= in_one_run(prepared, [name], errors)
    return found


def in_a_replay(prepared, names, errors):
    """Observe every value of an engine that disturbs one, as they are when an engine is looked into."""
    found = {}
    for disturbed in names:
        evaluators = prepared.graph.evaluators(prepared.inputs["one"], load_plan("fp32"), names)
        for name in names:
            own = evaluators.canonical(name)
            value = evaluators.replay.value(own)
            if value is not None:
                error = errors[name].reshape(value.shape) if name == disturbed else 0
                evaluators.observe(name, value + error)
            evaluators.done([name])
        found[disturbed] = evaluators.replay.outputs()
    return found


@pytest.mark.parametrize("way", [in_one_run, in_runs_of_their_own, in_a_replay])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_disturbed_reaches_what_reads_it(name, way):
    prepared = ready(name)
    expected, _ = plain(prepared)
    values, depths = floats(name), prepared.program.depths()
    names = sorted(values, key=depths.__getitem__)
    errors = {value: error_of(tensor) for value, tensor in values.items()}
    found = way(prepared, names, errors)
    wrong = {}
    for value in names:
        outputs, truth = found[value], truth_of(name, value)
        words = "not computed" if outputs is None else away_from_truth(outputs, truth, expected)
        if words:
            wrong[value] = words
    assert wrong == {}, f"of {len(names)}: {names}"
    assert len(names) > 2

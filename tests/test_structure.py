"""What is nested is flattened by path and built again; what is no tensor is refused with its path."""

from __future__ import annotations

from collections import OrderedDict, UserDict, deque, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from harness import NotJudged, UsageError
from harness.structure import flatten_inputs, flatten_outputs

ONE = torch.ones(2)
Pair = namedtuple("Pair", "first second")


@dataclass(frozen=True)
class Found:
    boxes: Any
    scores: Any = None


class Names(OrderedDict[str, torch.Tensor]):
    """A mapping that PyTorch does not know."""


NESTED = [
    pytest.param(ONE, ["output"], id="tensor"),
    pytest.param((ONE, ONE), ["output_0", "output_1"], id="tuple"),
    pytest.param([ONE, [None, ONE]], ["output_0", "output_1.1"], id="none-in-a-list"),
    pytest.param({"a": ONE, 1: {"b": (ONE,)}}, ["a", "1.b.0"], id="dict"),
    pytest.param(Pair(ONE, [ONE]), ["first", "second.0"], id="namedtuple"),
    pytest.param(Found(ONE, Pair(ONE, None)), ["boxes", "scores.first"], id="dataclass"),
    pytest.param(Names(z=ONE, a=ONE), ["z", "a"], id="mapping"),
    pytest.param(UserDict(a=ONE), ["a"], id="user-dict"),
    pytest.param(deque([ONE]), ["output_0"], id="deque"),
    pytest.param(torch.max(torch.ones(2, 2), 1), ["output_0", "output_1"], id="values-and-indices"),
]


@pytest.mark.parametrize(("value", "names"), NESTED)
def test_every_tensor_goes_by_its_path_and_the_container_can_be_built_again(value, names):
    assert list(flatten_outputs(value)) == names
    tensors, structure = flatten_inputs({"v": value}, "case 'one'")
    again = structure.build(tensors)["v"]
    assert type(again) is type(value)
    assert flatten_inputs({"v": again}, "case 'one'")[1].is_like(structure)
    assert structure.names == set(tensors)


@pytest.mark.parametrize("nothing", [None, {}, (), [None, {}]])
def test_nothing_is_no_output(nothing):
    with pytest.raises(UsageError, match="no outputs"):
        flatten_outputs(nothing)


def looped():
    items: list[Any] = [ONE]
    items.append(items)
    return items


def deep():
    items: Any = ONE
    for _ in range(5000):
        items = [items]
    return items


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": 1.0}, "output 'a' is a float"),
        ({"a": ONE, "b": [ONE, {"n": True}]}, r"output 'b\.1\.n' is a bool"),
        ({"s": ONE.shape}, r"output 's\.0' is a int"),
        ([ONE, "text"], "output 'output_1' is a str"),
        (Found(ONE, {3}), "output 'scores' is a set"),
        ((tensor for tensor in [ONE]), "output 'output' is a generator"),
        ({"": ONE}, "no name"),
        ({"a.b": ONE, "a": {"b": ONE}}, r"two outputs are called 'a\.b'"),
        ({"1": ONE, 1: ONE}, "two outputs are called '1'"),
        (looped(), "'output_1' holds itself"),
        (deep(), "nested too deeply"),
    ],
)
def test_what_is_no_tensor_or_has_no_name_of_its_own_is_refused_with_its_path(value, words):
    with pytest.raises(UsageError, match=words):
        flatten_outputs(value)


def test_an_output_with_the_path_of_an_input_is_told_from_it():
    assert list(flatten_outputs({"x": ONE, "past": [ONE], "y": ONE}, taken=["x", "past.0"])) == [
        "output.x",
        "output.past.0",
        "y",
    ]
    with pytest.raises(UsageError, match=r"two outputs are called 'output\.x'"):
        flatten_outputs({"x": ONE, "output": {"x": ONE}}, taken=["x"])


class Wrapped(torch.Tensor):
    """A tensor whose numbers are where only it knows."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError


class Picture(torch.Tensor):
    """A tensor with another name."""


STRANGE = {
    "complex64": lambda: torch.ones(2, dtype=torch.complex64),
    "complex32": lambda: torch.ones(2, dtype=torch.complex32),
    "sparse_coo": lambda: torch.ones(2, 2).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(ONE, 0.1, 0, torch.qint8),
    "meta": lambda: ONE.to("meta"),
    "nested": lambda: torch.nested.nested_tensor([ONE, ONE[:1]]),
    "Wrapped": lambda: torch.ones(2).as_subclass(Wrapped),
    "float8_e4m3fn": lambda: ONE.to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore")  # prototypes of PyTorch's
@pytest.mark.parametrize("word", STRANGE)
def test_a_tensor_whose_numbers_cannot_be_compared_is_named_with_what_to_do(word):
    with pytest.raises(NotJudged, match=rf"^output 'a\.0' is .*{word}.*(; |, )"):
        flatten_outputs({"a": [STRANGE[word]()]})
    with pytest.raises(NotJudged, match=r"^case 'one': input 'a' is "):
        flatten_inputs({"a": STRANGE[word]()}, "case 'one'")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, 4).t(),
        torch.ones(3, 1).expand(3, 4),
        torch.ones(3, 4, dtype=torch.complex64).conj().imag,
        torch.ones(3, 4).as_subclass(Picture),
        torch.ones(3, 4, requires_grad=True),
        torch.tensor(2.0),
        torch.ones(0, 4),
    ],
    ids=["transposed", "expanded", "negated", "subclass", "gradient", "scalar", "empty"],
)
def test_a_tensor_of_plain_numbers_is_taken_as_it_lies(tensor):
    found = flatten_outputs(tensor)["output"]
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    assert not found.is_neg()
    assert torch.equal(found, tensor.detach().as_subclass(torch.Tensor))


def cache(**changes):
    caches = pytest.importorskip("transformers.cache_utils")
    made = caches.DynamicCache()
    for layer in range(2):
        made.update(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4) * 2, layer)
    return made


def test_a_cache_goes_by_layer_key_and_value_and_a_run_does_not_change_it():
    given = {"past": cache()}
    tensors, structure = flatten_inputs(given, "case 'one'")
    assert list(tensors) == ["past.0.key", "past.0.value", "past.1.key", "past.1.value"]
    again = structure.build({name: tensor * 3 for name, tensor in tensors.items()})["past"]
    again.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4), 0)
    assert again.layers[0].keys.shape[2] == 4
    assert again.layers[1].values.max() == 6
    assert structure.build(tensors)["past"].layers[0].keys.shape[2] == given["past"].layers[0].keys.shape[2] == 3


def test_the_caches_of_encoder_and_decoder_and_what_they_note_down_are_copied():
    caches = pytest.importorskip("transformers.cache_utils")
    given = caches.EncoderDecoderCache(cache(), cache())
    tensors, structure = flatten_inputs({"past": given}, "case 'one'")
    assert list(tensors)[::4] == ["past.self_attention_cache.0.key", "past.cross_attention_cache.0.key"]
    again = structure.build(tensors)["past"]
    again.is_updated[0] = False
    assert given.is_updated[0]
    changed = flatten_inputs({"past": again}, "case 'one'")[1]
    assert not changed.is_like(structure), "what a cache notes down is part of it"


def test_a_model_output_leaves_out_what_is_none():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    given = outputs.BaseModelOutputWithPast(last_hidden_state=ONE, past_key_values=cache(), hidden_states=(ONE, ONE))
    held = [*given][1]  # past_key_values, which newer versions call cache
    keys = [f"{held}.{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert [*flatten_outputs(given)] == ["last_hidden_state", *keys, "hidden_states.0", "hidden_states.1"]

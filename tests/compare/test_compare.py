"""compare against a plain NumPy implementation in extended precision, which shares no code with it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare import cpu as module
from harness.compare import cuda as compare_cuda
from harness.compare.tensors import bitwise_equal, compare
from harness.compare.totals import QUANTILES, blocks, brackets_from_sample
from harness.errors import EngineFailed
from harness.tensors import tensor_bytes

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 5e-324, 1e-45, 6e-8, 65504.0, 3e38, 1e300, -1.7e308)
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda tensor: tensor,
    "transposed": lambda tensor: tensor.movedim(0, -1).contiguous().movedim(-1, 0) if tensor.dim() else tensor,
    "every second": lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 1],
    "offset": lambda tensor: torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape),
}


def reference(actual: torch.Tensor, expected: torch.Tensor) -> dict[str, Any]:
    """Every figure, from whole arrays: errors in float64, sums in extended precision, order statistics by sorting."""
    a_all, e_all = actual.to(torch.float64).numpy().flatten(), expected.to(torch.float64).numpy().flatten()
    both = np.isfinite(a_all) & np.isfinite(e_all)
    a, e = a_all[both], e_all[both]
    wide_a, wide_e = a.astype(np.longdouble), e.astype(np.longdouble)
    errors = np.abs(a - e)
    defined = (e != 0) | (a == 0)
    ratios = np.array([0.0 if y == 0 else abs((x - y) / y) for x, y in zip(a[defined], e[defined], strict=True)])
    wide = wide_a - wide_e
    order = np.lexsort((np.flatnonzero(both), -errors))[:5]
    worst = [np.unravel_index(i, actual.shape) for i in np.flatnonzero(both)[order]]
    bad = np.flatnonzero(~np.isfinite(a_all))
    return {
        "shape": list(actual.shape),
        "dtype": str(actual.dtype).split(".")[1],
        "absolute": distribution(errors, np.abs(wide)),
        "relative": {**distribution(ratios, summable(ratios)), "undefined": int((~defined).sum())},
        "l2_error": np.sqrt((wide**2).sum()),
        "l2_expected": np.sqrt((wide_e**2).sum()),
        "l2_actual": np.sqrt((wide_a**2).sum()),
        "product": (wide_a * wide_e).sum(),
        "mean_error": wide.mean() if a.size else math.nan,
        "std_actual": float(wide_a.std()) if a.size else math.nan,
        "std_expected": float(wide_e.std()) if a.size else math.nan,
        "max_expected": np.abs(e).max() if a.size else math.nan,
        "elements": actual.numel(),
        "compared": int(both.sum()),
        "zero_actual": a.size > 0 and not a.any(),
        "zero_expected": a.size > 0 and not e.any(),
        "constant_actual": a.size > 0 and bool((a == a[0]).all()),
        "constant_expected": a.size > 0 and bool((e == e[0]).all()),
        "nan_actual": int(np.isnan(a_all).sum()),
        "nan_expected": int(np.isnan(e_all).sum()),
        "nonfinite_actual": int(np.sum(~np.isfinite(a_all))),
        "nonfinite_expected": int(np.sum(~np.isfinite(e_all))),
        "mismatched_nonfinite": int(np.sum(~both & ~(a_all == e_all))),
        "first_nonfinite": [int(i) for i in np.unravel_index(bad[0], actual.shape)] if bad.size else None,
        "worst": [[int(i) for i in index] for index in worst],
    }


def summable(ratios: np.ndarray) -> np.ndarray:
    """Relative errors are not scaled: their mean is infinite when their sum leaves float64."""
    wide = ratios.astype(np.longdouble)
    return wide if wide.sum() <= sys.float_info.max else wide + math.inf


def distribution(errors: np.ndarray, wide: np.ndarray) -> dict[str, float]:
    if not errors.size:
        return dict.fromkeys(("max", "mean", "median", "p99"), math.nan)
    ordered, last = np.sort(errors), errors.size - 1
    return {
        "max": float(ordered[-1]),
        "mean": float(wide.mean()),
        "median": float(ordered[last // 2]),
        "p99": float(ordered[last * 99 // 100]),
    }


def same(got: float, want: float, *, near: float = 0.0) -> bool:
    return got == want or (math.isnan(got) and math.isnan(want)) or math.isclose(got, want, rel_tol=1e-9, abs_tol=near)


EXACT = (
    *("shape", "dtype", "elements", "compared", "zero_actual", "zero_expected", "constant_actual", "constant_expected"),
    *("nan_actual", "nan_expected", "nonfinite_actual", "nonfinite_expected", "mismatched_nonfinite"),
    "first_nonfinite",
)


@np.errstate(all="ignore")
def check(actual: torch.Tensor, expected: torch.Tensor, got: dict[str, Any] | None = None) -> None:
    """Hold every figure against the reference."""
    got = got or compare(actual, expected).to_json()
    want = reference(actual, expected)
    for key in EXACT:
        assert got[key] == want[key], key
    assert [row["index"] for row in got["worst"]] == want["worst"]
    for row in got["worst"]:
        assert row["actual"] == actual[tuple(row["index"])].item()
        assert row["expected"] == expected[tuple(row["index"])].item()
    for kind in ("absolute", "relative"):
        near = 0.0 if math.isnan(want["max_expected"]) else 1e-140 * float(want["max_expected"])
        assert same(got[kind]["mean"], want[kind]["mean"], near=near), (kind, got[kind], want[kind])
        for figure in set(want[kind]) - {"mean"}:
            exact, wanted = got[kind][figure], want[kind][figure]
            assert exact == wanted or (math.isnan(exact) and math.isnan(wanted)), (kind, figure, exact, wanted)
    assert same(got["max_expected"], want["max_expected"])
    check_norms(got, want)


def check_norms(got: dict[str, Any], want: dict[str, Any]) -> None:
    """Figures made of squares; values 1e140 times smaller than the largest do not count in them."""
    if not want["compared"]:
        names = ("relative_l2", "cosine", "snr_db", "effective_bits", "bias", "rms_expected", "std_actual")
        assert all(math.isnan(got[name]) for name in names)
        return
    norms = want["l2_actual"], want["l2_expected"]
    tiny = np.longdouble(1e-140) * max(norms)
    root = np.sqrt(np.longdouble(want["compared"]))
    assert same(got["rms_expected"], float(norms[1] / root), near=float(tiny))
    for side, norm in zip(("actual", "expected"), norms, strict=True):
        assert math.isclose(
            got[f"std_{side}"], want[f"std_{side}"], rel_tol=1e-6, abs_tol=float(norm / root * 1e-7 + tiny)
        )
    if norms[1] == 0:
        assert got["relative_l2"] == (math.inf if want["l2_error"] else 0.0)
        assert math.isnan(got["cosine"]) if norms[0] else got["cosine"] == 1.0
    if min(norms) <= tiny:
        return
    relative_l2 = float(want["l2_error"] / norms[1])
    assert same(got["relative_l2"], relative_l2, near=1e-130)
    assert math.isclose(got["cosine"], float(want["product"] / norms[0] / norms[1]), abs_tol=1e-9)
    assert math.isclose(
        got["bias"], float(want["mean_error"] / (norms[1] / root)), rel_tol=1e-6, abs_tol=relative_l2 * 1e-9
    )
    if want["l2_error"] == 0:
        assert got["snr_db"] == got["effective_bits"] == math.inf
    elif relative_l2 > 1e-130:
        assert math.isclose(got["snr_db"], -20 * math.log10(relative_l2), rel_tol=1e-9, abs_tol=1e-7)
        assert math.isclose(got["effective_bits"], -math.log2(relative_l2), rel_tol=1e-9, abs_tol=1e-7)


def numbers(dtype: torch.dtype) -> st.SearchStrategy[Any]:
    if dtype.is_floating_point:
        return st.sampled_from(SPECIAL) | st.floats(-10, 10) | st.floats()
    if dtype == torch.bool:
        return st.booleans()
    info = torch.iinfo(dtype)
    return st.sampled_from((info.min, info.max, 0, 1)) | st.integers(info.min, info.max)


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = DTYPES) -> torch.Tensor:
    dtype, size = draw(st.sampled_from(dtypes)), math.prod(shape)
    values = draw(st.lists(numbers(dtype), min_size=size, max_size=size))
    start = torch.tensor(values, dtype=torch.float64 if dtype.is_floating_point else dtype)
    return LAYOUTS[draw(st.sampled_from(tuple(LAYOUTS)))](start.to(dtype).reshape(shape))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=4)))
    expected = draw(tensors(shape))
    if draw(st.booleans()):
        return draw(tensors(shape)), expected
    return draw(tensors(shape, (expected.dtype,))), expected


@given(pairs())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_figure_on_arbitrary_tensors(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    before = [tensor.clone() for tensor in pair]
    check(*pair)
    assert all(bitwise_equal(*both) for both in zip(pair, before, strict=True)), "an input was changed"


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cases(n: int) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Pairs of ``n`` elements that are hard to bracket, or that fill several chunks and pieces; n is 100 m."""
    expected = gaussian(n)
    actual = expected + 1e-3 * gaussian(n, seed=1)
    broken, reference_broken = actual.clone(), expected.clone()
    broken[[5, 777, n // 2]] = torch.tensor([math.nan, math.inf, -math.inf])
    reference_broken[[777, n // 2, n - 1]] = torch.tensor([math.inf, math.inf, math.nan])
    outliers = expected.clone()
    outliers.view(-1, 100)[:, 7] += 10
    rising = torch.arange(float(n))
    yield "plain", actual, expected
    yield "float16", actual.half(), expected
    yield "bfloat16 and float16", actual.bfloat16(), expected.half()
    yield "float8", actual.to(torch.float8_e5m2), expected
    yield "float64", actual.double(), expected
    yield "integers", (actual * 100).int(), (expected * 100).long()
    yield "booleans", actual > 0, expected > 0
    yield "non-finite", broken, reference_broken
    yield "all NaN", torch.full((n // 2,), math.nan), expected[: n // 2]
    yield "half zeros", actual.relu(), expected.relu()
    yield "equal", expected, expected
    yield "zero reference", expected, torch.zeros(n)
    yield "tied", (actual * 3).round(), (expected * 3).round()
    yield "all tied", torch.ones(n), torch.zeros(n)
    yield "two errors", rising % 2 * 1e-3, torch.ones(n)
    yield "rising", rising, torch.full((n,), 0.5)
    yield "falling", rising.flip(0), torch.zeros(n)
    yield "outlier channel", outliers, expected
    yield "huge steps", 2.0 ** torch.arange(-140, 120).double().repeat(n // 260), torch.zeros(n // 260 * 260)
    yield "transposed", actual.view(100, -1).t(), expected.view(-1, 100)
    yield "every second", actual[::2], expected[1::2]
    yield "every second column", actual.view(100, -1)[:, ::2], expected[: n // 2].view(100, -1)
    yield "one column", actual.view(-1, 4)[:, 1], expected[: n // 4].half()
    yield "expanded", torch.tensor(0.5).expand(n), expected
    yield "expanded rows", actual[:100].expand(n // 100, 100), expected.view(-1, 100)
    yield (
        "channels last",
        actual.view(5, 4, 5, -1).contiguous(memory_format=torch.channels_last),
        expected.view(5, 4, 5, -1),
    )
    yield "negated lazily", torch.view_as_complex(actual.view(-1, 2)).conj().imag, expected[1::2]
    yield "scalar", torch.tensor(1.5), torch.tensor(2.0)
    yield "seven", actual[:7], expected[:7]


CASES = {name: (actual, expected) for name, actual, expected in cases(20_000)}


@pytest.mark.parametrize("name", CASES)
def test_brackets_and_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)
    monkeypatch.setattr(module, "SORT_LIMIT", 4096)
    check(*CASES[name])


def test_exact_order_statistics_beyond_2_to_the_24() -> None:
    count = 2**24 + 2**18 + 1
    places = torch.arange(count) * 1_000_003 % count  # a permutation, as 1000003 is prime and no divisor of count
    stats = compare(places.int() + 1, torch.ones(count, dtype=torch.int32))
    want = {"max": count - 1, "mean": (count - 1) / 2, "median": (count - 1) // 2, "p99": 99 * (count - 1) // 100}
    assert stats.absolute == want
    assert stats.relative == {**want, "undefined": 0}


def test_brackets_leave_little_between_them() -> None:
    """Exact answers need no narrow bracket; that few errors are kept does."""
    sample = np.arange(1, 10_001.0)
    want = {  # 4.5 standard deviations of the rank, and 2: 225 about the median, 44.77 about the 99th percentile
        ("absolute", "median"): (4774.0, 5228.0), ("absolute", "p99"): (9854.0, 9948.0),
        ("relative", "median"): (47740.0, 52280.0), ("relative", "p99"): (98540.0, 99480.0),
    }  # fmt: skip
    found = brackets_from_sample(sample, 10 * sample)
    for (kind, figure, _, _), (low, high) in zip(QUANTILES, found, strict=True):
        ends = want[kind, figure]
        assert (math.nextafter(low, 0), math.nextafter(high, math.inf)) == ends, "without its own ends"
    assert brackets_from_sample(np.full(10_000, 3.0), np.full(10_000, 4.0)) == [(3, 3), (3, 3), (4, 4), (4, 4)]
    two = np.nextafter(3.0, [4.0] * 10_000)
    two[:5_000] = 3.0
    assert brackets_from_sample(two, two)[0] == (3.0, two[-1])
    largest = sys.float_info.max
    assert brackets_from_sample(np.ones(4), np.ones(4))[::2] == [(0.0, largest)] * 2
    # Of 30 the rank is 15 and 14.3 aside: 0 and 30, the first of the sample and beyond the last.
    assert brackets_from_sample(np.arange(1, 31.0), np.ones(0))[0] == (math.nextafter(1.0, 2.0), largest)
    assert brackets_from_sample(np.arange(1, 26.0), np.ones(0))[0] == (0.0, largest)
    assert brackets_from_sample(np.arange(1, 33.0), np.ones(0))[0] == (
        math.nextafter(2.0, 3.0),
        math.nextafter(32.0, 0),
    )


def test_a_sample_of_the_kept_errors_that_misses_the_answer() -> None:
    """Every sixteenth error is the same, and only these are in the sample."""
    errors = np.random.default_rng(0).random(2 * module.PICK_LIMIT)
    errors[:: errors.size // (module.PICK_LIMIT // 8)] = 0.5
    ordered = np.sort(errors)
    for rank in (0, errors.size // 4, errors.size // 2, errors.size - 1):
        assert module._pick(errors, rank) == ordered[rank]


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 1, 9), (4, 3, 2, 5), (1, 1000), (1000, 1), (2, 9, 9)])
@pytest.mark.parametrize("size", [1, 4, 16, 100])
def test_blocks_cover_every_element_once_in_order(shape: tuple[int, ...], size: int) -> None:
    flat = torch.arange(math.prod(shape)).view(shape)
    parts = blocks(shape, size)
    assert torch.cat([flat[index].flatten() for _, index in parts]).tolist() == flat.flatten().tolist()
    assert [start for start, _ in parts] == [int(flat[index].min()) for _, index in parts]
    assert max(flat[index].numel() for _, index in parts) <= size


def test_gradients_and_inference_tensors_are_welcome() -> None:
    actual = torch.ones(3, requires_grad=True)
    with torch.inference_mode():
        expected = torch.full((3,), 2.0)
    assert compare(actual, expected).relative_l2 == 0.5


def test_json_holds_the_documented_keys() -> None:
    stats = compare(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    data = json.loads(json.dumps(stats.to_json()))
    assert data["shape"] == [1, 2]
    assert data["absolute"] == {"max": 2.0, "mean": 1.0, "median": 0.0, "p99": 0.0}
    assert data["relative"] == {"max": 0.5, "mean": 0.25, "median": 0.0, "p99": 0.0, "undefined": 0}
    assert data["worst"][0] == {"index": [0, 1], "actual": 2.0, "expected": 4.0}
    assert data["bias"] == pytest.approx(-1 / math.sqrt(8.5))
    assert data["first_nonfinite"] is None
    assert set(data) == {
        *("shape", "dtype", "absolute", "relative", "relative_l2", "cosine", "snr_db", "effective_bits", "bias"),
        *("elements", "compared", "rms_expected", "std_actual", "std_expected", "max_expected"),
        *("zero_actual", "zero_expected", "constant_actual", "constant_expected"),
        *("nonfinite_actual", "nonfinite_expected", "nan_actual", "nan_expected", "mismatched_nonfinite"),
        *("first_nonfinite", "worst"),
    }


@pytest.mark.parametrize(
    ("actual", "expected", "words"),
    [
        (torch.ones(2), torch.ones(1, 2), "output 'y' has shape [2], but should have [1, 2]"),
        (torch.ones(0), torch.ones(0), "output 'y' is empty (shape [0]); nothing can be compared"),
    ],
)
def test_what_cannot_be_compared_fails_with_words(actual: torch.Tensor, expected: torch.Tensor, words: str) -> None:
    with pytest.raises(EngineFailed) as error:
        compare(actual, expected, name="y")
    assert str(error.value) == words


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(EngineFailed, match="output is complex"):
        compare(torch.ones(2, dtype=torch.complex64), torch.ones(2))


@given(pairs())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_bitwise_equal_is_equality_of_bytes(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    def raw(tensor: torch.Tensor) -> bytes:
        fresh = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
        return bytes(fresh.flatten().view(torch.uint8).tolist())

    actual, expected = pair
    assert bitwise_equal(actual, actual.clone())
    assert bitwise_equal(actual, expected) == (actual.dtype == expected.dtype and raw(actual) == raw(expected))


def test_bitwise_equal_sees_the_sign_of_a_lazily_negated_tensor() -> None:
    negated = torch.ones(3, dtype=torch.complex64).mul(1j).conj().imag
    assert bitwise_equal(negated, torch.full((3,), -1.0))
    assert bytes(tensor_bytes(negated)) == bytes(tensor_bytes(torch.full((3,), -1.0)))


def test_bitwise_equal_of_complex_numbers() -> None:
    for dtype in (torch.complex64, torch.complex128):
        number = torch.tensor([1 + 2j, 0 + 3j], dtype=dtype)
        assert bitwise_equal(number, number.clone())
        assert bitwise_equal(number.conj(), torch.tensor([1 - 2j, 0 - 3j], dtype=dtype))
        for other in ([1 + 2j, 0 + 3.5j], [1 + 2j, 0.5 + 3j], [1 + 2j, complex(-0.0, 3)]):
            assert not bitwise_equal(number, torch.tensor(other, dtype=dtype))
    assert not bitwise_equal(number, number.to(torch.complex64))


def test_a_cosine_is_from_minus_one_to_one() -> None:
    for seed in range(50):
        values = gaussian(3, seed=seed).double()
        for times in (1, 3, -1, -3):
            assert -1 <= compare(times * values, values).cosine <= 1


def test_bitwise_equal_tells_zeros_and_shapes_apart() -> None:
    assert not bitwise_equal(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert bitwise_equal(torch.tensor([math.nan]), torch.tensor([math.nan]))
    assert not bitwise_equal(torch.ones(2, 1), torch.ones(1, 2))
    assert not bitwise_equal(torch.ones(2), torch.ones(2).half())


def moved(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """Return the tensor on a device with its strides; ``to`` would make one that is sliced or expanded contiguous."""
    tensor = tensor.resolve_neg()
    held = tensor.untyped_storage().nbytes() // tensor.element_size()
    return (
        tensor.as_strided((held,), (1,), 0)
        .to(device)
        .as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    )


def check_kernels(device: str, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Hold the GPU's passes against the reference on every case."""
    from harness.compare import cuda as compare_cuda
    from harness.compare.tensors import error_stats

    for name, (actual, expected) in pairs.items():
        a, e = (moved(tensor, device) for tensor in (actual, expected))
        try:
            check(actual, expected, error_stats(a, e, compare_cuda.measure(a, e)).to_json())
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


SHRUNK = {"SAMPLE": 256, "PIECE": 500, "PROGRAMS": 1, "BLOCK": 256, "KEPT": 2}
"""1200 elements then need brackets, more errors than are kept, several pieces, and several turns of a program."""
SMALL_CASES = {name: (actual, expected) for name, actual, expected in cases(1_200)}
INTERPRETED = (
    "plain", "float16", "float8", "float64", "integers", "non-finite", "all NaN", "zero reference", "all tied",
    "transposed", "negated lazily", "scalar", "seven",
)  # fmt: skip
"""What the interpreter of Triton computes: it takes seconds for each; a GPU computes all."""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_under_the_interpreter() -> None:
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", __file__],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "only 0-dimensional arrays can be converted" in run.stderr:
        pytest.skip("the interpreter of this Triton (seen with 3.6) does not work with this NumPy")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f"{len(INTERPRETED)} cases"


@pytest.mark.gpu
@pytest.mark.parametrize("small", [False, True])
def test_kernels_on_the_gpu(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in SHRUNK.items() if small else ():
        monkeypatch.setattr(compare_cuda, constant, value)
    check_kernels("cuda", SMALL_CASES if small else CASES)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FLOATS)
def test_gpu_agrees_with_cpu_on_large_tensors(dtype: torch.dtype) -> None:
    expected = gaussian(3, 2**21 + 1)
    actual = (expected + 1e-3 * gaussian(3, 2**21 + 1, seed=1)).to(dtype)
    for reshape in (torch.Tensor.contiguous, torch.Tensor.t):
        on_gpu = compare(reshape(actual.cuda()), reshape(expected.cuda())).to_json()
        on_cpu = compare(reshape(actual), reshape(expected)).to_json()
        assert on_gpu["worst"] == on_cpu["worst"]
        for kind in ("absolute", "relative"):
            for figure in ("max", "median", "p99"):
                assert on_gpu[kind][figure] == on_cpu[kind][figure], (kind, figure)
            assert on_gpu[kind]["mean"] == pytest.approx(on_cpu[kind]["mean"], rel=1e-12)
        for figure in ("relative_l2", "cosine", "rms_expected", "std_actual"):
            assert on_gpu[figure] == pytest.approx(on_cpu[figure], rel=1e-9)


if __name__ == "__main__":
    for constant, value in SHRUNK.items():
        setattr(compare_cuda, constant, value)
    check_kernels("cpu", {name: SMALL_CASES[name] for name in INTERPRETED})
    print(f"{len(INTERPRETED)} cases")

"""Who writes the quantised file: onnxruntime's quantiser, or NVIDIA's Model Optimizer where it is installed."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import NotJudged, first_line
from harness.sentences import Sentence
from harness.tensors import Tensors

METHODS = ("max", "entropy", "percentile")
"""How the range of an activation follows from data: its largest value, the range whose histogram of codes is nearest to
that of the values (Kullback-Leibler), or the 99.999th percentile."""
TYPES = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""The operators of which TensorRT gains from quantised inputs; all others stay in floats."""


def _by_onnxruntime(
    model: Path, target: Path, data: Sequence[Tensors], *, method: str, types: Sequence[str], exclude: Sequence[str]
) -> None:
    """Symmetric, with zero points 0, weights per channel and in floats before their own Q/DQ, a bias in floats."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        model, target, _reader(data),
        calibrate_method={
            "max": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }[method],
        quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=list(types), nodes_to_exclude=list(exclude),
        extra_options={
            "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": list(types), "DedicatedQDQPair": True, "CalibStridedMinMax": 1,
        },
    )  # fmt: skip


def _by_modelopt(
    model: Path, target: Path, data: Sequence[Tensors], *, method: str, types: Sequence[str], exclude: Sequence[str]
) -> None:
    try:
        from modelopt.onnx.quantization import quantize  # type: ignore[import-not-found]
    except ImportError as error:
        raise NotJudged(Sentence("no_quantiser", error=error)) from error
    if method == "percentile":
        raise NotJudged(Sentence("modelopt_methods"))
    quantize(
        str(model), quantize_mode="int8", calibration_method=method, output_path=str(target),
        calibration_data_reader=_reader(data), op_types_to_quantize=list(types), nodes_to_exclude=list(exclude),
        high_precision_dtype="fp32",
    )  # fmt: skip


def _reader(data: Sequence[Tensors]) -> Any:
    """Return inputs one by one, from the beginning as often as they are asked for."""
    from onnxruntime.quantization import CalibrationDataReader

    arrays = [{name: it.cpu().numpy() for name, it in one.items()} for one in data]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def rewind(self) -> None:
            self._left = iter(arrays)

        def __len__(self) -> int:
            return len(data)

        def set_range(self, start_index: int, end_index: int) -> None:  # inputs of other shapes go one by one
            self._left = iter(arrays[start_index:end_index])

        def get_next(self) -> Any:
            return next(self._left, None)

        def get_first(self) -> Any:
            return arrays[0]

    return Reader()


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


Quantiser = Callable[..., None]
QUANTISERS: Mapping[str, Quantiser] = {"onnxruntime": _by_onnxruntime, "modelopt": _by_modelopt}


def quantise(quantiser: str, model: Path, target: Path, data: Sequence[Tensors], **how: Any) -> None:
    """Write the quantised model. Raises NotJudged with the first line of what a quantiser raises."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), _unlogged():  # they print what they do
            QUANTISERS[quantiser](model, target, data, **how)
    except NotJudged:
        raise
    except Exception as error:  # the quantisers raise whatever numpy, onnx and onnxruntime do
        raise NotJudged(
            Sentence(
                "quantiser_raised",
                quantiser=quantiser,
                method=how["method"],
                name=type(error).__name__,
                said=first_line(error),
            )
        ) from error

"""Modules that were quantised in PyTorch: exported with Q/DQ under their names, and right in every precision."""

from __future__ import annotations

import pytest
import torch

from harness import Subject, Tolerance, targets
from harness.graph import quantised_units
from harness.reference.fake_quantisation import FAKE_QUANTISATION
from harness.settings import Settings
from harness.verify import Run, verify

ATEN = torch.ops.aten
X = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 32), torch.nn.Linear(32, 8)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

    def forward(self, x):
        return {"y": self.second(torch.relu(self.first(x)))}


def by_torch():
    """Quantise for training in PyTorch's own way: signed codes, zero points 0, weights per channel."""
    from torch.ao.quantization import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        QConfig,
        default_per_channel_weight_fake_quant,
        disable_observer,
        prepare_qat,
    )

    activation = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )  # fmt: skip
    net = Net().train()
    net.qconfig = QConfig(activation=activation, weight=default_per_channel_weight_fake_quant)
    net = prepare_qat(net)
    net(X)
    return net.apply(disable_observer).eval()


def by_modelopt():
    import modelopt.torch.quantization as mtq

    return mtq.quantize(Net().eval(), mtq.INT8_DEFAULT_CFG, lambda net: net(X)).eval()


@pytest.mark.parametrize("build", [by_torch, by_modelopt])
@pytest.mark.filterwarnings("ignore")
def test_a_quantised_module_is_exported_with_its_names(build, tmp_path):
    if build is by_modelopt:
        pytest.importorskip("modelopt.torch.quantization")
    it = Subject(
        name="net", build=lambda: Net().eval(), quantised=build, cases={"one": lambda: {"x": X}}, weights="random",
        targets=targets("ort-cpu", precisions=("fp32",)), cost=Tolerance(why="wanted", relative_l2=0.05),
    )  # fmt: skip
    settings = Settings(engines=tmp_path, progress=lambda message: None)
    [result] = verify(it, targets=it.targets, cases=["one"], settings=settings)
    # A value near a tie may get another code in FP64 than in FP32: then there is no floor, and nothing is claimed.
    assert (result.verdict != "fail", result.cost.verdict) == (True, "pass"), result.reason
    assert result.cost.outputs[0].stats.relative_l2 > 1e-3
    program = Run(it, settings).prepared.program
    assert len(quantised_units(program.model)) >= 2
    assert {"first", "second"} <= {value.module.partition(".")[0] for value in program.values.values()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.03, torch.tensor(0.03)])
def test_codes_of_a_tensor_are_those_of_pytorch(dtype, scale):
    x = X.to(dtype)
    found = FAKE_QUANTISATION[ATEN.fake_quantize_per_tensor_affine_cachemask.default](x, scale, 0, -8, 7)[0]
    assert found.dtype == dtype
    wanted = torch.fake_quantize_per_tensor_affine(x.float(), 0.03, 0, -8, 7)
    assert torch.equal((found.double() / 0.03).round(), (wanted.double() / 0.03).round())


def test_codes_of_channels_are_those_of_pytorch():
    scale, zero = torch.linspace(0.01, 0.05, 16), torch.zeros(16, dtype=torch.int32)
    found = FAKE_QUANTISATION[ATEN.fake_quantize_per_channel_affine.default](X, scale, zero, 1, -128, 127)
    torch.testing.assert_close(found, torch.fake_quantize_per_channel_affine(X, scale, zero, 1, -128, 127))
    held = FAKE_QUANTISATION[ATEN.fake_quantize_per_channel_affine_cachemask.default](X, scale, zero, 1, -8, 7)[1]
    assert not held.all()

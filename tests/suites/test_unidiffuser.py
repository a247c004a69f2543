"""UniDiffuser at its small size on the CPU: its networks, and text to picture as one system."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet

# ruff: noqa: E402 - what the suite imports may be missing
for package in ("diffusers", "transformers"):
    pytest.importorskip(package, reason=f"unidiffuser needs {package}: pip install '.[canny2image]'")

from harness import UsageError, discovery
from harness.cli import main
from harness.graph import load_plan
from harness.systems import Networks, Variant, run_study
from suites.unidiffuser import models
from suites.unidiffuser.study import GUIDANCE, MOST_TIME, Pipeline, UniDiffuser


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    """Take the small size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARITY_UNIDIFFUSER_SIZE", "small")
        patch.delenv(models.CHECKPOINT, raising=False)
        yield


@pytest.fixture(autouse=True)
def still_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_UNIDIFFUSER_SIZE", "small")


def torch_variant(name: str, **fields: Any) -> Variant:
    return Variant(**{"name": name, "backend": "torch", "precision": "fp32", "steps": 4, **fields})


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return Networks(UniDiffuser(), quiet(tmp_path_factory.mktemp("unidiffuser")))


@pytest.fixture
def pipeline(networks: Networks) -> Any:
    variant = torch_variant("v")
    with networks.open(variant, "torch") as opened, torch.inference_mode():
        yield Pipeline(opened, variant, networks.device)


def test_every_network_is_a_suite_of_its_own():
    files = discovery.suite_files(Path(models.__file__).parents[1])
    found = {discovery.load_suite(path).name for name, path in files.items() if name.startswith("unidiffuser/")}
    assert found == {f"unidiffuser-{kind}-small" for kind in models.KINDS}


def test_no_parameter_is_all_zeros():
    for kind, make in models.KINDS.items():
        assert all(bool(parameter.any()) for parameter in make().parameters()), kind


def test_at_full_size_it_is_version_1():
    from diffusers import UniDiffuserModel

    with torch.device("meta"):
        unet = UniDiffuserModel(**models._config("unet", "full"))
    assert sum(parameter.numel() for parameter in unet.parameters()) == 952_535_632, "952 million, as its paper says"


def test_the_guided_noise_is_that_of_diffusers(pipeline: Pipeline):
    from diffusers import UniDiffuserPipeline

    unet = models.part("unet")
    theirs = types.SimpleNamespace(
        unet=unet, num_channels_latents=4, vae_scale_factor=1, image_encoder_projection_dim=models.CLIP["small"]
    )
    for name in ("_split", "_combine"):
        setattr(theirs, name, types.MethodType(getattr(UniDiffuserPipeline, name), theirs))
    side, text = models.LATENTS["small"], models.noise(1, models.TOKENS, models.TEXT["small"], seed=5)
    row = models.noise(1, 4 * side**2 + models.CLIP["small"], seed=6)
    expected = UniDiffuserPipeline._get_noise_pred(
        theirs, "text2img", row, 501, text, None, None, MOST_TIME, 1, GUIDANCE,
        torch.Generator().manual_seed(models.SEED + 1), "cpu", side, side,
    )  # fmt: skip
    torch.testing.assert_close(pipeline._noise(row, text, 501, 0), expected, rtol=1e-4, atol=1e-4)


def test_another_prompt_gives_another_picture(pipeline: Pipeline):
    first, second = (pipeline.make(case) for case in UniDiffuser().cases(2).values())
    assert first.shape == (16, 16, 3)
    assert (first != second).any()
    with pytest.raises(UsageError, match="there are 4 prompts"):
        UniDiffuser().cases(5)


def test_forced_from_the_reference_s_steps_a_right_engine_has_no_error(networks: Networks, tmp_path: Path):
    system = UniDiffuser()
    system.reference = torch_variant("reference")
    system.variants = (torch_variant("exact"), torch_variant("coarse", precisions={"uvit": "bf16"}))
    options = {"settings": networks.settings, "folder": tmp_path / "pictures", "networks": networks}
    *_, last = run_study(system, cases=1, **options)
    _, exact, coarse = last.variants
    assert len(exact.steps) == 4
    assert max(step.forced for step in exact.steps) == 0
    assert 0 < coarse.steps[-1].forced < coarse.steps[-1].free
    assert coarse.pictures[0].metrics["psnr"] < 60 < exact.pictures[0].metrics["psnr"]
    assert set(exact.stages_ms) == {"text", "u-vit", "decoder"}


def test_the_group_norm_that_overflows_in_fp16_is_found_and_repaired_without_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    suite, plan = str(Path(__file__).with_name("group_norm.py")), str(tmp_path / "plan.toml")
    monkeypatch.setenv("PARITY_ENGINES", str(tmp_path / "engines"))
    record = tmp_path / "bisection.json"
    main(["bisect", suite, "-b", "torch", "-p", "fp16", "-o", plan, "--json", str(record)])
    text = record.read_text()
    assert "decoder.conv_norm_out" in text
    assert 0 < len(load_plan(plan).keep_fp32) <= 4
    assert main(["verify", suite, "-b", "torch", "-p", "fp16"]) != 0
    assert main(["verify", suite, "-b", "torch", "-p", plan]) == 0

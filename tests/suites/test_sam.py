"""Segment Anything at its small size on the CPU: what its weights are, its networks, and the two as one system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet

# ruff: noqa: E402 - what the suite imports may be missing
for package in ("transformers", "skimage"):
    pytest.importorskip(package, reason=f"sam needs {package}: pip install '.[canny2image]'")

from harness import NotJudged, UsageError, discovery
from harness.systems import Networks, Variant, run_study
from suites import shared
from suites.sam import models
from suites.sam.study import Sam


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the small size."""
    monkeypatch.setenv("PARITY_SAM_SIZE", "small")


@pytest.fixture(scope="module")
def sam() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARITY_SAM_SIZE", "small")
        return models.model()


def test_every_network_is_a_suite_of_its_own():
    files = discovery.suite_files(Path(models.__file__).parents[1])
    found = {discovery.load_suite(path).name for name, path in files.items() if name.startswith("sam/")}
    kinds = ("image-encoder", "mask-decoder", "windowed-layer", "global-layer")
    assert found == {f"sam-{kind}-small" for kind in kinds}


def test_weights_are_labelled_and_none_is_all_zeros(sam: Any):
    assert all(bool(parameter.any()) for parameter in sam.parameters())
    assert models.subject("mask-decoder").weights == "random"
    again = models.model().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in sam.state_dict().items())


def test_another_picture_gives_other_masks_and_no_mask_is_all_or_nothing():
    masks = []
    for image in shared.photographs(2, 128).values():
        sam = models.model()
        embeddings = models.Encoder(sam)(**models.picture(image))
        masks.append(models.Decoder(sam)(**embeddings, **models.points(3))["masks"] > 0)
    assert float((masks[0] != masks[1]).float().mean()) > 0.01
    assert all(0.02 < float(mask.float().mean()) < 0.98 for mask in masks[0][0, 0])


def test_one_layer_sees_a_window_that_does_not_fit_and_one_the_whole(sam: Any):
    windowed, whole = (sam.vision_encoder.layers[models.LAYERS[kind]["small"]] for kind in models.LAYERS)
    assert whole.window_size == 0
    assert (models.SIDES["small"] // models.PATCH) % windowed.window_size != 0


def test_at_full_size_it_is_vit_h():
    from transformers import SamConfig, SamModel

    with torch.device("meta"):
        sam = SamModel(SamConfig(**models._config("full")))
    assert sum(parameter.numel() for parameter in sam.parameters()) == 641_090_864
    assert (sam.config.vision_config.hidden_size, len(sam.vision_encoder.layers)) == (1280, 32)


def test_what_a_checkpoint_lacks_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(models.CHECKPOINT, str(tmp_path))
    assert models.subject("mask-decoder").weights == "trained"
    with pytest.raises(NotJudged, match=r"PARITY_SAM: .* cannot be loaded"):
        models.model()


def test_a_size_that_is_none_and_too_many_pictures_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="there are 4 photographs"):
        Sam().cases(5)
    monkeypatch.setenv("PARITY_SAM_SIZE", "smal")
    with pytest.raises(UsageError, match="did you mean small"):
        models.subject("mask-decoder")


def test_encoder_and_decoder_are_a_system(tmp_path: Path):
    settings = quiet(tmp_path)
    system = Sam()
    system.variants = (
        Variant(name="exact", backend="torch", precision="fp32"),
        Variant(name="coarse", backend="torch", precision="fp32", precisions={"image-encoder": "bf16"}),
    )
    networks = Networks(system, settings)
    *_, last = run_study(system, cases=1, settings=settings, folder=tmp_path / "pictures", networks=networks)
    _, exact, coarse = last.variants
    assert exact.verdict == "pass"
    overlaps = [variant.metrics[0].actual for variant in (exact, coarse)]
    assert overlaps[0] > 0.999 > overlaps[1], "the encoder's error reaches the masks"
    assert set(exact.stages_ms) == {"image encoder", "mask decoder"}
    (picture,) = coarse.pictures
    assert all((tmp_path / file).is_file() for file in picture.files.values())
    assert set(picture.files) == {"input", "reference", "engine", "difference", "sheet"}

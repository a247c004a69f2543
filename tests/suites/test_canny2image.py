"""The canny2image system at its small size on the CPU: networks, sampler, pipeline and study."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# ruff: noqa: E402 - what the suite imports may be missing
for package in ("diffusers", "transformers", "cv2", "skimage"):
    pytest.importorskip(package, reason=f"canny2image needs {package}: pip install '.[canny2image]'")

from harness import EngineFailed, NotJudged, Settings, Target, UsageError, discovery
from harness.backends import BACKENDS
from harness.hackathon.rules import Rules
from harness.systems import Networks, choose
from harness.systems import run_study as study_of
from harness.verify.verify import verify
from suites.canny2image import models, pictures, sampler, sizes, study
from suites.canny2image.models import subject
from suites.canny2image.pipeline import CONTEST, Pipeline, control_scales
from suites.canny2image.sizes import FULL, SMALL
from suites.canny2image.study import Canny2Image
from suites.canny2image.tokens import tokenize
from suites.canny2image.variants import CONTEST_STEPS, REFERENCE, VARIANTS, Variant

REQUEST = dataclasses.replace(CONTEST, image_resolution=64, ddim_steps=4)
UNTIMED = Rules(latency_limit_ms=math.inf, score=lambda pd, latency_ms: 100 - pd)
"""How fast the machine is that runs the tests decides nothing."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the small size, and no checkpoint."""
    monkeypatch.setenv(sizes.SIZE, "small")
    monkeypatch.delenv(sizes.CHECKPOINT, raising=False)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose more by threads than they gain, and other tests run at the same time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("canny2image")
    return Settings(engines=folder / "engines", references=folder, device="cpu", progress=lambda line: None)


@pytest.fixture(scope="module")
def networks(settings: Settings) -> Networks:
    return Networks(Canny2Image(SMALL), settings)


@pytest.fixture(scope="module")
def picture() -> Any:
    return next(iter(pictures.load(1, SMALL).values()))


@pytest.fixture
def pipeline(networks: Networks) -> Iterator[Pipeline]:
    with networks.open(REFERENCE, "torch") as opened:
        yield Pipeline(opened, REFERENCE, SMALL, networks.device)


def latents_of(networks: Networks, variant: Variant, backend: str, picture: Any) -> torch.Tensor:
    with networks.open(variant, backend) as opened:
        pipeline = Pipeline(opened, variant, SMALL, networks.device)
        made, seen = pipeline.generate(picture, REQUEST), pipeline.trajectory(picture, request=REQUEST)
    assert made[0].shape == (64, 64, 3)
    return seen[-1].value


# the sampler


def ddim() -> Any:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip
    scheduler.set_timesteps(20)
    return scheduler


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_step_is_that_of_diffusers(eta: float):
    scheduler, steps = ddim(), sampler.schedule(20, eta=eta)
    assert [step.timestep for step in steps] == scheduler.timesteps.tolist()
    latents, noise, fresh = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for step in steps:
        expected = scheduler.step(noise, step.timestep, latents, eta=eta, variance_noise=fresh if eta else None)
        actual = sampler.advance(step, latents, noise, fresh if eta else None)
        torch.testing.assert_close(actual, expected.prev_sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "computed", "sentence"),
    [
        (0, None, "0 steps cannot be sampled"),
        (501, None, "501 steps cannot be sampled"),
        (4, [3, 4], "step 4 is not one of 4 steps"),
        (4, [2, 1], "step 3 is the first and has nothing to reuse"),
    ],
)
def test_an_impossible_schedule_is_refused(steps: int, computed: list[int] | None, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        sampler.schedule(steps, compute_steps=computed)


def test_a_step_that_does_not_compute_reuses_the_last_noise():
    seen = []

    def noise_of(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        seen.append(int(timestep[0]))
        return torch.full_like(latents, float(len(seen)))

    steps = sampler.schedule(20, compute_steps=CONTEST_STEPS)
    assert sampler.sample(noise_of, torch.zeros(1, 4, 2, 2), steps).isfinite().all()
    assert seen == [step.timestep for step in steps if step.index in CONTEST_STEPS]


def test_a_seed_means_one_start():
    first, fresh = sampler.draw(5, (1, 4, 2, 2), 3, 0.0)
    again, noises = sampler.draw(5, (1, 4, 2, 2), 3, 1.0)
    assert torch.equal(first, again)
    assert fresh is None
    assert noises is not None
    assert noises.shape == (3, 1, 4, 2, 2)


# prompts, pictures


def test_the_stand_in_tokenizer_is_deterministic_and_pads_with_the_end():
    ids = tokenize(["a bird, best", "a bird, best", "word " * 200], SMALL)
    assert ids.shape == (3, 77)
    assert torch.equal(ids[0], ids[1])
    assert ids[0, 0] == SMALL.vocabulary - 2
    assert (ids[0, 5:] == SMALL.vocabulary - 1).all()
    assert ids[2, -1] == SMALL.vocabulary - 1
    assert int(ids.max()) < SMALL.vocabulary


def test_there_are_twenty_different_pictures_of_the_contest_s_size():
    found = pictures.load(20, FULL)
    assert {image.shape for image in found.values()} == {(256, 384, 3)}
    assert len({image.tobytes() for image in found.values()}) == 20
    with pytest.raises(UsageError, match="ask for 1 to 20"):
        pictures.load(21, FULL)


@pytest.mark.parametrize("shape", [(300, 450), (300, 450, 1), (300, 450, 3), (300, 450, 4)])
def test_a_picture_is_fitted_as_controlnet_does(shape: tuple[int, ...]):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert pictures.fit(image, 256).shape == (256, 384, 3)


def test_what_is_transparent_becomes_white():
    image = np.zeros((64, 64, 4), np.uint8)
    assert (pictures.fit(image, 64) == 255).all()


def test_a_picture_of_another_size_is_refused(pipeline: Pipeline):
    with pytest.raises(UsageError, match="becomes 64x128, and the engines take 64x64"):
        pipeline.conditions(np.zeros((100, 200, 3), np.uint8), REQUEST)


# networks


def test_every_network_is_a_suite_of_its_own():
    files = discovery.suite_files(Path(models.__file__).parents[1])
    found = {discovery.load_suite(path).name for name, path in files.items() if name.startswith("canny2image/")}
    assert found == {f"canny2image-{kind}-small" for kind in (*models.KINDS, "combined")}


def test_full_size_is_not_made_on_a_cpu_unasked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(sizes.SIZE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotJudged, match="full size wants a GPU"):
        subject("text-encoder").build()


def test_an_unknown_size_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(sizes.SIZE, "smal")
    with pytest.raises(UsageError, match="did you mean small"):
        subject("unet")


def test_full_size_is_that_of_stable_diffusion():
    inputs = models.example("unet", FULL, 2)
    shapes = [tuple(tensor.shape) for name, tensor in inputs.items() if name.startswith("control")]
    assert tuple(inputs["sample"].shape) == (2, 4, 32, 48)
    assert len(shapes) == 13
    assert shapes[0] == (2, 320, 32, 48)
    assert shapes[-1] == (2, 1280, 4, 6)


def test_at_full_size_the_controlnet_gives_what_the_unet_takes():
    with torch.device("meta"):  # shapes only: nothing is computed
        combined = models._assemble("combined", lambda name: models._of_size(name, FULL))
        outputs = combined(**{name: tensor.to("meta") for name, tensor in models.example("combined", FULL, 2).items()})
        controls = combined.controlnet(
            **{name: tensor.to("meta") for name, tensor in models.example("controlnet", FULL, 2).items()}
        )
    assert tuple(outputs["noise"].shape) == (2, 4, 32, 48)
    assert [tuple(tensor.shape[1:]) for tensor in controls.values()] == models.control_shapes(FULL)
    assert sum(parameter.numel() for parameter in combined.unet.parameters()) == 859_520_964


def test_random_weights_are_labelled_and_the_same_alone_and_combined():
    assert subject("unet").weights == "random"
    assert "seed 0" in subject("unet").weights_source
    combined = models.build("combined", SMALL).state_dict()
    alone = models.build("unet", SMALL).state_dict()
    assert all(torch.equal(combined[f"unet.{name}"], tensor) for name, tensor in alone.items())
    assert all(bool(tensor.any()) for name, tensor in combined.items() if "controlnet" in name and "conv" in name)


def test_the_controlnet_with_its_hint_apart_is_diffusers_own():
    torch.manual_seed(models.SEED)
    whole = models._random("controlnet", size=SMALL).eval()
    edges = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inputs = models.example("controlnet", SMALL, 2)
    with torch.inference_mode():
        down, middle = whole(inputs["sample"], inputs["timestep"], inputs["context"], edges, return_dict=False)
        hint = models.build("hint", SMALL)(edges)["hint"]
        apart = models.build("controlnet", SMALL)(**{**inputs, "hint": hint})
    for actual, expected in zip(apart.values(), [*down, middle], strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["text-encoder", "hint", "vae-encoder"])
def test_an_engine_of_one_network_passes(kind: str, settings: Settings):
    (result,) = verify(subject(kind), targets=[Target("ort-cpu", "fp16")], cases=["one"], settings=settings)
    assert result.verdict == "pass", result.reason
    assert result.provenance is not None
    assert result.provenance.weights == "random"


# a checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a checkpoint of the small size in diffusers layout, without a tokenizer."""
    for name in ("text_encoder", "controlnet", "unet", "vae"):
        torch.manual_seed(7)
        models._of_size(name, SMALL).save_pretrained(tmp_path / "tiny" / name)
    monkeypatch.setenv(sizes.CHECKPOINT, str(tmp_path / "tiny"))
    return tmp_path / "tiny"


def test_a_checkpoint_s_weights_are_trained_and_loaded(checkpoint: Path):
    assert subject("vae-decoder").weights == "trained"
    assert "tiny" in subject("vae-decoder").weights_source
    torch.manual_seed(7)
    expected = models._of_size("vae", SMALL).state_dict()
    loaded = models.build("vae-decoder", SMALL).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


def test_what_a_checkpoint_lacks_is_one_sentence(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(NotJudged, match="has no tokenizer/"):
        tokenize(["a bird"], SMALL)
    with pytest.raises(NotJudged, match="has a context of 32, and size full one of 768"):
        models.build("unet", FULL)
    (checkpoint / "unet" / "config.json").unlink()
    with pytest.raises(NotJudged, match=r"has no unet/config.json; give a folder in diffusers layout"):
        models.build("unet", SMALL)


# the pipeline


def test_the_pipeline_is_diffusers_own(pipeline: Pipeline, picture: Any):
    """The same networks in diffusers' pipeline give the same latents."""
    from diffusers import StableDiffusionControlNetPipeline

    parts = {name: models._random(name, size=SMALL).eval() for name in ("text_encoder", "controlnet", "unet", "vae")}
    theirs = StableDiffusionControlNetPipeline(
        **parts, tokenizer=None, scheduler=ddim(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    wanted = pipeline.conditions(picture, dataclasses.replace(REQUEST, ddim_steps=20, strength=0.8))
    with torch.inference_mode():
        context = parts["text_encoder"](wanted.tokens).last_hidden_state
        expected = theirs(
            prompt_embeds=context[:1], negative_prompt_embeds=context[1:], image=wanted.edges, latents=wanted.starts,
            num_inference_steps=20, guidance_scale=9.0, output_type="latent", controlnet_conditioning_scale=0.8,
        ).images  # fmt: skip
    actual = pipeline.trajectory(picture, request=dataclasses.replace(REQUEST, ddim_steps=20, strength=0.8))[-1].value
    assert float((actual - expected).norm() / expected.norm()) < 1e-4


def test_process_takes_the_contest_s_parameters(pipeline: Pipeline, picture: Any):
    made = pipeline.process(picture, "a bird", "best", "worst", 2, 64, 2, False, 1, 9, 7, 0.0, 100, 200)
    assert [image.shape for image in made] == [(64, 64, 3)] * 2
    assert made[0].dtype == np.uint8
    assert not np.array_equal(made[0], made[1])
    again = pipeline.process(picture, "a bird", "best", "worst", 1, 64, 2, False, 1, 9, 8, 0.0, 100, 200)
    assert not np.array_equal(made[0], again[0]), "another seed gives another picture"


@pytest.fixture(scope="module")
def expected(networks: Networks, picture: Any) -> torch.Tensor:
    return latents_of(networks, REFERENCE, "torch", picture)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(name="two", precision="fp32"),
        Variant(name="one", backend="torch", precision="fp32", batch="1 twice"),
        Variant(name="combined", backend="torch", precision="fp32", combined=True),
        Variant(name="half", precision="fp16"),
    ],
    ids=lambda variant: variant.name,
)
def test_every_way_to_run_gives_the_reference_s_latents(
    networks: Networks, picture: Any, expected: torch.Tensor, variant: Variant
):
    actual = latents_of(networks, variant, variant.backend or "ort-cpu", picture)
    error = float((actual - expected).norm() / expected.norm())
    assert error < (1e-5 if variant.precision == "fp32" else 1e-2)


def test_guess_mode_leaves_the_negative_prompt_alone():
    scales = control_scales(dataclasses.replace(REQUEST, guess_mode=True, strength=2.0), 13)
    assert scales.shape == (13, 2)
    assert not scales[:, 1].any()
    assert float(scales[12, 0]) == 2.0
    assert float(scales[0, 0]) == pytest.approx(2.0 * 0.825**12)


def test_eta_adds_noise_that_the_seed_decides(pipeline: Pipeline, picture: Any):
    request = dataclasses.replace(REQUEST, eta=1.0)
    first, second = (pipeline.generate(picture, request)[0] for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, pipeline.generate(picture, REQUEST)[0])


def test_stages_are_timed_when_asked(pipeline: Pipeline, picture: Any):
    pipeline.stages_ms = {}
    pipeline.generate(picture, REQUEST)
    assert set(pipeline.stages_ms) == {"host", "text encoder", "controlnet and unet", "vae decoder"}


# variants and the study


def test_there_are_at_least_six_variants_with_names_of_their_own():
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names) >= 6
    json.dumps([variant.to_json(variant.networks()) for variant in VARIANTS])
    combined = Variant(name="v", precisions={"unet": "tf32", "combined": "fp32"}, combined=True)
    assert combined.to_json(combined.networks())["precisions"] == {"combined": "fp32"}, (
        "what the variant does not run is not listed"
    )
    with pytest.raises(UsageError, match="did you mean fp16"):
        choose(["fp1"], VARIANTS)


def run_study(networks: Networks, folder: Path, *known: Variant, **options: Any) -> Any:
    arguments = {"cases": 1, "steps": 2, "backend": "ort-cpu", **options}
    system = Canny2Image(SMALL, variants=known, rules=UNTIMED)
    *_, last = study_of(system, **arguments, settings=networks.settings, folder=folder / "pictures", networks=networks)
    return last


def test_a_study_gives_every_figure_it_can(networks: Networks, tmp_path: Path):
    known = (Variant(name="exact", precision="fp32"), Variant(name="reuse", steps=3, compute_steps=(2, 0)))
    found = run_study(networks, tmp_path, *known, cases=2, steps=3)
    reference, exact, reuse = found.variants
    assert (found.weights, found.inputs, found.device) == ("random", "real", "CPU")
    assert any("random weights" in note for note in found.notes)
    assert reference.verdict == "not_judged", "what is held against itself proves nothing"
    assert (exact.settings["precision"], exact.settings["backend"]) == ("fp32", "ort-cpu")
    assert reuse.settings["compute_steps"] == (2, 0)
    assert len(exact.pictures) == 2
    assert len(exact.steps) == len(reuse.steps) == 3
    psnr = {metric.name: metric for metric in exact.metrics}["psnr"]
    assert psnr.actual > 60
    assert psnr.verdict == "not_judged", "a figure without a limit is neither pass nor fail"
    assert psnr.reason.endswith("over the pictures, no limit is set")
    assert max(step.free for step in exact.steps) < 1e-4 < max(step.free for step in reuse.steps)
    for variant in found.variants:
        for picture in variant.pictures:
            assert set(picture.files) == {"input", "edges", "reference", "engine", "difference", "sheet"}
            assert all((tmp_path / file).is_file() for file in picture.files.values())
    assert exact.speed_up == pytest.approx(reference.latency_ms / exact.latency_ms)
    json.dumps(found.to_json(), allow_nan=False)


def poison(monkeypatch: pytest.MonkeyPatch, network: str, precision: str, *, only: torch.Tensor | None = None) -> None:
    """Make one PyTorch network give NaN, always or where its first input is ``only``."""
    honest = Networks._pytorch

    def poisoned(self: Networks, name: str, subject: Any, dtype: str) -> Any:
        run = honest(self, name, subject, dtype)
        if (name, dtype) != (network, precision):
            return run

        def bad(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            hit = only is None or torch.equal(next(iter(inputs.values())), only)
            return {key: tensor * math.nan if hit else tensor for key, tensor in run(inputs).items()}

        return bad

    monkeypatch.setattr(Networks, "_pytorch", poisoned)


def test_a_variant_that_gives_nan_fails_and_the_study_goes_on(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    poison(monkeypatch, "unet", "fp16")
    known = (
        Variant(name="poisoned", backend="torch"),
        Variant(name="graph", cuda_graph=True),
        Variant(name="unknown", backend="torch", precision="bf16", precisions={"unet": "tf32"}),
        Variant(name="right", backend="torch", precision="fp32"),
    )
    _, bad, graph, unknown, right = run_study(networks, tmp_path, *known).variants
    assert bad.verdict == "fail"
    assert "the unet gave 512 NaN" in bad.reason
    assert "at time step" in bad.reason
    assert "from inputs that were finite" in bad.reason
    assert (graph.verdict, unknown.verdict) == ("not_judged", "not_judged")
    assert "there is no GPU here" in graph.reason
    assert right.pictures


def test_nan_on_another_picture_than_the_first_is_said_of_that_one(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = pictures.load(2, SMALL).items()
    edges = pictures.canny(pictures.fit(second[1], 64), CONTEST.low_threshold, CONTEST.high_threshold)
    poison(monkeypatch, "hint", "fp16", only=pictures.edges_tensor(edges, networks.device))
    _, bad = run_study(networks, tmp_path, Variant(name="v", backend="torch"), cases=2).variants
    assert bad.verdict == "fail"
    assert re.fullmatch(
        rf"{second[0]}: the hint gave \d+ NaN and 0 infinite values of \d+ in 'hint', from inputs that were finite",
        bad.reason,
    )
    assert first[0] not in bad.reason


def test_nan_of_the_decoder_is_at_no_time_step(networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    poison(monkeypatch, "vae-decoder", "fp16")
    _, bad = run_study(networks, tmp_path, Variant(name="v", backend="torch")).variants
    assert bad.reason.endswith("in 'picture', from inputs that were finite")


@pytest.mark.parametrize("error", [EngineFailed("NaN"), torch.cuda.OutOfMemoryError("CUDA out of memory\nlong")])
def test_without_its_reference_a_study_is_not_judged(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def generate(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(Pipeline, "generate", generate)
    with pytest.raises(NotJudged, match="the reference, PyTorch FP32, cannot be had: ") as caught:
        run_study(networks, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"), [({"cases": 30}, "30 pictures are not to be had"), ({"steps": 501}, "501 steps cannot")]
)
def test_what_cannot_be_asked_for_is_refused_before_a_network_is_made(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], sentence: str
):
    monkeypatch.setattr(Networks, "open", lambda *_: pytest.fail("a network was made"))
    with pytest.raises(UsageError, match=sentence):
        run_study(Networks(Canny2Image(SMALL), settings), tmp_path, **options)


def test_a_perceptual_distance_decides(networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def distance(value: float) -> Mapping[str, Any]:
        return {**study.METRICS, "pd": lambda actual, expected: torch.tensor([value])}

    verdicts = {}
    for value in (3.0, 12.5, math.nan):
        monkeypatch.setattr(study, "METRICS", distance(value))
        found = run_study(networks, tmp_path, Variant(name="v", backend="torch", precision="fp32")).variants[1]
        verdicts[value] = found.verdict
        assert found.score == (97 if value == 3.0 else 0)
    assert list(verdicts.values()) == ["pass", "fail", "fail"]


def test_a_metric_without_weights_is_not_judged(networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    found = run_study(networks, tmp_path, Variant(name="v", backend="torch", precision="fp32"))
    assert found.variants[1].verdict == "not_judged"
    assert found.variants[1].score is None
    assert any(note.startswith("pd was not judged:") for note in found.notes)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "rtx"])
def test_a_cuda_graph_gives_the_same_picture(picture: Any, tmp_path: Path, backend: str):
    if reason := BACKENDS[backend].unavailable():
        pytest.skip(reason)
    settings = Settings(engines=tmp_path, references=tmp_path, progress=lambda line: None)
    networks = Networks(Canny2Image(SMALL), settings)
    other = dataclasses.replace(REQUEST, seed=8, prompt="a cup", strength=0.5)
    made: dict[bool, list[Any]] = {}
    for graph in (False, True):
        variant = Variant(name="v", precision="fp32", cuda_graph=graph)
        with networks.open(variant, backend) as opened:
            pipeline = Pipeline(opened, variant, SMALL, networks.device)
            made[graph] = [pipeline.generate(picture, request)[0] for request in (REQUEST, other, REQUEST)]
    assert np.array_equal(made[True][0], made[True][2])
    assert not np.array_equal(made[True][0], made[True][1])
    for eager, replayed in zip(made[False], made[True], strict=True):
        assert np.abs(eager.astype(int) - replayed.astype(int)).max() <= 1

"""Segment Anything (transformers' SamModel) as subjects: image encoder, mask decoder, and single layers of the encoder.

Weights come from the folder that ``PARITY_SAM`` names, or are random with a fixed seed; ``PARITY_SAM_SIZE`` is ``full``
(ViT-H) or ``small``, the same architecture for a CPU.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from harness import NotJudged, Subject, targets
from harness.errors import install_hint
from suites.shared import SEED, asked_size, checkpoint, drawn, loaded, noise, photographs, weights_words

CHECKPOINT = "PARITY_SAM"
size = partial(asked_size, "PARITY_SAM_SIZE")
MOST_POINTS = 8
PATCH = 16
SIDES, WIDTHS, HIDDEN = {"full": 1024, "small": 128}, {"full": 256, "small": 16}, {"full": 1280, "small": 32}
"""The picture's side in pixels, the embeddings' width, and the encoder's, by size."""
LAYERS = {"windowed-layer": {"full": 0, "small": 0}, "global-layer": {"full": 7, "small": 1}}
"""Layers of the encoder by size. The windows do not fit the picture, which is padded in the first."""
TARGETS = (
    *targets("trt", "rtx", precisions=("fp32", "tf32", "fp16", "bf16")),
    *targets("ort-cpu", precisions=("fp32", "fp16")),
)
LEAST_IOU = {"full": 0.99, "small": 0.95}
"""Of masks: pixels whose logit is nearly 0 may flip. At the small size one pixel is half a percent of a mask."""
SCORE_DIFFERENCE = 0.01
"""Masks are chosen by their scores, to two digits."""


def model() -> Any:
    """Return a SamModel on the CPU. Raises NotJudged when the package or the checkpoint is missing."""
    try:
        from transformers import SamConfig, SamModel
    except ImportError as error:
        raise NotJudged(f"transformers is missing: {install_hint('canny2image')}") from error
    if (folder := checkpoint(CHECKPOINT)) is not None:
        return loaded(SamModel, folder, CHECKPOINT).float().eval()
    return drawn(lambda: SamModel(SamConfig(**_config(size()))))


def _config(asked: str) -> dict[str, Any]:
    """Return what differs from ViT-B, transformers' own default."""
    layers = {"full": (32, 16, 5120, [7, 15, 23, 31]), "small": (4, 2, 64, [1, 3])}[asked]
    names = ("num_hidden_layers", "num_attention_heads", "mlp_dim", "global_attn_indexes")
    vision = dict(zip(names, layers, strict=True))
    vision["hidden_size"] = HIDDEN[asked]
    if asked == "full":
        return {"vision_config": vision}
    width, shared = WIDTHS[asked], {"image_size": SIDES[asked], "patch_size": PATCH}
    return {
        "vision_config": {**vision, **shared, "output_channels": width, "window_size": 3, "num_pos_feats": width // 2},
        "prompt_encoder_config": {"hidden_size": width, "mask_input_channels": 4, **shared},
        "mask_decoder_config": {
            "hidden_size": width, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16
        },
    }  # fmt: skip


class Encoder(torch.nn.Module):
    """A picture [1, 3, side, side] to ``image_embeddings`` [1, width, side / 16, side / 16]."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.encoder = sam.vision_encoder

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image_embeddings": self.encoder(pixel_values).last_hidden_state}


class Decoder(torch.nn.Module):
    """Embeddings, points [1, 1, points, 2] in pixels, labels int64 (1 inside, 0 outside) to 3 masks and scores."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.sam = sam
        self.sam.vision_encoder = None

    def forward(
        self, image_embeddings: torch.Tensor, input_points: torch.Tensor, input_labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        found = self.sam(image_embeddings=image_embeddings, input_points=input_points, input_labels=input_labels)
        return {"masks": found.pred_masks, "scores": found.iou_scores}


class Layer(torch.nn.Module):
    """One layer of the encoder: patches [1, side / 16, side / 16, hidden] to the same."""

    def __init__(self, sam: Any, index: int) -> None:
        super().__init__()
        self.layer = sam.vision_encoder.layers[index]

    def forward(self, patches: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"patches_out": self.layer(patches)}


def picture(image: Any) -> dict[str, torch.Tensor]:
    """Return a picture as the encoder takes it, by SAM's own mean and deviation."""
    mean, deviation = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    values = (torch.tensor(image).float() - mean) / deviation
    return {"pixel_values": values.permute(2, 0, 1)[None].contiguous()}


def points(count: int = 2) -> dict[str, torch.Tensor]:
    """Return seeded points of which every other one lies inside."""
    places = torch.rand(1, 1, count, 2, generator=torch.Generator().manual_seed(SEED)) * SIDES[size()]
    return {"input_points": places, "input_labels": (torch.arange(count) % 2 == 0).long()[None, None]}


def example(kind: str) -> dict[str, torch.Tensor]:
    """Return a case of one network; embeddings and patches are random."""
    grid = SIDES[size()] // PATCH
    if kind == "image-encoder":
        return picture(photographs(1, SIDES[size()])["astronaut"])
    if kind == "mask-decoder":
        return {"image_embeddings": noise(1, WIDTHS[size()], grid, grid, seed=SEED + 2), **points()}
    return {"patches": noise(1, grid, grid, HIDDEN[size()], seed=SEED + 2)}


def subject(kind: str) -> Subject:
    """Return ``image-encoder``, ``mask-decoder``, ``windowed-layer`` or ``global-layer`` as a subject."""
    asked = size()
    wrappers = {"image-encoder": Encoder, "mask-decoder": Decoder}
    make = wrappers[kind] if kind in wrappers else partial(Layer, index=LAYERS[kind][asked])
    dynamic = {"input_points": {2: "points"}, "input_labels": {2: "points"}} if kind == "mask-decoder" else {}
    return Subject(
        name=f"sam-{kind}{'' if asked == 'full' else '-small'}", build=lambda: make(model()).eval(),
        cases={"one": partial(example, kind)}, inputs="real" if kind == "image-encoder" else "random",
        targets=TARGETS, dynamic=dynamic, ranges={"points": (1, MOST_POINTS)} if dynamic else {},
        **weights_words(CHECKPOINT),
    )  # fmt: skip

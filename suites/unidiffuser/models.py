"""UniDiffuser (diffusers) as subjects: CLIP with the caption encoder inlined, the U-ViT, the autoencoder's decoder.

Weights come from the folder that ``PARITY_UNIDIFFUSER`` names (diffusers' layout), or are random with a fixed seed;
``PARITY_UNIDIFFUSER_SIZE`` is ``full`` (v1) or ``small``, the same architecture for a CPU.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from harness import NotJudged, Subject, targets
from harness.errors import install_hint
from harness.subject import PLAIN_PRECISIONS
from suites.shared import SEED, asked_size, checkpoint, drawn, loaded, noise, weights_words

CHECKPOINT = "PARITY_UNIDIFFUSER"
size = partial(asked_size, "PARITY_UNIDIFFUSER_SIZE")
TOKENS, LATENT_SCALE = 77, 0.18215
LATENTS, TEXT = {"full": 64, "small": 8}, {"full": 64, "small": 8}
CLIP, VOCABULARY = {"full": 512, "small": 12}, {"full": 49408, "small": 101}
"""By size: the side of the latents, the widths of the text's and of the picture's embedding, the number of tokens."""
TARGETS = (*targets("trt", "rtx", precisions=PLAIN_PRECISIONS), *targets("ort-cpu", precisions=("fp32", "fp16")))
PROMPTS = ("an elephant under the sea", "a bird on a branch", "a town at night", "a bowl of fruit")


def part(folder: str) -> Any:
    """Return one network on the CPU: of the checkpoint, or random. Raises NotJudged where it cannot be had."""
    try:
        from diffusers import AutoencoderKL, UniDiffuserModel, UniDiffuserTextDecoder
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError as error:
        raise NotJudged(f"diffusers or transformers is missing: {install_hint('canny2image')}") from error
    kinds = {"text_encoder": CLIPTextModel, "text_decoder": UniDiffuserTextDecoder, "unet": UniDiffuserModel}
    kind = kinds.get(folder, AutoencoderKL)
    if (known := checkpoint(CHECKPOINT)) is not None:
        return loaded(kind, known / folder, CHECKPOINT).float().eval()
    given = _config(folder, size())
    return drawn(lambda: kind(CLIPTextConfig(**given)) if kind is CLIPTextModel else kind(**given))


def _config(folder: str, asked: str) -> dict[str, Any]:
    """Return the configuration of one network as v1 has it, or a small one."""
    width, heads, layers, groups, side, channels = {
        "full": (768, 24, 30, 32, 64, (128, 256, 512, 512)), "small": (32, 2, 3, 4, 8, (8, 16))
    }[asked]  # fmt: skip
    text, last, levels = TEXT[asked], VOCABULARY[asked] - 1, len(channels)
    return {
        "text_encoder": {"hidden_size": width, "intermediate_size": 4 * width, "vocab_size": last + 1,
                         "num_hidden_layers": 12 if asked == "full" else 2, "num_attention_heads": heads // 2 or 1,
                         "max_position_embeddings": TOKENS, "bos_token_id": last - 1, "eos_token_id": last},
        "text_decoder": {"prefix_length": TOKENS, "prefix_inner_dim": width, "prefix_hidden_dim": text, "n_layer": 1,
                         "n_head": 1, "vocab_size": last + 1, "n_embd": width},
        "unet": {"text_dim": text, "clip_img_dim": CLIP[asked], "num_text_tokens": TOKENS, "in_channels": 4,
                 "out_channels": 4, "num_attention_heads": heads, "attention_head_dim": side, "num_layers": layers,
                 "sample_size": side, "patch_size": 2, "activation_fn": "gelu", "use_data_type_embedding": True,
                 "ff_final_dropout": False},
        "vae": {"block_out_channels": channels, "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": groups,
                "down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels},
    }[folder]  # fmt: skip


class Text(torch.nn.Module):
    """Token ids int64 [1, 77] to ``text`` [1, 77, text width]: CLIP and the caption encoder's linear layer in one."""

    def __init__(self) -> None:
        super().__init__()
        self.clip, self.encode_prefix = part("text_encoder"), part("text_decoder").encode_prefix

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"text": self.encode_prefix(self.clip(input_ids=input_ids).last_hidden_state)}


class Decoder(torch.nn.Module):
    """Latents [1, 4, side, side] to ``picture`` [1, 3, 8 side, 8 side] in -1..1 (small: 2 side)."""

    def __init__(self) -> None:
        super().__init__()
        vae = part("vae")
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"picture": self.decoder(self.post_quant_conv(latents / LATENT_SCALE))}


KINDS: dict[str, Any] = {"text": Text, "uvit": partial(part, "unet"), "decoder": Decoder}


def prompt_ids(number: int) -> torch.Tensor:
    """Return a prompt's token ids: by the checkpoint's tokenizer, else random ones."""
    if (folder := checkpoint(CHECKPOINT)) is None:
        generator = torch.Generator().manual_seed(SEED + number)
        return torch.randint(0, VOCABULARY[size()] - 2, (1, TOKENS), generator=generator)
    from transformers import CLIPTokenizer

    tokenizer = loaded(CLIPTokenizer, folder / "clip_tokenizer", CHECKPOINT)
    padded = {"padding": "max_length", "max_length": TOKENS, "truncation": True, "return_tensors": "pt"}
    return tokenizer([PROMPTS[number]], **padded)["input_ids"]


def example(kind: str) -> dict[str, torch.Tensor]:
    """Return a case of one network."""
    asked = size()
    if kind == "text":
        return {"input_ids": prompt_ids(0)}
    latents = noise(2, 4, LATENTS[asked], LATENTS[asked], seed=SEED + 1)
    if kind == "decoder":
        return {"latents": latents[:1]}
    return {
        "latent_image_embeds": latents, "image_embeds": noise(2, 1, CLIP[asked], seed=SEED + 2),
        "prompt_embeds": noise(2, TOKENS, TEXT[asked], seed=SEED + 3), "timestep_img": torch.full((2,), 501),
        "timestep_text": torch.tensor([0, 1000]), "data_type": torch.ones(2, dtype=torch.int32),
    }  # fmt: skip


def subject(kind: str) -> Subject:
    """Return ``text``, ``uvit`` or ``decoder`` as a subject."""
    return Subject(
        name=f"unidiffuser-{kind}{'' if size() == 'full' else '-small'}", build=lambda: KINDS[kind]().eval(),
        cases={"one": partial(example, kind)}, targets=TARGETS, **weights_words(CHECKPOINT),
    )  # fmt: skip

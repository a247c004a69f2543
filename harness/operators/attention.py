"""Attention as ONNX has it, and its relatives: rotary positions, linear attention, attention with subgraphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import CARRIED, Unsupported, wide

PREVIEW = "ai.onnx.preview"
_PRECISIONS = {1: "FLOAT", 10: "FLOAT16", 11: "DOUBLE", 16: "BFLOAT16"}


def heads(x: torch.Tensor, count: int | None) -> torch.Tensor:
    """Return (batch, length, count * size) as (batch, count, length, size); what has four axes as it is."""
    if x.ndim == 4:
        return x
    if not count:
        raise Unsupported("attention without a number of heads")
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def joined(x: torch.Tensor) -> torch.Tensor:
    """Return (batch, count, length, size) as (batch, length, count * size)."""
    return x.transpose(1, 2).flatten(2)


def shared(x: torch.Tensor, count: int) -> torch.Tensor:
    """Return keys or values with each head repeated for the queries' heads that share it."""
    return x.repeat_interleave(count // x.shape[1], dim=1) if x.shape[1] != count else x


def softmax(scores: torch.Tensor, precision: torch.dtype | None = None) -> torch.Tensor:
    """Return the softmax over the last axis; a row whose every score is minus infinity is zero."""
    masked = (scores == -math.inf).all(-1, keepdim=True)
    return scores.softmax(-1, dtype=precision).masked_fill(masked, 0)


def scores_of(q: torch.Tensor, k: torch.Tensor, scale: float | None, softcap: float = 0.0) -> torch.Tensor:
    """Return queries by keys, each scaled by the root, so that FP16 does not overflow before it must."""
    root = math.sqrt(1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = (q * root) @ (k * root).transpose(-1, -2)
    return softcap * (scores / softcap).tanh() if softcap else scores


def frontier(
    rows: int, columns: int, offset: torch.Tensor | int, *, left: int = -1, right: int = -1, device: torch.device
) -> torch.Tensor:
    """Return which keys a query may see: query i stands at i + offset, and sees so many to each side; -1 is all.

    The result is (rows, columns), or (batch, 1, rows, columns) where offsets are (batch,).
    """
    at = torch.arange(rows, device=device)[:, None]
    at = at + (offset.reshape(-1, 1, 1, 1) if isinstance(offset, torch.Tensor) else offset)
    behind = at - torch.arange(columns, device=device)
    seen = torch.ones_like(behind, dtype=torch.bool)
    if left >= 0:
        seen &= behind <= left
    if right >= 0:
        seen &= -behind <= right
    return seen


@operator("Attention", since=23)
def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int = 0,
) -> tuple[torch.Tensor, ...]:
    """Return the result, keys and values with those of the past, and the scores at the step that the mode names."""
    packed = q.ndim == 3
    q, k, v = heads(q, q_num_heads), heads(k, kv_num_heads), heads(v, kv_num_heads)
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    rows, columns = q.shape[2], k.shape[2]
    bias = q.new_zeros(rows, columns)
    if mask is not None:
        short = columns - mask.shape[-1]
        if mask.dtype == torch.bool:
            mask = q.new_zeros(mask.shape).masked_fill(~mask, -math.inf)
        bias = bias + torch.nn.functional.pad(mask, (0, short), value=-math.inf)
    offset: torch.Tensor | int = 0 if past_key is None else past_key.shape[2]
    if lengths is not None:
        offset = lengths.reshape(-1) - rows
        inside = torch.arange(columns, device=q.device) < lengths.reshape(-1, 1, 1, 1)
        bias = bias.masked_fill(~inside, -math.inf)
    right = 0 if is_causal and right_window_size != 0 else right_window_size
    if max(left_window_size, right) >= 0:
        seen = frontier(rows, columns, offset, left=left_window_size, right=right, device=q.device)
        bias = bias.masked_fill(~seen, -math.inf)
    raw = scores_of(q, shared(k, q.shape[1]), scale)
    capped = softcap * (raw / softcap).tanh() if softcap else raw
    biased = capped + bias
    precision = CARRIED[_PRECISIONS[softmax_precision]] if softmax_precision else None
    if precision == torch.float32 and biased.dtype == torch.float64:
        precision = None  # a wider run stays as wide
    shares = softmax(biased, precision).to(q.dtype).masked_fill((bias == -math.inf).all(-1, keepdim=True), 0)
    y = shares @ shared(v, q.shape[1])
    steps = (raw, capped, biased, shares)
    return joined(y) if packed else y, k, v, steps[qk_matmul_output_mode]


@operator("FlexAttention", domain=PREVIEW)
def flex_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    prob_mod: Callable[..., Sequence[torch.Tensor]] | None = None,
    scale: float | None = None,
    score_mod: Callable[..., Sequence[torch.Tensor]] | None = None,
    softmax_precision: int = 0,
) -> torch.Tensor:
    """Subgraphs change the scores before the softmax and the shares after it, in the precision of the softmax."""
    dtype = CARRIED[_PRECISIONS[softmax_precision]] if softmax_precision else wide(q).dtype
    dtype = torch.float64 if q.dtype == torch.float64 else dtype
    scores = (q @ shared(k, q.shape[1]).transpose(-1, -2)).to(dtype)
    scores = scores * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if score_mod is not None:
        scores = score_mod(scores)[0]
    shares = scores.softmax(-1)
    if prob_mod is not None:
        shares = prob_mod(shares)[0]
    return shares.to(q.dtype) @ shared(v, q.shape[1])


@operator("RotaryEmbedding", since=23)
def rotary_embedding(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> torch.Tensor:
    """Pairs of elements, neighbours or of two halves, are turned by the angle of their position."""
    packed = x.ndim == 3
    values = heads(x, num_heads)
    y = turned(values, cos, sin, positions, size=rotary_embedding_dim, interleaved=bool(interleaved))
    return joined(y) if packed else y


def turned(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    *,
    size: int = 0,
    interleaved: bool,
) -> torch.Tensor:
    """Return (batch, heads, length, size) turned; caches are (positions, half) or, without positions, by batch."""
    size = size or x.shape[-1]
    kept, moved = x[..., size:], x[..., :size]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos[..., None, :, : size // 2], sin[..., None, :, : size // 2]
    a, b = (moved[..., 0::2], moved[..., 1::2]) if interleaved else moved.chunk(2, -1)
    pair = (cos * a - sin * b, sin * a + cos * b)
    y = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([y, kept], -1)


@operator("LinearAttention", since=27)
@operator("LinearAttention", domain=MICROSOFT)
def linear_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    past: torch.Tensor | None = None,
    decay: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[torch.Tensor, torch.Tensor]:
    """A state (batch, heads, key size, value size) is decayed, written and read at every token, in at least FP32."""
    dtype = q.dtype
    query, key, value = (
        wide(heads(it, count)) for it, count in ((q, q_num_heads), (k, kv_num_heads), (v, kv_num_heads))
    )
    size = query.shape[-1]
    state = wide(past) if past is not None else key.new_zeros(*key.shape[:2], size, value.shape[-1])
    factor = scale or 1 / math.sqrt(size)
    found = []
    for time in range(query.shape[2]):
        read, new = key[:, :, time], value[:, :, time]
        if decay is not None and "gated" in update_rule:
            state = state * wide(decay[:, time]).reshape(*key.shape[:2], -1, 1).exp()
        if beta is not None and "delta" in update_rule:
            new = wide(beta[:, time])[..., None] * (new - (read[..., None, :] @ state).squeeze(-2))
        state = state + read[..., None] * new[..., None, :]
        found.append(factor * (query[:, :, time, None, :] @ shared(state, q_num_heads)))
    y = torch.cat(found, 2) if found else value.new_zeros(*query.shape[:3], value.shape[-1])
    return joined(y).to(dtype), state.to(dtype if past is None else past.dtype)

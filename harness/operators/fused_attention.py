"""Attention in ONNX Runtime's own domain: with projections, with masks as numbers, and with a cache in place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from harness.operators.attention import frontier, heads, joined, shared, turned
from harness.operators.normalization import simplified_layer_normalization
from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import Unsupported


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    scale: float | None,
    seen: torch.Tensor | None = None,
    softcap: float = 0.0,
    sink: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return (batch, heads, rows, size). ``seen`` hides keys; ``sink`` is a score of each head that takes no value."""
    scores = q @ shared(k, q.shape[1]).transpose(-1, -2)
    scores = scores * (scale or 1 / math.sqrt(q.shape[-1]))
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    if bias is not None:
        scores = scores + bias
    if seen is not None:
        scores = scores.masked_fill(~seen, -math.inf)
    if sink is not None:
        column = sink.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        shares = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    else:
        shares = scores.softmax(-1)
    return shares @ shared(v, q.shape[1])


def _mask(mask: torch.Tensor, like: torch.Tensor, batch: int, columns: int, filtered: float) -> torch.Tensor:
    """Return what a mask adds to the scores: nothing where it is not zero, or within the lengths that it gives."""
    at = torch.arange(columns, device=mask.device)
    if mask.ndim == 1 and mask.numel() == batch:
        kept = at < mask[:, None, None, None]
    elif mask.ndim == 1 and mask.numel() == 2 * batch:  # ends, then starts
        ends, starts = mask[:, None, None, None].chunk(2)
        kept = (at < ends) & (at >= starts)
    elif mask.ndim == 2 and mask.shape == (batch, columns):
        kept = mask[:, None, None] > 0
    elif mask.ndim == 3 and mask.shape[-1] == columns:
        kept = mask[:, None] > 0
    else:
        raise Unsupported(f"a mask of shape {list(mask.shape)} for {columns} keys")
    return torch.zeros(kept.shape, dtype=like.dtype, device=like.device).masked_fill(~kept, filtered)


@operator("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(
    query: torch.Tensor,
    key: torch.Tensor | None = None,
    value: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    outputs: int,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[torch.Tensor, ...]:
    """Projected or packed (batch, length, heads, 2 or 3, size); a key of four axes is a cache already."""
    if outputs > 3:
        raise Unsupported("MultiHeadAttention that gives out its scores")
    if query.ndim == 5:
        query, key, value = (it.flatten(2) for it in query.unbind(3))
    elif key is not None and key.ndim == 5:
        key, value = (it.flatten(2) for it in key.unbind(3))
    if key is None or value is None:
        raise Unsupported("MultiHeadAttention without keys and values")
    if bias is not None:
        width = query.shape[-1]
        of_query, of_key, of_value = bias.tensor_split([width, 2 * width])
        query = query + of_query
        key, value = (key + of_key, value + of_value) if key.ndim == 3 else (key, value)
    q, k, v = (heads(it, num_heads) for it in (query, key, value))
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    rows, columns = q.shape[2], k.shape[2]
    total = None if mask is None else _mask(mask, q, q.shape[0], columns, mask_filter_value)
    if added is not None:
        total = added if total is None else total + added
    seen = frontier(rows, columns, columns - rows, right=0, device=q.device) if unidirectional else None
    return joined(_attend(q, k, v, total, scale=scale, seen=seen)), k, v


@operator("Attention", domain=MICROSOFT)
def attention(
    x: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    past: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    qkv_hidden_sizes: Sequence[int] | None = None,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One product projects to queries, keys and values; keys and values with those of the past are given back."""
    if do_rotary or past_present_share_buffer:
        raise Unsupported("Attention with rotary positions or a shared buffer")
    projected = x @ weights if bias is None else x @ weights + bias
    sizes = list(qkv_hidden_sizes or [weights.shape[1] // 3] * 3)
    q, k, v = (heads(it, num_heads) for it in projected.tensor_split([sizes[0], sizes[0] + sizes[1]], -1))
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    rows, columns = q.shape[2], k.shape[2]
    total = None if mask is None else _mask(mask, q, q.shape[0], columns, mask_filter_value)
    if added is not None:
        total = added if total is None else total + added
    seen = frontier(rows, columns, columns - rows, right=0, device=q.device) if unidirectional else None
    y = joined(_attend(q, k, v, total, scale=scale, seen=seen))
    return y, torch.stack([k, v]) if k.shape == v.shape else k.new_zeros(0)


@operator("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(
    x: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> torch.Tensor:
    """One position is where all sequences start. The size of a head is twice the caches', unless heads are counted."""
    if is_packed_batching or scale != 1:
        raise Unsupported("RotaryEmbedding of packed batches or with a scale")
    packed = x.ndim == 3
    values = heads(x, num_heads or x.shape[-1] // (2 * cos.shape[-1]))
    if positions.numel() == 1 and positions.ndim == 1:
        positions = positions + torch.arange(values.shape[2], device=x.device).expand(values.shape[0], -1)
    y = turned(values, cos, sin, positions, size=rotary_embedding_dim, interleaved=bool(interleaved))
    return joined(y) if packed else y


@operator("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    past_key: torch.Tensor | None,
    past_value: torch.Tensor | None,
    lengths: torch.Tensor,
    most: torch.Tensor,
    cos: torch.Tensor | None = None,
    sin: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    head_sink: torch.Tensor | None = None,
    k_scale: torch.Tensor | None = None,
    v_scale: torch.Tensor | None = None,
    q_norm: torch.Tensor | None = None,
    k_norm: torch.Tensor | None = None,
    *,
    do_rotary: int = 0,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    outputs: int,
    qk_norm_epsilon: float = 1e-6,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    smooth_softmax: int = 0,
    softcap: float = 0.0,
) -> tuple[torch.Tensor, ...]:
    """New keys and values are written into the cache behind each sequence's past: ``lengths`` are totals less one.

    A step that is as long as the longest total is the first, and has no past. What the cache holds behind a sequence's
    end is not defined.
    """
    if outputs > 3 or k_scale is not None or v_scale is not None:
        raise Unsupported("GroupQueryAttention that gives out its scores, or with a cache of codes")
    if key is None or value is None:
        size = query.shape[-1] // (num_heads + 2 * kv_num_heads)
        query, key, value = query.tensor_split([num_heads * size, (num_heads + kv_num_heads) * size], -1)
    q, k, v = heads(query, num_heads), heads(key, kv_num_heads), heads(value, kv_num_heads)
    if q_norm is not None and k_norm is not None:
        q = simplified_layer_normalization(q, q_norm, epsilon=qk_norm_epsilon)[0]
        k = simplified_layer_normalization(k, k_norm, epsilon=qk_norm_epsilon)[0]
    batch, _, rows, size = q.shape
    totals = lengths.reshape(-1).long() + 1
    before = totals - rows if rows != int(most) else torch.zeros_like(totals)
    if do_rotary:
        if cos is None or sin is None:
            raise Unsupported("rotary positions without their caches")
        at = before[:, None] + torch.arange(rows, device=q.device) if positions is None else positions
        turn = {"size": 2 * cos.shape[-1], "interleaved": bool(rotary_interleaved)}
        q, k = (turned(it, cos, sin, at, **turn) for it in (q, k))  # type: ignore[arg-type]
    held = 0 if past_key is None else past_key.shape[2]
    columns = max(held, int(most))
    keys, values = (it.new_zeros(batch, kv_num_heads, columns, it.shape[-1]) for it in (k, v))
    for number, start in enumerate(before.tolist()):
        if past_key is not None and past_value is not None:
            keys[number, :, :start] = past_key[number, :, :start]
            values[number, :, :start] = past_value[number, :, :start]
        keys[number, :, start : start + rows] = k[number]
        values[number, :, start : start + rows] = v[number]
    seen = frontier(rows, columns, before, left=local_window_size - 1, right=0, device=q.device)
    sink = head_sink if head_sink is not None else q.new_zeros(num_heads) if smooth_softmax else None
    if added is not None:
        added = torch.nn.functional.pad(added, (0, columns - added.shape[-1]))
    y = _attend(q, keys, values, added, scale=scale, seen=seen, softcap=softcap, sink=sink)
    return joined(y), keys, values

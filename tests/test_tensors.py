"""Hashes of tensors."""

from __future__ import annotations

import torch

from harness.tensors import sha256_of


def test_hash_sees_values_and_not_strides():
    values = torch.arange(6.0).reshape(2, 3)
    assert sha256_of({"y": values}) == sha256_of({"y": values.t().contiguous().t()})
    assert sha256_of({"y": values[:, ::2][:1, :1]}) == sha256_of({"y": torch.zeros(1, 1)})
    assert sha256_of({"y": values}) != sha256_of({"y": values.t().contiguous()})
    assert sha256_of({"y": torch.zeros(0)}) != sha256_of({"x": torch.zeros(0)})

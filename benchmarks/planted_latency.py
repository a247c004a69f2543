"""A CLIP text encoder that a variable makes slower: ``LAYERS=37 parity bench benchmarks.planted_latency:DEEP``.

36 layers are the baseline; one more is 2.8 % more work, which the verdict must find (docs/latency.md).
"""

from __future__ import annotations

import os
from functools import partial

from benchmarks.subjects import clip, random_subject, tokens

LAYERS = int(os.environ.get("LAYERS", "36"))
DEEP = random_subject("deep-clip", build=partial(clip, LAYERS, 768, 1000), cases={"one": partial(tokens, 1000)})

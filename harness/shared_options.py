"""Options that the command line and pytest have alike: what each takes, its default and its help."""

from __future__ import annotations

from typing import Any

from harness.arguments import as_path, at_least, classes, gpus, relative_error, remote_mode, seconds
from harness.settings import RETRIED, RETRYABLE
from harness.shards import shard_of

_SWITCH: dict[str, Any] = {"action": "store_true", "default": False}
SHARED: dict[str, dict[str, Any]] = {
    "--seed-random": {
        "type": at_least(0, 2**63 - 1), "nargs": "?", "const": 0, "metavar": "SEED",
        "help": "judge models with random operators: what they draw becomes stored noise of this seed",
    },
    "--timeout": {
        "type": seconds, "metavar": "SECONDS",
        "help": "the longest that a step may take which runs the model outside an engine's build (build(), tracing, a "
        "run in PyTorch or ONNX Runtime); 0: no limit; default: PARITY_TIMEOUT, else none, in CI (CI=true) 1800",
    },
    "--build-timeout": {
        "type": seconds, "metavar": "SECONDS",
        "help": "the longest that an engine's build may take; default: PARITY_BUILD_TIMEOUT, else none, in CI 7200",
    },
    "--run-timeout": {
        "type": seconds, "metavar": "SECONDS",
        "help": "the longest that one subject may take, from its preparation to its last verdict; default: "
        "PARITY_RUN_TIMEOUT, else none",
    },
    "--budget": {
        "type": seconds, "metavar": "SECONDS",
        "help": "the longest that the whole run may take: what it does not reach is not judged; default: "
        "PARITY_BUDGET, else none",
    },
    "--cases": {
        "default": "", "metavar": "PATTERN",
        "help": "cases from .npz files, or a folder of them: 'data/encoder-*.npz'; outputs in them are the reference",
    },
    "--no-engine-cache": {**_SWITCH, "help": "build every engine afresh"},
    "--runs": {
        "type": at_least(2), "metavar": "N", "help": "runs of each engine and case; default: 8 on a GPU, 2 on a CPU",
    },
    "--limit": {
        "type": relative_error, "metavar": "ERROR",
        "help": "relative error (2-norm) that every output may have; default: what PyTorch's own error allows",
    },
    "--retries": {
        "type": at_least(0), "default": 0, "metavar": "N",
        "help": "try an engine up to N times more after a failure of --retry-on; default: 0",
    },
    "--retry-on": {
        "type": classes, "default": RETRIED, "metavar": "CLASSES",
        "help": f"comma-separated: {', '.join(RETRYABLE)}; default: {','.join(RETRIED)}; a wrong answer is never "
        "retried",
    },
    "--expect": {
        "type": as_path, "metavar": "MANIFEST",
        "help": "fail unless all was judged that this manifest of parity list --json expects; parity verify looks at "
        "what it expects of the subject, and exits with 3",
    },
    "--lock-timeout": {
        "type": seconds, "metavar": "SECONDS",
        "help": "how long to wait for an engine or a history that another process holds; default: until it is free",
    },
    "--shard": {
        "type": shard_of, "metavar": "I/N",
        "help": "only part I of what is to be judged, split into N of nearly equal time; parity merge makes one record "
        "of theirs",
    },
    "--durations-from": {
        "type": as_path, "metavar": "JSON",
        "help": "the record of an earlier run, or the word history (PARITY_HISTORY), whose durations split what is "
        "to be judged; default: by count",
    },
    "--gpus": {
        "type": gpus, "metavar": "A,B",
        "help": "each shard, and each worker of xdist, uses one of these; default: of all there are; all: each sees "
        "all",
    },
    "--fail-on-creep": {
        **_SWITCH, "help": "fail where the ratio of an output to its floor rises over the runs of the history",
    },
    "--known": {
        "type": as_path, "metavar": "FILE",
        "help": "the ledger of known failures; default: known.toml in the repository",
    },
    "--run-known": {**_SWITCH, "help": "launch engines that are known to crash too"},
    "--engines": {"type": as_path, "metavar": "DIR", "help": "the engine cache (PARITY_ENGINES)"},
    "--engines-remote": {
        "metavar": "URL",
        "help": "an engine cache shared with other runners: a folder, s3://..., gs://... (PARITY_ENGINES_REMOTE)",
    },
    "--engines-remote-mode": {
        "type": remote_mode, "metavar": "MODE",
        "help": "read, or read-write: what is built here goes there; default: read (PARITY_ENGINES_REMOTE_MODE)",
    },
    "--references": {"type": as_path, "metavar": "DIR", "help": "stored references (PARITY_REFERENCES)"},
}  # fmt: skip
"""By the name on the command line; :mod:`harness.pytest_options` says where pytest's is another."""

"""The TensorRT hackathons: their README.md from records, the 2023 score of a folder, and the WeNet table of 2022.

Records of a run go in; Markdown in Chinese or English, or a verdict by a contest's rules, comes out.
"""

from __future__ import annotations

from harness.hackathon.check import check_readme, not_checked
from harness.hackathon.readme import read_readme, save_readme
from harness.hackathon.rules import PARAMETERS, RULES, Rules, default_score
from harness.hackathon.score import find_images, judge_folder
from harness.hackathon.wenet import wenet_roles

__all__ = [
    "PARAMETERS",
    "RULES",
    "Rules",
    "check_readme",
    "default_score",
    "find_images",
    "judge_folder",
    "not_checked",
    "read_readme",
    "save_readme",
    "wenet_roles",
]

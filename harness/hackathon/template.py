"""The sections that the contest asks for in 2022 and 2023, and what a finished report holds.

They are those of the templates at the end of the contest's HackathonGuide.md (2022) and final_round.md (2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.report.words import Words

CONTEST = "https://github.com/NVIDIA/trt-samples-for-hackathon-cn/tree/master/Hackathon{year}"


@dataclass(frozen=True)
class Place:
    """Where a person writes; ``hint_NAME`` are the words that stand there until then."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a template."""

    name: str
    level: int
    """Number of ``#``."""
    title: str
    """Key of its heading."""
    parts: tuple[str | Place, ...]
    """Names of generated parts, and places for a person's text, in their order."""
    required: bool = True
    """Whether the contest demands it; an optional section may be left with an empty block."""


def _section(name: str, level: int, title: str, *parts: str | Place, required: bool = True) -> Section:
    return Section(name=name, level=level, title=title, parts=parts, required=required)


_ACCURACY = _section(
    "accuracy", 3, "title_accuracy", "labels", "accuracy", "cost", "metrics", "scores", "wenet", Place("accuracy-notes")
)
_PERFORMANCE = _section("performance", 3, "title_performance", "performance", Place("performance-notes"))
_ENVIRONMENT = _section("environment", 3, "title_environment", "environment", Place("container"), "commands")
_BUGS = _section("bugs", 2, "title_bugs", "bugs", Place("bugs"), required=False)
_EXPERIENCE = _section("experience", 2, "title_experience", Place("experience"), required=False)
TEMPLATES: dict[str, tuple[Section, ...]] = {
    "2022": (
        _section("overview", 2, "title_overview", "headline", "entry", Place("model"), "numbers", Place("docker")),
        _section("model", 2, "title_model"),
        _section("introduction", 3, "title_introduction_2022", Place("introduction")),
        _section("difficulties", 3, "title_difficulties_2022", Place("difficulties"), "findings"),
        _section("process", 2, "title_process_2022", Place("process"), "variants", "layers"),
        _section("results", 2, "title_results_2022"),
        _ACCURACY,
        _PERFORMANCE,
        _ENVIRONMENT,
        _BUGS,
        _EXPERIENCE,
    ),
    "2023": (
        _section(
            "overview",
            2,
            "title_overview",
            "headline",
            "entry",
            Place("topic"),
            Place("model"),
            "numbers",
            Place("docker"),
        ),
        _section("introduction", 3, "title_introduction_2023", Place("introduction"), required=False),
        _section("work", 2, "title_work"),
        _section("difficulties", 3, "title_difficulties_2023", Place("difficulties"), "findings"),
        _section("process", 2, "title_process_2023", Place("process"), "variants", "layers"),
        _section("results", 2, "title_results_2023"),
        _ACCURACY,
        _PERFORMANCE,
        _ENVIRONMENT,
        _BUGS,
        _section("answers", 2, "title_answers", Place("answers"), required=False),
        _EXPERIENCE,
    ),
}
TITLE = Place("title")
OPTIONAL_HINTS = ("accuracy-notes", "performance-notes", "container", "introduction", "bugs", "answers", "experience")
"""Blocks that may be left empty."""


def places(template: str) -> list[Place]:
    """Return every place for a person's text, the report's title first."""
    parts = [part for section in TEMPLATES[template] for part in section.parts]
    return [TITLE, *(part for part in parts if isinstance(part, Place))]


def needs(words: Words) -> Mapping[str, tuple[str, ...]]:
    """Return the words that a section of a finished report holds, by the section's name."""
    statistics = tuple(map(words, ("absolute", "relative", "max", "mean", "median")))
    return {"accuracy": statistics, "performance": (words("latency_ms"),), "environment": ("GPU", "CPU", "CUDA")}

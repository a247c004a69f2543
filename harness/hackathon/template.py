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
    points: str = ""
    """``points_POINTS`` are the words for what the contest gives for it; empty where it gives nothing."""
    optional: bool = False
    """Whether it may be left empty."""


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


TITLE = Place("title", points="report")
_OVERVIEW = (("headline", "entry"), ("numbers", Place("docker", points="code")))
_ENVIRONMENT = _section(
    "environment", 3, "title_environment", "environment", Place("container", optional=True), "commands"
)
_EXPERIENCE = _section("experience", 2, "title_experience", Place("experience", optional=True), required=False)
_JUDGED = ("labels", "accuracy", "cost", "metrics", "scores", "wenet")


def _difficulties(title: str, points: str) -> Section:
    return _section("difficulties", 3, title, Place("difficulties", points=points), "findings")


def _process(title: str, bonus: str, int8: str) -> Section:
    """Return the section on the work, with a block for each kind of work that earns points of its own."""
    blocks = [Place(name, points=points, optional=True) for name, points in
              (("nsight", bonus), ("plugin", bonus), ("int8", int8))]  # fmt: skip
    block = Place("process", points="report")
    return _section("process", 2, title, block, *blocks, "variants", "layers")


def _performance(points: str) -> Section:
    notes = Place("performance-notes", points=points, optional=True)
    return _section("performance", 3, "title_performance", "performance", notes)


def _bugs(year: str) -> Section:
    block = Place("bugs", points=f"bugs_{year}", optional=True)
    return _section("bugs", 2, "title_bugs", "bugs", block, required=False)


TEMPLATES: dict[str, tuple[Section, ...]] = {
    "2022": (
        _section("overview", 2, "title_overview", *_OVERVIEW[0], Place("model", points="value"), *_OVERVIEW[1]),
        _section("model", 2, "title_model"),
        _section("introduction", 3, "title_introduction_2022", Place("introduction", points="value")),
        _difficulties("title_difficulties_2022", "value"),
        _process("title_process_2022", "bonus_20", "bonus_20"),
        _section("results", 2, "title_results_2022"),
        _section("accuracy", 3, "title_accuracy", *_JUDGED, Place("accuracy-notes", points="results", optional=True)),
        _performance("results"),
        _ENVIRONMENT,
        _bugs("2022"),
        _EXPERIENCE,
    ),
    "2023": (
        _section(
            "overview", 2, "title_overview", *_OVERVIEW[0], Place("topic", points="topics"),
            Place("model", points="report"), *_OVERVIEW[1],
        ),
        _section(
            "introduction", 3, "title_introduction_2023", Place("introduction", points="report", optional=True),
            required=False,
        ),
        _section("work", 2, "title_work"),
        _difficulties("title_difficulties_2023", "report"),
        _process("title_process_2023", "bonus_10", "topic_4"),
        _section("results", 2, "title_results_2023"),
        _section(
            "accuracy", 3, "title_accuracy", *_JUDGED, Place("accuracy-notes", points="topic_3", optional=True),
            Place("rouge", points="topic_2", optional=True),
        ),
        _performance("topic_3"),
        _ENVIRONMENT,
        _bugs("2023"),
        _section("answers", 2, "title_answers", Place("answers", points="answers", optional=True), required=False),
        _EXPERIENCE,
    ),
}  # fmt: skip


def places(template: str) -> list[Place]:
    """Return every place for a person's text, the report's title first."""
    parts = [part for section in TEMPLATES[template] for part in section.parts]
    return [TITLE, *(part for part in parts if isinstance(part, Place))]


def needs(words: Words) -> Mapping[str, tuple[str, ...]]:
    """Return the words that a section of a finished report holds, by the section's name."""
    statistics = tuple(map(words, ("absolute", "relative", "max", "mean", "median")))
    return {"accuracy": statistics, "performance": (words("latency_ms"),), "environment": ("GPU", "CPU", "CUDA")}

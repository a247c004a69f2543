"""What a system makes, and how it is recorded: pictures with their sheets, or texts with their first difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.files import file_name
from harness.records import Picture, Text
from harness.report.plots import amplified, save_picture, save_sheet

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one variant made of one case, to be recorded."""

    variant: str
    name: str
    """The case's."""
    case: Any
    actual: Any
    expected: Any
    """What the reference made of it."""
    metrics: dict[str, float | None]
    latency_ms: float
    folder: Path
    """Where files go; records name them relative to its parent, where the JSON lies."""
    title: str
    """What is written above a sheet beside the names: which weights these are."""


class Product(Protocol):
    """A kind of what systems make."""

    @property
    def kind(self) -> Literal["pictures", "texts"]:
        """The field of a variant's record."""

    def is_same(self, actual: Any, expected: Any) -> bool:
        """Return whether two of them are equal."""

    def record(self, made: Made) -> Picture | Text:
        """Write what belongs into files, and return what is known of one."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures, uint8 [height, width, 3] in RGB, or what ``draw`` makes one of."""

    draw: Callable[[Any], Pixels] = lambda made: made
    panels: Callable[[Any], Mapping[str, Pixels]] = lambda case: {}
    """Of a case: pictures that are shown beside every variant's, such as its ``input``."""
    prompt: str = ""
    seed: int = 0
    kind: Literal["pictures", "texts"] = field(default="pictures", init=False)

    def is_same(self, actual: Any, expected: Any) -> bool:
        """Return whether two pictures are equal in every value."""
        one, other = self.draw(actual), self.draw(expected)
        return bool(one.shape == other.shape and (one == other).all())

    def record(self, made: Made) -> Picture:
        """Write a picture, its difference from the reference's and a sheet of all that is shown of it."""
        actual, expected = self.draw(made.actual), self.draw(made.expected)
        difference, factor = amplified(actual, expected)
        shared = {**self.panels(made.case), "reference": expected}
        own = {"engine": actual, "difference": difference}
        files = {what: _file(made, "all", what) for what in shared} | {
            what: _file(made, made.variant, what) for what in (*own, "sheet")
        }
        is_reference = made.actual is made.expected  # which all variants share
        for what, pixels in ({**shared, **own} if is_reference else own).items():
            save_picture(pixels, files[what])
        panels = {**shared, "engine": actual, f"difference x {factor}": difference}
        save_sheet(panels, files["sheet"], title=f"{made.variant}: {made.name} ({made.title})")
        named = {what: path.relative_to(made.folder.parent).as_posix() for what, path in files.items()}
        return Picture(
            case=made.name, prompt=self.prompt, seed=self.seed, metrics=made.metrics, latency_ms=made.latency_ms,
            files=named,
        )  # fmt: skip


def of_pictures(metric: Callable[[torch.Tensor, torch.Tensor], Any]) -> Callable[[Pixels, Pixels], Any]:
    """Return a metric of :mod:`harness.metrics`, of tensors [3, height, width], as one of pictures."""

    def measured(actual: Pixels, expected: Pixels) -> Any:
        import torch

        one, other = (torch.from_numpy(pixels).permute(2, 0, 1) for pixels in (actual, expected))
        return metric(one, other)

    return measured


def _file(made: Made, folder: str, what: str) -> Path:
    return made.folder / file_name(folder) / f"{file_name(made.name, what)}.png"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A text as a system writes it."""

    tokens: tuple[int, ...]
    text: str = ""
    """The tokens as words, where there is a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts, made as :class:`Written`."""

    prompt: Callable[[Any], str] = lambda case: ""
    """What a case was written from, in words."""
    kind: Literal["pictures", "texts"] = field(default="texts", init=False)

    def is_same(self, actual: Written, expected: Written) -> bool:
        """Return whether two texts have the same tokens."""
        return actual.tokens == expected.tokens

    def record(self, made: Made) -> Text:
        """Return a text beside the reference's."""
        return Text(
            case=made.name, prompt=self.prompt(made.case), text=_words(made.actual), expected=_words(made.expected),
            tokens=len(made.actual.tokens), first_difference=first_difference(made.actual, made.expected),
            metrics=made.metrics, latency_ms=made.latency_ms,
        )  # fmt: skip


def _words(written: Written) -> str:
    return written.text or " ".join(map(str, written.tokens))


def first_difference(actual: Written, expected: Written) -> int | None:
    """Return the place of the first token that is another, or that only one of them has; None where none is."""
    for place, (one, other) in enumerate(zip(actual.tokens, expected.tokens, strict=False)):
        if one != other:
            return place
    shorter, longer = sorted((len(actual.tokens), len(expected.tokens)))
    return None if shorter == longer else shorter


def same_tokens(actual: Written, expected: Written) -> float:
    """Return the share of places, of the longer of two texts, that hold the same token; 1 for two empty ones."""
    longer = max(len(actual.tokens), len(expected.tokens))
    same = sum(one == other for one, other in zip(actual.tokens, expected.tokens, strict=False))
    return same / longer if longer else 1.0

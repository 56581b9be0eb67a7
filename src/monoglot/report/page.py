"""A page: blocks in sections -> one HTML file that needs no other file, no network and no script.

    Section(title, blocks) -> render -> str -> write

Everything that is put in is text: the template escapes it. Light and dark follow the reader's system.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from monoglot import report
from monoglot.files import write_text
from monoglot.report.answers import Card, Verdict
from monoglot.report.figures import Picture

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class Prose:
    """Paragraphs, then a list of points: pairs of a lead word (may be empty) and a sentence."""

    kind: ClassVar[str] = "prose"
    paragraphs: tuple[str, ...] = ()
    points: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads. The first column names its row; `numbers` (indices) are set flush right."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    numbers: tuple[int, ...] = ()
    total: tuple[str, ...] = ()
    """A last row, set apart."""


@dataclass(frozen=True)
class Plate:
    """A figure with its caption."""

    kind: ClassVar[str] = "plate"
    picture: Picture
    caption: str = ""


@dataclass(frozen=True)
class Cards:
    """Answered rows."""

    kind: ClassVar[str] = "cards"
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Turn:
    """One answer to a row that is asked again and again."""

    when: str
    answer: str
    confidence: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Watched:
    """A row as it is answered last, and what was answered before."""

    card: Card
    source: str
    """The data set that it is from."""
    turns: tuple[Turn, ...]
    note: str = ""


@dataclass(frozen=True)
class Story:
    """Rows that were asked again and again, side by side."""

    kind: ClassVar[str] = "story"
    rows: tuple[Watched, ...]


@dataclass(frozen=True)
class Fold:
    """A long text, word for word, that opens when its summary is clicked."""

    kind: ClassVar[str] = "fold"
    summary: str
    text: str


Block = Prose | Table | Plate | Cards | Story | Fold


@dataclass(frozen=True)
class Section:
    """A titled part of a page. `aside` is said small beside the title."""

    title: str
    blocks: tuple[Block, ...]
    aside: str = ""

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def render(
    title: str, sections: Sequence[Section], *, lead: str = "", facts: Sequence[tuple[str, str]] = (), foot: str = ""
) -> str:
    """The page as HTML.

    Args:
        lead: one or two sentences below the title.
        facts: (what, value) pairs below the lead: a model's name, a machine's cores.
        foot: the last line.

    Raises:
        InputError: the extra `report` is not installed.
    """
    report.require()
    page = _templates().get_template("page.html")
    html = page.render(title=title, sections=sections, lead=lead, facts=facts, foot=foot)
    return html.lstrip()


def write(path: Path, html: str) -> Path:
    """Write the page whole or not at all, and return where it is."""
    write_text(path, html)
    return path


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("monoglot.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["seconds"] = seconds
    return environment


def percent(share: float) -> str:
    """
    >>> percent(0.5), percent(0.9999), percent(0.004)
    ('50%', '>99%', '<1%')
    """
    return "<1%" if 0 < share < 0.01 else ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def seconds(value: float) -> str:
    """
    >>> seconds(0.0823), seconds(2.34)
    ('82 ms', '2.3 s')
    """
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"

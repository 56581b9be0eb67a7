"""Rows made of rows: files joined into one, and the matching tasks that captions and questions give.

row -> media as seen from the new file -> the same row, or one that asks whether two things belong together
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from monoglot.data.importers.base import IMPORTERS, Kind, read_objects
from monoglot.data.importers.work import Item, Row, Work
from monoglot.plugins import media_kinds
from monoglot.rng import stream

WINDOW = 10_000
"""What does not match is drawn from so many rows before."""
TRIES = 5
"""So often another row is drawn when one has the same media or answer; then the row keeps its own."""
MADE_OF = {"matching": ("caption", "vqa"), "region_caption": ("grounding",)}
"""`make` -> tasks of the rows that it takes."""


class Again(Kind):
    """Files of rows (docs/rows.md). Media paths are written anew for the place of the new file, ids are made unique.

    `make=matching`: a caption gives a row of `matching`, a question one of `answer_matching`; half of them, drawn by `seed`, keep
    their own caption or answer ("yes"), the others get that of another row ("no"): one of the 10,000 before that has other
    media (other answers). UnIVAL's code draws from a list of all captions, or replaces a word by another object, and draws
    answers of the same type; here it is another row's.
    `make=region_caption`: a phrase with a box gives a row that asks for the phrase.

    Source: data/pretrain_data/unify_dataset.py of github.com/mshukor/UnIVAL for the tasks and the half.
    """

    summary: ClassVar[str] = "Files of rows again: joined, or turned into matching or region_caption"
    example: ClassVar[str] = "rows captions.jsonl make=matching"
    make: Literal["same", "matching", "region_caption"] = Field(
        "same", description="'same' joins files; 'matching' and 'region_caption' make other rows of them."
    )
    seed: int = Field(0, description="Decides which rows match.")

    def items(self, work: Work) -> Iterator[Item]:
        draws = stream(self.seed, "import", self.make)
        windows: dict[str, deque[Row]] = {task: deque(maxlen=WINDOW) for task in MADE_OF["matching"]}
        for file in self.files:
            for item in read_objects(file, work):
                if self.make != "same" and item.value.get("task") not in MADE_OF[self.make]:
                    work.left_out(f"of task {item.value.get('task')}")
                    continue
                if self.make != "matching":
                    yield item
                    continue
                before, other = windows[item.value["task"]], None
                if draws.random() < 0.5:
                    drawn = (before[int(draws.integers(len(before)))] for _ in range(TRIES if before else 0))
                    other = next((row for row in drawn if _differs(row, item.value)), None)
                yield replace(item, value={**item.value, "other": other})
                before.append(item.value)

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        row = {"id": str(item.line), **item.value}
        for key in media_kinds():
            if isinstance(row.get(key), list):
                row[key] = [work.media(item, key, str(path)) for path in row[key]]
            elif row.get(key) is not None:
                row[key] = work.media(item, key, str(row[key]))
        if self.make == "region_caption":
            row |= {"task": "region_caption", "target": item.text("text"), "text": None, "targets": None}
        yield _matched(item, row) if self.make == "matching" else row


def _matched(item: Item, row: Row) -> Row:
    """A row of matching or answer_matching, with its own words or those of `other`."""
    other = row.pop("other")
    said = _said(item.value if other is None else other)
    if not said:
        raise item.wrong("target", "is missing", "a row without an answer cannot be matched")
    row |= {"target": "yes" if other is None else "no", "targets": None, "choices": None}
    if row["task"] == "caption":
        return {**row, "task": "matching", "text": said}
    question = item.text("text").rstrip("? ")
    return {**row, "task": "answer_matching", "text": f"{question}? {said}"}


def _said(row: Row) -> str:
    """The first reference, which is the one that is trained on."""
    return next(
        (text for text in (row.get("target"), *_listed(row.get("targets"))) if isinstance(text, str)), ""
    ).strip()


def _differs(other: Row, row: Row) -> bool:
    """Whether another row's words are surely wrong for this one: another clip's caption, another answer."""
    if not _said(other):
        return False
    if row["task"] == "caption":
        return any(other.get(key) != row.get(key) for key in (*media_kinds(), "start"))
    return _said(other).lower() not in [str(text).lower() for text in (row.get("target"), *_listed(row.get("targets")))]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


ROWS = IMPORTERS.add("rows", Again)

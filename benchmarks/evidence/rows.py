"""The rows that the questions are asked with, cut out of the packs so that a small model learns them in a short run.

packs/*/*.jsonl -> the concepts or questions that are asked for, media by absolute path, choices -> WORK/rows/NAME.{train,test}.jsonl
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monoglot.data.rows import write_rows
from monoglot.rng import stream

Row = dict[str, Any]

NAMED = 60
"""Concepts whose names are to be learned; evenly spread over those drawn in six styles."""
FEW = 100
"""So many different answers, or fewer, are given as choices."""
STYLES = 6
MEDIA = ("image", "video", "audio")
KIND = "what kind of thing is this?"


class Packs:
    """The packs, with the concepts that are asked about."""

    def __init__(self, folder: Path):
        self.folder = folder
        concepts = json.loads((folder / "emoji/concepts.json").read_text("utf-8"))
        drawn = Counter(row["concept"] for row in self.rows("emoji/names_en", "train"))
        self.complete = [concept["hexcode"] for concept in concepts if drawn[concept["hexcode"]] == STYLES]
        self.named = {self.complete[index * len(self.complete) // NAMED] for index in range(NAMED)}
        self.kinds = {concept["hexcode"]: concept["kind"] for concept in concepts}

    def rows(self, stem: str, split: str, keep: Callable[[Row], bool] = lambda row: True) -> list[Row]:
        """Rows of a file with their media by absolute path."""
        path = self.folder / f"{stem}.{split}.jsonl"
        return [_at(row, path.parent) for row in _read(path) if keep(row)]

    def names(self, split: str) -> list[Row]:
        """Pictures of a few concepts: six styles to learn from, two others (noto, openmoji) to be asked about."""
        stems = ["emoji/names_en"] if split == "train" else ["emoji/names_en", "emoji/names_en_sharealike"]
        return [row for stem in stems for row in self.rows(stem, split, lambda row: row["concept"] in self.named)]

    def asked(self, question: str, split: str) -> list[Row]:
        """A question about pictures of the concepts that are drawn in every style."""
        complete = set(self.complete)
        return self.rows("emoji/kinds", split, lambda row: row["text"] == question and row["concept"] in complete)

    def groups(self, split: str) -> list[Row]:
        """Shuffled, so that the first rows, to which `limit` cuts, are of all groups."""
        rows = self.asked("which broad group does this belong to?", split)
        return [rows[index] for index in stream(0, "groups", split).permutation(len(rows))]

    def clip_kinds(self, split: str) -> list[Row]:
        """Clips in which one thing moves or changes, asked what kind of thing it is."""
        clips = [*self.rows("clips/clip_names", split), *self.rows("clips/change", split)]
        return [
            {key: value for key, value in row.items() if key != "choices"}
            | {"id": f"{row['id']}-kind", "task": "vqa", "text": KIND, "target": self.kinds[row["concept"]]}
            for row in clips
        ]

    def drums(self, split: str) -> list[Row]:
        stems = ["sounds/drums"] if split == "test" else ["sounds/drums", "sounds/drums_sharealike"]
        return [row for stem in stems for row in self.rows(stem, split)]


def write_all(packs: Packs, folder: Path, one_file: Sequence[str]) -> list[str]:
    """Write every data set, and those of `one_file` once more as one; their names."""
    made: dict[str, Callable[[str], list[Row]]] = {
        "names": packs.names,
        "kinds": lambda split: packs.asked(KIND, split),
        "groups": packs.groups,
        "clip_kinds": packs.clip_kinds,
        "drums": packs.drums,
        "sounds": lambda split: packs.rows("sounds/sounds", split),
        "prompts": lambda split: packs.rows("prompts/category", split),
        "docstrings": lambda split: packs.rows("docstrings/summaries", split),
    }
    for name, rows in made.items():
        answers = sorted({row["target"] for row in rows("train")})
        for split in ("train", "test"):
            write_rows(folder / f"{name}.{split}.jsonl", _with_choices(rows(split), answers))
    together = [row for name in one_file for row in _read(folder / f"{name}.train.jsonl")]
    write_rows(folder / "all.train.jsonl", together)
    return list(made)


def facts(folder: Path, name: str) -> dict[str, Any]:
    """How large a data set is, and what always giving the answer most common in training would score."""
    train, test = (_read(folder / f"{name}.{split}.jsonl") for split in ("train", "test"))
    answers = Counter(row["target"] for row in train)
    usual = answers.most_common(1)[0][0]
    right = sum(row["target"] == usual for row in test)
    return {"rows": len(train), "answers": len(answers), "test_rows": len(test), "most_common": right / len(test)}


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _at(row: Row, folder: Path) -> Row:
    return row | {name: str((folder / row[name]).resolve()) for name in MEDIA if name in row}


def _with_choices(rows: list[Row], answers: list[str]) -> list[Row]:
    """Where there are few answers, they are each row's choices, unless it has its own."""
    few = len(answers) <= FEW
    return [{"choices": answers} | row if few else row for row in rows]

"""A folder for each class, with its pictures, clips or sounds inside.

folder -> class -> file -> one row
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from monoglot.data.importers.base import IMPORTERS, Kind, read_lines
from monoglot.data.importers.work import Item, Row, Work
from monoglot.errors import InputError
from monoglot.files import write_text

SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".mp4", ".webm", ".mkv", ".avi", ".mov"), "video"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3", ".m4a"), "audio"),
}
"""End of a file's name -> modality."""


class Folders(Kind):
    """`train/n01440764/n01440764_18.JPEG`: a folder for each class, as ImageNet, torchvision's ImageFolder and Keras have it; there
    may be further folders inside. The class is the folder's name, or what `names` says of it, a line each:
        n01440764 tench, Tinca tinca
    Files that are neither picture, clip nor sound by their ending are left out, hidden ones too.

    Source: pytorch.org/vision, ImageFolder; synset_words.txt of Caffe for names.
    """

    summary: ClassVar[str] = "A folder for each class (ImageNet, ImageFolder): pictures, clips or sounds to be named"
    example: ClassVar[str] = "folders train names=synset_words.txt answers=classes.txt"
    task: str = Field("name", description="The task of every row: name or classify.")
    names: Path | None = Field(None, description="A file that says what a folder stands for: name, space, words.")
    first: bool = Field(False, description="Of the words of `names`, only those before the first comma.")
    answers: Path | None = Field(None, description="Write the classes here, one a line: `choices` of a recipe.")

    def items(self, work: Work) -> Iterator[Item]:
        names = self._names(work)
        for root in self.files:
            if not root.is_dir():
                raise InputError.at(root, "", "is no folder", "give the folder that holds a folder for each class")
            classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
            if not classes:
                raise InputError.at(root, "", "holds no folders", "give the folder that holds a folder for each class")
            if self.answers is not None:
                path, listed = self.answers, "".join(f"{names.get(name, name)}\n" for name in classes)
                work.at_end.append(lambda path=path, listed=listed: write_text(path, listed))  # type: ignore[misc]
            for name in classes:
                for file in _files(root / name):
                    modality = SUFFIXES.get(file.suffix.lower())
                    if file.name.startswith(".") or modality is None:
                        work.left_out("that are no picture, clip or sound")
                        continue
                    yield Item({"modality": modality, "class": names.get(name, name)}, file)

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        modality, path = item.value["modality"], os.path.abspath(item.file)
        media = work.media(item, modality, path)
        yield {"id": _id(item.file), "task": self.task, modality: media, "target": item.text("class")}

    def _names(self, work: Work) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, line in read_lines(self.names, work) if self.names is not None else ():
            name, space, words = line.decode("utf-8", "replace").replace("\t", " ").partition(" ")
            if not space or not words.strip():
                assert self.names is not None
                raise InputError.at(self.names, "", "has one word only", "expected name, space, words", line=number)
            found[name] = (words.split(",")[0] if self.first else words).strip()
        return found


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in order of names; memory: one folder."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)


def _id(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


FOLDERS = IMPORTERS.add("folders", Folders)

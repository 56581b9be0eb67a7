"""Captions of COCO's pictures: Karpathy's split, or the official files.

document -> a picture with its captions -> one row, or one a caption
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from monoglot.data.importers.base import (
    IMPORTERS,
    TOGETHER,
    Kind,
    References,
    Words,
    entries,
    fill,
    named_texts,
    read_document,
    targets,
)
from monoglot.data.importers.work import Item, Row, Work
from monoglot.errors import InputError


class CocoCaption(Kind):
    """`dataset_coco.json` (Karpathy; also Flickr30k and Flickr8k in the same layout):
        {"images": [{"filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg", "cocoid": 391895, "split": "test",
                     "sentences": [{"raw": "A man ...", "sentid": 770337, "tokens": [...]}]}]}
    `captions_train2014.json` and the like (official):
        {"images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}], "annotations": [{"id": 1, "image_id": 9, "caption": "..."}]}
    The file is parsed whole.

    Source: cs.stanford.edu/people/karpathy/deepimagesent; cocodataset.org/#format-data, "Image Captioning".
    """

    summary: ClassVar[str] = "COCO captions: dataset_coco.json (Karpathy) or the official captions_*.json"
    example: ClassVar[str] = "coco_caption dataset_coco.json split=train,restval references=apart --media coco"
    split: Words = Field(
        (),
        description="Karpathy's: train, restval, val, test; several by commas. Published training takes train,restval.",
    )
    references: References = Field("together", description=TOGETHER)
    image: str = Field(
        "{filepath}/{filename}|{filename}",
        description="How a picture's file is named, from the fields of Karpathy's images; official files have {filename} only.",
    )

    def items(self, work: Work) -> Iterator[Item]:
        for file in self.files:
            document = read_document(file, "dataset_coco.json or captions_*.json", "images")
            read = self._official if "annotations" in document else self._karpathy
            for item in read(document, file, work):
                if self.references == "together":
                    yield item
                else:
                    for name, caption in item.value["captions"]:
                        yield replace(item, value={**item.value, "name": name, "captions": [(name, caption)]})

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        picture = item.value
        if not picture["captions"]:
            raise item.wrong("captions", "there is none", "leave the picture out")
        image = work.media(item, "image", *fill(self.image, item))
        captions = [caption for _, caption in picture["captions"]]
        yield {"id": picture["name"], "task": "caption", "image": image, **targets(captions)}

    def _karpathy(self, document: Any, file: Path, work: Work) -> Iterator[Item]:
        """Its pictures as {name, filename, filepath, captions}."""
        for item in entries(document["images"], file, "images", work):
            try:
                split = item.name("split")
                if self.split and split not in self.split:
                    work.left_out(f"of split {split}")
                    continue
                sentences = entries(item.list("sentences"), file, f"{item.place}.sentences", work)
                captions = named_texts(sentences, "sentid", "raw", work)
                name = item.name("cocoid" if "cocoid" in item.value else "imgid")
                picture = {"name": name, "captions": captions, "filename": item.name("filename")}
            except InputError as problem:
                work.problem(problem)
            else:
                yield replace(item, value={**picture, "filepath": item.value.get("filepath")})

    def _official(self, document: Any, file: Path, work: Work) -> Iterator[Item]:
        """The same of the official files."""
        if self.split:
            raise InputError.at(file, "split", "official files have one split each", "give the file of the split")
        captions: dict[str, list[tuple[str, str]]] = {}
        for item in entries(document["annotations"], file, "annotations", work):
            try:
                captions.setdefault(item.name("image_id"), []).append((item.name("id"), item.text("caption")))
            except InputError as problem:
                work.problem(problem)
        for item in entries(document["images"], file, "images", work):
            try:
                name, filename = item.name("id"), item.name("file_name")
            except InputError as problem:
                work.problem(problem)
            else:
                yield replace(item, value={"name": name, "captions": captions.pop(name, []), "filename": filename})
        for name in captions:
            work.problem(Item({}, file).wrong("annotations", f"image_id {name} is not among the images"))


COCO_CAPTION = IMPORTERS.add("coco_caption", CocoCaption)

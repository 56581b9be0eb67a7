"""Boxes of phrases: RefCOCO, RefCOCO+ and RefCOCOg.

refs(...).p (read without running anything) + instances.json -> a phrase with its box -> one row
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from monoglot.data.importers.base import IMPORTERS, Kind, Words, corners_of, entries, fill, fractions, read_document
from monoglot.data.importers.work import Item, Row, Work
from monoglot.errors import InputError

EXPECTED = "refs(unc).p, refs(google).p or refs(umd).p"


class RefCoco(Kind):
    """`refs(unc).p`, `refs(google).p` or `refs(umd).p`, a pickled list of
        {"ref_id": 0, "ann_id": 1719310, "image_id": 581857, "split": "train", "file_name": "COCO_train2014_000000581857_16.jpg",
         "sentences": [{"sent_id": 0, "sent": "the lady with the blue shirt", "raw": "THE LADY ...", "tokens": [...]}]}
    and `instances.json`, which goes with it:
        {"images": [{"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "height": 427, "width": 640}],
         "annotations": [{"id": 1719310, "image_id": 581857, "bbox": [x, y, width, height]}]}
    A pickle can call any function: this one is read by a reader that knows lists, dictionaries, texts and numbers, and refuses
    a file that names anything else. Both files are held whole.

    Source: github.com/lichengunc/refer, refer.py and the comment in README.md.
    """

    summary: ClassVar[str] = "RefCOCO, RefCOCO+, RefCOCOg: refs(unc|google|umd).p with instances.json"
    example: ClassVar[str] = 'refcoco "refcoco/refs(unc).p" refcoco/instances.json split=train --media coco/train2014'
    split: Words = Field((), description="train, val, test, testA, testB; several by commas.")
    task: Literal["grounding", "region_caption"] = Field(
        "grounding",
        description="'grounding' asks for the box of the phrase, 'region_caption' for the phrase of the box.",
    )
    image: str = Field("{file_name}", description="How a picture's file is named, from the images of instances.json.")

    def items(self, work: Work) -> Iterator[Item]:
        pickled, images, boxes = self._files()
        for file in pickled:
            for ref in entries(read_plain_pickle(file, EXPECTED), file, "", work):
                try:
                    split, name, sentences = ref.name("split"), ref.name("ref_id"), ref.list("sentences")
                    if self.split and split not in self.split:
                        work.left_out(f"of split {split}")
                        continue
                    picture, annotation = images.get(ref.name("image_id")), boxes.get(ref.name("ann_id"))
                    if picture is None or annotation is None:
                        key = "image_id" if picture is None else "ann_id"
                        raise ref.wrong(
                            key, f"{ref.name(key)} is not in instances.json", "give the one that goes with it"
                        )
                except InputError as problem:
                    work.problem(problem)
                    continue
                for item in entries(sentences, file, f"{ref.place}.sentences", work):
                    found = {"ref": name, "picture": picture, "annotation": annotation}
                    yield replace(item, value={**item.value, **found})

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        picture = replace(item, value=item.value["picture"])
        annotation = replace(item, value=item.value["annotation"])
        size = (picture.number("height"), picture.number("width"))
        box = fractions(item, "bbox", corners_of(item, "bbox", annotation.list("bbox"), sides=True), size)
        phrase = item.text("sent")
        image = work.media(item, "file_name", *fill(self.image, picture))
        says = {"text": phrase} if self.task == "grounding" else {"target": phrase}
        name = f"{item.value['ref']}-{item.name('sent_id')}"
        yield {"id": name, "task": self.task, "image": image, **says, "box": list(box)}

    def _files(self) -> tuple[list[Path], dict[str, Any], dict[str, Any]]:
        """(pickles, images by id, annotations by id)."""
        pickled = [file for file in self.files if file.suffix != ".json"]
        described = [file for file in self.files if file.suffix == ".json"]
        if not pickled or not described:
            missing = EXPECTED if not pickled else "instances.json"
            raise InputError.at(self.files[0], "", f"{missing} is missing", "give both")
        images: dict[str, Any] = {}
        boxes: dict[str, Any] = {}
        for file in described:
            document = read_document(file, "instances.json", "images", "annotations")
            for key, found in (("images", images), ("annotations", boxes)):
                found.update((str(one["id"]), one) for one in document[key] if isinstance(one, dict) and "id" in one)
        return pickled, images, boxes


class _Plain(pickle.Unpickler):
    """Containers, texts and numbers need no name to be looked up, so every name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}, which is neither list, dictionary, text nor number")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("refers to something outside of the file")


def read_plain_pickle(file: Path, expected: str) -> Any:
    """What a pickle holds that is made of lists, dictionaries, texts and numbers only; nothing in it is run.

    Texts of Python 2 are read as UTF-8.

    Raises:
        InputError: the file names anything else, is broken, or cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            return _Plain(stream, encoding="utf-8", errors="surrogateescape").load()
    except OSError as error:
        raise InputError.at(file, "", f"cannot be read ({error.strerror})", f"expected {expected}") from None
    except Exception as error:  # a broken pickle raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError.at(file, "", f"is no plain pickle: {reason[:120]}", f"expected {expected}") from None


REFCOCO = IMPORTERS.add("refcoco", RefCoco)

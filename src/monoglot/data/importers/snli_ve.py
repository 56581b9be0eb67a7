"""SNLI-VE: does the picture imply the sentence?

line -> picture, hypothesis, label -> one row
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from monoglot.data.importers.base import IMPORTERS, Kind, fill, read_objects
from monoglot.data.importers.work import Item, Row, Work

ANSWERS = {"entailment": "yes", "neutral": "maybe", "contradiction": "no"}
"""As UnIVAL and OFA train them (arXiv 2202.03052)."""


class SnliVe(Kind):
    """`snli_ve_train.jsonl`, one object a line:
        {"Flickr30K_ID": "3416050480", "gold_label": "neutral", "pairID": "3416050480.jpg#4r1n", "captionID": "3416050480.jpg#4",
         "sentence1": "premise ...", "sentence2": "hypothesis ...", "annotator_labels": [...]}
    The generator writes `Flikr30kID` with ".jpg"; both spellings are read. Entries without a gold label ("-") are left out.

    Source: github.com/necla-ml/SNLI-VE, README.md and snli_ve_generator.py.
    """

    summary: ClassVar[str] = "SNLI-VE: snli_ve_*.jsonl with Flickr30k's pictures"
    example: ClassVar[str] = "snli_ve snli_ve_train.jsonl --media flickr30k_images"
    image: str = Field("{picture}.jpg", description="How a picture's file is named; {picture} is the Flickr30k id.")

    def items(self, work: Work) -> Iterator[Item]:
        for file in self.files:
            for item in read_objects(file, work):
                if item.value.get("gold_label") == "-":
                    work.left_out("without a gold label")
                else:
                    yield item

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        label = item.text("gold_label")
        if label not in ANSWERS:
            raise item.wrong("gold_label", f"is {label!r}", f"expected one of {', '.join(ANSWERS)}")
        key = "Flikr30kID" if "Flikr30kID" in item.value else "Flickr30K_ID"
        picture = item.name(key).removesuffix(".jpg")
        image = work.media(item, key, *fill(self.image, item, {**item.value, "picture": picture}))
        row = {"id": item.name("pairID"), "task": "entailment", "image": image, "text": item.text("sentence2")}
        yield {**row, "target": ANSWERS[label]}


SNLI_VE = IMPORTERS.add("snli_ve", SnliVe)

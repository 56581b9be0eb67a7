"""The TSV files of OFA and UnIVAL: no header, columns by task, pictures as base64 or as paths.

line -> columns -> picture into a shard -> rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from monoglot.data.importers.base import (
    IMPORTERS,
    TOGETHER,
    Kind,
    References,
    Words,
    corners_of,
    fractions,
    read_lines,
    targets,
)
from monoglot.data.importers.shards import from_base64
from monoglot.data.importers.snli_ve import ANSWERS
from monoglot.data.importers.work import Item, Row, Work, as_number
from monoglot.text.boxes import write_objects

LAYOUTS: dict[str, tuple[str, ...]] = {
    "caption": ("id", "image_id", "caption", "objects", "image"),
    "vqa": ("id", "image_id", "question", "answers", "objects", "image"),
    "refcoco": ("id", "image_id", "text", "box", "image"),
    "snli_ve": ("id", "image_id", "image", "hypothesis", "premise", "label"),
    "image_gen": ("id", "codes", "caption"),
    "imagenet": ("image", "class", "label"),
    "video_caption": ("id", "video_id", "caption", "objects", "video"),
    "video_vqa": ("id", "video_id", "question", "answers", "objects", "video"),
    "audio_caption": ("id", "audio_id", "caption", "objects", "audio"),
    "pretraining": ("id", "media", "caption", "question", "answers", "objects", "dataset", "type"),
    "detection": ("id", "image", "objects"),
    "infill_image": ("id", "image", "codes"),
    "text": ("id", "text"),
}
"""The columns of each file, in order. Sources: OFA's README.md (the first six), UnIVAL's preprocess/utils.py and the
selected_cols of its run_scripts (video, audio), data/pretrain_data/unify_dataset.py of both (the last four)."""
TYPES = {
    "caption": ("image", "caption"),
    "qa": ("image", "vqa"),
    "visual_grounding": ("image", "grounding"),
    "video_caption": ("video", "caption"),
    "video_qa": ("video", "vqa"),
    "audio_caption": ("audio", "caption"),
}
"""The last column of the pretraining files -> (modality, task)."""
Layout = Literal[
    "caption", "vqa", "refcoco", "snli_ve", "image_gen", "imagenet", "video_caption", "video_vqa", "audio_caption",
    "pretraining", "detection", "infill_image", "text",
]  # fmt: skip


class Ofa(Kind):
    """One entry a line, columns parted by tabs, no header, no quoting:
        caption        162365 TAB 12455 TAB the sun sets over the trees TAB sky&&water&&dock TAB /9j/4AAQSkZJ...   (several captions: a&&b)
        vqa            79459 TAB 79459 TAB is this person wearing shorts? TAB 0.6|!+no TAB house&&short TAB /9j/4AAQ...   (0.6|!+no&&1.0|!+yes)
        refcoco        79_1 TAB 237367 TAB A woman in a white blouse TAB 230.79,121.75,423.66,463.06 TAB 9j/4AAQ...
        snli_ve        252244149.jpg#1r1n TAB 252244149 TAB /9j/4AAQ... TAB hypothesis TAB premise TAB neutral
        image_gen      1 TAB 6674 4336 4532 ... 1846 TAB the people are posing for a group photo.
        imagenet       _9j_4AAQS... TAB 769 TAB rugby ball
        video_caption, audio_caption, video_vqa   as caption and vqa, with the file's path in the last column
        pretraining    id, picture (base64) or path, caption, question, answers or box, objects, data set, type: UnIVAL's mixed files
        detection      id, picture, x0,y0,x1,y1,class id,name&&...
        infill_image   id, picture, codes of its middle
        text           id, text
    A column of pictures that has a full stop in it is a path below --media, else base64, in either alphabet. Pictures go into tar
    shards beside the rows, each content once; of a picture only the header is looked at. Memory does not grow with the number
    of lines. Answers carry their confidence, which becomes the weight of the row.

    Source: github.com/OFA-Sys/OFA, README.md, and github.com/mshukor/UnIVAL, README.md, preprocess/utils.py, run_scripts.
    """

    summary: ClassVar[str] = "TSV files of OFA and UnIVAL, with pictures as base64 or as paths"
    example: ClassVar[str] = "ofa vqa_train.tsv layout=vqa references=apart"
    layout: Layout = Field(description=f"Which columns the file has: {', '.join(LAYOUTS)}.")
    references: References = Field("together", description=TOGETHER)
    task: Words = Field(
        (), description="Of a pretraining file, only these: caption, vqa, grounding; several by commas."
    )

    def items(self, work: Work) -> Iterator[Item]:
        columns = LAYOUTS[self.layout]
        for file in self.files:
            for number, line in read_lines(file, work):
                item = Item({}, file, number)
                fields = line.split(b"\t")
                if len(fields) != len(columns):
                    expected = f"layout {self.layout} has {len(columns)}: {', '.join(columns)}"
                    work.problem(item.wrong("", f"has {len(fields)} columns", expected))
                    continue
                try:
                    value = {name: _text(item, name, field) for name, field in zip(columns, fields)}
                except ValueError as problem:
                    work.problem(item.wrong("", f"is not UTF-8 ({problem})", "save it as UTF-8"))
                    continue
                yield replace(item, value=value)

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        name = item.text("id") if "id" in item.value else str(item.line)
        layout: str = self.layout
        modality = _modality(item)
        if layout == "pretraining":
            if item.value["type"] not in TYPES:
                raise item.wrong("type", f"is {item.value['type']!r}", f"expected one of {', '.join(TYPES)}")
            modality, layout = TYPES[item.value["type"]]
            if self.task and layout not in self.task:
                work.left_out(f"of task {layout}")
                return
        yield from READERS[layout](self, item, work, {"id": name}, modality)


def _modality(item: Item) -> str:
    return next((key for key in ("video", "audio") if key in item.value), "image")


def _text(item: Item, name: str, field: bytes) -> str | bytes:
    """A column; pictures stay bytes, which may be long."""
    return field.strip() if name in ("image", "media") else field.decode("utf-8").strip()


def _media(item: Item, work: Work, modality: str) -> dict[str, str]:
    """{modality: path}: a path below --media, or base64, which is put into a shard."""
    key = "media" if "media" in item.value else modality
    given = item.value[key]
    if isinstance(given, str) or b"." in given:
        path = given if isinstance(given, str) else given.decode("utf-8", "surrogateescape")
        return {modality: work.media(item, key, path)}
    if modality != "image":
        raise item.wrong(key, "is no path", f"a {modality} is named by its path")
    try:
        picture = from_base64(given)
    except ValueError as error:
        raise item.wrong(key, f"is neither a path nor base64 ({error})", "export it again") from None
    if not picture:
        raise item.wrong(key, "is empty", "expected a picture as base64, or its path")
    return {modality: work.store(item, key, picture)}


def _captions(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    captions = [" ".join(part.split()) for part in item.text("caption").split("&&") if part.strip()]
    row = {**row, "task": "caption", **_media(item, work, modality)}
    if kind.references == "together":
        yield {**row, **targets(captions)}
    for number, caption in enumerate(captions if kind.references == "apart" else ()):
        yield {**row, "id": row["id"] if len(captions) == 1 else f"{row['id']}-{number}", "target": caption}


def _questions(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    answers = read_answers(item)
    row = {**row, "task": "vqa", **_media(item, work, modality), "text": item.text("question")}
    if kind.references == "together":
        yield {**row, **targets([answer for answer, _ in answers]), "weight": answers[0][1]}
    for number, (answer, weight) in enumerate(answers if kind.references == "apart" else ()):
        name = row["id"] if len(answers) == 1 else f"{row['id']}-{number}"
        yield {**row, "id": name, "target": answer, "weight": weight}


def read_answers(item: Item) -> list[tuple[str, float]]:
    """`0.6|!+no&&1.0|!+yes` as (answer, confidence), the surest first. Raises InputError when it is anything else.

    >>> from pathlib import Path
    >>> read_answers(Item({"answers": "0.6|!+no&&1.0|!+yes"}, Path("vqa.tsv"), 1))
    [('yes', 1.0), ('no', 0.6)]
    """
    found: dict[str, float] = {}
    for part in item.text("answers").split("&&"):
        sure, mark, answer = part.partition("|!+")
        answer = " ".join(answer.split())
        if not mark or not answer:
            raise item.wrong("answers", f"holds {part[:60]!r}", "expected confidence|!+answer, parted by &&")
        found[answer] = as_number(item, "answers", sure)
    if min(found.values()) <= 0:
        raise item.wrong("answers", "holds a confidence of 0", "expected more than 0")
    return sorted(found.items(), key=lambda pair: -pair[1])


def _grounding(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    """The box is in pixels of the picture as it lies, x0,y0,x1,y1."""
    key = "box" if "box" in item.value else "answers"
    corners = corners_of(item, key, item.text(key).split(","))
    media = _media(item, work, modality)
    box = fractions(item, key, corners, work.size(item, media["image"], unturned=True))
    phrase = item.text("text" if "text" in item.value else "caption")
    yield {**row, "task": "grounding", **media, "text": phrase, "box": list(box)}


def _entailment(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    label = item.text("label")
    if label not in ANSWERS:
        raise item.wrong("label", f"is {label!r}", f"expected one of {', '.join(ANSWERS)}")
    media = _media(item, work, modality)
    yield {**row, "task": "entailment", **media, "text": item.text("hypothesis"), "target": ANSWERS[label]}


def _codes(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    yield {**row, "task": "generate_image", "text": item.text("caption"), "target": item.text("codes")}


def _classes(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    yield {**row, "task": "name", **_media(item, work, modality), "target": item.text("label")}


def _objects(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    media = _media(item, work, modality)
    size = work.size(item, media["image"], unturned=True)
    found = []
    for part in item.text("objects").split("&&"):
        fields = part.split(",", 5)
        if len(fields) != 6 or not fields[5].strip() or ";" in fields[5]:
            raise item.wrong("objects", f"holds {part[:60]!r}", "expected x0,y0,x1,y1,class id,name, parted by &&")
        box = fractions(item, "objects", corners_of(item, "objects", fields[:4]), size)
        found.append((" ".join(fields[5].split()), box))
    yield {**row, "task": "detect", **media, "target": write_objects(found)}


def _middle(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    yield {**row, "task": "infill_image", **_media(item, work, modality), "target": item.text("codes")}


def _plain(kind: Ofa, item: Item, work: Work, row: Row, modality: str) -> Iterator[Row]:
    text = item.text("text")
    yield {**row, "task": "infill", "text": text, "target": text}


READERS: dict[str, Callable[[Ofa, Item, Work, Row, str], Iterator[Row]]] = {
    "caption": _captions,
    "video_caption": _captions,
    "audio_caption": _captions,
    "vqa": _questions,
    "video_vqa": _questions,
    "refcoco": _grounding,
    "grounding": _grounding,
    "snli_ve": _entailment,
    "image_gen": _codes,
    "imagenet": _classes,
    "detection": _objects,
    "infill_image": _middle,
    "text": _plain,
}
"""What makes rows of each layout, and of each task of a pretraining file."""
OFA = IMPORTERS.add("ofa", Ofa)

"""Tables whose columns you name: CSV and TSV, JSON and JSONL; WebVid, AudioCaps and Clotho as tables with known columns.

line -> {column: value} -> (Mapping: which column is what) -> one row, or one a reference
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

from pydantic import Field, field_validator

from monoglot.data.importers.base import (
    IMPORTERS,
    TOGETHER,
    Kind,
    References,
    Words,
    corners_of,
    entries,
    fill,
    fractions,
    read_document,
    read_objects,
    targets,
)
from monoglot.data.importers.shards import from_base64
from monoglot.data.importers.work import Item, Row, Work
from monoglot.data.rows import MEDIA_KEYS
from monoglot.errors import InputError
from monoglot.registry import unknown_name
from monoglot.tasks import TASKS

LONGEST_FIELD = 1 << 20
"""Letters of a field of a CSV file; a longer one is a quotation mark that was never closed."""
LONGEST_PICTURE = 1 << 26
"""The same where a column holds pictures as base64."""
COLUMN = "a column, or a template of columns"


class Mapped(Kind):
    """A table; each setting says which column holds that part of a row. `{...}` makes a template: `image=img/{id}.jpg`."""

    task: str = Field(description="The task of every row: caption, name, vqa, grounding, classify ...")
    id: str = Field("", description=f"The row's id: {COLUMN}; the number of the line if left out.")
    image: str = Field("", description=f"The picture's file: {COLUMN}.")
    video: str = Field("", description=f"The clip's file: {COLUMN}.")
    audio: str = Field("", description=f"The sound's file: {COLUMN}.")
    text: str = Field("", description=f"The question, phrase or document: {COLUMN}.")
    targets: Words = Field(
        (), description="The answer: a column, or several for several references; empty ones are left out."
    )
    between: str = Field("", description="What parts references that stand in one column, such as || or &&.")
    references: References = Field("together", description=TOGETHER)
    box: Words = Field((), description="The box: four columns by commas, or one that holds four numbers.")
    box_unit: Literal["fraction", "pixel"] = Field("fraction", description="What the box is measured in.")
    box_sides: bool = Field(False, description="The box is x y width height instead of x0 y0 x1 y1.")
    start: str = Field("", description="The column of the first second of the clip or sound.")
    end: str = Field("", description="The column of its last second.")
    weight: str = Field("", description="The column that says how much a row counts.")
    lang: str = Field("", description="The language of the rows, such as en or ja.")
    choices: Words = Field((), description="The answers that there are, the same for every row.")
    keep: Words = Field((), description="Columns that are kept beside the row, such as a group or a licence.")
    base64: bool = Field(False, description="The column of `image` holds the picture itself, as base64.")

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(unknown_name("task", task, TASKS))
        return task

    def columns(self) -> list[tuple[str, str]]:
        """(setting, column) of every plain column that the settings name."""
        plain = [(name, getattr(self, name)) for name in ("id", *MEDIA_KEYS, "text", "start", "end", "weight")]
        several = [(name, column) for name in ("targets", "box", "keep") for column in getattr(self, name)]
        return [(name, column) for name, column in plain + several if column and "{" not in column]

    def check_columns(self, known: Sequence[str], file: Path, line: int | None = None) -> None:
        """Raise InputError when the table lacks a column that a setting names."""
        for setting, column in self.columns():
            if column not in known:
                shown = ", ".join(map(repr, known)) or "none"
                raise InputError.at(file, setting, f"there is no column {column!r}", f"columns: {shown}", line=line)

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        name = self._said(item, self.id) if self.id else str(item.line or item.place.strip("[]"))
        row: Row = {"id": name, "task": self.task}
        for key in MEDIA_KEYS:
            if getattr(self, key):
                row[key] = self._media(item, key, work)
        if self.text:
            row["text"] = self._said(item, self.text)
        if self.box:
            row["box"] = list(self._box(item, row.get("image"), work))
        row |= {key: item.number(getattr(self, key)) for key in ("start", "end", "weight") if getattr(self, key)}
        row |= {"lang": self.lang or None, "choices": list(self.choices) or None}
        row |= {column: item.value.get(column) for column in self.keep}
        found = self._references(item)
        if self.references == "together" or len(found) < 2:
            yield {**row, **targets(found)}
        else:
            for number, reference in enumerate(found):
                yield {**row, "id": f"{name}-{number}", "target": reference}

    def _said(self, item: Item, column: str) -> str:
        """One column, or a template of several, as a text that is not empty."""
        said = fill(column, item)[0] if "{" in column else item.name(column)
        if not said.strip():
            raise item.wrong(column, "is empty", "expected a text")
        return said.strip()

    def _references(self, item: Item) -> list[str]:
        found: list[str] = []
        for column in self.targets:
            value = item.get(column) if len(self.targets) == 1 else item.value.get(column)
            if isinstance(value, str) and self.between:
                value = value.split(self.between)
            for one in value if isinstance(value, list) else [value]:
                if one is None or isinstance(one, (dict, list, bytes)):
                    raise item.wrong(column, f"holds a {type(one).__name__}", "expected a text, or a list of texts")
                if str(one).strip():
                    found.append(str(one).strip())
        if self.targets and not found:
            raise item.wrong(self.targets[0], "is empty", "give an answer, or leave the line out")
        return found

    def _media(self, item: Item, key: str, work: Work) -> str | list[str]:
        column: str = getattr(self, key)
        if "{" in column:
            return work.media(item, key, *fill(column, item))
        value = item.get(column)
        paths = [self._one(item, column, key, one, work) for one in (value if isinstance(value, list) else [value])]
        return paths[0] if len(paths) == 1 else paths

    def _one(self, item: Item, column: str, key: str, value: Any, work: Work) -> str:
        """A picture, clip or sound: its file, its base64, or {"bytes": ..., "path": ...} as Hugging Face writes it."""
        if isinstance(value, dict):
            if value.get("bytes"):
                suffix = "" if key == "image" else Path(value.get("path") or "").suffix or ".bin"
                return work.store(item, column, value["bytes"], suffix=suffix)
            value = value.get("path")
        if isinstance(value, bytes):
            return work.store(item, column, value, suffix="" if key == "image" else ".bin")
        if not isinstance(value, str) or not value.strip():
            raise item.wrong(column, "is empty", f"expected the file of the {key}")
        if self.base64 and key == "image":
            try:
                return work.store(item, column, from_base64(value.encode()))
            except ValueError as error:
                raise item.wrong(column, f"is no base64 ({error})", "export it again") from None
        return work.media(item, column, value.strip())

    def _box(self, item: Item, image: Any, work: Work) -> Sequence[float]:
        given = [item.get(column) for column in self.box]
        if len(given) == 1:
            given = given[0] if isinstance(given[0], list) else str(given[0]).replace(",", " ").split()
        corners = corners_of(item, self.box[0], given, sides=self.box_sides)
        if self.box_unit == "fraction":
            return corners
        if not isinstance(image, str):
            raise item.wrong(self.box[0], "there is no picture to measure pixels on", "give image, or fractions")
        return fractions(item, self.box[0], corners, work.size(item, image))


class Csv(Mapped):
    """A table with a line of column names; any quoting that Python's csv reads, fields with line ends too.

    Source: RFC 4180.
    """

    summary: ClassVar[str] = "CSV and TSV files; you say which column is what"
    example: ClassVar[str] = "csv clips.csv task=caption video={folder}/{id}.mp4 targets=caption id=id --media videos"
    delimiter: str = Field("", description="What parts columns; a tab in files named .tsv, else a comma.")
    header: Words = Field((), description="Names of the columns, for a file whose first line is data already.")

    def items(self, work: Work) -> Iterator[Item]:
        for file in self.files:
            delimiter = self.delimiter.replace("\\t", "\t") or ("\t" if file.suffix == ".tsv" else ",")
            if len(delimiter) != 1:
                raise InputError.at("command line", "delimiter", f"{delimiter!r} is not one letter", "give one")
            yield from self._table(file, delimiter, work)

    def _table(self, file: Path, delimiter: str, work: Work) -> Iterator[Item]:
        names = list(self.header)
        if names:
            self.check_columns(names, file)
        for line, fields in read_csv(file, work, delimiter, LONGEST_PICTURE if self.base64 else LONGEST_FIELD):
            if not names:
                names = [field.strip() for field in fields]
                twice = [name for name in names if names.count(name) > 1]
                if twice:
                    raise InputError.at(file, twice[0], "is the name of two columns", "rename one", line=line)
                self.check_columns(names, file, line)
            elif len(fields) != len(names):
                item = Item({}, file, line)
                work.problem(item.wrong("", f"has {len(fields)} columns", f"expected {len(names)}: {', '.join(names)}"))
            else:
                yield Item(dict(zip(names, fields)), file, line)
        if not names:
            raise InputError.at(file, "", "is empty", "expected a line of column names")


def read_csv(
    file: Path, work: Work, delimiter: str = ",", longest: int = LONGEST_FIELD
) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of every record that is not blank; memory: one record.

    Args:
        longest: letters of a field that are surely too many.

    Raises:
        InputError: the file cannot be read. A record that cannot be parsed is told to `work`; one that is not UTF-8 will not
            become a row.
    """
    csv.field_size_limit(longest)
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(_counted(stream, work), delimiter=delimiter)
            while True:
                line = reader.line_num + 1
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    wrong = f"lines {line} to {reader.line_num} cannot be read ({error})"
                    item = Item({}, file, line)
                    work.problem(item.wrong("", wrong, "is a quotation mark not closed, or this not the delimiter?"))
                    continue
                if fields:
                    yield line, fields
    except OSError as error:
        raise InputError.at(file, "", f"cannot be read ({error.strerror})", "check the file and its rights") from None


def _counted(stream: IO[str], work: Work) -> Iterator[str]:
    for line in stream:
        work.advance(len(line))
        yield line


class Json(Mapped):
    """A JSONL file (one object a line) or a `.json` file (a list of objects, parsed whole), its keys as columns; a column may
    hold a list of references or of files. ALBEF's files, which UnIVAL's own data were made of, are such lists:
        [{"image": "coco/images/val2014/COCO_val2014_000000391895.jpg", "caption": "A man ..."}]

    Source: github.com/mshukor/UnIVAL, preprocess/utils.py, for ALBEF's.
    """

    summary: ClassVar[str] = "JSONL files and lists in JSON; you say which key is what"
    example: ClassVar[str] = "json coco_karp.json task=caption image=image targets=caption --media data"

    def items(self, work: Work) -> Iterator[Item]:
        for file in self.files:
            if file.suffix == ".json":
                yield from entries(read_document(file, "a list of objects"), file, "", work)
            else:
                yield from read_objects(file, work)


class WebVid(Csv):
    """`results_2M_train.csv` and files like it:
        videoid,contentUrl,duration,page_dir,name
        1066674784,https://...,PT00H00M10S,006001_006050,"Aerial shot winter forest"
    Clips lie in `page_dir/videoid.mp4`.

    Source: github.com/m-bain/frozen-in-time, data_loader/WebVid_dataset.py; github.com/m-bain/webvid.
    """

    summary: ClassVar[str] = "WebVid and tables like it: results_2M_train.csv with clips in page_dir/videoid.mp4"
    example: ClassVar[str] = "webvid results_2M_train.csv --media webvid/videos"
    task: str = Field("caption", description="The task of every row.")
    id: str = Field("videoid", description=f"The row's id: {COLUMN}.")
    video: str = Field("{page_dir}/{videoid}.mp4", description=f"The clip's file: {COLUMN}.")
    targets: Words = Field(("name",), description="The caption's column.")


class Clotho(Csv):
    """`clotho_captions_development.csv`:
        file_name,caption_1,caption_2,caption_3,caption_4,caption_5
        Distorted AM Radio noise.wav,A muddled noise of broken channel of the TV,...

    Source: zenodo.org/record/3490684 (Clotho).
    """

    summary: ClassVar[str] = "Clotho: clotho_captions_*.csv, five captions a sound"
    example: ClassVar[str] = "clotho clotho_captions_development.csv references=apart --media clotho/development"
    task: str = Field("caption", description="The task of every row.")
    id: str = Field("file_name", description=f"The row's id: {COLUMN}.")
    audio: str = Field("file_name", description=f"The sound's file: {COLUMN}.")
    targets: Words = Field(tuple(f"caption_{number}" for number in range(1, 6)), description="The captions' columns.")


class AudioCaps(Csv):
    """`train.csv`, `val.csv`, `test.csv`:
        audiocap_id,youtube_id,start_time,caption
        97151,vfY_TJq7n_U,130,"Rustling occurs, ducks quack and water splashes, ..."
    A sound is ten seconds from `start_time` on. val and test have a line for each of five captions, not side by side:
    `references=together` gathers them, holding the table in memory. Files are named as you downloaded them, mostly
    `{youtube_id}.wav`; sounds that YouTube has no more are told as missing (see --allow).

    Source: github.com/cdjkim/audiocaps, dataset/README.md and val.csv; github.com/Labbeti/aac-datasets for names of files.
    """

    summary: ClassVar[str] = "AudioCaps: train.csv, val.csv, test.csv"
    example: ClassVar[str] = "audiocaps train.csv --media audiocaps/train --allow 0.2"
    task: str = Field("caption", description="The task of every row.")
    id: str = Field("audiocap_id", description=f"The row's id: {COLUMN}.")
    audio: str = Field(
        "{youtube_id}.wav|Y{youtube_id}.wav|{youtube_id}_{start_time}.wav|{youtube_id}_{start_time}.flac|{audiocap_id}.wav",
        description=f"The sound's file: {COLUMN}; several by |.",
    )
    targets: Words = Field(("caption",), description="The caption's column.")
    cut: bool = Field(True, description="The files hold the ten seconds; false: whole films, which get start and end.")

    def items(self, work: Work) -> Iterator[Item]:
        if self.references == "apart":
            yield from super().items(work)
            return
        gathered: dict[tuple[Any, Any], Item] = {}
        for item in super().items(work):
            caption = str(item.value["caption"]).strip()
            if not caption:
                work.problem(item.wrong("caption", "is empty", "give a caption, or leave the line out"))
                continue
            first = gathered.setdefault((item.value["youtube_id"], item.value["start_time"]), item)
            if first is item:
                item.value["caption"] = [caption]
            else:
                first.value["caption"].append(caption)
        yield from gathered.values()

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        seconds = item.number("start_time")
        window = {} if self.cut else {"start": seconds, "end": seconds + 10.0}
        for row in super().rows(item, work):
            yield {**row, **window}

    def columns(self) -> list[tuple[str, str]]:
        return [*super().columns(), ("audio", "youtube_id"), ("start", "start_time")]


CSV = IMPORTERS.add("csv", Csv)
JSON = IMPORTERS.add("json", Json)
WEBVID = IMPORTERS.add("webvid", WebVid)
AUDIOCAPS = IMPORTERS.add("audiocaps", AudioCaps)
CLOTHO = IMPORTERS.add("clotho", Clotho)

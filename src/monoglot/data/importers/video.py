"""Clips: captions of MSRVTT and ActivityNet, questions of MSRVTT-QA and MSVD-QA.

document -> a clip with its captions, or a question -> one row, or one a caption
"""

from __future__ import annotations

from collections import Counter
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
    read_document,
    read_lines,
    targets,
)
from monoglot.data.importers.vqa import LEFT_OUT, Answered
from monoglot.data.importers.work import Item, Row, Work, as_number
from monoglot.errors import InputError

MOVIES = "{0}.mp4|{0}.mkv|{0}.webm|{0}.avi"


class MsrvttCaption(Kind):
    """`train_val_videodatainfo.json`, `test_videodatainfo.json` (or MSRVTT_data.json, both in one):
        {"videos": [{"video_id": "video2960", "id": 2960, "category": 8, "split": "train", "url": "...", "start time": 0.0, "end time": 10.0}],
         "sentences": [{"sen_id": 0, "video_id": "video2960", "caption": "a cartoon animals runs through an ice cave"}]}
    A clip is a file of its own, cut by the publisher: its times are those in the original film and are not used. The file is
    parsed whole.

    Source: the readme of the MSR-VTT 10K release (Xu et al., CVPR 2016).
    """

    summary: ClassVar[str] = "MSRVTT captions: train_val_videodatainfo.json, test_videodatainfo.json"
    example: ClassVar[str] = (
        "msrvtt_caption train_val_videodatainfo.json split=train references=apart --media msrvtt/videos"
    )
    split: Words = Field((), description="train, validate, test; several by commas.")
    references: References = Field("together", description=TOGETHER)
    video: str = Field(
        MOVIES.format("{video_id}"), description="How a clip's file is named, from the fields of videos."
    )

    def items(self, work: Work) -> Iterator[Item]:
        for file in self.files:
            document = read_document(file, "a videodatainfo.json of MSRVTT", "videos", "sentences")
            captions: dict[str, list[tuple[str, str]]] = {}
            for item in entries(document["sentences"], file, "sentences", work):
                try:
                    captions.setdefault(item.name("video_id"), []).append((item.name("sen_id"), item.text("caption")))
                except InputError as problem:
                    work.problem(problem)
            for item in entries(document["videos"], file, "videos", work):
                named = captions.pop(str(item.value.get("video_id")), [])
                if self.split and item.value.get("split") not in self.split:
                    work.left_out(f"of split {item.value.get('split')}")
                    continue
                if self.references == "together":
                    yield replace(item, value={**item.value, "row": item.value.get("video_id"), "captions": named})
                for name, caption in named if self.references == "apart" else []:
                    yield replace(item, value={**item.value, "row": name, "captions": [(name, caption)]})
            for name in captions:
                work.problem(Item({}, file).wrong("sentences", f"video_id {name} is not among the videos"))

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        item.name("video_id")
        captions = [caption for _, caption in item.value["captions"]]
        if not captions:
            raise item.wrong("sentences", "there is none", "leave the clip out")
        video = work.media(item, "video_id", *fill(self.video, item))
        yield {"id": str(item.value["row"]), "task": "caption", "video": video, **targets(captions)}


class ClipQa(Answered):
    """A list of questions, each with the number of its clip and one answer."""

    def items(self, work: Work) -> Iterator[Item]:
        documents = [
            (file, read_document(file, "a list of questions such as train_qa.json")) for file in self.questions()
        ]
        listed = [one for _, document in documents if isinstance(document, list) for one in document]
        kept = self.kept(Counter(filter(None, map(_answer, listed))), work)
        names = self.names(work)
        for file, document in documents:
            for item in entries(document, file, "", work):
                if kept is not None and _answer(item.value) not in kept:
                    work.left_out(LEFT_OUT)
                else:
                    yield replace(item, value={**item.value, "clip": names.get(str(item.value.get("video_id")))})

    def questions(self) -> tuple[Path, ...]:
        return self.files

    def names(self, work: Work) -> dict[str, str]:
        """video_id -> name of the clip, where they differ."""
        return {}

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        item.name("video_id")
        video = work.media(item, "video_id", *fill(self.template(), item))
        row = {"id": item.name("id"), "task": "vqa", "video": video, "text": item.text("question")}
        yield {**row, "target": item.text("answer")}

    def template(self) -> str:
        raise NotImplementedError


def _answer(question: Any) -> str:
    answer = question.get("answer") if isinstance(question, dict) else None
    return " ".join(answer.split()) if isinstance(answer, str) else ""


class MsrvttQa(ClipQa):
    """`train_qa.json`, `val_qa.json`, `test_qa.json`:
        [{"id": 0, "video_id": 0, "category_id": 14, "question": "what are three people sitting on?", "answer": "couch"}]
    The clip of `video_id` 0 is MSRVTT's `video0`. The file is parsed whole.

    Source: github.com/xudejing/video-question-answering.
    """

    summary: ClassVar[str] = "MSRVTT-QA: train_qa.json, val_qa.json, test_qa.json"
    example: ClassVar[str] = "msrvtt_qa train_qa.json most=4000 answers=answers.txt --media msrvtt/videos"
    video: str = Field(MOVIES.format("video{video_id}"), description="How a clip's file is named, from video_id.")

    def template(self) -> str:
        return self.video


class MsvdQa(ClipQa):
    """`train_qa.json`, `val_qa.json`, `test_qa.json`:
        [{"id": 30933, "video_id": 1201, "question": "who pours liquid ...?", "answer": "someone"}]
    and `youtube_mapping.txt`, which names the clips:
        -4wsuPCjDBc_5_15 vid1
    The clip of `video_id` 1 is `-4wsuPCjDBc_5_15.avi`. The files are parsed whole.

    Source: github.com/xudejing/video-question-answering.
    """

    summary: ClassVar[str] = "MSVD-QA: train_qa.json, val_qa.json, test_qa.json with youtube_mapping.txt"
    example: ClassVar[str] = (
        "msvd_qa train_qa.json youtube_mapping.txt most=1000 answers=answers.txt --media msvd/YouTubeClips"
    )
    video: str = Field(
        "{clip}.avi|{clip}.mp4|vid{video_id}.avi|vid{video_id}.mp4",
        description="How a clip's file is named, from clip (by youtube_mapping.txt) and video_id.",
    )

    def template(self) -> str:
        return self.video

    def questions(self) -> tuple[Path, ...]:
        return tuple(file for file in self.files if file.suffix == ".json")

    def names(self, work: Work) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in self.files:
            for number, line in read_lines(file, work) if file.suffix != ".json" else ():
                words = line.decode("utf-8", "replace").split()
                if len(words) != 2 or not words[1].startswith("vid"):
                    fix = "expected a name and vid1, vid2 ..., as in youtube_mapping.txt"
                    raise InputError.at(file, "", f"is {line[:60]!r}", fix, line=number)
                found[words[1].removeprefix("vid")] = words[0]
        return found


class ActivityNetCaption(Kind):
    """`train.json`, `val_1.json`, `val_2.json`:
        {"v_QOlSCBRmfWY": {"duration": 82.73, "timestamps": [[0.83, 19.86], [17.37, 60.81]], "sentences": ["A young woman ...", "The girl ..."]}}
    A row is a part of a film with its sentence: `timestamps` become `start` and `end` in seconds; an end after the end of the
    film is moved there. The file is parsed whole.

    Source: cs.stanford.edu/people/ranjaykrishna/densevid, captions.zip.
    """

    summary: ClassVar[str] = (
        "ActivityNet Captions: train.json, val_1.json, val_2.json; each sentence with start and end"
    )
    example: ClassVar[str] = "activitynet_caption train.json --media activitynet/videos"
    video: str = Field(
        MOVIES.format("{name}") + "|" + MOVIES.format("{video_id}"),
        description="How a film's file is named, from name (v_...) and video_id (without v_).",
    )

    def items(self, work: Work) -> Iterator[Item]:
        for file in self.files:
            document = read_document(file, "train.json of ActivityNet Captions")
            if not isinstance(document, dict):
                raise InputError.at(file, "", "is no object of films", "expected train.json of ActivityNet Captions")
            for name, value in document.items():
                work.advance(file.stat().st_size / len(document))
                film = Item(value, file, place=name)
                try:
                    times, sentences = film.list("timestamps"), film.list("sentences")
                    if len(times) != len(sentences):
                        raise film.wrong("timestamps", f"has {len(times)}, but there are {len(sentences)} sentences")
                except InputError as problem:
                    work.problem(problem)
                    continue
                for index, (window, sentence) in enumerate(zip(times, sentences)):
                    found = {"name": name, "video_id": name.removeprefix("v_"), "sentence": sentence, "times": window}
                    found |= {"row": f"{name}-{index}", "duration": value.get("duration")}
                    yield Item(found, file, place=f"{name}.sentences[{index}]")

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        start, end = _window(item)
        video = work.media(item, "video", *fill(self.video, item))
        row: Row = {"id": item.value["row"], "task": "caption", "video": video, "start": start, "end": end}
        yield {**row, "target": item.text("sentence")}


def _window(item: Item) -> tuple[float, float]:
    """(start, end) in seconds, inside of the film."""
    times: Any = item.value["times"]
    if not isinstance(times, list) or len(times) != 2:
        raise item.wrong("timestamps", f"is {times!r}", "expected start and end in seconds")
    start, end = (as_number(item, "timestamps", value) for value in times)
    if item.value["duration"] is not None:
        end = min(end, item.number("duration"))
    if not 0 <= start < end:
        raise item.wrong("timestamps", f"{start:g} to {end:g} s is no part of the film", "expected 0 <= start < end")
    return start, end


MSRVTT_CAPTION = IMPORTERS.add("msrvtt_caption", MsrvttCaption)
MSRVTT_QA = IMPORTERS.add("msrvtt_qa", MsrvttQa)
MSVD_QA = IMPORTERS.add("msvd_qa", MsvdQa)
ACTIVITYNET_CAPTION = IMPORTERS.add("activitynet_caption", ActivityNetCaption)

"""Questions about pictures: VQAv2 (ten answers each) and Visual Genome's (one answer each).

questions + annotations -> a question with its answers -> one row, or one for each different answer
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from monoglot.data.importers.base import (
    IMPORTERS,
    Kind,
    References,
    entries,
    fill,
    read_document,
    targets,
)
from monoglot.data.importers.work import Item, Row, Work
from monoglot.errors import InputError
from monoglot.files import read_json, write_text


class Answered(Kind):
    """What kinds of questions share: a list of the answers that occur, and only questions with a frequent one."""

    answers: Path | None = Field(
        None, description="Write the answers here, the most frequent first, one a line: `choices` of a recipe."
    )
    most: int | None = Field(
        None, ge=1, description="Keep only so many most frequent answers, and the questions that have one of them."
    )
    among: Path | None = Field(
        None, description="Keep only the answers of this file, one a line, and the questions that have one of them."
    )

    def kept(self, counted: Counter[str], work: Work) -> frozenset[str] | None:
        """The answers that are kept (None: all); the import's success writes them to `answers`."""
        allowed = _answers_of(self.among) if self.among is not None else None
        ranked = [answer for answer, _ in counted.most_common() if allowed is None or answer in allowed][: self.most]
        if self.answers is not None:
            path = self.answers
            work.at_end.append(lambda: write_text(path, "".join(f"{answer}\n" for answer in ranked)))
        return allowed if self.most is None else frozenset(ranked)


LEFT_OUT = "without an answer that is kept"


def confidence(count: int) -> float:
    """How much an answer counts that so many of ten people gave: min(1, 0.3 x count), the VQA score.

    OFA and UnIVAL train each answer with this as the weight of its loss.

    >>> [confidence(count) for count in (1, 2, 3, 4, 10)]
    [0.3, 0.6, 0.9, 1.0, 1.0]
    """
    return min(1.0, round(0.3 * count, 1))


class Vqa(Answered):
    """`v2_OpenEnded_mscoco_train2014_questions.json`:
        {"data_subtype": "train2014", "questions": [{"question_id": 458752000, "image_id": 458752, "question": "What is this photo taken looking through?"}]}
    `v2_mscoco_train2014_annotations.json`:
        {"annotations": [{"question_id": 458752000, "image_id": 458752, "multiple_choice_answer": "net",
                          "answers": [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}, ... ten]}]}
    Any number of both, in any order; without annotations (the test questions) rows have no target. The files are parsed whole.

    Source: visualqa.org/download.html, "Input Questions Format" and "Annotation Format".
    """

    summary: ClassVar[str] = "VQAv2: questions and annotations json, ten answers a question"
    example: ClassVar[str] = (
        "vqav2 v2_OpenEnded_mscoco_train2014_questions.json v2_mscoco_train2014_annotations.json "
        "references=apart most=3129 answers=answers.txt --media coco"
    )
    references: References = Field(
        "together",
        description="'together': a row a question, its target the most common answer, its targets all ten, the most common "
        "first; 'apart': a row for each different answer. The weight is the VQA score of the target.",
    )
    image: str = Field(
        "{subset}/COCO_{subset}_{image_id:012d}.jpg",
        description="How a picture's file is named, from image_id and subset (train2014, test2015 ...).",
    )

    def items(self, work: Work) -> Iterator[Item]:
        questions, annotations = self._documents()
        answers: dict[str, list[str]] = {}
        for file, document in annotations:
            for item in entries(document["annotations"], file, "annotations", work):
                try:
                    given = entries(item.list("answers"), file, f"{item.place}.answers", work)
                    answers[item.name("question_id")] = _most_common_first([one.text("answer") for one in given])
                except InputError as problem:
                    work.problem(problem)
        kept = self.kept(Counter(ranked[0] for ranked in answers.values() if ranked), work)
        for file, document in questions:
            for item in entries(document["questions"], file, "questions", work):
                ranked = answers.pop(str(item.value.get("question_id")), [] if annotations else None)
                trained = ranked[:1] if ranked and self.references == "together" else ranked
                if trained and kept is not None and not kept.intersection(trained):
                    work.left_out(LEFT_OUT)
                    continue
                if trained and kept is not None and self.references == "apart":
                    ranked = [answer for answer in trained if answer in kept]
                yield replace(item, value={**item.value, "subset": document.get("data_subtype"), "ranked": ranked})
        for _ in answers:
            work.left_out("answers to questions that are not given")

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        name, question, ranked = item.name("question_id"), item.text("question"), item.value["ranked"]
        image = work.media(item, "image_id", *fill(self.image, item))
        row = {"id": name, "task": "vqa", "image": image, "text": question}
        if ranked is None:
            yield row
        elif not ranked:
            raise item.wrong("question_id", f"{name} has no answers in the annotations", "give those that go with it")
        else:
            counted = Counter(ranked)
            if self.references == "together":
                yield {**row, **targets(ranked), "weight": confidence(counted[ranked[0]])}
            else:
                for number, (answer, count) in enumerate(counted.items()):
                    yield {**row, "id": f"{name}-{number}", "target": answer, "weight": confidence(count)}

    def _documents(self) -> tuple[list[tuple[Path, Any]], list[tuple[Path, Any]]]:
        """(questions, annotations), told apart by what is inside."""
        expected = "questions or annotations of VQAv2"
        found: dict[str, list[tuple[Path, Any]]] = {"questions": [], "annotations": []}
        for file in self.files:
            document = read_json(file, expected)
            keys = [key for key in found if isinstance(document, dict) and isinstance(document.get(key), list)]
            if len(keys) != 1:
                raise InputError.at(file, "", "holds no list of questions or annotations", f"expected {expected}")
            found[keys[0]].append((file, document))
        if not found["questions"]:
            raise InputError.at(self.files[0], "", "there are no questions", "give v2_OpenEnded_*_questions.json, too")
        return found["questions"], found["annotations"]


def _answers_of(file: Path) -> frozenset[str]:
    try:
        return frozenset(line for line in file.read_text(encoding="utf-8-sig").splitlines() if line)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.at(file, "among", f"cannot be read ({error})", "expected answers, one a line") from None


def _most_common_first(answers: Sequence[str]) -> list[str]:
    """All answers, repeats kept; of equally common ones the first given stands first.

    >>> _most_common_first(["no", "yes", "maybe", "yes"])
    ['yes', 'yes', 'no', 'maybe']
    """
    counted = Counter(answers)
    return [answer for answer, count in counted.most_common() for _ in range(count)]


class VisualGenomeQa(Answered):
    """`question_answers.json`:
        [{"id": 1, "qas": [{"qa_id": 986768, "image_id": 1, "question": "What color is the clock?", "answer": "Green."}]}]
    Beside it `image_data.json` may be given, whose addresses say in which of the two folders a picture lies:
        [{"image_id": 1, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "width": 800, "height": 600}]
    Answers are written in lower case and without their full stop, as VQAv2's are. The files are parsed whole.

    Source: homes.cs.washington.edu/~ranjay/visualgenome/api_readme.html.
    """

    summary: ClassVar[str] = "Visual Genome's questions: question_answers.json, one answer a question"
    example: ClassVar[str] = "visual_genome_qa question_answers.json image_data.json --media visual_genome"
    image: str = Field(
        "{folder}/{image_id}.jpg|VG_100K/{image_id}.jpg|VG_100K_2/{image_id}.jpg|{image_id}.jpg",
        description="How a picture's file is named, from image_id, and folder if image_data.json is given.",
    )

    def items(self, work: Work) -> Iterator[Item]:
        folders: dict[str, str] = {}
        asked: list[tuple[Path, Any]] = []
        for file in self.files:
            document = read_document(file, "question_answers.json or image_data.json")
            if isinstance(document, list) and document and isinstance(document[0], dict) and "url" in document[0]:
                for item in entries(document, file, "", work):
                    address = str(item.value.get("url"))
                    folders[str(item.value.get("image_id"))] = address.rpartition("/")[0].rpartition("/")[2]
            else:
                asked.append((file, document))
        counted: Counter[str] = Counter()
        if self.most or self.answers or self.among:
            for _, document in asked:
                counted.update(filter(None, map(_answer, _questions(document))))
        kept = self.kept(counted, work)
        for file, document in asked:
            for picture in entries(document, file, "", work):
                try:
                    listed = picture.list("qas")
                except InputError as problem:
                    work.problem(problem)
                    continue
                for item in entries(listed, file, f"{picture.place}.qas", work):
                    if kept is not None and _answer(item.value) not in kept:
                        work.left_out(LEFT_OUT)
                    else:
                        folder = folders.get(str(item.value.get("image_id")))
                        yield replace(item, value={**item.value, "folder": folder})

    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        item.text("answer")
        image = work.media(item, "image_id", *fill(self.image, item))
        row = {"id": item.name("qa_id"), "task": "vqa", "image": image, "text": item.text("question")}
        yield {**row, "target": _answer(item.value)}


def _questions(document: Any) -> Iterator[Any]:
    for picture in document if isinstance(document, list) else []:
        yield from picture["qas"] if isinstance(picture, dict) and isinstance(picture.get("qas"), list) else []


def _answer(qa: Any) -> str:
    """The answer as it is written to a row; "" if there is none."""
    answer = qa.get("answer") if isinstance(qa, dict) else None
    return " ".join(answer.lower().split()).removesuffix(".").strip() if isinstance(answer, str) else ""


VQAV2 = IMPORTERS.add("vqav2", Vqa)
VISUAL_GENOME_QA = IMPORTERS.add("visual_genome_qa", VisualGenomeQa)

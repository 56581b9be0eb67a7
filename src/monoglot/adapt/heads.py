"""Heads for the questions of some rows: one linear classifier a question, on what the frozen model sees.

rows -> features -> by question -> fit_head -> Answers with a head, its tensors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from monoglot.adapt.rows import groups, labels
from monoglot.adapters import Answers, Limits
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.model.head import blocks_of, features, fit_head
from monoglot.nouns import Sample

Question = tuple[str, str, str]
"""task, text, lang; as in `Answers`."""


def fit_heads(
    predictor: Predictor,
    samples: Sequence[Sample],
    answers: Sequence[Answers],
    heads: Mapping[int, Mapping[str, Tensor]] = MappingProxyType({}),
) -> tuple[tuple[Answers, ...], dict[int, dict[str, Tensor]], str]:
    """A head for each question that the samples ask.

    Args:
        samples: rows with choices and an answer.
        answers: what questions may be answered with; a question of rows that bring their own choices is added.
        heads: tensors of heads that some of the answers have, by place; they stay, where no row asks that question.

    Returns:
        All answers, those with a head among them; tensors of heads by place; in a line, how the heads came out.

    Raises:
        InputError: no row can be read, or a question has one answer only.
    """
    by_question: dict[Question, list[int]] = {}
    limits = Limits(answers)
    for row, (sample, label) in enumerate(zip(samples, labels(samples))):
        known = limits.of(sample)
        text = known[1].text if known else label[2]
        by_question.setdefault((sample.task, text, sample.lang), []).append(row)
    found = {(given.task, given.text, given.lang): given for given in answers}
    together = groups(samples)
    fitted = {
        (answers[place].task, answers[place].text, answers[place].lang): dict(own) for place, own in heads.items()
    }
    told = []
    for question, rows in by_question.items():
        task, text, lang = question
        asked = [samples[row] for row in rows]
        blocks = blocks_of(predictor.model, asked)
        x, read = features(predictor.model, predictor.preparer, asked, blocks=blocks, cache=predictor.cache)
        said = [asked[place].targets[0] for place in read]
        if len(set(said)) < 2:
            wrong = f"{text or task!r} has {len(set(said))} answer among {len(read)} rows that can be read"
            raise InputError.at(
                asked[0].where or "rows", "target", wrong, "give rows with at least two different answers"
            )
        classes = tuple(dict.fromkeys([*(found[question].choices if question in found else ()), *_choices(asked)]))
        where = [str(together[rows[place]]) for place in read]
        head = fit_head(x, said, classes=classes, groups=where, blocks=blocks)
        tensors, settings = head.state()
        given = Answers(task=task, text=text, lang=lang, choices=classes, head=settings)
        found[question], fitted[question] = given, tensors
        absent = [name for name in classes if name not in said]
        told.append(head.why + (f", never {', '.join(absent)}, of which there is no row" if absent else ""))
    order = list(found)
    return (
        tuple(found.values()),
        {order.index(question): tensors for question, tensors in fitted.items()},
        "; ".join(told),
    )


def _choices(samples: Sequence[Sample]) -> list[str]:
    """All choices and answers of some rows, in their order."""
    return list(dict.fromkeys([choice for sample in samples for choice in (*sample.choices, *sample.targets[:1])]))

"""A user's rows before anything is trained on them: read, audited, given their possible answers, set apart by group.

    files -> read_training -> samples, held-out samples, Audit        problems end it with one line; notes are told once
    samples -> answer_sets -> Answers(task, text, lang, choices)    with_choices fills them in where a row has none
    samples -> split_by_group -> train, held out                      take_shots -> k rows of each answer
    samples -> row_of, write_samples -> rows.jsonl

What is chosen depends on the seed and on what the rows say, never on their order, on where their files lie, or on their ids.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from monoglot.adapters import Answers, Limits
from monoglot.data.prepare import Settings
from monoglot.data.rowfile import MANIFEST, RowFile
from monoglot.data.rows import TAR, read_rows, sample_to_row, write_rows
from monoglot.data.stats import BOX_ASKED, FREE_TASKS
from monoglot.errors import InputError, MediaError
from monoglot.modalities.source import open_source
from monoglot.nouns import Media, Posed, Sample
from monoglot.registry import unknown_name
from monoglot.rng import stream
from monoglot.tasks import TASKS, pose

CLOSED_TASKS = ("classify", "name", "vqa", "entailment", "matching", "answer_matching")
"""Tasks whose answers may be a few that come again and again."""
STATEMENT_TASKS = ("entailment", "matching", "answer_matching")
"""Of these, the ones whose text is what is judged: another one in each row, not a question asked of many."""
MOST_ANSWERS = 1000
"""With more different answers than this, a question is free."""
FEW = 20
"""With more different questions than this, a task's question is part of what is to be judged ("is this a cup?"), and answers are compared
across all of them; they then count as classes if they are this few."""
GROUP_KEYS = ("group", "kit", "speaker", "style", "family", "subject")
"""Keys of a row that say what it belongs to; the first one that it has counts."""
MISSING_SHARE = 0.01
"""Most rows whose media may be missing; training leaves them out."""
IMBALANCE = 10
"""Told from this many rows of the most common answer on for one of the rarest."""
FEWEST_ROWS = 10
"""With fewer, none are held out."""
SHOWN = 3
"""Examples in a note."""

Label = tuple[str, str, str, str]
"""(task, lang, question, answer): the class of a row; question and answer are '' where they are not among few."""


# ---------------------------------------------------------------------------------------------------------------- read


@dataclass(frozen=True)
class Audit:
    """What is wrong with rows, and what their owner should know of them. One line each."""

    problems: tuple[str, ...] = ()
    """With any of these nothing can be trained: `file:line: field: what is wrong; what was expected`."""
    notes: tuple[str, ...] = ()


def read_training(
    paths: Sequence[Path],
    model_config: Settings,
    *,
    held_out: Path | None = None,
    tokens: Callable[[str], int] | None = None,
) -> tuple[list[Sample], list[Sample] | None, Audit]:
    """Read the rows to train on, and those to compare with, and look them over.

    Args:
        paths: JSONL files of rows, or packs.
        model_config: of the model that is to learn them.
        held_out: rows that are never trained on, if there are any.
        tokens: as in `audit`.

    Returns:
        Samples of all `paths`, in order; those of `held_out` or None; what there is to be told (`notes`).

    Raises:
        InputError: a file or a row is wrong, or `audit` finds a problem: the first one.
    """
    if not paths:
        raise InputError.at("rows", "data", "no file is given", "name a JSONL file of rows")
    samples = [sample for path in paths for sample in read(path)]
    apart = None if held_out is None else list(read(held_out))
    for path, rows in ((paths[0], samples), (held_out, apart)):
        if rows is not None and not rows:
            raise InputError.at(path, "data", "holds no row", "give one JSON object a line, see docs/rows.md")
    found = audit(samples, apart, model_config, tokens=tokens)
    if found.problems:
        raise InputError(found.problems[0])
    return samples, apart, found


def read(path: Path) -> Iterator[Sample]:
    """The samples of a JSONL file, or of a pack. InputError for a row that is wrong."""
    if not (Path(path) / MANIFEST).is_file():
        yield from read_rows(path, known_tasks=TASKS)
        return
    rows = RowFile(path)
    for sample in (rows[number] for number in range(len(rows))):
        if sample.task not in TASKS:
            raise InputError.at(sample.where, "task", unknown_name("task", sample.task, TASKS))
        yield sample


# --------------------------------------------------------------------------------------------------------------- audit


def audit(
    samples: Sequence[Sample],
    held_out: Sequence[Sample] | None,
    model_config: Settings,
    *,
    tokens: Callable[[str], int] | None = None,
) -> Audit:
    """Everything that is wrong or odd with rows. Opens each of their media files; reads those that others equal in size.

    Args:
        samples: at least one row to train on.
        tokens: counts the tokens of an answer; without it its words are counted, which are fewer.

    >>> from monoglot.model.config import ModelConfig
    >>> rows = [Sample(str(n), "classify", text=text, targets=("good",)) for n, text in enumerate(("nice", "fine"))]
    >>> audit(rows, None, ModelConfig()).problems[0]
    "sample 0: target: every row says 'good'; give rows with at least two different answers"
    """
    every = [*samples, *(held_out or ())]
    contents, missing = _contents(every)
    posed = _posed(with_choices(every, answer_sets(samples)), model_config)
    problems = (
        _too_few(samples),
        _one_class(samples),
        _unread_modality(every, model_config),
        _media_missing(every, missing),
        _not_posed(posed),
        _without_answer(posed),
        _no_such_answer(posed[: len(samples)]),
        _all_leaked(samples, held_out, contents),
    )
    notes = (
        _some_missing(every, missing),
        _contradictions(samples, contents),
        _duplicates(samples, contents),
        _leaked(samples, held_out, contents),
        _absent_classes(samples, held_out),
        _single_rows(samples),
        _imbalance(samples),
        _long_answers(samples, model_config, tokens or (lambda text: len(text.split()))),
    )
    return Audit(tuple(filter(None, problems)), tuple(filter(None, notes)))


def _where(sample: Sample) -> str:
    return sample.where or f"sample {sample.id}"


def _told(sample: Sample, field: str, wrong: str, fix: str) -> str:
    return str(InputError.at(_where(sample), field, wrong, fix))


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _shown(things: Sequence[str]) -> str:
    return ", ".join(things[:SHOWN]) + (", ..." if len(things) > SHOWN else "")


def _too_few(samples: Sequence[Sample]) -> str:
    fix = "give at least 2, better 5 or more of each answer"
    return _told(samples[0], "data", "1 example is all there is", fix) if len(samples) == 1 else ""


def _unread_modality(samples: Sequence[Sample], config: Settings) -> str:
    for sample in samples:
        for item in sample.media:
            if item.modality not in config.modalities:
                reads = ", ".join(config.modalities) or "text only"
                fix = f"it reads: {reads}; docs/new_modality.md says how to add one"
                return _told(sample, item.modality, "this model does not read it", fix)
    return ""


def _contents(samples: Iterable[Sample]) -> tuple[dict[str, str], dict[str, str]]:
    """(source -> what it holds, source -> why it cannot be opened). Files of the same size are told apart by their sha256."""
    sizes: dict[str, int] = {}
    missing: dict[str, str] = {}
    media: dict[str, Media] = {item.source: item for sample in samples for item in sample.media}
    for source, item in media.items():
        try:
            with open_source(item)[0] as file:
                sizes[source] = file.seek(0, os.SEEK_END)
        except MediaError as error:
            missing[source] = str(error)
    equal = Counter(sizes.values())
    contents = {}
    for source, size in sizes.items():
        contents[source] = source
        if equal[size] > 1:
            with open_source(media[source])[0] as file:
                contents[source] = hashlib.sha256(file.read()).hexdigest()
    return contents, missing


def _lacking(samples: Sequence[Sample], missing: Mapping[str, str]) -> list[tuple[Sample, Media]]:
    """Rows with media that are not there, and the first of these."""
    found = ((sample, [item for item in sample.media if item.source in missing]) for sample in samples)
    return [(sample, items[0]) for sample, items in found if items]


def _media_missing(samples: Sequence[Sample], missing: Mapping[str, str]) -> str:
    lacking = _lacking(samples, missing)
    if len(lacking) <= MISSING_SHARE * len(samples):
        return ""
    sample, item = lacking[0]
    wrong = f"{len(lacking)} of {_rows(len(samples))} name media that cannot be opened ({missing[item.source]})"
    return _told(sample, item.modality, wrong, f"at most {MISSING_SHARE:.0%} may")


def _some_missing(samples: Sequence[Sample], missing: Mapping[str, str]) -> str:
    lacking = _lacking(samples, missing)
    if not lacking:
        return ""
    return (
        f"{_rows(len(lacking))} left out, media cannot be opened: {_shown([_where(sample) for sample, _ in lacking])}"
    )


def _posed(samples: Iterable[Sample], config: Settings) -> list[tuple[Sample, Posed | InputError]]:
    """Each sample as its task puts it, or why it cannot."""

    def put(sample: Sample) -> Posed | InputError:
        try:
            return pose(sample, config.wording)
        except InputError as error:
            return error

    return [(sample, put(sample)) for sample in samples]


def _not_posed(posed: Sequence[tuple[Sample, Posed | InputError]]) -> str:
    return next((str(error) for _, error in posed if isinstance(error, InputError)), "")


def _without_answer(posed: Sequence[tuple[Sample, Posed | InputError]]) -> str:
    lacking = []
    for sample, put in posed:
        if isinstance(put, Posed) and not "".join(put.target).strip():
            lacking.append((sample, "box" if put.writes == "box" else "target"))
    if not lacking:
        return ""
    wrong = f"{len(lacking)} of {_rows(len(posed))} have no answer"
    return _told(*lacking[0], wrong, "a model learns from answers: add them, or leave these rows out")


def _no_such_answer(posed: Sequence[tuple[Sample, Posed | InputError]]) -> str:
    """Only where choices are the task's own: a row's were compared with its target when it was read."""
    for sample, put in posed:
        if isinstance(put, Posed) and put.choices and sample.targets and sample.targets[0] not in put.choices:
            known = ", ".join(map(repr, put.choices))
            wrong = f"{sample.targets[0]!r} is no answer of task {sample.task!r}"
            return _told(sample, "target", wrong, f"expected one of {known}, or give the row its own choices")
    return ""


def _one_class(samples: Sequence[Sample]) -> str:
    answers = {sample.targets[:1] for sample in samples}
    closed = all(sample.task in CLOSED_TASKS and sample.targets for sample in samples)
    if len(samples) < 2 or not closed or len(answers) > 1:
        return ""
    wrong = f"every row says {samples[0].targets[0]!r}"
    return _told(samples[0], "target", wrong, "give rows with at least two different answers")


def _question(sample: Sample, contents: Mapping[str, str]) -> Hashable:
    """Equal where what the model sees is equal: task, words, language, the box that is asked about, media by content."""
    media = tuple((m.modality, contents.get(m.source, m.source), m.start, m.end) for m in sample.media)
    box = sample.box if sample.task in BOX_ASKED else None
    return sample.task, _plain(sample.text), sample.lang, box, media


def _plain(text: str) -> str:
    return " ".join(text.split())


def _said(sample: Sample) -> frozenset[Any]:
    """The answers of a row: its references, or its box."""
    boxed = sample.box is not None and sample.task not in BOX_ASKED
    return frozenset([sample.box] if boxed else (target.strip().casefold() for target in sample.targets))


def _alike(samples: Sequence[Sample], contents: Mapping[str, str]) -> list[list[Sample]]:
    """Rows that ask the same, choices included, where there are several."""
    found = defaultdict(list)
    for sample in samples:
        found[_question(sample, contents), tuple(sorted(sample.choices))].append(sample)
    return [rows for rows in found.values() if len(rows) > 1]


def _contradictions(samples: Sequence[Sample], contents: Mapping[str, str]) -> str:
    """Rows of one question, in a task with one right answer, that have no answer in common."""
    one_answer = [sample for sample in samples if sample.task not in FREE_TASKS]
    found = [rows for rows in _alike(one_answer, contents) if not frozenset.intersection(*map(_said, rows))]
    if not found:
        return ""
    examples = []
    for rows in found:
        other = next(row for row in rows if _said(row) != _said(rows[0]))
        answers = " and ".join(
            f"{_where(row)} {row.targets[0] if row.targets else row.box!r}" for row in (rows[0], other)
        )
        examples.append(answers)
    count = sum(map(len, found))
    return f"{_rows(count)} contradict each other, the same question with different answers: {_shown(examples)}"


def _duplicates(samples: Sequence[Sample], contents: Mapping[str, str]) -> str:
    again = []
    for rows in _alike(samples, contents):
        first: dict[frozenset[Any], Sample] = {}
        for row in rows:
            earlier = first.setdefault(_said(row), row)
            if earlier is not row:
                again.append(f"{_where(row)} is {_where(earlier)}")
    return f"{_rows(len(again))} more than once: {_shown(again)}" if again else ""


def _leaks(
    samples: Sequence[Sample], held_out: Sequence[Sample] | None, contents: Mapping[str, str]
) -> list[tuple[Sample, Sample]]:
    """Held-out rows whose question is trained on, with the row that does."""
    trained: dict[Hashable, Sample] = {}
    for sample in samples:
        trained.setdefault(_question(sample, contents), sample)
    keys = ((sample, _question(sample, contents)) for sample in held_out or ())
    return [(sample, trained[key]) for sample, key in keys if key in trained]


def _all_leaked(samples: Sequence[Sample], held_out: Sequence[Sample] | None, contents: Mapping[str, str]) -> str:
    leaks = _leaks(samples, held_out, contents)
    if not leaks or len(leaks) < len(held_out or ()):
        return ""
    wrong = f"every held-out row is trained on too (this one is {_where(leaks[0][1])})"
    return _told(leaks[0][0], "held_out", wrong, "hold out other rows, or none: some are then set apart")


def _leaked(samples: Sequence[Sample], held_out: Sequence[Sample] | None, contents: Mapping[str, str]) -> str:
    leaks = _leaks(samples, held_out, contents)
    if not leaks or len(leaks) == len(held_out or ()):
        return ""
    first, trained = leaks[0]
    return f"{len(leaks)} of {_rows(len(held_out or ()))} held out are trained on too: {_where(first)} is {_where(trained)}"


def _absent_classes(samples: Sequence[Sample], held_out: Sequence[Sample] | None) -> str:
    """Answers among few that are asked for and never shown."""
    known = defaultdict(set)
    free = set()
    for task, lang, _, answer in labels(samples):
        known[task, lang].add(answer)
        if not answer:
            free.add((task, lang))
    kinds = [
        (sample.targets[0], known[sample.task, sample.lang], (sample.task, sample.lang))
        for sample in held_out or ()
        if sample.targets
    ]
    absent = Counter(
        answer for answer, answers, kind in kinds if answers and kind not in free and answer not in answers
    )
    if not absent:
        return ""
    told = _shown([f"{answer!r} ({_rows(count)})" for answer, count in sorted(absent.items())])
    return f"{len(absent)} held-out answer{'' if len(absent) == 1 else 's'} no training row shows: {told}"


def _single_rows(samples: Sequence[Sample]) -> str:
    single = [answer for (*_, answer), count in sorted(Counter(labels(samples)).items()) if answer and count == 1]
    if not single:
        return ""
    return f"{len(single)} answer{' has' if len(single) == 1 else 's have'} one row only: {_shown(list(map(repr, single)))}"


def _imbalance(samples: Sequence[Sample]) -> str:
    """The question whose answers are the least even."""
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for *question, answer in labels(samples):
        if answer:
            counts[tuple(question)][answer] += 1
    ratios = [(answers.most_common()[0], min(answers.items(), key=lambda pair: pair[1])) for answers in counts.values()]
    worst = max(ratios, key=lambda pair: pair[0][1] / pair[1][1], default=None)
    if worst is None or worst[0][1] < IMBALANCE * worst[1][1]:
        return ""
    (most, many), (least, few) = worst
    return f"uneven answers: {many} rows say {most!r}, {few} {'says' if few == 1 else 'say'} {least!r}"


def _long_answers(samples: Sequence[Sample], config: Settings, tokens: Callable[[str], int]) -> str:
    room = config.target_positions - 2  # beside start and end
    long = [_where(sample) for sample in samples if sample.targets and tokens(f" {sample.targets[0]}") > room]
    if not long:
        return ""
    return f"{_rows(len(long))} with an answer of more than the {room} tokens that the model writes; it is cut: {_shown(long)}"


# ------------------------------------------------------------------------------------------------------------- answers


def answer_sets(samples: Iterable[Sample]) -> tuple[Answers, ...]:
    """The answers of each question that is asked again and again, from rows that have no choices of their own.

    Asked of training rows only: what is held out must not tell. A question gets a set when at least two different answers
    come and each comes twice on average (always in task 'classify', which cannot do without). Where a task's rows ask more
    than FEW questions, or their text is what is to be judged, all of them share one set, if it has at most FEW answers.

    >>> cups = [Media("image", f"{n}.png") for n in range(4)]
    >>> rows = [Sample(m.source, "vqa", (m,), "kind?", targets=(said,)) for m, said in zip(cups, "baba")]
    >>> answer_sets(rows)
    (Answers(task='vqa', text='kind?', lang='en', choices=('a', 'b'), head=None),)
    """
    rows = [sample for sample in samples if sample.task in CLOSED_TASKS and sample.targets and not sample.choices]
    said: dict[tuple[str, str | None, str], Counter[str]] = defaultdict(Counter)
    for sample, question in zip(rows, _questions(rows)):
        said[sample.task, question, sample.lang][sample.targets[0]] += 1
    for task, question, lang in list(said):
        if task == "classify" and question is not None and len(said[task, question, lang]) == 1:
            said[task, None, lang].update(said.pop((task, question, lang)))  # no question: only others tell its choices
    return tuple(
        Answers(task=task, text=question or "", lang=lang, choices=tuple(sorted(answers)))
        for (task, question, lang), answers in sorted(
            said.items(), key=lambda item: (item[0][0], item[0][1] or "", item[0][2])
        )
        if len(answers) > 1 and _closed(task, question, answers)
    )


def _questions(samples: Sequence[Sample]) -> list[str | None]:
    """What each row asks; None where a task's text is another in each row, or what is to be judged."""
    asked = defaultdict(set)
    for sample in samples:
        asked[sample.task, sample.lang].add(_plain(sample.text))

    def question(sample: Sample) -> str | None:
        judged = sample.task in STATEMENT_TASKS or not sample.media
        return None if judged or len(asked[sample.task, sample.lang]) > FEW else _plain(sample.text)

    return [question(sample) for sample in samples]


def _closed(task: str, question: str | None, answers: Counter[str]) -> bool:
    """Whether the answers to a question are a few that come again."""
    most = FEW if question is None else MOST_ANSWERS
    return task == "classify" or (2 * len(answers) <= answers.total() and len(answers) <= most)


def with_choices(samples: Iterable[Sample], sets: Iterable[Answers]) -> list[Sample]:
    """The samples, each without choices given those of its question: by task, text and language, else by task and language."""
    limits = Limits(sets)
    return [limits.fill(sample) for sample in samples]


def labels(samples: Sequence[Sample]) -> list[Label]:
    """The class of each row: its answer to its question, where answers are a few that come again (see `answer_sets`).

    All rows of a task and language whose answers are free are one class.

    >>> labels([Sample("1", "caption", targets=("a cup",)), Sample("2", "classify", text="nice", targets=("good",))])
    [('caption', 'en', '', ''), ('classify', 'en', '', 'good')]
    """
    questions = _questions(samples)
    said: dict[tuple[str, str, str | None], Counter[str]] = defaultdict(Counter)
    for sample, question in zip(samples, questions):
        if sample.task in CLOSED_TASKS and sample.targets:
            said[sample.task, sample.lang, question][sample.targets[0]] += 1

    def label(sample: Sample, question: str | None) -> Label:
        task, lang = sample.task, sample.lang
        if (task, lang, question) in said and _closed(task, question, said[task, lang, question]):
            return task, lang, question or "", sample.targets[0] if sample.targets else ""
        return task, lang, "", ""

    return [label(sample, question) for sample, question in zip(samples, questions)]


# -------------------------------------------------------------------------------------------------------------- groups


def groups(samples: Sequence[Sample]) -> list[int]:
    """A number for each row: equal where rows belong together.

    Together are rows of one group (the first of GROUP_KEYS that a row has), rows that share a picture, clip or sound, and
    rows of one text without media; and what is together with the same row.

    >>> a, b = Media("image", "a.png"), Media("image", "b.png")
    >>> groups([Sample("1", "vqa", (a,)), Sample("2", "vqa", (b,)), Sample("3", "vqa", (a,)), Sample("4", "vqa", (b, a))])
    [0, 0, 0, 0]
    """
    parent = list(range(len(samples)))

    def place(item: Media) -> Hashable:
        return os.fspath(item.source) if isinstance(item.source, (str, os.PathLike)) else id(item.source)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    first: dict[Hashable, int] = {}
    for row, sample in enumerate(samples):
        ties: list[Hashable] = [(item.modality, place(item)) for item in sample.media]
        ties = ties or [("text", _plain(sample.text))]
        named = next(((key, str(sample.meta[key])) for key in GROUP_KEYS if sample.meta.get(key) is not None), None)
        for tie in (*ties, *([named] if named else [])):
            one, other = sorted((root(first.setdefault(tie, row)), root(row)))
            parent[other] = one
    return [root(row) for row in range(len(samples))]


def _signature(sample: Sample) -> str:
    """What a row says, without where it stands or where its media lie."""
    media = [(m.modality, os.path.basename(str(m.source)), m.start, m.end) for m in sample.media]
    group = [str(sample.meta[key]) for key in GROUP_KEYS if sample.meta.get(key) is not None]
    return repr((group, sample.task, sample.lang, _plain(sample.text), sample.targets, sample.box, media))


def _drawn(seed: int, names: Iterable[tuple[str, str]], what: str) -> dict[tuple[str, str], tuple[float, str, str]]:
    """An order by chance for (signature, where): equal signatures are told apart by where they stand."""
    return {name: (float(stream(seed, what, name[0]).random()), *name) for name in set(names)}


def split_by_group(
    samples: Sequence[Sample], *, share: float = 0.2, seed: int, most: int = 500
) -> tuple[list[Sample], list[Sample]]:
    """Set rows apart that are not to be trained on: whole groups, so that nothing held out is known from training.

    Each class keeps a row to train on. One of four rows or more has one held out if its groups allow it, and then about
    `share` of its rows. With fewer than FEWEST_ROWS rows, or fewer than two a class, none are held out.

    Args:
        share: of the rows, held out.
        most: held out in all. One large group may exceed it, up to half of the rows, where there is no smaller.

    Returns: rows to train on, rows held out; each in the order of `samples`.
    """
    classes = labels(samples)
    sizes = Counter(classes)
    if len(samples) < FEWEST_ROWS or len(samples) < 2 * len(sizes):
        return list(samples), []
    members, ordered = _by_group(samples, seed)
    inside = {group: Counter(classes[row] for row in rows) for group, rows in members.items()}
    of_class: dict[Label, list[int]] = defaultdict(list)
    for group in ordered:
        for label in inside[group]:
            of_class[label].append(group)
    held: set[int] = set()
    taken: Counter[Label] = Counter()

    def fits(group: int, limit: int) -> bool:
        keeps = all(taken[label] + count < sizes[label] for label, count in inside[group].items())
        return group not in held and keeps and taken.total() + len(members[group]) <= limit

    def hold(group: int) -> None:
        held.add(group)
        taken.update(inside[group])

    wanted, half = min(most, round(share * len(samples))), len(samples) // 2
    rarest_first = sorted(sizes, key=lambda label: (sizes[label], label))
    for label in rarest_first:
        if sizes[label] >= 4 and not taken[label]:
            small = [group for group in of_class[label] if fits(group, wanted)]
            large = sorted((g for g in of_class[label] if fits(g, min(most, half))), key=lambda g: len(members[g]))
            for found in [*small, *large][:1]:
                hold(found)
    for label in rarest_first:
        for group in of_class[label]:
            if taken[label] < round(share * sizes[label]) and fits(group, wanted):
                hold(group)
    if not held:
        large = sorted((group for group in ordered if fits(group, half)), key=lambda group: len(members[group]))
        held.update(large[:1])
    apart = {row for group in held for row in members[group]}
    train = [sample for row, sample in enumerate(samples) if row not in apart]
    return train, [sample for row, sample in enumerate(samples) if row in apart]


def _by_group(samples: Sequence[Sample], seed: int) -> tuple[dict[int, list[int]], list[int]]:
    """(group -> its rows, groups in an order by chance)."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups(samples)):
        members[group].append(row)
    names = {
        group: min((_signature(samples[row]), _where(samples[row])) for row in rows) for group, rows in members.items()
    }
    rank = _drawn(seed, names.values(), "groups")
    return members, sorted(members, key=lambda group: rank[names[group]])


def take_shots(samples: Sequence[Sample], k: int, *, seed: int) -> list[Sample]:
    """k rows of each class (see `labels`; of free text, k rows of each task and language), from as many groups as there are.

    With the same seed, fewer shots are among more shots. A class that has fewer than k rows gives all of them.

    Returns: in the order of `samples`.

    >>> rows = [Sample(str(n), "classify", text=f"text {n}", targets=("good" if n % 2 else "bad",)) for n in range(10)]
    >>> sorted(shot.targets[0] for shot in take_shots(rows, 2, seed=0))
    ['bad', 'bad', 'good', 'good']
    """
    if k < 1:
        raise ValueError(f"k is {k}; a class gives at least one row")
    classes = labels(samples)
    members, ordered = _by_group(samples, seed)
    names = [(_signature(sample), _where(sample)) for sample in samples]
    rank = _drawn(seed, names, "shots")
    columns: dict[Label, list[list[int]]] = defaultdict(list)
    for group in ordered:
        own: dict[Label, list[int]] = defaultdict(list)
        for row in sorted(members[group], key=lambda row: rank[names[row]]):
            own[classes[row]].append(row)
        for label, rows in own.items():
            columns[label].append(rows)
    taken: set[int] = set()
    for of_groups in columns.values():  # one row of each group, then a second of each, ...
        turns = [row for turn in zip_longest(*of_groups) for row in turn if row is not None]
        taken.update(turns[:k])
    return [sample for row, sample in enumerate(samples) if row in taken]


# --------------------------------------------------------------------------------------------------------------- write


def row_of(sample: Sample) -> dict[str, Any]:
    """The JSONL row that is read back as this sample from anywhere: media paths are absolute, other keys stay.

    Raises: InputError as `sample_to_row` does.

    >>> row_of(Sample("1", "name", (Media("image", "/data/cup.png"),), targets=("cup",), meta={"kit": "a"}))
    {'id': '1', 'task': 'name', 'image': '/data/cup.png', 'target': 'cup', 'kit': 'a'}
    """
    return sample_to_row(replace(sample, media=tuple(map(_absolute, sample.media))))


def _absolute(item: Media) -> Media:
    if not isinstance(item.source, (str, os.PathLike)):
        return item  # sample_to_row says what is wrong
    source = os.fspath(item.source)
    if not source.startswith(TAR):
        return replace(item, source=os.path.abspath(source))
    shard, _, member = source[len(TAR) :].partition("#")
    return replace(item, source=f"{TAR}{os.path.abspath(shard)}#{member}")


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write a JSONL file that may lie anywhere, and return how many rows. An id that another row has already gets a number behind it.

    Raises: InputError as `row_of` and `write_rows` do.
    """
    taken: set[str] = set()

    def numbered(row: dict[str, Any]) -> dict[str, Any]:
        name, number = row["id"], 1
        while row["id"] in taken:
            number += 1
            row["id"] = f"{name}-{number}"
        taken.add(row["id"])
        return row

    return write_rows(path, (numbered(row_of(sample)) for sample in samples))

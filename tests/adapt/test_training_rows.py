"""A user's rows: every message word for word, answers, groups, shots."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import tiny_config

from monoglot.adapt.rows import (
    answer_sets,
    audit,
    groups,
    labels,
    read_training,
    row_of,
    split_by_group,
    take_shots,
    with_choices,
    write_samples,
)
from monoglot.adapters import Answers
from monoglot.data.pack import pack
from monoglot.data.rows import read_rows, write_rows
from monoglot.errors import InputError
from monoglot.nouns import Media, Sample

CONFIG = tiny_config()
QUESTION = "which kind?"


def limited(task, text, lang, choices):
    return Answers(task=task, text=text, lang=lang, choices=choices)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Write a file of rows in an empty working folder; the media that they name are small files of different bytes."""
    monkeypatch.chdir(tmp_path)

    def write(*given, name="rows.jsonl"):
        for row in given:
            for key in ("image", "audio"):
                if key in row and not os.path.exists(row[key]):
                    (tmp_path / row[key]).write_bytes(b"x" * len(os.listdir()) + row[key].encode())
        write_rows(name, given)
        return name

    return write


def kind(said, image, **more):
    return {"task": "classify", "image": image, "text": QUESTION, "target": said, **more}


def good(count=12):
    return [kind("ab"[number % 2], f"{number}.png") for number in range(count)]


def error(*paths, config=CONFIG, **more) -> str:
    with pytest.raises(InputError) as wrong:
        read_training(paths, config, **more)
    return str(wrong.value)


def notes(*paths, config=CONFIG, **more) -> tuple[str, ...]:
    return read_training(paths, config, **more)[2].notes


# --- what ends it ----------------------------------------------------------------------------------------------------


def test_good_rows_are_read_in_order_and_nothing_is_told(rows):
    first, second = rows(*good()), rows(*good(4), name="more.jsonl")
    apart = rows(kind("a", "apart1.png"), kind("b", "apart2.png"), name="apart.jsonl")
    samples, held_out, found = read_training([first], CONFIG, held_out=apart)
    assert [sample.targets[0] for sample in samples] == ["a", "b"] * 6
    assert held_out is not None
    assert len(held_out) == 2
    assert (found.problems, found.notes) == ((), ())
    samples, held_out, _ = read_training([first, second], CONFIG)
    assert (len(samples), held_out) == (16, None)


def test_a_pack_is_read_like_the_file_it_was_made_of(rows, tmp_path):
    path = rows(*good())
    pack(tmp_path / path, tmp_path / "shards")
    packed, _, found = read_training([tmp_path / "shards"], CONFIG)
    assert [(s.targets, s.text) for s in packed] == [(s.targets, s.text) for s in read_training([path], CONFIG)[0]]
    assert found.notes == ()


def test_messages_about_files_and_lines(rows):
    assert error() == "rows: data: no file is given; name a JSONL file of rows"
    assert error("none.jsonl") == "none.jsonl: no such file; expected a JSONL file of rows"
    empty = "rows.jsonl: data: holds no row; give one JSON object a line, see docs/rows.md"
    assert error(rows()) == empty
    assert error(rows(*good(), name="fine.jsonl"), held_out=rows()) == empty
    assert error(rows(kind("a", "1.png"), kind("b", "2.png", task="clasify"))) == (
        "rows.jsonl:2: task: no task named 'clasify'; closest: 'classify'; known: " + known_tasks()
    )
    path = rows(kind("a", "1.png"))
    with open(path, "a") as file:
        file.write('{"task": "classify", \n')
    assert error(path) == (
        "rows.jsonl:2: broken JSON at character 21: Expecting property name enclosed in double quotes; "
        "expected one JSON object a line"
    )


def known_tasks() -> str:
    from monoglot.tasks import TASKS

    return ", ".join(sorted(TASKS))


def test_a_pack_with_an_unknown_task(rows, tmp_path, monkeypatch):
    pack(tmp_path / rows(*good()), tmp_path / "shards")
    monkeypatch.setattr("monoglot.adapt.rows.TASKS", {"vqa": None})
    wrong = "task: no task named 'classify'; known: vqa"
    assert error(tmp_path / "shards").endswith(wrong)


def test_one_example(rows):
    assert error(rows(kind("a", "1.png"))) == (
        "rows.jsonl:1: data: 1 example is all there is; give at least 2, better 5 or more of each answer"
    )


def test_rows_without_answers(rows):
    questions = [{"task": "vqa", "image": f"{n}.png", "text": "how many?"} for n in range(2)]
    assert error(rows(*good(4), *questions)) == (
        "rows.jsonl:5: target: 2 of 6 rows have no answer; a model learns from answers: add them, or leave these rows out"
    )
    find = [{"task": "grounding", "image": "0.png", "text": "the cup"}]
    assert error(rows(*good(4), *find)).startswith("rows.jsonl:5: box: 1 of 5 rows have no answer; ")


def test_one_class_only(rows):
    wrong = "rows.jsonl:1: target: every row says 'a'; give rows with at least two different answers"
    assert error(rows(kind("a", "1.png"), kind("a", "2.png"))) == wrong
    assert error(rows(*(kind("a", f"{n}.png", choices=["a", "b"]) for n in range(3)))) == wrong
    captions = [{"task": "caption", "image": f"{n}.png", "target": "a cup"} for n in range(3)]
    assert notes(rows(*captions)) == ()


def test_a_modality_that_the_model_does_not_read(rows):
    fix = "docs/new_modality.md says how to add one"
    heard = [{"task": "caption", "audio": f"{n}.wav", "target": f"sound {n}"} for n in range(2)]
    seeing = tiny_config(modalities={"image": {"size": 64}})
    assert error(rows(*good(), *heard), config=seeing) == (
        f"rows.jsonl:13: audio: this model does not read it; it reads: image; {fix}"
    )
    assert error(rows(*heard), config=tiny_config(modalities={})) == (
        f"rows.jsonl:1: audio: this model does not read it; it reads: text only; {fix}"
    )


def test_missing_media_end_it_from_one_in_a_hundred_on(rows):
    path = rows(*good(200))
    os.unlink("3.png")
    os.unlink("4.png")
    assert notes(path) == ("2 rows left out, media cannot be opened: rows.jsonl:4, rows.jsonl:5",)
    os.unlink("5.png")
    assert error(path) == (
        "rows.jsonl:4: image: 3 of 200 rows name media that cannot be opened (3.png: image: no such file; check the path "
        "(a row's paths are relative to the row's file)); at most 1% may"
    )


def test_a_row_that_its_task_cannot_put(rows):
    assert error(rows(*good(), {"task": "vqa", "image": "1.png", "target": "a"})) == (
        "rows.jsonl:13: text: task 'vqa' needs a question; it is empty"
    )


def test_an_answer_that_a_task_with_answers_of_its_own_does_not_know(rows):
    said = [
        {"task": "matching", "image": f"{n}.png", "text": f"a thing {n}", "target": target}
        for n, target in enumerate(("yes", "nope"))
    ]
    assert error(rows(*said)) == (
        "rows.jsonl:2: target: 'nope' is no answer of task 'matching'; expected one of 'yes', 'no', "
        "or give the row its own choices"
    )


def test_held_out_rows_that_are_all_trained_on(rows):
    path = rows(*good())
    os.symlink("1.png", "same.png")
    apart = rows(kind("b", "same.png"), kind("a", "2.png"), name="apart.jsonl")
    assert error(path, held_out=apart) == (
        "apart.jsonl:1: held_out: every held-out row is trained on too (this one is rows.jsonl:2); "
        "hold out other rows, or none: some are then set apart"
    )


# --- what is told ----------------------------------------------------------------------------------------------------


def test_some_held_out_rows_are_trained_on(rows):
    path = rows(*good())
    with open("copy.png", "wb") as copy, open("3.png", "rb") as original:
        copy.write(original.read())
    apart = rows(kind("a", "new.png"), kind("b", "copy.png"), name="apart.jsonl")
    assert notes(path, held_out=apart) == ("1 of 2 rows held out are trained on too: apart.jsonl:2 is rows.jsonl:4",)


def test_contradictions_and_repeated_rows(rows):
    told = notes(rows(*good(), kind("b", "0.png"), kind("b", "1.png"), kind("b", "1.png")))
    assert told == (
        "2 rows contradict each other, the same question with different answers: rows.jsonl:1 'a' and rows.jsonl:13 'b'",
        "2 rows more than once: rows.jsonl:14 is rows.jsonl:2, rows.jsonl:15 is rows.jsonl:2",
    )


def test_two_captions_of_a_picture_or_two_questions_about_it_are_no_contradiction(rows):
    captions = [{"task": "caption", "image": "1.png", "target": text} for text in ("a cup", "a red cup")]
    asked = [{"task": "vqa", "image": "1.png", "text": text, "target": text[:2]} for text in ("colour?", "size?")]
    shared = [{"task": "vqa", "image": "2.png", "text": "?", "targets": ["red", said]} for said in ("pink", "rose")]
    assert notes(rows(*captions, *asked, *shared)) == ()


def test_answers_that_training_does_not_show(rows):
    apart = [kind(said, f"new{n}.png") for n, said in enumerate("accd")]
    assert notes(rows(*good()), held_out=rows(*apart, name="apart.jsonl")) == (
        "2 held-out answers no training row shows: 'c' (2 rows), 'd' (1 row)",
    )


def test_answers_with_one_row(rows):
    assert notes(rows(*good(), kind("c", "c.png"))) == ("1 answer has one row only: 'c'",)
    more = [kind(said, f"{said}.png") for said in "cdef"]
    assert notes(rows(*good(), *more)) == ("4 answers have one row only: 'c', 'd', 'e', ...",)


def test_uneven_answers(rows):
    many = [kind("a", f"{n}.png") for n in range(20)]
    assert notes(rows(*many, kind("b", "b1.png"), kind("b", "b2.png"))) == (
        "uneven answers: 20 rows say 'a', 2 say 'b'",
    )
    assert notes(rows(*many[:19], kind("b", "b1.png"), kind("b", "b2.png"))) == ()


def test_answers_that_are_too_long(rows):
    long = [{"task": "caption", "image": f"{n}.png", "target": "word " * n} for n in (61, 62, 63)]
    path = rows(*long)
    assert notes(path) == (
        "1 row with an answer of more than the 62 tokens that the model writes; it is cut: rows.jsonl:3",
    )
    assert notes(path, tokens=len)[0].startswith("3 rows with an answer of more than the 62 tokens")


def test_every_problem_is_counted():
    found = audit([Sample("1", "vqa", (Media("smell", "a.bin"),), targets=("a",))], None, CONFIG)
    assert [problem.split(":")[1].strip() for problem in found.problems] == [
        "data",
        "smell",
        "smell",
        "text",
    ]


# --- answers ---------------------------------------------------------------------------------------------------------


def pictures(*said, task="vqa", text=QUESTION, **more):
    return [
        Sample(str(n), task, (Media("image", f"{n}.png"),), text, targets=(answer,), **more)
        for n, answer in enumerate(said)
    ]


def test_answers_that_come_again_are_a_set():
    assert answer_sets(pictures("b", "a", "a", "b")) == (limited("vqa", QUESTION, "en", ("a", "b")),)
    assert answer_sets(pictures("a", "b", "a", "c")) == ()  # each new: a free question
    assert answer_sets(pictures("a", "a", "a")) == ()  # one answer tells nothing apart
    assert answer_sets(pictures(*"abcab", task="caption")) == ()
    many = [str(n) for n in range(1001)] * 2
    assert answer_sets(pictures(*many)) == ()
    assert len(answer_sets(pictures(*many[:1000], *many[:1000]))[0].choices) == 1000
    assert answer_sets(pictures("a", "b", "c", task="classify"))[0].choices == ("a", "b", "c")


def test_sets_are_kept_apart_by_question_and_language_and_own_choices_stay():
    samples = [
        *pictures(*"abab", text="one?"),
        *pictures(*"cdcd", text=" two \n?"),
        *pictures(*"xyxy", text="one?", lang="fr"),
        *pictures(*"pqpq", text="three?", choices=("p", "q", "r")),
    ]
    sets = answer_sets(samples)
    assert [(found.text, found.lang, found.choices) for found in sets] == [
        ("one?", "en", ("a", "b")),
        ("one?", "fr", ("x", "y")),
        ("two ?", "en", ("c", "d")),
    ]
    filled = with_choices(samples, sets)
    assert [sample.choices for sample in filled[::4]] == [("a", "b"), ("c", "d"), ("x", "y"), ("p", "q", "r")]
    new = pictures("z", text="four?")
    assert with_choices(new, sets) == new


def test_texts_and_statements_share_the_answers_of_their_task():
    texts = [Sample(str(n), "classify", text=f"text {n}", targets=(said,)) for n, said in enumerate(("good", "bad"))]
    assert answer_sets(texts) == (limited("classify", "", "en", ("bad", "good")),)
    unseen = Sample("9", "classify", text="another text")
    assert with_choices([unseen], answer_sets(texts))[0].choices == ("bad", "good")
    statements = [sample for n in range(3) for sample in pictures("match", "none", task="matching", text=f"thing {n}")]
    assert answer_sets(statements) == (limited("matching", "", "en", ("match", "none")),)


def test_classes_of_rows():
    assert Counter(labels(pictures(*"abab"))) == {("vqa", "en", QUESTION, "a"): 2, ("vqa", "en", QUESTION, "b"): 2}
    assert set(labels(pictures("a", "b", "c"))) == {("vqa", "en", "", "")}  # each new: free
    asked = [
        Sample(str(n), "vqa", (Media("image", "1.png"),), f"is it {n}?", targets=(("yes", "no")[n % 2],))
        for n in range(42)
    ]
    assert set(labels(asked)) == {("vqa", "en", "", "yes"), ("vqa", "en", "", "no")}  # too many questions to tell apart
    assert answer_sets(asked) == (limited("vqa", "", "en", ("no", "yes")),)
    assert set(labels(asked[:20])) == {("vqa", "en", "", "")}
    counted = [replace(sample, targets=(str(n % 21),)) for n, sample in enumerate(asked)]
    assert set(labels(counted)) == {("vqa", "en", "", "")}  # and too many answers
    assert answer_sets(counted) == ()
    assert set(labels(pictures("a cup", "a cup", task="caption"))) == {("caption", "en", "", "")}


# --- groups ----------------------------------------------------------------------------------------------------------

row_lists = st.lists(
    st.tuples(
        st.sampled_from(["classify", "classify", "caption"]),
        st.sampled_from("abc"),
        st.one_of(st.none(), st.integers(0, 8)),  # group
        st.integers(0, 40),  # picture
    ),
    max_size=60,
)


def made(drawn) -> list[Sample]:
    return [
        Sample(
            str(n),
            task,
            (Media("image", f"{picture}.png"),),
            QUESTION,
            (said,),
            meta={} if group is None else {"group": group},
            where=f"rows.jsonl:{n + 1}",
        )
        for n, (task, said, group, picture) in enumerate(drawn)
    ]


def ids(samples):
    return {sample.id for sample in samples}


def together(samples) -> list[set[str]]:
    """Rows that share a group or a picture, found the slow way: merge sets until nothing changes."""
    sets = [
        ({sample.id}, {("m", sample.media[0].source), ("g", sample.meta.get("group", sample.id + "!"))})
        for sample in samples
    ]
    changed = True
    while changed:
        changed = False
        for one in range(len(sets)):
            for other in range(one + 1, len(sets)):
                if sets[one][1] & sets[other][1]:
                    sets[one] = (sets[one][0] | sets[other][0], sets[one][1] | sets[other][1])
                    del sets[other]
                    changed = True
                    break
            if changed:
                break
    return [rows for rows, _ in sets]


@given(row_lists)
def test_groups_are_what_merging_sets_finds(drawn):
    samples = made(drawn)
    found = defaultdict(set)
    for sample, group in zip(samples, groups(samples)):
        found[group].add(sample.id)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, together(samples)))


def test_the_first_key_counts():
    both = [
        Sample("1", "vqa", (Media("image", "1.png"),), meta={"kit": "x", "style": "s"}),
        Sample("2", "vqa", (Media("image", "2.png"),), meta={"kit": "y", "style": "s"}),
    ]
    assert len(set(groups(both))) == 2
    assert len(set(groups([both[0], Sample("3", "vqa", text="words", meta={"kit": "x"})]))) == 1


@given(row_lists, st.integers(0, 5), st.randoms(use_true_random=False))
def test_splits_keep_groups_whole_and_lose_nothing(drawn, seed, shuffle):
    samples = made(drawn)
    train, held_out = split_by_group(samples, seed=seed)
    assert len(train) + len(held_out) == len(samples)
    assert ids(train) | ids(held_out) == ids(samples)
    assert all(rows <= ids(train) or rows <= ids(held_out) for rows in together(samples))
    assert len(held_out) <= len(samples) / 2
    classes = dict(zip((sample.id for sample in samples), labels(samples)))
    assert {classes[name] for name in ids(train)} == set(classes.values())
    if len(samples) < 10:
        assert not held_out
    mixed = list(samples)
    shuffle.shuffle(mixed)
    assert ids(split_by_group(mixed, seed=seed)[1]) == ids(held_out)


def test_about_a_fifth_of_every_class_is_held_out():
    samples = [
        Sample(str(n), "classify", (Media("image", f"{n}.png"),), QUESTION, (f"class {n % 10}",)) for n in range(200)
    ]
    for seed in range(3):
        _, held_out = split_by_group(samples, seed=seed)
        assert set(Counter(sample.targets[0] for sample in held_out).values()) == {4}
    assert ids(held_out) != ids(split_by_group(samples, seed=0)[1])
    assert len(split_by_group(samples, seed=0, share=0.5, most=30)[1]) == 30
    _, held_out = split_by_group(samples[:40], seed=0)  # four of each class
    assert set(Counter(sample.targets[0] for sample in held_out)) == {f"class {n}" for n in range(10)}


def test_large_groups_stay_whole():
    def by(speakers, each):
        rows = [(speaker, n) for speaker in range(speakers) for n in range(each)]
        return [
            Sample(
                f"{speaker}/{n}",
                "classify",
                (Media("audio", f"{speaker}/{n}.wav"),),
                QUESTION,
                ("ab"[n % 2],),
                meta={"speaker": speaker},
            )
            for speaker, n in rows
        ]

    assert len(split_by_group(by(2, 10), seed=0)[1]) == 10  # one of two speakers
    assert len(split_by_group(by(2, 1000), seed=0)[1]) == 1000  # there is no smaller group
    assert len(split_by_group(by(10, 10), seed=0)[1]) == 20
    assert split_by_group(by(1, 50), seed=0)[1] == []
    assert split_by_group(pictures(*map(str, range(30)), task="classify"), seed=0)[1] == []  # a row a class


@given(row_lists, st.integers(1, 4), st.integers(0, 5), st.randoms(use_true_random=False))
def test_shots_are_k_of_each_class_nested_and_the_same_in_any_order(drawn, k, seed, shuffle):
    samples = made(drawn)
    classes = dict(zip((sample.id for sample in samples), labels(samples)))
    shots = take_shots(samples, k, seed=seed)
    sizes, taken = Counter(classes.values()), Counter(classes[sample.id] for sample in shots)
    assert taken == {label: min(k, size) for label, size in sizes.items()}
    assert ids(shots) <= ids(take_shots(samples, k + 2, seed=seed))
    of_group = dict(zip((sample.id for sample in samples), groups(samples)))
    for label in sizes:  # no second row of a group before each has given one
        used = Counter(of_group[name] for name in ids(shots) if classes[name] == label)
        there = {of_group[name] for name in classes if classes[name] == label}
        assert max(used.values()) == 1 or set(used) == there
    mixed = list(samples)
    shuffle.shuffle(mixed)
    assert ids(take_shots(mixed, k, seed=seed)) == ids(shots)


def test_other_seeds_take_other_shots_wherever_the_files_lie():
    samples = pictures(*"ab" * 50)
    moved = [Sample(s.id, s.task, (Media("image", f"/far/{s.media[0].source}"),), s.text, s.targets) for s in samples]
    assert ids(take_shots(samples, 5, seed=0)) == ids(take_shots(moved, 5, seed=0))
    assert ids(take_shots(samples, 5, seed=0)) != ids(take_shots(samples, 5, seed=1))
    assert ids(split_by_group(samples, seed=0)[1]) == ids(split_by_group(moved, seed=0)[1])
    with pytest.raises(ValueError, match=r"^k is 0; a class gives at least one row$"):
        take_shots(samples, 0, seed=0)


# --- write -----------------------------------------------------------------------------------------------------------


def test_rows_are_written_with_absolute_paths_and_read_back_elsewhere(rows, tmp_path):
    path = rows(
        kind("a", "1.png", kit="x"),
        kind("b", "2.png", id="7"),
        {"task": "vqa", "id": "7-2", "image": "1.png", "text": "?", "target": "c"},
    )
    more = rows(kind("b", "3.png", id="7"), name="more.jsonl")
    samples, _, _ = read_training([path, more], CONFIG)
    assert write_samples(tmp_path / "far" / "away.jsonl", samples) == 4
    back = list(read_rows(tmp_path / "far" / "away.jsonl"))
    assert [sample.id for sample in back] == ["1", "7", "7-2", "7-3"]
    assert back[0].media[0].source == str(tmp_path / "1.png")
    assert back[0].meta == {"kit": "x"}
    assert [(s.targets, s.text, s.task) for s in back] == [(s.targets, s.text, s.task) for s in samples]


def test_members_of_shards_keep_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = Sample("1", "name", (Media("image", "tar://a/b.tar#c.png@512+7"),), targets=("cup",))
    assert row_of(sample)["image"] == f"tar://{tmp_path}/a/b.tar#c.png@512+7"


def test_media_in_memory_cannot_be_written():
    with pytest.raises(InputError, match=r"^1: image: is an object in memory; save it to a file first$"):
        row_of(Sample("1", "name", (Media("image", b"bytes"),), targets=("cup",)))

"""What every import does: unique ids, problems, what stays when it fails, settings, the command line."""

from __future__ import annotations

import base64
import doctest
import json

import pytest
from miniature import picture

from monoglot.data import importers
from monoglot.data.importers import IMPORTERS, again, base, explain, import_rows, make_kind, ofa, shards, vqa, work
from monoglot.data.importers.work import Ids
from monoglot.errors import InputError

TABLE = ("task=name", "image=image", "targets=word")


def table(write, count: int, *bad: int) -> object:
    """A CSV of `count` lines; those in `bad` name a picture that is not there."""
    write("a.jpg", picture())
    lines = [f"{'gone' if number in bad else 'a'}.jpg,w{number}" for number in range(count)]
    return write("table.csv", "image,word\n" + "\n".join(lines))


@pytest.mark.parametrize("module", [again, base, ofa, shards, vqa, work], ids=lambda module: module.__name__)
def test_examples_run(module):
    assert doctest.testmod(module).failed == 0


def test_ids_are_unique_among_many():
    ids = Ids()
    seen = [ids.unique(name, place) for place, name in enumerate([*map(str, range(20_000)), *map(str, range(20_000))])]
    assert len(set(seen)) == 40_000
    assert seen[:20_000] == [str(number) for number in range(20_000)]  # no new one taken for known
    assert seen[20_000] == "0-20000"


def test_few_problems_are_told_and_pass(write, imported, problems):
    rows = imported("csv", table(write, 200, 7, 9), *TABLE)
    assert len(rows) == 198
    assert len(problems()) == 2
    report = imported.report
    assert (report.problems, report.missing, len(report.missing_names)) == (2, 2, 2)
    assert "198 rows (name 198); 2 problems, 2 of them missing files (" in report.summary()


def test_more_problems_than_allowed_lose_nothing(write, imported, problems, tmp_path):
    old = write("out/rows.jsonl", "an earlier file\n")
    with pytest.raises(InputError) as error:
        imported("csv", table(write, 100, 3, 50), *TABLE)
    told = str(error.value).replace(f"{tmp_path}/", "")
    assert told == (
        "out/rows.jsonl: 2 entries (2.0%) gave no row, more than --allow 0.01; all are told in "
        "out/rows.jsonl.problems.jsonl; the 98 good rows are in out/rows.jsonl.partial; "
        "correct the data, or allow more"
    )
    assert old.read_text() == "an earlier file\n"
    assert len(problems()) == 2
    partial = tmp_path / "out/rows.jsonl.partial"
    assert len(partial.read_text().splitlines()) == 98
    assert len(imported("csv", tmp_path / "table.csv", *TABLE, allow=0.02)) == 98
    assert not partial.exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rows.jsonl", "rows.jsonl.problems.jsonl"]
    imported("csv", table(write, 5), *TABLE)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.jsonl"]  # no problems, no file of them


def test_an_import_that_is_stopped_keeps_what_it_made(write, tmp_path, monkeypatch):
    write("a.csv", "image,word\na.jpg,one\na.jpg,two\n")
    real = work.Work.add

    def stop(self, row, item):
        if item.line == 3:
            raise KeyboardInterrupt
        real(self, row, item)

    monkeypatch.setattr(work.Work, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        import_rows(make_kind("csv", [str(tmp_path / "a.csv"), *TABLE]), tmp_path / "out/rows.jsonl", check=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.jsonl.partial"]


def test_an_import_without_hope_is_stopped(write, imported, problems):
    with pytest.raises(
        InputError, match=r"none of the first 1000 entries gave a row; all are told in .*; check the files"
    ):
        imported("csv", table(write, 5000, *range(5000)), *TABLE)
    assert len(problems()) == 1000


def test_pictures_of_an_earlier_import_stay(write, imported, tmp_path):
    def tsv(colour):
        return write("a.tsv", f"{base64.b64encode(picture(colour)).decode()}\t1\t{colour}\n")

    [first] = imported("ofa", tsv("red"), "layout=imagenet")
    old = (tmp_path / "out/rows.jsonl").read_text()
    with pytest.raises(InputError):
        imported("ofa", write("b.tsv", "AAAA\t1\tred\n"), "layout=imagenet")
    assert (tmp_path / "out/rows.jsonl").read_text() == old
    [second] = imported("ofa", tsv("blue"), "layout=imagenet")
    assert first["image"].startswith("tar://rows.shards/")
    assert second["image"].startswith("tar://rows.shards-2/")
    assert "rows.shards of an earlier import stay" in imported.report.summary()


def test_a_folder_that_cannot_be_written(write, tmp_path):
    file = table(write, 3)
    with pytest.raises(InputError, match=r"rows\.jsonl: cannot be written"):
        import_rows(make_kind("csv", [str(file), *TABLE]), tmp_path / "a.jpg/rows.jsonl")


def test_what_is_read_is_not_written_over(write, tmp_path):
    file = write("rows.jsonl", '{"image": "a.jpg", "word": "x"}')
    with pytest.raises(InputError, match="--out: is one of the files that are read"):
        import_rows(make_kind("json", [str(file), *TABLE]), file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "rows.json"}, "--out: is no name for a file of rows"),
        ({"out": "a#b.jsonl"}, "--out: is no name for a file of rows"),
        ({"media": "nowhere"}, "nowhere: --media: no such folder"),
    ],
)
def test_places_that_are_none(write, imported, options, message):
    with pytest.raises(InputError, match=message):
        imported("csv", table(write, 3), *TABLE, **options)


def test_a_limit_and_another_file_of_problems(write, imported, tmp_path):
    file = table(write, 200, 1)
    rows = imported("csv", file, *TABLE, limit=150, problems=tmp_path / "logs/told.jsonl")
    assert len(rows) == 150
    assert json.loads((tmp_path / "logs/told.jsonl").read_text())["missing"] is True


def test_media_below_the_rows_are_relative_and_others_absolute(write, imported, tmp_path):
    file = table(write, 1)
    assert imported("csv", file, *TABLE, out="rows.jsonl")[0]["image"] == "a.jpg"
    assert imported("csv", file, *TABLE, out="deeper/rows.jsonl")[0]["image"] == str(tmp_path / "a.jpg")


# --- rows of rows -----------------------------------------------------------------------------------------------------


def test_files_of_rows_joined(write, imported):
    write("one/a.jpg", picture())
    one = write("one/rows.jsonl", json.dumps({"id": 1, "task": "name", "image": "a.jpg", "target": "x", "by": "me"}))
    write("two/clips/b.mp4", "film")
    two = write(
        "two/rows.jsonl",
        json.dumps({"id": "1", "task": "caption", "video": ["clips/b.mp4"], "start": 1, "target": "y"}),
    )
    assert imported("rows", one, two, out="all.jsonl") == [
        {"id": "1", "task": "name", "image": "one/a.jpg", "target": "x", "by": "me"},
        {"id": "1-1", "task": "caption", "video": ["two/clips/b.mp4"], "start": 1, "target": "y"},
    ]


def test_rows_whose_pictures_are_in_shards(write, imported, tmp_path):
    text = base64.b64encode(picture()).decode()
    [row] = imported("ofa", write("a.tsv", f"{text}\t1\tred\n"), "layout=imagenet", out="one/rows.jsonl")
    [again] = imported("rows", tmp_path / "one/rows.jsonl", out="all.jsonl")
    assert again["image"] == row["image"].replace("tar://", "tar://one/")
    wrong = write("one/wrong.jsonl", json.dumps({**row, "image": "tar://gone.tar#a.jpg"}))
    with pytest.raises(InputError, match=r"image: no such file, or an empty one: .*gone\.tar#a\.jpg"):
        imported("rows", wrong, out="all.jsonl")


def test_matching_is_half_right_and_wrong_otherwise(write, imported):
    write("a.jpg", picture())
    write("b.jpg", picture("blue"))
    captions = [
        {
            "id": f"c{number}",
            "task": "caption",
            "image": f"{'ab'[number % 2]}.jpg",
            "targets": [f"{'ab'[number % 2]} {number}"],
        }
        for number in range(400)
    ]
    questions = [
        {
            "id": f"q{number}",
            "task": "vqa",
            "image": "a.jpg",
            "text": "how many?",
            "target": str(number % 3),
            "weight": 0.6,
        }
        for number in range(400)
    ]
    other = {"id": "o", "task": "name", "image": "a.jpg", "target": "x"}
    file = write("rows.jsonl", "\n".join(json.dumps(row) for row in [*captions, *questions, other]))
    rows = imported("rows", file, "make=matching", out="matching.jsonl")
    assert imported.report.left_out == {"of task name": 1}
    assert imported.report.tasks == {"matching": 400, "answer_matching": 400}
    assert 340 < sum(row["target"] == "yes" for row in rows) < 460
    for row in rows[:400]:
        assert (row["text"][0] == row["image"][0]) == (row["target"] == "yes")
    for number, row in enumerate(rows[400:]):
        assert row["text"].startswith("how many? ")
        assert row["weight"] == 0.6
        assert (row["text"].removeprefix("how many? ") == str(number % 3)) == (row["target"] == "yes")
    assert rows == imported("rows", file, "make=matching", out="again.jsonl")
    assert rows != imported("rows", file, "make=matching", "seed=1", out="again.jsonl")


def test_region_captions_of_boxes(write, imported):
    write("a.jpg", picture())
    row = {"id": "1", "task": "grounding", "image": "a.jpg", "text": "the cup", "box": [0, 0, 0.5, 1]}
    [made] = imported("rows", write("rows.jsonl", json.dumps(row)), "make=region_caption", out="captions.jsonl")
    assert made == {"id": "1", "task": "region_caption", "image": "a.jpg", "box": [0, 0, 0.5, 1], "target": "the cup"}


# --- settings and the command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["coco_captoin"], "no kind of data named 'coco_captoin'; closest: 'coco_caption'"),
        (["coco_caption"], "coco_caption: needs at least one file"),
        (["coco_caption", "a.json", "splt=train"], "splt: no setting of coco_caption named 'splt'; closest: 'split'"),
        (["coco_caption", "a.json", "split=train", "split=val"], "split: is given twice"),
        (["coco_caption", "a.json", "references=apat"], "references: Input should be 'together' or 'apart'"),
        (["vqav2", "a.json", "most=0"], "most: Input should be greater than or equal to 1"),
        (["vqav2", "a.json", "most=many"], "most: Input should be a valid integer"),
        (["ofa", "a.tsv"], "layout: is missing; `monoglot data import list ofa` explains it"),
        (["ofa", "a.tsv", "layout=captions"], "layout: Input should be 'caption', 'vqa'"),
    ],
)
def test_settings_that_are_wrong(words, message):
    with pytest.raises(InputError, match=message):
        make_kind(words[0], words[1:])


def test_a_file_may_have_an_equals_sign(write):
    file = write("a=b.json", "{}")
    assert make_kind("coco_caption", [str(file), "split=train, restval"]).split == ("train", "restval")


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_kind_explains_itself(name):
    kind = IMPORTERS[name]
    told = explain(name)
    assert "Source: " in told
    assert kind.example.split()[0] == name
    for key, field in kind.model_fields.items():
        assert field.description
        assert key == "files" or f"  {key} (" in told
    assert "\n" not in kind.summary


def test_the_command_line(command, write, tmp_path):
    file = table(write, 3)
    code, out, _ = command("data", "import", "csv", file, *TABLE, "--out", tmp_path / "rows.jsonl")
    assert (code, out) == (0, f"{tmp_path}/rows.jsonl: 3 rows (name 3)\n")
    code, out, _ = command("data", "validate", tmp_path / "rows.jsonl")
    assert code == 0
    code, out, _ = command("data", "import", "list")
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == sorted(IMPORTERS)
    code, out, _ = command("data", "import", "list", "vqav2", "csv")
    assert code == 0
    assert "settings (key=value):" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cvs"], "no kind of data named 'cvs'; closest: 'csv'"),
        (["csv", "a.csv"], "command line: --out: is missing; say where the rows go"),
        (["csv", "gone.csv", *TABLE, "--out", "rows.jsonl"], "gone.csv: no such file"),
        (["list", "cvs"], "no kind of data named 'cvs'"),
    ],
)
def test_the_command_line_says_what_is_wrong(command, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("data", "import", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_too_many_problems_end_with_2(command, write, tmp_path):
    code, _, err = command("data", "import", "csv", table(write, 4, 2), *TABLE, "--out", tmp_path / "rows.jsonl")
    assert code == 2
    assert "1 entries (25.0%) gave no row" in err
    code, out, _ = command(
        *("data", "import", "csv", tmp_path / "table.csv", *TABLE, "--out", tmp_path / "rows.jsonl", "--no-check")
    )
    assert (code, out) == (0, f"{tmp_path}/rows.jsonl: 4 rows (name 4)\n")


def test_every_family_is_imported_in_plain_sight():
    assert set(importers.IMPORTERS) == set(IMPORTERS)
    assert len(IMPORTERS) == 18

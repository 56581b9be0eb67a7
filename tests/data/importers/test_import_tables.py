"""CSV, JSON, parquet, folders: tables whose columns the user names."""

from __future__ import annotations

import base64
import csv
import io
import json

import pytest
from miniature import picture

from monoglot.errors import InputError

CUP = picture("white")


@pytest.fixture
def cups(write):
    for name in ("img/1.jpg", "img/2.jpg", "img/3.jpg"):
        write(name, CUP)
    return write


def test_csv_with_quotes_and_line_ends_in_fields(cups, imported):
    file = cups(
        "cups.csv",
        'name,question,answer,other,who\r\n1,"what, ""exactly"",\r\nis it?",a cup,,ann\r\n'
        '2,which?,"big\ncup",mug,ben\r\n\r\n3,"q",x,"",\r\n',
    )
    words = ("task=vqa", "image=img/{name}.jpg", "text=question", "targets=answer,other", "keep=who", "id=name")
    assert imported("csv", file, *words, out="rows.jsonl") == [
        {
            **{"id": "1", "task": "vqa", "image": "img/1.jpg", "text": 'what, "exactly",\r\nis it?', "who": "ann"},
            "target": "a cup",
        },
        {
            **{"id": "2", "task": "vqa", "image": "img/2.jpg", "text": "which?", "who": "ben"},
            **{"target": "big\ncup", "targets": ["big\ncup", "mug"]},
        },
        {"id": "3", "task": "vqa", "image": "img/3.jpg", "text": "q", "who": "", "target": "x"},
    ]


def test_what_python_writes_is_read_back(cups, imported):
    """Against the writer of the standard library, with everything that needs quoting."""
    texts = ['"', '""', ",", "a\nb", "a\r\nb", "'", "tab\there", "ü漢字", '"quoted", then, not', "x" * 100_000]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerows([("image", "text"), *(("img/1.jpg", text) for text in texts)])
    rows = imported("csv", cups("a.csv", file.getvalue()), "task=caption", "image=image", "targets=text")
    assert [row["target"] for row in rows] == texts
    assert [row["id"] for row in rows] == ["2", "3", "4", "5", "7", "9", "10", "11", "12", "13"]  # lines


def test_tab_parted_without_header_boxes_windows_and_the_rest(cups, imported, tmp_path):
    cups("clip.mp4", "film")
    file = cups("clips.tsv", "1\tclip.mp4\t0.5\t2.5\t0.5\n")
    words = ("task=caption", "video=file", "start=from", "end=to", "weight=w", "targets=id", "lang=de")
    assert imported("csv", file, "header=id,file,from,to,w", *words, out="rows.jsonl") == [
        {
            **{"id": "1", "task": "caption", "video": "clip.mp4", "start": 0.5, "end": 2.5, "weight": 0.5},
            **{"lang": "de", "target": "1"},
        }
    ]
    file = cups("boxes.csv", "f;x;y;w;h;all\nimg/1.jpg;16;12;32;24;0 0 1 0.5\n")
    words = ("task=grounding", "image=f", "text=cup {x}", "delimiter=;")
    [row] = imported("csv", file, *words, "box=x,y,w,h", "box_unit=pixel", "box_sides=true", out="rows.jsonl")
    assert (row["box"], row["text"]) == ([0.25, 0.25, 0.75, 0.75], "cup 16")
    [row] = imported("csv", file, *words, "box=all", out="rows.jsonl")
    assert row["box"] == [0.0, 0.0, 1.0, 0.5]
    [row] = imported(
        "csv", file, "task=classify", "image=f", "targets=x", "choices=16,17", "delimiter=;", out="rows.jsonl"
    )
    assert (row["target"], row["choices"]) == ("16", ["16", "17"])


def test_several_references_in_one_column(cups, imported):
    file = cups("a.csv", "image,captions\nimg/1.jpg,a cup|| a mug||\n")
    words = ("task=caption", "image=image", "targets=captions", "between=||")
    [row] = imported("csv", file, *words)
    assert row["targets"] == ["a cup", "a mug"]
    rows = imported("csv", file, *words, "references=apart")
    assert [(row["id"], row["target"]) for row in rows] == [("2-0", "a cup"), ("2-1", "a mug")]


def test_pictures_in_a_column_as_base64(write, imported, tmp_path):
    large = picture((1, 2, 3), (400, 400), "BMP")  # longer than fields may be elsewhere
    content = f'picture,what\n"data:image/bmp;base64,{base64.b64encode(large).decode()}",night\nnot base64,day\n'
    words = ("task=name", "image=picture", "targets=what", "base64=true")
    [row] = imported("csv", write("a.csv", content), *words, allow=0.5)
    assert row["image"].startswith("tar://rows.shards/00000.tar#")
    lines = [json.dumps({"picture": base64.urlsafe_b64encode(CUP).decode(), "what": "cup"})]
    [row] = imported("json", write("a.jsonl", "\n".join(lines)), *words)
    assert row["image"].endswith(".jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a line of column names"),
        ("\r\n\r\n", "is empty; expected a line of column names"),
        ("image,caption\n", "no row came out; the data hold no such entry"),
        (
            "picture,caption\nimg/1.jpg,x\n",
            r"a\.csv:1: image: there is no column 'image'; columns: 'picture', 'caption'",
        ),
        ("image,image,caption\n", r"a\.csv:1: image: is the name of two columns"),
        ("image,caption\nimg/1.jpg,\n", r"a\.csv:2: caption: is empty; give an answer"),
        ("image,caption\nimg/9.jpg,x\n", r"a\.csv:2: image: no such file, or an empty one: .*/img/9\.jpg; say where"),
        ("image,caption\nhttps://x/1.jpg,x\n", r"'https://x/1.jpg' is not a path; download the files first"),
        ("image,caption\n\0,x\n", r"a\.csv:2: "),
        ("image,caption\nimg/1.jpg,caf\xe9\n", r"a\.csv:2: is not UTF-8"),
    ],
)
def test_what_no_row_comes_of(cups, imported, content, message):
    file = cups("a.csv", content.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        imported("csv", file, "task=caption", "image=image", "targets=caption")


def test_wrong_lines_are_told_and_the_others_kept(cups, imported, problems):
    file = cups("a.csv", "image,caption\nimg/1.jpg,one\nimg/2.jpg,two,too many\nimg/3.jpg\n,empty\nimg/2.jpg,two\n")
    rows = imported("csv", file, "task=caption", "image=image", "targets=caption", allow=0.6)
    assert [row["target"] for row in rows] == ["one", "two"]
    assert problems() == [
        "a.csv:3: has 3 columns; expected 2: image, caption",
        "a.csv:4: has 1 columns; expected 2: image, caption",
        "a.csv:5: image: is empty; expected the file of the image",
    ]


def test_a_quotation_mark_that_is_not_closed(cups, imported, problems):
    lines = ["image,caption", "img/1.jpg,one", 'img/1.jpg,"open', *(["img/1.jpg,x"] * 90_000)]
    rows = imported(
        "csv", cups("a.csv", "\n".join(lines)), "task=caption", "image=image", "targets=caption", "references=apart"
    )
    assert rows[0]["target"] == "one"
    assert rows[1]["target"] == "x"  # it goes on behind the field that became too long
    [problem] = problems()
    assert problem.startswith("a.csv:3: lines 3 to 8")
    assert "field larger than field limit" in problem


def test_a_task_that_there_is_not(cups, imported):
    with pytest.raises(InputError, match="task: no task named 'captoin'; closest: 'caption'"):
        imported("csv", cups("a.csv", "a"), "task=captoin")
    with pytest.raises(InputError, match="task: is missing; `monoglot data import list csv` explains it"):
        imported("csv", cups("a.csv", "a"))


def test_a_row_that_its_task_cannot_use(cups, imported):
    with pytest.raises(InputError, match=r"a\.csv:2: text: task 'vqa' needs a question"):
        imported("csv", cups("a.csv", "image\nimg/1.jpg\n"), "task=vqa", "image=image")


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_a_list_of_objects_as_albef_has_it(cups, imported):
    entries = [{"image": "img/1.jpg", "caption": "one"}, {"image": ["img/1.jpg", "img/2.jpg"], "caption": ["a", "b"]}]
    rows = imported("json", cups("a.json", entries), "task=caption", "image=image", "targets=caption", out="rows.jsonl")
    assert rows == [
        {"id": "0", "task": "caption", "image": "img/1.jpg", "target": "one"},
        {"id": "1", "task": "caption", "image": ["img/1.jpg", "img/2.jpg"], "target": "a", "targets": ["a", "b"]},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"image": "x"}', "is no list; give the file as published"),
        ("a.json", '[{"image": 3, "caption": "x"}]', r"\[0\]: image: is empty"),
        ("a.json", '[{"image": "img/1.jpg", "caption": {}}]', r"\[0\]: caption: holds a dict"),
        (
            "a.jsonl",
            '{"image": "img/1.jpg", "caption": null}',
            r"a\.jsonl:1: caption: is missing; fields that are there",
        ),
        ("a.jsonl", '{"image": "img/1.jpg", "caption": "\\ud83d"}', r"a\.jsonl:1: is not UTF-8, or holds half"),
        ("a.jsonl", "", "no row came out; the data hold no such entry"),
    ],
)
def test_json_that_gives_no_row(cups, imported, name, content, message):
    with pytest.raises(InputError, match=message):
        imported("json", cups(name, content), "task=caption", "image=image", "targets=caption")


# --- parquet ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path):
    """Write a table as `datasets` does: its features noted in the file's metadata."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as writer

    def put(columns: dict, types: dict | None = None, features: dict | None = None, **options):
        table = pyarrow.table(
            {name: pyarrow.array(values, (types or {}).get(name)) for name, values in columns.items()}
        )
        if features:
            noted = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": noted})
        writer.write_table(table, tmp_path / "train-00000-of-00001.parquet", **options)
        return tmp_path / "train-00000-of-00001.parquet"

    put.image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    return put


def test_pictures_as_bytes_and_classes_as_names(parquet, imported, tmp_path):
    from test_import_ofa import stored

    values = [{"bytes": CUP, "path": "cup.jpg"}, {"bytes": picture("blue"), "path": None}] * 50
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cup", "sea"]}}
    file = parquet(
        {"image": values, "label": [0, 1] * 50, "unused": [1.5] * 100},
        {"image": parquet.image},
        features,
        row_group_size=30,
    )
    rows = imported("parquet", file, "task=name", "image=image", "targets=label")
    assert [row["target"] for row in rows] == ["cup", "sea"] * 50
    assert [row["id"] for row in rows] == [str(number) for number in range(100)]
    assert stored(tmp_path / "out", rows[2]["image"]) == CUP
    assert len({row["image"] for row in rows}) == 2


def test_paths_lists_and_sounds(parquet, write, imported, tmp_path):
    write("img/1.jpg", CUP)
    columns = {
        "image": [{"bytes": None, "path": "img/1.jpg"}],
        "file": ["img/1.jpg"],
        "sound": [{"bytes": b"RIFF....WAVE", "path": "a.wav"}],
        "captions": [["one", "two", ""]],
        "number": [7],
        "box": [[0.0, 0.0, 0.5, 1.0]],
    }
    file = parquet(columns, {"image": parquet.image, "sound": parquet.image})
    [row] = imported("parquet", file, "task=caption", "image=image", "targets=captions", "id=number", out="rows.jsonl")
    assert row == {"id": "7", "task": "caption", "image": "img/1.jpg", "target": "one", "targets": ["one", "two"]}
    [row] = imported(
        "parquet", file, "task=grounding", "image=file", "text=number {number}", "box=box", out="rows.jsonl"
    )
    assert (row["text"], row["box"]) == ("number 7", [0.0, 0.0, 0.5, 1.0])
    [row] = imported("parquet", file, "task=caption", "audio=sound", "targets=number", out="rows.jsonl")
    assert row["audio"].endswith(".wav")


def test_parquet_that_cannot_be_read(parquet, write, imported, problems):
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as parquet"):
        imported("parquet", write("a.parquet", "PAR1 no"), "task=name", "image=image")
    file = parquet({"image": ["img/1.jpg", None]})
    with pytest.raises(InputError, match="targets: there is no column 'label'; columns: 'image'"):
        imported("parquet", file, "task=name", "image=image", "targets=label")
    write("img/1.jpg", CUP)
    imported("parquet", file, "task=name", "image=image", allow=0.5)
    assert problems() == ["train-00000-of-00001.parquet: [1]: image: is missing; fields that are there: image"]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_for_each_class(write, imported, tmp_path):
    for name in ("train/n02/b.png", "train/n02/deeper/c.JPEG", "train/n01/a.jpg", "train/n01/a.png"):
        write(name, CUP)
    write("train/n01/notes.txt", "x")
    write("train/n01/.hidden.jpg", "x")
    names = write("synset_words.txt", "n01 tench, Tinca tinca\nn02\tgoldfish\n")
    answers = tmp_path / "classes.txt"
    words = (f"names={names}", "first=true", f"answers={answers}")
    rows = imported("folders", tmp_path / "train", *words, out="train/rows.jsonl")
    assert rows == [
        {"id": "n01/a", "task": "name", "image": "n01/a.jpg", "target": "tench"},
        {"id": "n01/a-2", "task": "name", "image": "n01/a.png", "target": "tench"},
        {"id": "n02/b", "task": "name", "image": "n02/b.png", "target": "goldfish"},
        {"id": "deeper/c", "task": "name", "image": "n02/deeper/c.JPEG", "target": "goldfish"},
    ]
    assert answers.read_text() == "tench\ngoldfish\n"
    assert imported.report.left_out == {"that are no picture, clip or sound": 2}


def test_folders_that_are_none(write, imported, tmp_path):
    with pytest.raises(InputError, match=r"a\.txt: is no folder"):
        imported("folders", write("a.txt", "x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no folders"):
        imported("folders", tmp_path / "empty")
    write("train/n01/a.jpg", CUP)
    with pytest.raises(InputError, match=r"names\.txt:1: has one word only"):
        imported("folders", tmp_path / "train", f"names={write('names.txt', 'n01')}")

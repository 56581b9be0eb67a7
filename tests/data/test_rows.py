"""Rows: the documented examples, the exact message for each kind of mistake, files, and the way back."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monoglot.data.rows import KNOWN_KEYS, check_rows, parse_row, picture_size, read_rows, sample_to_row, write_rows
from monoglot.errors import InputError, MediaError
from monoglot.nouns import Media, Sample

DOC = Path(__file__).parents[2] / "docs" / "rows.md"
ROW = {"id": "a", "task": "vqa", "text": "colour?", "target": "red"}


def documented_rows() -> list[dict]:
    blocks = re.findall(r"```json\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def message(row, **options) -> str:
    with pytest.raises(InputError) as error:
        parse_row(row, where_file="rows.jsonl", line=3, **options)
    return str(error.value)


def file_of(folder: Path, *lines) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------ what is right


@pytest.fixture
def picture_folder(tmp_path):
    (tmp_path / "img").mkdir()
    Image.new("RGB", (640, 480)).save(tmp_path / "img" / "17.jpg")
    return tmp_path


@pytest.mark.parametrize("row", documented_rows(), ids=lambda row: f"{row['id']}-{row['task']}")
def test_documented_rows_are_read_and_come_back(row, picture_folder):
    sample = parse_row(row, base=picture_folder)
    assert sample.id == row["id"]
    assert sample.task == row["task"]
    again = parse_row(sample_to_row(sample, base=picture_folder), base=picture_folder)
    assert again == sample


def test_document_names_every_key():
    table = DOC.read_text(encoding="utf-8").split("## One row")[0]
    assert [key for key in KNOWN_KEYS if f"`{key}`" not in table] == []


def test_every_field():
    row = {
        **{"id": 17, "task": "vqa", "audio": ["a.wav", "/b.wav"], "image": "tar://s.tar#x.png", "video": "c.mp4"},
        **{"start": 1, "end": 2.5, "text": "?", "target": "no", "targets": ["yes", "no"], "choices": ["yes", "no"]},
        **{"box": [0, 0.25, 1, 1], "lang": "ja", "weight": 2, "speaker": "anna", "style": None},
    }
    assert parse_row(row, where_file="d/rows.jsonl", line=9, base="d") == Sample(
        id="17",
        task="vqa",
        media=(
            Media("audio", "d/a.wav", 1.0, 2.5),
            Media("audio", "/b.wav", 1.0, 2.5),
            Media("image", "tar://d/s.tar#x.png"),
            Media("video", "d/c.mp4", 1.0, 2.5),
        ),
        text="?",
        targets=("no", "yes"),
        box=(0.0, 0.25, 1.0, 1.0),
        choices=("yes", "no"),
        lang="ja",
        weight=2.0,
        meta={"speaker": "anna", "style": None},
        where="d/rows.jsonl:9",
    )


def test_null_is_absent():
    nothing = dict.fromkeys(KNOWN_KEYS)
    assert parse_row({**nothing, **ROW}, line=1) == parse_row(ROW, line=1)


def test_id_defaults_to_the_line():
    assert parse_row({"task": "vqa", "text": "?"}, line=12).id == "12"


def test_target_may_be_a_list_or_empty():
    assert parse_row({**ROW, "target": "a", "targets": ["b", "a", "a", "b"]}).targets == ("a", "b", "a", "b")
    assert parse_row({**ROW, "target": ""}).targets == ("",)  # the transcript of silence


def test_pixel_box_uses_the_size_as_shown(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (640, 480)).save(tmp_path / "plain.png")
    Image.new("RGB", (640, 480)).save(tmp_path / "turned.jpg", exif=turned)
    row = {"task": "grounding", "text": "x", "box": [64, 120, 240, 480], "box_unit": "pixel"}
    assert parse_row({**row, "image": "plain.png"}, base=tmp_path).box == (0.1, 0.25, 0.375, 1.0)
    assert parse_row({**row, "image": "turned.jpg"}, base=tmp_path).box == (64 / 480, 120 / 640, 0.5, 0.75)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "plain.png", "in/plain.png")
    assert parse_row({**row, "image": "tar://s.tar#in/plain.png"}, base=tmp_path).box == (0.1, 0.25, 0.375, 1.0)
    assert picture_size(str(tmp_path / "turned.jpg")) == (640, 480)


def test_rounding_just_outside_a_fraction_is_clipped():
    assert parse_row({**ROW, "box": [-1e-9, 0, 1.0000000001, 1]}).box == (0.0, 0.0, 1.0, 1.0)


# ------------------------------------------------------------------------------------------------------ what is wrong

PIXEL_HINT = 'pixel boxes are the usual cause: give fractions, or add "box_unit": "pixel"'
CORNERS = "expected the corners x0 y0 x1 y1, not x y width height"
CHOICES = "expected a list of at least two different strings"
STRINGS = "expected a string or a list of strings"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": ""}, "id: is an empty string; expected a string that is not empty, or a whole number"),
        ({"id": 1.5}, "id: is 1.5; expected a string that is not empty, or a whole number"),
        ({"id": True}, "id: is true; expected a string that is not empty, or a whole number"),
        ({"task": None}, "task: missing; every row names its task, such as 'caption' or 'vqa'"),
        ({"task": 3}, "task: is 3; expected the name of a task"),
        ({"text": ["a"]}, 'text: is a list: ["a"]; expected a string'),
        ({"text": ""}, "text: nothing to read; give at least one of text, image, video, audio"),
        ({"image": 3}, "image: is 3; expected a path or a list of paths"),
        ({"image": ["a.png", ""]}, "image: is an empty string; expected a path or a list of paths"),
        ({"video": []}, "video: is an empty list; leave the key out, or give a path"),
        (
            {"audio": "https://example.org/a.wav"},
            "audio: 'https://example.org/a.wav' cannot be read; expected a local file or tar://shard.tar#member",
        ),
        (
            {"image": "tar://shard.tar"},
            "image: 'tar://shard.tar' cannot be read; expected a local file or tar://shard.tar#member",
        ),
        ({"video": "c.mp4", "start": "2"}, "start: is the string '2'; expected seconds, 0 or more"),
        ({"video": "c.mp4", "start": -2}, "start: is -2; expected seconds, 0 or more"),
        (
            {"audio": "c.wav", "start": 2, "end": 2.0},
            "end: 2 does not come after start 2; expected start < end, in seconds",
        ),
        ({"audio": "c.wav", "end": 0}, "end: 0 does not come after start 0; expected start < end, in seconds"),
        ({"end": 2}, "end: there is no video or audio in this row; leave it out: a picture has no time"),
        ({"target": 3}, f"target: is 3; {STRINGS}"),
        ({"targets": []}, f"targets: is an empty list; {STRINGS}"),
        ({"targets": ["a", None]}, f"targets: holds null; {STRINGS}"),
        ({"choices": "red,blue"}, f"choices: is the string 'red,blue'; {CHOICES}"),
        ({"choices": ["red"]}, f"choices: has 1 item; {CHOICES}"),
        ({"choices": []}, f"choices: has 0 items; {CHOICES}"),
        ({"choices": ["red", 2]}, f"choices: holds 2; {CHOICES}"),
        ({"choices": ["red", "blue", "red"]}, f"choices: 'red' stands there twice; {CHOICES}"),
        ({"choices": ["blue", "green"]}, "target: 'red' is not among the choices; expected one of 'blue', 'green'"),
        ({"box": [1, 2, 3]}, "box: is a list: [1, 2, 3]; expected four numbers x0 y0 x1 y1"),
        ({"box": "0 0 1 1"}, "box: is the string '0 0 1 1'; expected four numbers x0 y0 x1 y1"),
        ({"box": [0, 0, True, 1]}, "box: is a list: [0, 0, true, 1]; expected four numbers x0 y0 x1 y1"),
        ({"box": [64, 120, 256, 432]}, f"box: [64, 120, 256, 432] lies outside [0, 1]; {PIXEL_HINT}"),
        ({"box": [-0.1, 0, 1, 1]}, f"box: [-0.1, 0, 1, 1] lies outside [0, 1]; {PIXEL_HINT}"),
        ({"box": [0.5, 0, 0.2, 1]}, f"box: [0.5, 0, 0.2, 1] has x1 <= x0; {CORNERS}"),
        ({"box": [0, 0.5, 1, 0.5]}, f"box: [0, 0.5, 1, 0.5] has y1 <= y0; {CORNERS}"),
        (
            {"box": [0, 0, 1, 1], "box_unit": "px"},
            "box_unit: is the string 'px'; expected 'fraction' (what is meant without it) or 'pixel'",
        ),
        ({"box_unit": "pixel"}, "box_unit: there is no box; leave it out, or give a box"),
        (
            {"box": [0, 0, 9, 9], "box_unit": "pixel"},
            "box_unit: there is no picture to measure pixels on; give an image, or the box as fractions",
        ),
        (
            {"box": [0, 0, 9, 9], "box_unit": "pixel", "image": "gone.png"},
            "image: its size is needed for a pixel box: gone.png: no such file",
        ),
        ({"lang": 5}, "lang: is 5; expected a language code such as 'en' or 'ja'"),
        ({"weight": 0}, "weight: is 0; expected a number above 0"),
        ({"weight": "1"}, "weight: is the string '1'; expected a number above 0"),
        ({"weight": float("inf")}, "weight: is inf; expected a number above 0"),
        ({"weight": 10**400}, "weight: is 100000000000000000000000000000000000000000000000000000000...; "
         "expected a number above 0"),
        ({"traget": "red"}, "traget: unknown key; did you mean 'target'?"),
        ({"Image": "a.png"}, "Image: unknown key; did you mean 'image'?"),
        ({"box-unit": "pixel"}, "box-unit: unknown key; did you mean 'box_unit'?"),
    ],
)  # fmt: skip
def test_message(change, expected):
    assert message({**ROW, **change}) == f"rows.jsonl:3: {expected}"


def test_message_of_a_pixel_box_outside_the_picture(picture_folder):
    row = {**ROW, "image": "img/17.jpg", "box": [0, 0, 641, 480], "box_unit": "pixel"}
    assert message(row, base=picture_folder) == (
        "rows.jsonl:3: box: [0, 0, 641, 480] lies outside the picture (640 wide, 480 high); "
        "expected x0 y0 x1 y1 in pixels"
    )
    (picture_folder / "text.png").write_text("no picture")
    row |= {"image": "text.png", "box": [0, 0, 64, 48]}
    assert message(row, base=picture_folder).endswith("text.png: not a picture that can be read")


def test_message_of_an_unknown_task():
    assert message({**ROW, "task": "captoin"}, known_tasks=["caption", "vqa"]) == (
        "rows.jsonl:3: task: no task named 'captoin'; closest: 'caption'; known: caption, vqa"
    )


def test_message_of_a_row_that_is_no_object():
    assert message(["a"]) == 'rows.jsonl:3: is a list: ["a"]; expected one JSON object a line'


@pytest.mark.parametrize(
    "key",
    ["idx", "image_id", "mask", "speaker", "style", "kit", "group", "concept", "licence", "source", "context", "test"],
)
def test_other_keys_are_kept(key):
    assert parse_row({**ROW, key: 1}).meta == {key: 1}


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id": "b", ', "broken JSON at character 12: Expecting property name enclosed in double quotes"),
        (b'{"weight": NaN}', "NaN is not JSON"),
        (b'{"weight": -Infinity}', "-Infinity is not JSON"),
        (b'{"image": "a", "image": "b"}', "the key 'image' stands there twice"),
        (b"[1, 2]", "is a list: [1, 2]"),
        (b'"text"', "is the string 'text'"),
        (b"null", "is null"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_message_of_a_broken_line(tmp_path, line, expected):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + line + b"\n")
    rows = read_rows(path)
    assert next(rows).id == "a"
    with pytest.raises(InputError) as error:
        next(rows)
    assert str(error.value) == f"{path}:2: {expected}; expected one JSON object a line"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"text": "caf\xe9"}', "byte 14 is not UTF-8; save the file as UTF-8"),
        ('{"id": 1}\n'.encode("utf-16"), "byte 1 is not UTF-8 (it looks like UTF-16); save the file as UTF-8"),
        (b'{"text": "\\ud83d"}', "a \\u escape is half of a surrogate pair; write the character itself"),
    ],
)
def test_message_of_wrong_characters(tmp_path, data, expected):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        list(read_rows(path))
    assert str(error.value) == f"{path}:1: {expected}"


def test_bom_crlf_blank_lines_and_pairs_of_surrogates_are_fine(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"task": "vqa", "text": "日本 🐕"})  # ASCII: the dog is written as a surrogate pair
    path.write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n\r\n  \n{row}".encode())
    assert [(s.id, s.text) for s in read_rows(path)] == [("1", "日本 🐕"), ("4", "日本 🐕")]


def test_an_empty_file_has_no_rows(tmp_path):
    assert list(read_rows(file_of(tmp_path))) == []


def test_duplicate_ids_name_both_lines(tmp_path):
    path = file_of(tmp_path, ROW, {**ROW, "id": 7}, "", {**ROW, "id": "7"})
    with pytest.raises(InputError) as error:
        list(read_rows(path))
    assert str(error.value) == f"{path}:4: id: '7' is also the id of line 2; expected unique ids"


def test_a_missing_file_is_told_at_once(tmp_path):
    with pytest.raises(InputError, match=r"gone.jsonl: no such file; expected a JSONL file of rows"):
        read_rows(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match=r"is a folder; expected a JSONL file of rows"):
        check_rows(tmp_path)


def test_not_strict_yields_the_good_rows_and_tells_each_bad_one_once(tmp_path):
    path = file_of(tmp_path, ROW, {**ROW, "id": "b", "weight": 0, "lang": 1}, "{", {**ROW, "id": "c"})
    told = []
    assert [sample.id for sample in read_rows(path, strict=False, on_error=told.append)] == ["a", "c"]
    assert [str(error).split(":", 2)[1] for error in told] == ["2", "3"]
    with pytest.raises(ValueError, match="needs on_error"):
        read_rows(path, strict=False)


def test_reading_is_lazy(tmp_path):
    rows = read_rows(file_of(tmp_path, ROW, "{"))
    assert next(rows).where == f"{tmp_path}/rows.jsonl:1"


def test_check_rows_tells_every_problem_and_counts(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "empty.wav").touch()
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        info = tarfile.TarInfo("x.png")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    path = file_of(
        tmp_path,
        {**ROW, "image": "a.png", "kit": "x"},
        {**ROW, "id": "b", "image": ["a.png", "gone.png"], "weight": 0, "lang": ""},
        {"id": "c", "task": "caption", "audio": "empty.wav"},
        {"id": "d", "task": "caption", "image": "tar://s.tar#x.png"},
        {"id": "e", "task": "caption", "image": "tar://s.tar#y.png"},
        {"id": "f", "task": "caption", "image": "tar://t.tar#x.png"},
        {"id": "f", "task": "nap", "text": "x"},
    )
    report = check_rows(path, known_tasks=("vqa", "caption"))
    start = "paths start from the folder of the row's file"
    assert report.problems == [
        f"{path}:2: lang: is an empty string; expected a language code such as 'en' or 'ja'",
        f"{path}:2: weight: is 0; expected a number above 0",
        f"{path}:2: image: no such file: {tmp_path}/gone.png; {start}",
        f"{path}:3: audio: the file is empty: {tmp_path}/empty.wav",
        f"{path}:5: image: no member 'y.png' in {tmp_path}/s.tar",
        f"{path}:6: image: no such shard, or not a tar file: {tmp_path}/t.tar; {start}",
        f"{path}:7: task: no task named 'nap'; known: caption, vqa",
        f"{path}:7: id: 'f' is also the id of line 6; expected unique ids",
    ]
    assert (report.rows, report.good, report.ok, report.without_target) == (7, 2, False, 1)
    assert report.tasks == {"vqa": 1, "caption": 1}
    assert report.modalities == {"image": 2, "text": 1}
    assert report.extra_keys == {"kit": 1}


# -------------------------------------------------------------------------------------------------------------- write


def test_write_rows_is_atomic_and_reads_back(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert write_rows(path, [ROW, {**ROW, "id": "b", "text": "色は？\u2028"}]) == 2
    assert [s.text for s in read_rows(path)] == ["colour?", "色は？\u2028"]
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"rows.jsonl:2: cannot be written as JSON: Out of range float"):
        write_rows(path, [ROW, {**ROW, "weight": float("nan")}])
    with pytest.raises(ZeroDivisionError):
        write_rows(path, ({"id": 1 // n} for n in (1, 0)))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["rows.jsonl"]


def test_sample_to_row_refuses_what_a_row_cannot_say():
    def refuse(*media):
        with pytest.raises(InputError) as error:
            sample_to_row(Sample("s", "caption", media))
        return str(error.value)

    assert refuse(Media("image", b"")) == "s: image: is an object in memory; save it to a file first"
    assert refuse(Media("image", "a"), Media("audio", "b"), Media("image", "c")) == (
        "s: image: stands in two places; a row keeps one modality together"
    )
    assert refuse(Media("audio", "a", 0.0, 1.0), Media("video", "b")) == (
        "s: start: the media have different windows; a row has one start and one end"
    )


def test_sample_to_row_writes_media_relative_to_the_new_file(tmp_path):
    inside, outside = f"{tmp_path}/rows/a.png", f"{tmp_path}/b.png"
    sample = Sample("s", "caption", tuple(Media("image", s) for s in (inside, outside, f"tar://{inside}#m")))
    assert sample_to_row(sample, base=tmp_path / "rows")["image"] == ["a.png", outside, "tar://a.png#m"]


texts = st.text(min_size=1).filter(str.strip)
media = st.lists(texts.filter(lambda s: "\0" not in s and "://" not in s), min_size=1, max_size=3)
rows = st.fixed_dictionaries(
    {"id": texts, "task": texts, "text": texts},
    optional={
        "image": media,
        "audio": media,
        "targets": st.lists(st.text(), min_size=1, max_size=3),
        "box": st.tuples(*[st.floats(0, 0.49)] * 2, *[st.floats(0.5, 1)] * 2).map(list),
        "weight": st.floats(0.01, 100),
        "lang": texts,
        "speaker": st.none() | st.text() | st.lists(st.integers()),
    },
)


@given(rows)
def test_any_row_survives_the_way_there_and_back(row):
    sample = parse_row(row)
    assert parse_row(json.loads(json.dumps(sample_to_row(sample)))) == sample


def test_media_errors_are_input_errors():
    assert issubclass(MediaError, InputError)
    with pytest.raises(MediaError, match="no such file"):
        picture_size("gone.png")

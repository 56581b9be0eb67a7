"""TSV files of OFA and UnIVAL: every layout, bytes of pictures there and back, memory, wrong lines."""

from __future__ import annotations

import base64
import io
import tarfile

import pytest
from miniature import picture
from PIL import Image

from monoglot.data.importers import import_rows, make_kind, shards
from monoglot.data.importers.ofa import LAYOUTS, READERS, TYPES
from monoglot.errors import InputError
from monoglot.modalities.source import open_source
from monoglot.nouns import Media

RED, BLUE = picture("red"), picture("blue", (200, 100), "PNG")


def plain(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url_safe(data: bytes) -> str:
    """As ImageNet's file has it: the other alphabet, no "=" at the end."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def tsv(*lines: tuple) -> str:
    return "".join("\t".join(map(str, line)) + "\n" for line in lines)


def stored(folder, path: str) -> bytes:
    """The bytes of a row's picture, by the tarfile module."""
    shard, _, member = path.removeprefix("tar://").partition("#")
    with tarfile.open(folder / shard) as tar:
        return tar.extractfile(member).read()


def test_pictures_come_back_byte_by_byte(write, imported, tmp_path):
    lines = [
        ("162365", "12455", "the sun sets over the trees.", "sky&&water", plain(RED)),
        ("162366", "12456", "a dog&&a brown dog ", "dog", url_safe(BLUE)),
        ("162367", "12455", "the sun again", "", plain(RED)),
    ]
    rows = imported("ofa", write("caption_val.tsv", tsv(*lines)), "layout=caption")
    assert [stored(tmp_path / "out", row["image"]) for row in rows] == [RED, BLUE, RED]
    with open_source(Media("image", f"tar://{tmp_path}/out/" + rows[1]["image"].removeprefix("tar://")))[0] as file:
        assert file.read() == BLUE
    assert [{**row, "image": row["image"][-4:]} for row in rows] == [
        {"id": "162365", "task": "caption", "image": ".jpg", "target": "the sun sets over the trees."},
        {"id": "162366", "task": "caption", "image": ".png", "target": "a dog", "targets": ["a dog", "a brown dog"]},
        {"id": "162367", "task": "caption", "image": ".jpg", "target": "the sun again"},
    ]
    assert rows[0]["image"] == rows[2]["image"]
    with tarfile.open(tmp_path / "out/rows.shards/00000.tar") as tar:
        assert len(tar.getnames()) == 2


def test_shards_are_closed_when_full_and_the_same_each_time(write, imported, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 4096)
    monkeypatch.setattr(shards, "REMEMBERED", 3)
    pictures = [picture((index, 0, 0), (64, 64), "BMP") for index in range(6)]
    lines = [(index, "", "red", "", plain(data)) for index, data in enumerate([*pictures, pictures[0], pictures[5]])]
    file = write("caption.tsv", tsv(*lines))
    rows = imported("ofa", file, "layout=caption")
    assert [stored(tmp_path / "out", row["image"]) for row in rows] == [*pictures, pictures[0], pictures[5]]
    written = sorted((tmp_path / "out/rows.shards").iterdir())
    assert len(written) == 7  # six, and the first again: it was forgotten
    imported("ofa", file, "layout=caption", out="again/rows.jsonl")
    for first in written:
        assert first.read_bytes() == (tmp_path / "again/rows.shards" / first.name).read_bytes()


def test_vqa_answers_with_their_confidence(write, imported):
    lines = [
        ("79459", "79459", "is this person wearing shorts?", "0.6|!+no", "house&&short", plain(RED)),
        ("79460", "79459", "who?", "0.3|!+man&&1.0|!+a boy", "", plain(RED)),
        ("79460", "79459", "who?", "0.3|!+man", "", plain(RED)),
    ]
    file = write("vqa.tsv", tsv(*lines))
    rows = imported("ofa", file, "layout=vqa")
    assert [(row["id"], row["target"], row.get("targets"), row["weight"]) for row in rows] == [
        ("79459", "no", None, 0.6),
        ("79460", "a boy", ["a boy", "man"], 1.0),
        ("79460-3", "man", None, 0.3),
    ]
    assert imported.report.renamed == 1
    rows = imported("ofa", file, "layout=vqa", "references=apart")
    assert [(row["id"], row["target"], row["weight"]) for row in rows] == [
        ("79459", "no", 0.6),
        ("79460-0", "a boy", 1.0),
        ("79460-1", "man", 0.3),
        ("79460", "man", 0.3),
    ]


def test_boxes_are_fractions_of_the_picture_inside(write, imported):
    line = ("79_1", "237367", "A woman in white.", "20,25,100.0,200.5", url_safe(picture(size=(200, 200))))
    [row] = imported("ofa", write("refcoco_val.tsv", tsv(line)), "layout=refcoco")
    assert row["box"] == [0.1, 0.125, 0.5, 1.0]
    assert (row["task"], row["text"]) == ("grounding", "A woman in white.")


def test_a_box_on_a_picture_that_is_shown_turned_is_refused(write, imported, problems):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(file, "JPEG", exif=exif)
    lines = [(1, 2, "it", "0,0,50,50", plain(data)) for data in (file.getvalue(), picture())]
    lines[1] = (2, 2, "it", "0,0,32,24", plain(picture()))
    [row] = imported("ofa", write("refcoco.tsv", tsv(*lines)), "layout=refcoco", allow=0.5)
    assert row["box"] == [0.0, 0.0, 0.5, 0.5]
    assert problems()[0].startswith("refcoco.tsv:1: image: is shown turned, by its EXIF")


OTHERS = {
    "snli_ve": (
        ("252244149.jpg#1r1n", "252244149", plain(RED), "a man chews.", "a premise", "neutral "),
        {"task": "entailment", "text": "a man chews.", "target": "maybe"},
    ),
    "image_gen": (
        ("1", "6674 4336 4532", "the people are posing."),
        {"task": "generate_image", "text": "the people are posing.", "target": "6674 4336 4532"},
    ),
    "imagenet": ((url_safe(RED), "769", "rugby ball"), {"task": "name", "target": "rugby ball"}),
    "detection": (
        ("1", plain(BLUE), "20,10,100,50,/m/04yx4,man ( smile, stand )&&0,0,200,100,/m/01,suit"),
        {"task": "detect", "target": "man ( smile, stand ) 0.100 0.100 0.500 0.500; suit 0.000 0.000 1.000 1.000"},
    ),
    "infill_image": (("1", plain(RED), "17 4095"), {"task": "infill_image", "target": "17 4095"}),
    "text": (("1", "a whole text"), {"task": "infill", "text": "a whole text", "target": "a whole text"}),
    "video_caption": (
        ("0", "video7", "a man&&men", "", "msrvtt/video7.mp4"),
        {"task": "caption", "video": "data/msrvtt/video7.mp4", "target": "a man", "targets": ["a man", "men"]},
    ),
    "video_vqa": (
        ("0", "video7", "what?", "1.0|!+ball", "", "msrvtt/video7.mp4"),
        {"task": "vqa", "video": "data/msrvtt/video7.mp4", "text": "what?", "target": "ball", "weight": 1.0},
    ),
    "audio_caption": (
        ("0", "a", "rain falls", "", "audiocaps/a.wav"),
        {"task": "caption", "audio": "data/audiocaps/a.wav", "target": "rain falls"},
    ),
}


@pytest.mark.parametrize("layout", OTHERS)
def test_other_layouts(write, imported, tmp_path, layout):
    write("data/msrvtt/video7.mp4", "film")
    write("data/audiocaps/a.wav", "sound")
    line, expected = OTHERS[layout]
    file = write("any.tsv", tsv(line).replace("\n", "\r\n"))
    [row] = imported("ofa", file, f"layout={layout}", media=tmp_path / "data", out="rows.jsonl")
    assert row.pop("id") == (
        "252244149.jpg#1r1n" if layout == "snli_ve" else (row["task"] == "name" and "1") or line[0]
    )
    image = row.pop("image", None)
    assert row == expected
    if image is not None:
        assert stored(tmp_path, image) in (RED, BLUE)


def test_a_mixed_file_of_pretraining(write, imported, tmp_path, problems):
    write("data/coco/images/1.jpg", picture(size=(100, 100)))
    write("data/webvid/1.mp4", "film")
    lines = [
        (0, "coco/images/1.jpg", "a man", "", "", "man", "coco_karp", "caption"),
        (1, plain(RED), "", "what color", "0.5|!+red&&0.5|!+dark red", "", "vqa", "qa"),
        (2, "coco/images/1.jpg", "the man", "", "10.00,20.00,30.00,40.00", "", "refcoco_train", "visual_grounding"),
        (3, "webvid/1.mp4", "clouds", "", "", "", "webvid", "video_caption"),
        (4, "webvid/1.mp4", "", "what moves?", "1.0|!+clouds", "", "webvid", "video_qa"),
        (5, plain(RED), "film", "", "", "", "webvid", "video_caption"),
        (6, "x", "", "", "", "", "x", "detection"),
    ]
    file = write("mixed.tsv", tsv(*lines))
    options = {"media": tmp_path / "data", "out": "rows.jsonl", "allow": 0.5}
    rows = imported("ofa", file, "layout=pretraining", **options)
    rows[1]["image"] = "in a shard"
    image, video = "data/coco/images/1.jpg", "data/webvid/1.mp4"
    assert rows == [
        {"id": "0", "task": "caption", "image": image, "target": "a man"},
        {
            **{"id": "1", "task": "vqa", "image": "in a shard", "text": "what color", "target": "red"},
            **{"targets": ["red", "dark red"], "weight": 0.5},
        },
        {"id": "2", "task": "grounding", "image": image, "text": "the man", "box": [0.1, 0.2, 0.3, 0.4]},
        {"id": "3", "task": "caption", "video": video, "target": "clouds"},
        {"id": "4", "task": "vqa", "video": video, "text": "what moves?", "target": "clouds", "weight": 1.0},
    ]
    first, second = problems("rows.jsonl")
    assert first == "mixed.tsv:6: media: is no path; a video is named by its path"
    assert second.startswith("mixed.tsv:7: type: is 'detection'; expected one of caption, qa, visual_grounding")
    rows = imported("ofa", file, "layout=pretraining", "task=grounding", **options)
    assert [row["task"] for row in rows] == ["grounding"]
    assert imported.report.left_out == {"of task caption": 3, "of task vqa": 2}


def test_every_layout_and_type_has_a_reader_and_a_test():
    assert set(LAYOUTS) - {"pretraining"} <= set(READERS)
    assert {task for _, task in TYPES.values()} <= set(READERS)
    assert set(LAYOUTS) == {*OTHERS, "caption", "vqa", "refcoco", "pretraining"}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("/9j/4AAQ*", "image: is neither a path nor base64"),
        ("A", "image: is neither a path nor base64"),
        ("AAAA", "image: not a picture that can be read"),
        ("", "image: is empty"),
        (plain(RED)[:40], "image: not a picture that can be read"),
        ("\xe9", "image: is neither a path nor base64"),
    ],
)
def test_broken_base64(write, imported, problems, column, message):
    lines = [("1", "", "good", "", plain(RED)), ("2", "", "bad", "", column), ("3", "", "good", "", plain(BLUE))]
    rows = imported("ofa", write("caption.tsv", tsv(*lines)), "layout=caption", allow=0.5)
    assert [row["id"] for row in rows] == ["1", "3"]
    [problem] = problems()
    assert problem.startswith(f"caption.tsv:2: {message}")


def test_lines_with_other_columns(write, imported, problems):
    good = ("1", "", "good", "", plain(RED))
    content = tsv(good, ("2", "x"), good).encode() + b"\n" + b"4\t\t\xff\t\t" + plain(RED).encode()
    rows = imported("ofa", write("caption.tsv", content), "layout=caption", allow=0.5)
    assert [row["id"] for row in rows] == ["1", "1-3"]
    assert problems() == [
        "caption.tsv:2: has 2 columns; layout caption has 5: id, image_id, caption, objects, image",
        "caption.tsv:5: is not UTF-8 ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte); save it as UTF-8",
    ]


@pytest.mark.parametrize("answers", ["no", "0.6|!+", "a|!+no", "0|!+no", "0.3|!+a&&b", "-1|!+no", ""])
def test_broken_answers(write, imported, answers):
    line = ("1", "", "who?", answers, "", plain(RED))
    with pytest.raises(InputError, match=r"vqa\.tsv:1: answers: "):
        imported("ofa", write("vqa.tsv", tsv(line)), "layout=vqa")


def test_memory_does_not_grow_with_the_lines(write, tmp_path):
    """Ten times as many lines, hardly more memory at the highest point."""
    import tracemalloc

    data = [plain(picture((index, 0, 0))) for index in range(8)]
    highest = []
    for count in (200, 2000):
        lines = [(index, "", f"caption {index}", "", data[index % 8]) for index in range(count)]
        file = write(f"{count}.tsv", tsv(*lines))
        tracemalloc.start()
        import_rows(make_kind("ofa", [str(file), "layout=caption"]), tmp_path / f"{count}.jsonl")
        highest.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert highest[1] - highest[0] < 200_000

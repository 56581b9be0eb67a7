"""RefCOCO: boxes as fractions, and pickles that would do something."""

from __future__ import annotations

import collections
import os
import pickle

import numpy as np
import pytest
from miniature import picture

from monoglot.data.importers.refer import read_plain_pickle
from monoglot.errors import InputError

REFS = [
    {
        "sent_ids": [0, 1],
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "ann_id": 1719310,
        "ref_id": 0,
        "image_id": 581857,
        "split": "train",
        "sentences": [
            {"tokens": ["the", "lady"], "raw": "THE LADY", "sent_id": 0, "sent": "the lady"},
            {"tokens": ["lady"], "raw": "lady ", "sent_id": 1, "sent": "lady "},
        ],
        "category_id": 1,
    },
    {"ann_id": 7, "ref_id": 1, "image_id": 581857, "split": "testA", "sentences": [{"sent_id": 2, "sent": "the rest"}]},
    {"ann_id": 8, "ref_id": 2, "image_id": 581857, "split": "val", "sentences": [{"sent_id": 3, "sent": "gone"}]},
]
INSTANCES = {
    "images": [{"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "height": 400, "width": 640}],
    "annotations": [
        {"id": 1719310, "image_id": 581857, "bbox": [64.0, 100.0, 128.0, 200.0], "area": 1.0, "category_id": 1},
        {"id": 7, "image_id": 581857, "bbox": [0, 0, 640.4, 400]},
    ],
    "categories": [{"id": 1, "name": "person"}],
}


@pytest.fixture
def instances(write):
    write("images/COCO_train2014_000000581857.jpg", picture(size=(640, 400)))
    return write("instances.json", INSTANCES)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_rows_of_a_split(write, imported, instances, tmp_path, protocol):
    refs = write("refs(unc).p", pickle.dumps(REFS, protocol=protocol))
    image = str(tmp_path / "images/COCO_train2014_000000581857.jpg")
    rows = imported("refcoco", refs, instances, "split=train", media=tmp_path / "images")
    assert rows == [
        {"id": "0-0", "task": "grounding", "image": image, "text": "the lady", "box": [0.1, 0.25, 0.3, 0.75]},
        {"id": "0-1", "task": "grounding", "image": image, "text": "lady", "box": [0.1, 0.25, 0.3, 0.75]},
    ]


def test_region_captions_boxes_at_the_rim_and_missing_boxes(write, imported, instances, tmp_path, problems):
    refs = write("refs(umd).p", pickle.dumps(REFS))
    words = (refs, instances, "split=testA,val", "task=region_caption")
    rows = imported("refcoco", *words, media=tmp_path / "images", allow=0.5, out="rows.jsonl")
    image = "images/COCO_train2014_000000581857.jpg"
    assert rows == [
        {"id": "1-2", "task": "region_caption", "image": image, "target": "the rest", "box": [0.0, 0.0, 1.0, 1.0]}
    ]
    assert problems("rows.jsonl") == [
        "refs(umd).p: [2]: ann_id: 8 is not in instances.json; give the one that goes with it"
    ]


def test_texts_of_python_2(write):
    """Its strings are bytes: protocol 2 with the opcode for them, as the published files have it."""
    body = b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x05caf\xc3\xa9q\x03U\x02noq\x04K\x01ua."
    assert read_plain_pickle(write("refs.p", body), "x") == [{"sent": "café", "no": 1}]


def test_a_text_that_is_not_utf8_costs_its_row_only(write, imported, instances, tmp_path, problems):
    refs = pickle.dumps(REFS[:1], protocol=2).replace(b"X\x05\x00\x00\x00lady ", b"U\x05lad\xe9 ")
    rows = imported("refcoco", write("refs.p", refs), instances, media=tmp_path / "images", allow=0.5)
    assert [row["text"] for row in rows] == ["the lady"]
    assert "refs.p: [0].sentences[1]: is not UTF-8" in problems()[0]


class Calls:
    """Unpickled anywhere else, this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_something_is_refused(write, imported, instances, tmp_path):
    refs = write("refs(unc).p", pickle.dumps([Calls(tmp_path / "broken_into")]))
    with pytest.raises(
        InputError, match=r"refs\(unc\)\.p: is no plain pickle: names posix\.mkdir, which is neither list"
    ):
        imported("refcoco", refs, instances)
    assert not (tmp_path / "broken_into").exists()
    assert not (tmp_path / "out/rows.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"names os\.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", r"names builtins\.eval"),
        (pickle.dumps(collections.OrderedDict(a=1)), r"names collections\.OrderedDict"),
        (pickle.dumps(np.float64(1)), r"names numpy"),
        (b"Pid\n.", "refers to something outside"),
        (b"(S'a'\nios\nsystem\n.", r"names os\.system"),
        (b"", "Ran out of input"),
        (b"not a pickle", "is no plain pickle"),
        (pickle.dumps(REFS)[:-20], "is no plain pickle"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "is no plain pickle"),
    ],
)
def test_hostile_and_broken_pickles(write, content, reason):
    with pytest.raises(InputError, match=reason):
        read_plain_pickle(write("refs.p", content), "refs(unc).p")


def test_both_files_are_needed(write, imported, instances):
    with pytest.raises(InputError, match=r"refs\(unc\)\.p, refs\(google\)\.p or refs\(umd\)\.p is missing; give both"):
        imported("refcoco", instances)
    with pytest.raises(InputError, match=r"instances\.json is missing"):
        imported("refcoco", write("refs.p", pickle.dumps(REFS)))


@pytest.mark.parametrize("bbox", [[0, 0, 0, 5], [600, 0, 64, 5], [-9, 0, 20, 5], [0, 0, "wide", 5], [0, 0, 5], None])
def test_boxes_that_are_none(write, imported, tmp_path, instances, bbox):
    wrong = {**INSTANCES, "annotations": [{**INSTANCES["annotations"][0], "bbox": bbox}]}
    refs = write("refs.p", pickle.dumps(REFS[:1]))
    with pytest.raises(InputError, match=r"no row came out; the first problem is: .*bbox: "):
        imported("refcoco", refs, write("instances.json", wrong), media=tmp_path / "images")

"""COCO captions, VQAv2, Visual Genome's questions."""

from __future__ import annotations

from collections import Counter

import pytest
from miniature import picture

from monoglot.errors import InputError
from monoglot.evaluate.metrics.match import vqa

KARPATHY = {
    "images": [
        {
            "filepath": "val2014",
            "sentids": [770337, 771687],
            "filename": "COCO_val2014_000000391895.jpg",
            "imgid": 0,
            "split": "test",
            "sentences": [
                {"tokens": ["a", "man"], "raw": "A man on a moped. ", "imgid": 0, "sentid": 770337},
                {"tokens": ["man"], "raw": "Man riding\na bike.", "imgid": 0, "sentid": 771687},
            ],
            "cocoid": 391895,
        },
        {
            "filepath": "train2014",
            "filename": "COCO_train2014_000000000009.jpg",
            "imgid": 1,
            "split": "train",
            "sentences": [{"raw": "Food.", "sentid": 3}, {"raw": " ", "sentid": 4}],
            "cocoid": 9,
        },
    ],
    "dataset": "coco",
}


@pytest.fixture
def coco(write):
    for name in ("val2014/COCO_val2014_000000391895", "train2014/COCO_train2014_000000000009"):
        write(f"coco/{name}.jpg", picture())
    return write


def test_karpathy_together(coco, imported, tmp_path):
    file = coco("dataset_coco.json", KARPATHY)
    assert imported("coco_caption", file, "split=test", media=tmp_path / "coco") == [
        {
            "id": "391895",
            "task": "caption",
            "image": str(tmp_path / "coco/val2014/COCO_val2014_000000391895.jpg"),
            "target": "A man on a moped.",
            "targets": ["A man on a moped.", "Man riding a bike."],
        }
    ]
    assert imported.report.left_out == {"of split train": 1}


def test_karpathy_apart_with_paths_relative_to_the_rows(coco, imported, tmp_path, problems):
    file = coco("dataset_coco.json", KARPATHY)
    rows = imported("coco_caption", file, "references=apart", out="coco/rows.jsonl", media=tmp_path / "coco", allow=0.5)
    image = "val2014/COCO_val2014_000000391895.jpg"
    assert rows == [
        {"id": "770337", "task": "caption", "image": image, "target": "A man on a moped."},
        {"id": "771687", "task": "caption", "image": image, "target": "Man riding a bike."},
        {"id": "3", "task": "caption", "image": "train2014/COCO_train2014_000000000009.jpg", "target": "Food."},
    ]
    assert problems("coco/rows.jsonl") == [
        "dataset_coco.json: images[1].sentences[1]: raw: is ' '; expected a text that is not empty"
    ]


def test_a_split_that_there_is_not(coco, imported, tmp_path):
    with pytest.raises(InputError, match=r"no row came out; the data hold no such entry; left out: 1 of split test, 1"):
        imported("coco_caption", coco("dataset_coco.json", KARPATHY), "split=trian", media=tmp_path / "coco")


def test_official_captions(write, imported, tmp_path, problems):
    write("train2014/COCO_train2014_000000000009.jpg", picture())
    file = write(
        "captions_train2014.json",
        {
            "info": {"year": 2014},
            "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "height": 480, "width": 640}],
            "annotations": [
                {"image_id": 9, "id": 661611, "caption": "Closeup of bins of food."},
                {"image_id": 10, "id": 1, "caption": "Of no picture."},
                {"image_id": 9, "id": 661977, "caption": "A meal."},
            ],
        },
    )
    assert imported("coco_caption", file, media=tmp_path / "train2014", allow=0.5) == [
        {
            "id": "9",
            "task": "caption",
            "image": str(tmp_path / "train2014/COCO_train2014_000000000009.jpg"),
            "target": "Closeup of bins of food.",
            "targets": ["Closeup of bins of food.", "A meal."],
        }
    ]
    assert problems() == ["captions_train2014.json: annotations: image_id 10 is not among the images"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "images: is missing or no list"),
        ('{"images": 3}', "images: is missing or no list"),
        ('{"images": []}', "no row came out; the data hold no such entry"),
        ('{"images": [7]}', r"no row came out; .*images\[0\]: is a int; expected an object"),
        ('{"images": [{"split": "val"}]}', r"no row came out; .*images\[0\]: sentences: is missing"),
    ],
)
def test_what_is_no_captions_file(write, imported, content, message):
    with pytest.raises(InputError, match=message):
        imported("coco_caption", write("dataset_coco.json", content))


# --- VQAv2 ------------------------------------------------------------------------------------------------------------

TEN = ["net", "net", "net", "netting", "net", "mesh", "net", "net", "netting", "net"]


@pytest.fixture
def asked(write):
    """Questions and annotations of two questions about one picture."""
    write("coco/train2014/COCO_train2014_000000458752.jpg", picture())
    questions = {
        "info": {},
        "data_type": "mscoco",
        "data_subtype": "train2014",
        "questions": [
            {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000},
            {"image_id": 458752, "question": "Is it day?", "question_id": 458752001},
        ],
    }

    def annotation(question, answers):
        listed = [
            {"answer": answer, "answer_confidence": "maybe", "answer_id": index}
            for index, answer in enumerate(answers, start=1)
        ]
        most = Counter(answers).most_common(1)[0][0]
        return {
            "question_type": "what",
            "multiple_choice_answer": most,
            "answers": listed,
            "image_id": 458752,
            "answer_type": "other",
            "question_id": question,
        }

    annotations = {
        "data_subtype": "train2014",
        "annotations": [annotation(458752000, TEN), annotation(458752001, ["yes"] * 10)],
    }
    return (
        write("v2_OpenEnded_mscoco_train2014_questions.json", questions),
        write("v2_mscoco_train2014_annotations.json", annotations),
    )


def test_vqa_together_keeps_all_ten_answers(asked, imported, tmp_path):
    rows = imported("vqav2", *reversed(asked), media=tmp_path / "coco")
    image = str(tmp_path / "coco/train2014/COCO_train2014_000000458752.jpg")
    assert rows[0] == {
        "id": "458752000",
        "task": "vqa",
        "image": image,
        "text": "What is this photo taken looking through?",
        "target": "net",
        "targets": ["net"] * 7 + ["netting"] * 2 + ["mesh"],
        "weight": 1.0,
    }
    assert rows[1]["targets"] == ["yes"] * 10
    said = ["net", "netting", "mesh", "glass"]  # by 7, 2, 1 and 0 of ten people
    assert vqa(said, [tuple(rows[0]["targets"])] * 4, ["en"] * 4)[:, 0].tolist() == pytest.approx([1.0, 0.6, 0.3, 0.0])


def test_vqa_apart_weighs_each_answer_by_its_score(asked, imported, tmp_path):
    rows = imported("vqav2", *asked, "references=apart", media=tmp_path / "coco")
    assert [(row["id"], row["target"], row["weight"]) for row in rows] == [
        ("458752000-0", "net", 1.0),
        ("458752000-1", "netting", 0.6),
        ("458752000-2", "mesh", 0.3),
        ("458752001-0", "yes", 1.0),
    ]
    assert not any("targets" in row for row in rows)


def test_vqa_keeps_frequent_answers_and_lists_them(asked, imported, tmp_path):
    answers = tmp_path / "vqav2/answers.txt"
    rows = imported("vqav2", *asked, "references=apart", "most=1", f"answers={answers}", media=tmp_path / "coco")
    assert [row["target"] for row in rows] == ["net"]
    assert answers.read_text() == "net\n"
    assert imported.report.left_out == {"without an answer that is kept": 1}


def test_vqa_keeps_the_answers_of_a_list(asked, imported, write, tmp_path):
    among = write("answers.txt", "mesh\nyes\n")
    rows = imported("vqav2", *asked, "references=apart", f"among={among}", media=tmp_path / "coco")
    assert [(row["target"], row["weight"]) for row in rows] == [("mesh", 0.3), ("yes", 1.0)]
    with pytest.raises(InputError, match=r"gone\.txt: among: cannot be read"):
        imported("vqav2", *asked, "among=gone.txt")


def test_vqa_without_annotations_has_no_targets(asked, imported, tmp_path):
    rows = imported("vqav2", asked[0], media=tmp_path / "coco")
    assert [sorted(row) for row in rows] == [["id", "image", "task", "text"]] * 2


def test_vqa_question_without_answers(asked, write, imported, problems, tmp_path):
    yes = [{"answer": "yes"}]
    listed = [{"question_id": 458752001, "answers": yes}, {"question_id": 7, "answers": yes}]
    annotations = write("few.json", {"annotations": listed})
    rows = imported("vqav2", asked[0], annotations, media=tmp_path / "coco", allow=0.5)
    assert [row["id"] for row in rows] == ["458752001"]
    assert problems() == [
        "v2_OpenEnded_mscoco_train2014_questions.json: questions[0]: question_id: "
        "458752000 has no answers in the annotations; give those that go with it"
    ]
    assert imported.report.left_out == {"answers to questions that are not given": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"a": []}', "holds no list of questions or annotations"), ('{"annotations": []}', "there are no questions")],
)
def test_what_are_no_questions(write, imported, content, message):
    with pytest.raises(InputError, match=message):
        imported("vqav2", write("q.json", content))


# --- Visual Genome ----------------------------------------------------------------------------------------------------

VG = [
    {
        "id": 1,
        "qas": [
            {
                "a_objects": [],
                "question": "What color?",
                "image_id": 1,
                "qa_id": 986768,
                "answer": "Green.",
                "q_objects": [],
            },
            {"question": "Who?", "image_id": 1, "qa_id": 986769, "answer": "Nobody."},
        ],
    },
    {"id": 2, "qas": [{"question": "What color?", "image_id": 2, "qa_id": 5, "answer": "Green."}]},
]


def test_visual_genome(write, imported, tmp_path):
    write("vg/VG_100K_2/1.jpg", picture())
    write("vg/VG_100K/2.jpg", picture())
    files = [write("question_answers.json", VG)]
    row = {"id": "986768", "task": "vqa", "text": "What color?", "target": "green"}
    for _ in range(2):  # with and without the addresses: the folder is looked for
        rows = imported("visual_genome_qa", *files, out="vg/rows.jsonl", media=tmp_path / "vg")
        assert rows[0] == {**row, "image": "VG_100K_2/1.jpg"}
        assert [one["image"] for one in rows] == ["VG_100K_2/1.jpg", "VG_100K_2/1.jpg", "VG_100K/2.jpg"]
        url = "https://cs.stanford.edu/people/rak248/{}.jpg".format
        image_data = [{"image_id": 1, "url": url("VG_100K_2/1")}, {"image_id": 2, "url": url("VG_100K/2")}]
        files.append(write("image_data.json", image_data))
    rows = imported("visual_genome_qa", *files, "most=1", media=tmp_path / "vg", check=False, out="vg/rows.jsonl")
    assert [(one["image"], one["target"]) for one in rows] == [("VG_100K_2/1.jpg", "green"), ("VG_100K/2.jpg", "green")]

"""SNLI-VE, clips (MSRVTT, MSVD, ActivityNet, WebVid) and sounds (AudioCaps, Clotho)."""

from __future__ import annotations

import json

import pytest
from miniature import picture

from monoglot.errors import InputError


def test_snli_ve_with_windows_line_ends(write, imported, tmp_path, problems):
    write("flickr/3416050480.jpg", picture())
    entry = {
        "Flickr30K_ID": "3416050480",
        "annotator_labels": ["neutral"],
        "captionID": "3416050480.jpg#4",
        "gold_label": "neutral",
        "pairID": "3416050480.jpg#4r1n",
        "sentence1": "A premise.",
        "sentence2": "A hypothesis.",
    }
    others = [
        {**entry, "gold_label": "-", "pairID": "1"},
        {**entry, "gold_label": "contradiction", "pairID": "2"},
        {key: value for key, value in entry.items() if key != "Flickr30K_ID"}
        | {"Flikr30kID": "3416050480.jpg", "gold_label": "entailment", "pairID": "3"},
        {**entry, "gold_label": "perhaps"},
    ]
    lines = [json.dumps(one) for one in (entry, *others)]
    file = write("snli_ve_dev.jsonl", "\ufeff" + "\r\n".join([*lines, "", "{broken", "[]"]))
    rows = imported("snli_ve", file, media=tmp_path / "flickr", allow=0.5)
    assert rows[0] == {
        "id": "3416050480.jpg#4r1n",
        "task": "entailment",
        "image": str(tmp_path / "flickr/3416050480.jpg"),
        "text": "A hypothesis.",
        "target": "maybe",
    }
    assert [row["target"] for row in rows] == ["maybe", "no", "yes"]
    assert imported.report.left_out == {"without a gold label": 1}
    assert problems() == [
        "snli_ve_dev.jsonl:5: gold_label: is 'perhaps'; expected one of entailment, neutral, contradiction",
        "snli_ve_dev.jsonl:7: broken JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "expected one object a line",
        "snli_ve_dev.jsonl:8: is a list; expected one object a line",
    ]


MSRVTT = {
    "info": {"year": "2016"},
    "videos": [
        {
            "category": 9,
            "url": "u",
            "video_id": "video0",
            "start time": 137.72,
            "end time": 149.44,
            "split": "train",
            "id": 0,
        },
        {
            "category": 16,
            "url": "u",
            "video_id": "video1",
            "start time": 0,
            "end time": 9,
            "split": "validate",
            "id": 1,
        },
        {"category": 16, "url": "u", "video_id": "video2", "start time": 0, "end time": 9, "split": "train", "id": 2},
    ],
    "sentences": [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
        {"caption": "in a frozen place", "video_id": "video1", "sen_id": 20},
        {"caption": "a man drives", "video_id": "video0", "sen_id": 1},
        {"caption": "of no clip", "video_id": "video7", "sen_id": 2},
    ],
}


def test_msrvtt_captions(write, imported, tmp_path, problems):
    write("videos/video0.mp4", "film")
    write("videos/video1.webm", "film")
    file = write("train_val_videodatainfo.json", MSRVTT)
    rows = imported("msrvtt_caption", file, media=tmp_path / "videos", out="rows.jsonl", allow=0.5)
    assert rows == [
        {
            "id": "video0",
            "task": "caption",
            "video": "videos/video0.mp4",
            "target": "a car is shown",
            "targets": ["a car is shown", "a man drives"],
        },
        {"id": "video1", "task": "caption", "video": "videos/video1.webm", "target": "in a frozen place"},
    ]
    assert problems("rows.jsonl") == [
        "train_val_videodatainfo.json: videos[2]: sentences: there is none; leave the clip out",
        "train_val_videodatainfo.json: sentences: video_id video7 is not among the videos",
    ]
    rows = imported("msrvtt_caption", file, "split=train", "references=apart", media=tmp_path / "videos", allow=0.5)
    assert [(row["id"], row["target"]) for row in rows] == [("0", "a car is shown"), ("1", "a man drives")]


def test_msrvtt_qa(write, imported, tmp_path):
    write("videos/video0.mp4", "film")
    question = {
        "answer": "couch",
        "category_id": 14,
        "id": 0,
        "question": "what are three people sitting on?",
        "video_id": 0,
    }
    file = write("train_qa.json", [question, {**question, "id": 1, "answer": "seat"}, {**question, "id": 2}])
    answers = tmp_path / "answers.txt"
    rows = imported("msrvtt_qa", file, "most=1", f"answers={answers}", media=tmp_path / "videos")
    assert rows == [
        {
            "id": str(number),
            "task": "vqa",
            "video": str(tmp_path / "videos/video0.mp4"),
            "text": "what are three people sitting on?",
            "target": "couch",
        }
        for number in (0, 2)
    ]
    assert answers.read_text() == "couch\n"


def test_msvd_qa_with_its_mapping(write, imported, tmp_path, problems):
    write("YouTubeClips/-4wsuPCjDBc_5_15.avi", "film")
    questions = [
        {"answer": "someone", "id": 30933, "question": "who pours liquid?", "video_id": 1},
        {"answer": "man", "id": 30934, "question": "who pours?", "video_id": 2},
        {"answer": "", "id": 30935, "question": "who pours?", "video_id": 1},
    ]
    file = write("val_qa.json", questions)
    mapping = write("youtube_mapping.txt", "-4wsuPCjDBc_5_15 vid1\r\n-7KMZQEsJW4_205_208 vid2")
    rows = imported("msvd_qa", file, mapping, media=tmp_path / "YouTubeClips", allow=0.7)
    assert rows == [
        {
            "id": "30933",
            "task": "vqa",
            "video": str(tmp_path / "YouTubeClips/-4wsuPCjDBc_5_15.avi"),
            "text": "who pours liquid?",
            "target": "someone",
        }
    ]
    first, second = problems()
    assert first.startswith(
        "val_qa.json: [1]: video_id: no such file, or an empty one: YouTubeClips/-7KMZQEsJW4_205_208.avi"
    )
    assert second.startswith("val_qa.json: [2]: answer: is ''")
    assert imported.report.missing == 1
    with pytest.raises(InputError, match=r"youtube_mapping\.txt:1: is b'a b c'; expected a name and vid1"):
        imported("msvd_qa", file, write("youtube_mapping.txt", "a b c"))


def test_activitynet_times_become_start_and_end(write, imported, tmp_path, problems):
    write("films/v_QOlSCBRmfWY.mkv", "film")
    film = {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [56.26, 99], [20, 10], [1, 2]],
        "sentences": [" A young woman.", "She ends.", "Backwards.", 7],
    }
    short = {"duration": 5, "timestamps": [[0, 1]], "sentences": []}
    file = write("train.json", {"v_QOlSCBRmfWY": film, "v_short": short})
    rows = imported("activitynet_caption", file, media=tmp_path / "films", allow=0.7)
    video = str(tmp_path / "films/v_QOlSCBRmfWY.mkv")
    row = {"task": "caption", "video": video}
    assert rows == [
        {"id": "v_QOlSCBRmfWY-0", **row, "start": 0.83, "end": 19.86, "target": "A young woman."},
        {"id": "v_QOlSCBRmfWY-1", **row, "start": 56.26, "end": 82.73, "target": "She ends."},
    ]
    assert problems() == [
        "train.json: v_QOlSCBRmfWY.sentences[2]: timestamps: 20 to 10 s is no part of the film; expected 0 <= start < end",
        "train.json: v_QOlSCBRmfWY.sentences[3]: sentence: is 7; expected a text that is not empty",
        "train.json: v_short: timestamps: has 1, but there are 0 sentences",
    ]


# --- tables with known columns ----------------------------------------------------------------------------------------

AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
97151,vfY_TJq7n_U,130,"Rustling occurs, ducks quack"
108945,tdWhHV3X25Q,60,An audience gives applause
97152,vfY_TJq7n_U,130,Ducks
"""


def test_audiocaps(write, imported, tmp_path):
    write("wav/vfY_TJq7n_U.wav", "sound")
    write("wav/YtdWhHV3X25Q.wav", "sound")
    file = write("val.csv", AUDIOCAPS)
    rows = imported("audiocaps", file, media=tmp_path / "wav", out="rows.jsonl")
    assert rows == [
        {
            "id": "97151",
            "task": "caption",
            "audio": "wav/vfY_TJq7n_U.wav",
            "target": "Rustling occurs, ducks quack",
            "targets": ["Rustling occurs, ducks quack", "Ducks"],
        },
        {"id": "108945", "task": "caption", "audio": "wav/YtdWhHV3X25Q.wav", "target": "An audience gives applause"},
    ]
    rows = imported("audiocaps", file, "references=apart", "cut=false", media=tmp_path / "wav", out="rows.jsonl")
    assert [(row["id"], row["start"], row["end"]) for row in rows] == [
        ("97151", 130.0, 140.0),
        ("108945", 60.0, 70.0),
        ("97152", 130.0, 140.0),
    ]


def test_audiocaps_sounds_that_are_gone(write, imported, tmp_path, problems, capsys):
    write("wav/vfY_TJq7n_U.wav", "sound")
    write("wav/tdWhHV3X25Q.wav", "")
    file = write("val.csv", AUDIOCAPS)
    assert len(imported("audiocaps", file, media=tmp_path / "wav", allow=0.5)) == 1
    assert problems()[0].startswith(
        "val.csv:3: audio: no such file, or an empty one: wav/tdWhHV3X25Q.wav (nor YtdWhHV3X25Q.wav, "
    )
    assert imported.report.summary().endswith(
        f"1 rows (caption 1); 1 problems, 1 of them missing files ({tmp_path}/wav/tdWhHV3X25Q.wav), "
        f"each told in {tmp_path}/out/rows.jsonl.problems.jsonl"
    )


def test_clotho(write, imported, tmp_path):
    write("development/Distorted AM Radio noise.wav", "sound")
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\r\n"
    line = 'Distorted AM Radio noise.wav,A muddled noise,"A television, blaring",Loud,Noise,Static\r\n'
    file = write("clotho_captions_development.csv", header + line)
    [row] = imported("clotho", file, media=tmp_path / "development")
    assert row["targets"] == ["A muddled noise", "A television, blaring", "Loud", "Noise", "Static"]
    rows = imported("clotho", file, "references=apart", media=tmp_path / "development")
    assert [row["target"] for row in rows] == ["A muddled noise", "A television, blaring", "Loud", "Noise", "Static"]
    assert len({row["id"] for row in rows}) == 5


def test_webvid(write, imported, tmp_path):
    write("videos/006001_006050/1066674784.mp4", "film")
    file = write(
        "results_2M_train.csv",
        "videoid,contentUrl,duration,page_dir,name\n"
        '1066674784,https://x/1.mp4,PT00H00M10S,006001_006050,"Aerial shot, ""winter"" forest"\n',
    )
    assert imported("webvid", file, media=tmp_path / "videos") == [
        {
            "id": "1066674784",
            "task": "caption",
            "video": str(tmp_path / "videos/006001_006050/1066674784.mp4"),
            "target": 'Aerial shot, "winter" forest',
        }
    ]
    words = ("video={page_dir}-{videoid}.webm", "targets=duration", "keep=contentUrl")
    [row] = imported("webvid", file, *words, check=False)
    assert row["video"].endswith("/006001_006050-1066674784.webm")
    assert (row["target"], row["contentUrl"]) == ("PT00H00M10S", "https://x/1.mp4")

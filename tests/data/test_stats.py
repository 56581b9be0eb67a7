"""The report on files of rows, against counting by hand and by plain loops."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from test_duplicates import scene

from monoglot.data import stats
from monoglot.data.facts import facts_of
from monoglot.data.pack import pack
from monoglot.data.stats import report, spread
from monoglot.errors import InputError
from monoglot.nouns import Media


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for seed in range(8):
        scene(seed).save(tmp_path / f"{seed}.png")
    scene(0).resize((160, 120)).save(tmp_path / "0 small.jpg", quality=80)
    (tmp_path / "1 copy.png").write_bytes((tmp_path / "1.png").read_bytes())
    Image.new("RGB", (30, 50), "white").save(tmp_path / "white.png")
    soundfile.write(tmp_path / "call.wav", np.zeros(12_000), 8000)
    return tmp_path


def test_counts_lengths_and_targets(folder):
    rows = [
        {"task": "vqa", "image": "0.png", "text": "what is it?", "target": "a cup"},
        {"task": "vqa", "image": ["0.png", "2.png"], "text": "which of them?", "target": "first"},
        {"task": "vqa", "text": "no picture", "targets": ["a cup", "cup"]},
        {"task": "transcribe", "audio": "call.wav", "target": "長い 話"},
        {"task": "grounding", "image": "3.png", "text": "it", "box": [0, 0, 0.5, 0.5]},
        {"task": "name", "image": "4.png"},
        {"task": "name", "image": "absent.png", "target": "x"},
        {"task": "name", "imagee": "4.png"},
        [1],
    ]
    found = report([write(folder / "rows.jsonl", rows)])
    assert found["files"] == [
        {
            "file": str(folder / "rows.jsonl"),
            "rows": 9,
            "bad": 2,
            "tasks": {
                "vqa": {"rows": 3, "image": 2, "text": 3, "target": 3},
                "transcribe": {"rows": 1, "audio": 1, "target": 1},
                "grounding": {"rows": 1, "image": 1, "text": 1, "target": 1},
                "name": {"rows": 2, "image": 2, "target": 1},
            },
        }
    ]
    assert [problem.split(": ")[1] for problem in found["problems"]] == ["imagee", "is a list"]
    lengths = {(one["task"], one["of"], one["unit"]): one for one in found["lengths"]}
    assert lengths["vqa", "text", "words"]["count"] == 3
    assert [lengths["vqa", "text", "words"][name] for name in ("mean", "min", "p50", "max")] == [2.67, 2, 3, 3]
    assert lengths["transcribe", "target", "characters"]["max"] == 4
    targets = {one["task"]: one for one in found["targets"]}
    assert targets["vqa"] == {"task": "vqa", "rows": 3, "different": 2, "most": [["a cup", 2], ["first", 1]]}
    images, sounds = found["media"]["image"], found["media"]["audio"]
    assert [images[name] for name in ("items", "paths", "examined", "unreadable", "copies")] == [6, 5, 4, 1, 0]
    assert "absent.png: image: no such file" in images["why"][0]
    assert (images["width"]["max"], images["height"]["max"]) == (240, 180)
    assert sounds["seconds"]["max"] == 1.5
    assert found["leakage"] == []


def test_spread_against_sorting():
    rng = np.random.default_rng(0)
    for count in (1, 2, 99, 100, 101, 1000):
        values = sorted(rng.integers(0, 50, count).tolist())
        counted = Counter(values)
        expected = {
            name: values[-(-share * count // 100) - 1] for name, share in (("p50", 50), ("p90", 90), ("p99", 99))
        }
        expected |= {"count": count, "mean": round(sum(values) / count, 2), "min": values[0], "max": values[-1]}
        assert spread(values) == spread(counted.keys(), counted.values()) == expected
    assert spread([]) == {"count": 0}


def test_copies_and_near_copies(folder):
    names = [f"{seed}.png" for seed in range(6)] + ["0 small.jpg", "1 copy.png", "white.png", "1.png"]
    rows = [{"task": "name", "image": name, "target": f"t{number}"} for number, name in enumerate(names)]
    found = report([write(folder / "rows.jsonl", rows)])
    images, near = found["media"]["image"], found["near_copies"]
    assert (images["paths"], images["copies"], images["plain"]) == (9, 1, 1)
    assert images["most_copied"][0][1] == 2
    assert (near["compared"], near["too_plain"], near["with_a_near_copy"], near["pairs"]) == (7, 1, 2, 1)
    apart, *paths = near["closest"][0]
    assert apart <= 4
    assert {path.rsplit("/", 1)[1] for path in paths} == {"0.png", "0 small.jpg"}
    assert report([folder / "rows.jsonl"], distance=0)["near_copies"]["pairs"] == (apart == 0)


def test_a_part_of_the_media_is_read_unless_all_are_asked_for(folder, monkeypatch):
    monkeypatch.setattr(stats, "SAMPLE", 3)
    rows = write(folder / "rows.jsonl", [{"task": "name", "image": f"{seed}.png"} for seed in range(8)])
    part, whole = report([rows]), report([rows], full=True)
    assert (part["media"]["image"]["examined"], whole["media"]["image"]["examined"]) == (3, 8)
    assert part == report([rows])


# --- contradictions ---------------------------------------------------------------------------------------------------


def test_contradictions_are_equal_questions_with_other_answers(folder):
    ask = {"task": "vqa", "image": "1.png", "text": "colour?"}
    rows = [
        {**ask, "target": "red"},
        {**ask, "image": "1 copy.png", "target": "blue"},  # the same bytes
        {**ask, "target": " Red"},
        {**ask, "image": "2.png", "target": "blue"},
        {**ask, "text": "shape?", "target": "blue"},
        {**ask, "lang": "ja", "target": "青"},
        {**ask, "choices": ["green", "blue"], "target": "blue"},
        {"task": "vqa", "image": ["1.png", "2.png"], "text": "colour?", "target": "both"},
        {"task": "vqa", "image": ["2.png", "1.png"], "text": "colour?", "target": "none"},
        {"task": "caption", "image": "1.png", "target": "one way"},
        {"task": "caption", "image": "1.png", "target": "another way"},
        {"task": "grounding", "image": "1.png", "text": "it", "box": [0, 0, 0.5, 0.5]},
        {"task": "grounding", "image": "1.png", "text": "it", "box": [0, 0, 0.5, 0.6]},
        {"task": "region_caption", "image": "1.png", "box": [0, 0, 0.5, 0.5], "target": "a"},
        {"task": "transcribe", "audio": "call.wav", "start": 0, "end": 1, "target": "a"},
        {"task": "transcribe", "audio": "call.wav", "start": 0.5, "end": 1, "target": "b"},
        {**ask},
        {**ask, "target": "red"},
    ]
    path = write(folder / "rows.jsonl", rows)
    found = report([path])["contradictions"]
    assert {name: found[name] for name in ("questions", "rows", "tasks")} == {
        "questions": 2,
        "rows": 6,
        "tasks": {"grounding": 1, "vqa": 1},
    }
    said = {one["text"]: one for one in found["examples"]}
    assert {target.strip().lower() for target in said["colour?"]["targets"]} == {"red", "blue"}
    assert set(said["it"]["rows"]) == {f"{path}:12", f"{path}:13"}
    assert report([path])["same_rows"] == 2


@pytest.mark.parametrize("seed", range(3))
def test_contradictions_against_a_plain_loop(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rows = [{"task": "vqa", "text": f"q{rng.integers(40)}", "target": f"a{rng.integers(2)}"} for _ in range(120)]
    answers: dict[str, list[str]] = {}
    for row in rows:
        answers.setdefault(row["text"], []).append(row["target"])
    wrong = [given for given in answers.values() if len(set(given)) > 1]
    found = report([write(tmp_path / "rows.jsonl", rows)])
    assert found["contradictions"]["questions"] == len(wrong)
    assert found["contradictions"]["rows"] == sum(map(len, wrong))
    assert found["same_rows"] == len(rows) - len({(row["text"], row["target"]) for row in rows})


# --- what files share -------------------------------------------------------------------------------------------------


def test_leakage_against_a_plain_loop(folder):
    rng = np.random.default_rng(0)
    names = [f"{seed}.png" for seed in range(8)] + ["1 copy.png"]
    long = "six words that are a sentence"
    paths, files = [], []
    for file in range(3):
        rows = []
        for _ in range(12):
            if rng.random() < 0.4:
                row = {"task": "summarize", "text": f"text {rng.integers(8)}"}
            else:
                chosen = [names[i] for i in rng.choice(len(names), rng.integers(1, 3), False)]
                row = {"task": "vqa", "image": chosen, "text": f"q{rng.integers(3)}"}
            rows.append(row | {"target": f"{long} {rng.integers(6)}", "group": int(rng.integers(10))})
        files.append(rows)
        paths.append(write(folder / f"{file}.jsonl", rows))

    def bytes_of(row):
        return {(folder / name).read_bytes() for name in row.get("image", [])}

    def key(row):
        return row["task"], row["text"], tuple((folder / name).read_bytes() for name in row.get("image", []))

    found = report(paths)["leakage"]
    assert [(one["from"], one["into"]) for one in found] == [
        (str(paths[a]), str(paths[b])) for a, b in itertools.combinations(range(3), 2)
    ]
    for one, (a, b) in zip(found, itertools.combinations(range(3), 2)):
        old, new = files[a], files[b]
        there = set().union(*map(bytes_of, old))
        assert one["media"]["rows"] == sum(bool(bytes_of(row) & there) for row in new)
        assert one["media"]["different"] == len(set().union(*map(bytes_of, new)) & there)
        texts = {row["text"] for row in old if "image" not in row}
        assert one["texts"]["rows"] == sum("image" not in row and row["text"] in texts for row in new)
        for what in ("target", "group"):
            known = {row[what] for row in old}
            assert one[f"{what}s"]["rows"] == sum(row[what] in known for row in new)
            assert one[f"{what}s"]["different"] == len({row[what] for row in new} & known)
        assert one["questions"]["rows"] == sum(key(row) in set(map(key, old)) for row in new)
        assert one["near_pictures"] == {"different": 0, "rows": 0}


def test_near_pictures_of_another_file(folder):
    train = write(folder / "train.jsonl", [{"task": "name", "image": "0.png"}, {"task": "name", "image": "1.png"}])
    test = [{"task": "name", "image": name} for name in ("0 small.jpg", "1 copy.png", "2.png", "0 small.jpg")]
    leak = report([train, write(folder / "test.jsonl", test)])["leakage"][0]
    assert leak["near_pictures"] == {"different": 1, "rows": 2}
    assert leak["media"] == {"different": 1, "rows": 1}


def test_a_pack_is_told_as_its_rows_are(folder):
    rows = [{"task": "vqa", "image": f"{seed % 4}.png", "text": "q", "target": f"{seed}"} for seed in range(8)]
    path = write(folder / "rows.jsonl", rows)
    pack(path, folder / "shards")
    found, packed = report([path]), report([folder / "shards"])
    assert packed["contradictions"]["questions"] == found["contradictions"]["questions"] == 4
    assert (packed["media"]["image"]["paths"], packed["media"]["image"]["copies"]) == (8, 4)  # a pack repeats them
    assert (found["media"]["image"]["paths"], found["media"]["image"]["copies"]) == (4, 0)
    assert packed["near_copies"]["compared"] == 4
    assert report([path, folder / "shards"])["leakage"][0]["questions"]["rows"] == 8


def test_files_without_rows_and_files_that_cannot_be_told_apart(tmp_path):
    empty = write(tmp_path / "empty.jsonl", [])
    found = report([empty])
    assert (found["files"][0]["rows"], found["media"], found["same_rows"]) == (0, {}, 0)
    assert found["contradictions"]["questions"] == found["near_copies"]["pairs"] == 0
    with pytest.raises(InputError, match=r"empty.jsonl: data: stands there twice"):
        report([empty, tmp_path / "x" / ".." / "empty.jsonl"])
    with pytest.raises(InputError, match="61 files are too many; give up to 60"):
        report([tmp_path / f"{number}.jsonl" for number in range(61)])
    with pytest.raises(InputError, match="cannot be read"):
        report([tmp_path / "absent.jsonl"])


# --- media ------------------------------------------------------------------------------------------------------------


def test_facts_of_pictures(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    scene(1, (120, 90)).save(tmp_path / "a.jpg", exif=turned)
    facts = facts_of(Media("image", str(tmp_path / "a.jpg")))
    assert (facts.height, facts.width) == (120, 90)  # as it is shown
    assert facts.size == (tmp_path / "a.jpg").stat().st_size
    for name in ("large.jpg", "large.png"):
        scene(2, (2000, 1500)).save(tmp_path / name)
    jpeg, png = (facts_of(Media("image", str(tmp_path / f"large.{kind}"))) for kind in ("jpg", "png"))
    assert (jpeg.height, jpeg.width) == (png.height, png.width) == (1500, 2000)
    assert bin(jpeg.look.bits ^ png.look.bits).count("1") <= 4
    assert jpeg.content != png.content == facts_of(Media("video", str(tmp_path / "large.png"))).content


def test_seconds(tmp_path):
    frames = [scene(seed, (40, 30)) for seed in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=200)
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=300)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    soundfile.write(tmp_path / "a.flac", np.zeros(4000), 8000)
    seconds = {name: facts_of(Media("video", str(tmp_path / name))).seconds for name in ("a.gif", "a.webp", "a.mp4")}
    assert seconds == {"a.gif": 1.0, "a.webp": 1.5, "a.mp4": pytest.approx(2.0, abs=0.1)}
    assert facts_of(Media("audio", str(tmp_path / "a.flac"))).seconds == 0.5


@pytest.mark.parametrize(
    ("modality", "content"), [("image", b"no picture"), ("audio", b"no sound"), ("video", b"GIF8x")]
)
def test_media_that_cannot_be_read_are_told(tmp_path, modality, content):
    (tmp_path / "broken").write_bytes(content)
    found = report([write(tmp_path / "rows.jsonl", [{"task": "name", modality: "broken"}])])["media"][modality]
    assert (found["examined"], found["unreadable"]) == (0, 1)
    assert found["why"][0].startswith(f"{tmp_path / 'broken'}: {modality}: ")


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_line(folder, command, model_folder):
    ask = {"task": "vqa", "image": "1.png", "text": "colour [red]?"}
    train = write(folder / "train.jsonl", [{**ask, "target": "red"}, {**ask, "target": "[blue]"}, [1]])
    (folder / "other").mkdir()
    test = write(folder / "other" / "train.jsonl", [{**ask, "image": "../0.png", "target": "red", "group": 1}])
    code, said, told = command("data", "stats", train, test, "--tokenizer", model_folder)
    assert (code, told) == (0, "")
    for words in (
        "Rows, by task",
        "other/train.jsonl",
        "tokens",
        "contradicting targets: 1",
        " / ",
        "[blue]",
        "no samples: 1",
    ):
        assert words in said
    code, said, _ = command("data", "stats", train, test, "--json", "--distance", 0, "--full")
    assert code == 0
    assert json.loads(said)["contradictions"]["questions"] == 1
    for arguments in (["absent.jsonl"], [train, "--tokenizer", folder / "0.png"]):
        code, _, told = command("data", "stats", *arguments)
        assert (code, told.count("\n")) == (2, 1)

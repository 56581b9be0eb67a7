"""Shards, read back by RowFile, by plain tarfile and by the webdataset library; and packing that is stopped halfway."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from monoglot.data import pack as packing
from monoglot.data.pack import PARTS, Problem, merge, numbered, pack, write_shards
from monoglot.data.rowfile import MEMBER, ROW, RowFile
from monoglot.data.rows import read_rows
from monoglot.errors import InputError
from monoglot.modalities import MODALITIES
from monoglot.modalities.source import open_source
from monoglot.nouns import Media, Sample

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rows(tmp_path):
    """A file of rows of every kind, with their media."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("a.jpg", "b.PNG", "c.png", "film.mp4", "call.wav", "noend", "odd.j!g", "x.json"):
        (folder / name).write_bytes(rng.bytes(int(rng.integers(1, 3000))))
    Image.new("RGB", (40, 20)).save(folder / "real.png")
    with tarfile.open(folder / "old.tar", "w") as tar:
        tar.add(folder / "a.jpg", "in/a.jpg")
    lines = [
        {"id": "q", "task": "vqa", "image": "a.jpg", "text": "ü 日本?", "target": "red", "group": 7, "licence": "MIT"},
        {"task": "summarize", "text": "long", "targets": ["short", "less"], "weight": 2.5, "lang": "ja"},
        {
            "id": 33,
            "task": "vqa",
            "image": ["a.jpg", "b.PNG", "c.png"],
            "text": "which?",
            "target": "a",
            "choices": ["a", "b"],
        },
        {"id": "v", "task": "caption", "video": "film.mp4", "audio": "call.wav", "start": 1, "end": 2.5, "target": "x"},
        {"id": "p", "task": "grounding", "image": "real.png", "text": "it", "box": [4, 5, 20, 15], "box_unit": "pixel"},
        {"id": "o", "task": "caption", "audio": "noend", "image": ["odd.j!g", "x.json"], "target": "y"},
        {"id": "t", "task": "caption", "image": ["tar://old.tar#in/a.jpg", "c.png"], "target": "z", "meta": None},
    ]
    path = folder / "rows.jsonl"
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return path


def content(item: Media) -> bytes:
    file, _ = open_source(item)
    with file:
        return file.read()


def same(packed: Sample, given: Sample) -> bool:
    """Equal but for where they lie; the bytes of the media too."""
    anywhere = [replace(sample, where="", media=()) for sample in (packed, given)]
    windows = [[(item.modality, item.start, item.end) for item in sample.media] for sample in (packed, given)]
    bits = [[content(item) for item in sample.media] for sample in (packed, given)]
    return anywhere[0] == anywhere[1] and windows[0] == windows[1] and bits[0] == bits[1]


@pytest.mark.parametrize(("shard_mb", "shards"), [(256, {1}), (0.012, {2, 3, 4, 5}), (1e-6, {7})])
def test_every_row_comes_back_with_the_bytes_of_its_media(rows, tmp_path, shard_mb, shards):
    manifest = pack(rows, tmp_path / "shards", shard_mb=shard_mb)
    given, packed = list(read_rows(rows)), RowFile(tmp_path / "shards")
    assert len(packed) == manifest["rows"] == len(given) == 7
    for number in (3, 0, 6, 1, 2, 5, 4):
        assert same(packed[number], given[number])
        where = f"#{number:09d}.json"
        assert packed[number].where == packed.where(number)
        assert packed.where(number).endswith(where)
    assert len(manifest["shardlist"]) in shards
    assert len(RowFile(tmp_path / "shards", limit=2)) == 2
    # Packed again, it is the same pack.
    again = pack(tmp_path / "shards", tmp_path / "again", shard_mb=shard_mb)
    assert again["shardlist"] == manifest["shardlist"]


def test_plain_tarfile_reads_the_layout(rows, tmp_path):
    out = tmp_path / "shards"
    pack(rows, out)
    with tarfile.open(out / "shard-000000.tar", "r:") as tar:
        names = tar.getnames()
        files = {member.name: (member, tar.extractfile(member).read()) for member in tar.getmembers()}
    assert names == [
        *("000000000.json", "000000000.jpg"),
        "000000001.json",
        *("000000002.json", "000000002.jpg", "000000002.1.png", "000000002.2.png"),
        *("000000003.json", "000000003.mp4", "000000003.wav"),
        *("000000004.json", "000000004.png"),
        *("000000005.json", "000000005.audio", "000000005.image", "000000005.1.json"),
        *("000000006.json", "000000006.jpg", "000000006.1.png"),
    ]
    assert {member.offset_data % 512 for member, _ in files.values()} == {0}
    first = json.loads(files["000000000.json"][1])
    assert first["image"] == "000000000.jpg"
    assert (first["text"], first["target"], first["group"]) == ("ü 日本?", "red", 7)
    assert json.loads(files["000000002.json"][1])["image"] == [
        f"000000002{end}" for end in (".jpg", ".1.png", ".2.png")
    ]
    assert json.loads(files["000000004.json"][1])["box"] == [0.1, 0.25, 0.5, 0.75]
    assert files["000000002.1.png"][1] == (rows.parent / "b.PNG").read_bytes()

    index, media = np.load(out / "index.npy"), np.load(out / "media.npy")
    assert (index.dtype, media.dtype) == (ROW, MEMBER)
    assert index["number"].tolist() == list(range(7))
    assert index["media"].tolist() == [0, 1, 1, 4, 6, 7, 10]
    for row, number in zip(index, range(7)):
        assert row["offset"] == files[f"{number:09d}.json"][0].offset_data
        assert row["length"] == files[f"{number:09d}.json"][0].size
    places = [(member.offset_data, member.size) for name, (member, _) in files.items() if not is_row(name)]
    assert media.tolist() == places


def is_row(name: str) -> bool:
    return name.endswith(".json") and name.count(".") == 1


def test_media_are_prepared_as_from_their_files(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)).save(tmp_path / "a.jpg")
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8000) / 9), 8000)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task": "caption", "image": "a.jpg", "audio": "a.wav", "start": 0.25, "end": 0.5, "target": "x"}')
    pack(path, tmp_path / "shards")
    for given, packed in zip(RowFile(path)[0].media, RowFile(tmp_path / "shards")[0].media):
        modality = MODALITIES[given.modality]
        config = modality.config()
        for variant in (0, 1):
            expected = modality.prepare(given, config, variant)
            assert np.array_equal(modality.prepare(packed, config, variant), expected)


def test_other_tars_read_it_too(rows, tmp_path):
    pack(rows, tmp_path / "shards")
    done = subprocess.run(
        ["tar", "-tf", tmp_path / "shards/shard-000000.tar"], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 19
    assert done.stderr == ""


def test_webdataset_reads_the_same_samples(rows, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    manifest = pack(rows, tmp_path / "shards", shard_mb=0.005)
    assert len(manifest["shardlist"]) > 2
    paths = [str(tmp_path / "shards" / shard["url"]) for shard in manifest["shardlist"]]
    found = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    given = list(read_rows(rows))
    assert [sample["__key__"] for sample in found] == [f"{number:09d}" for number in range(7)]
    for sample, expected in zip(found, given):
        row = json.loads(sample["json"])
        assert (row["id"], row["task"], row.get("text", "")) == (expected.id, expected.task, expected.text)
        named = [row[key] for key in row if key in ("image", "video", "audio")]
        members = [name for value in named for name in (value if isinstance(value, list) else [value])]
        assert [sample[name.split(".", 1)[1]] for name in members] == [content(item) for item in expected.media]


def test_pack_json_says_what_is_there(rows, tmp_path):
    out = tmp_path / "shards"
    manifest = pack(rows, out, shard_mb=0.005)
    assert json.loads((out / "pack.json").read_text()) == manifest
    assert sorted(os.listdir(out)) == sorted(
        ["index.npy", "media.npy", "pack.json", *(shard["url"] for shard in manifest["shardlist"])]
    )
    for shard in manifest["shardlist"]:
        data = (out / shard["url"]).read_bytes()
        assert shard["filesize"] == len(data)
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
        assert len(data) <= 5000 or shard["nsamples"] == 1
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert shard["nsamples"] == sum(map(is_row, tar.getnames()))
    for name, file in manifest["index"].items():
        assert file["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
    assert manifest["tasks"] == {"caption": 3, "grounding": 1, "summarize": 1, "vqa": 2}
    assert manifest["media"] == {"audio": 2, "image": 9, "video": 1}
    assert manifest["origin"]["file"] == "rows.jsonl"
    assert manifest["origin"]["fingerprint"] == RowFile(rows).fingerprint()
    assert manifest["wids_version"] == 1  # of WebDataset's list of shards: url and nsamples of each


# --- stopped and begun again ------------------------------------------------------------------------------------------


def many(folder: Path, count: int) -> Path:
    folder.mkdir()
    path = folder / "many.jsonl"
    rng = np.random.default_rng(1)
    lines = []
    for row in range(count):
        (folder / f"{row}.png").write_bytes(rng.bytes(2000))
        lines.append(json.dumps({"id": f"r{row}", "task": "name", "image": f"{row}.png", "target": "x"}))
    path.write_text("\n".join(lines))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shards", [0, 1, 9])
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(tmp_path, shards):
    path = many(tmp_path / "given", 600)
    whole, out = tmp_path / "whole", tmp_path / "out"
    pack(path, whole, shard_mb=0.02)
    process = multiprocessing.get_context("fork").Process(target=pack, args=(path, out), kwargs={"shard_mb": 0.02})
    process.start()
    while process.is_alive() and not ((out / PARTS).is_dir() and len(list((out / PARTS).glob("*.json"))) >= shards):
        process.join(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "pack.json").exists()
    kept = {shard.name: shard.stat().st_mtime_ns for shard in out.glob("*.tar")}
    assert len(kept) >= shards
    (out / f".shard-000099.tar.{os.getpid()}.tmp").write_bytes(b"left behind")
    pack(path, out, shard_mb=0.02)
    parts_had = max(0, len(kept) - 1)  # the last one may have been without its part
    assert [(out / name).stat().st_mtime_ns for name in sorted(kept)[:parts_had]] == [
        kept[n] for n in sorted(kept)[:parts_had]
    ]
    assert files_of(out) == files_of(whole)


class Stop(Exception):
    pass


def stopped(path: Path, out: Path, monkeypatch, shards: int) -> None:
    """Pack until so many shards are finished."""
    saved, left = packing.save_part, iter(range(shards))

    def save(*given):
        if next(left, None) is None:
            raise Stop
        saved(*given)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "save_part", save)
        with pytest.raises(Stop):
            pack(path, out, shard_mb=0.05)


def test_a_shard_that_was_lost_or_cut_is_made_again(tmp_path, monkeypatch):
    path = many(tmp_path / "given", 100)
    pack(path, tmp_path / "whole", shard_mb=0.05)
    out = tmp_path / "out"
    stopped(path, out, monkeypatch, shards=3)
    (out / "shard-000001.tar").write_bytes(b"short")
    pack(path, out, shard_mb=0.05)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_finished_pack_is_left_as_it_is(rows, tmp_path, monkeypatch):
    out = tmp_path / "shards"
    manifest = pack(rows, out)
    (out / PARTS).mkdir()  # killed between the last two steps
    monkeypatch.setattr(packing, "write_shards", None)
    assert pack(rows, out) == manifest
    assert not (out / PARTS).exists()


def test_other_rows_or_settings_do_not_go_into_the_same_folder(rows, tmp_path, monkeypatch):
    out = tmp_path / "shards"
    pack(rows, out)
    with pytest.raises(InputError, match=r"pack.json: data: belongs to other rows or settings \(shard_mb differ\)"):
        pack(rows, out, shard_mb=3)
    path = many(tmp_path / "more", 100)
    with pytest.raises(InputError, match=r"\(file, fingerprint, rows differ\); choose another folder, or remove this"):
        pack(path, out)
    stopped(path, tmp_path / "half", monkeypatch, shards=1)
    path.write_text(path.read_text() + "\n{}")
    with pytest.raises(
        InputError, match=r"pack.parts/shard-000000.tar.json: data: belongs to .*\(fingerprint, rows differ"
    ):
        pack(path, tmp_path / "half", shard_mb=0.05)


def test_a_folder_of_other_files_is_left_alone(rows, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".draft.tmp").touch()
    with pytest.raises(InputError, match=r"mine: data: holds other files; choose a new folder for the pack"):
        pack(rows, tmp_path / "mine")
    with pytest.raises(InputError, match=r"draft.tmp: data: cannot be written \(Not a directory\)"):
        pack(rows, tmp_path / "mine" / ".draft.tmp")
    (tmp_path / "empty").mkdir()
    assert pack(rows, tmp_path / "empty")["rows"] == 7


def test_a_full_disk_leaves_finished_shards_and_nothing_half_written(tmp_path, monkeypatch):
    path, out = many(tmp_path / "given", 100), tmp_path / "out"
    written = packing._Tar.write

    def full(self, data):
        if Path(self.file.name).name.startswith(".shard-000003"):
            raise OSError(28, "No space left on device")
        written(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(packing._Tar, "write", full)
        with pytest.raises(InputError, match=r"shard-000003.tar: cannot be written \(No space left on device\)"):
            pack(path, out, shard_mb=0.05)
    assert sorted(os.listdir(out)) == ["pack.parts", *(f"shard-00000{n}.tar" for n in range(3))]
    assert pack(path, out, shard_mb=0.05)["rows"] == 100


# --- bad rows ---------------------------------------------------------------------------------------------------------


def with_bad(folder: Path, good: int, bad: int) -> Path:
    path = many(folder, good + bad)
    lines = path.read_text().splitlines()
    for number in range(bad):
        lines[6 * number + 3] = [
            "{",
            json.dumps({"task": "name", "image": "absent.png", "target": "x"}),
            json.dumps({"task": "name", "image": "empty.png", "target": "x"}),
            '{"task": "name", "text": "x", "score": NaN}',
            '{"task": "name", "text": "half \\ud83d"}',
            "[1]",
        ][number % 6]
    (folder / "empty.png").touch()
    path.write_text("\n".join(lines))
    return path


def test_bad_rows_are_left_out_listed_and_counted(tmp_path):
    path, out = with_bad(tmp_path / "given", 60, 7), tmp_path / "out"
    manifest = pack(path, out, shard_mb=0.05)
    assert (manifest["rows"], manifest["left_out"]) == (60, 7)
    problems = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    assert [problem["row"] for problem in problems] == [f"{path}:{6 * number + 4}" for number in range(7)]
    for problem, said in zip(
        problems, ("broken JSON", "no such file", "0 bytes", "cannot be packed", "surrogates", "list")
    ):
        assert said in problem["error"]
        assert "\n" not in problem["error"]
    packed = RowFile(out)
    good = [number for number in range(67) if number % 6 != 3 or number > 39]
    assert [packed[row].id for row in range(60)] == [f"r{number}" for number in good]
    assert packed.where(59).endswith("#000000066.json")


def test_too_many_bad_rows_stop_it_and_an_option_lets_it_go_on(tmp_path):
    path, out = with_bad(tmp_path / "given", 60, 11), tmp_path / "out"
    with pytest.raises(InputError, match=r"problems.jsonl: data: 11 of 71 rows cannot be packed; mend them or raise"):
        pack(path, out, shard_mb=0.05)
    assert len((out / "problems.jsonl").read_text().splitlines()) == 11
    kept = {shard.name: shard.stat().st_mtime_ns for shard in out.glob("*.tar")}
    assert kept
    assert pack(path, out, shard_mb=0.05, share=0.5)["left_out"] == 11
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    with pytest.raises(InputError, match="1 of 71 rows cannot be packed"):
        pack(path, tmp_path / "strict", share=0)


def test_rows_of_which_none_can_be_packed(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task": "name", "image": "absent.png", "target": "x"}\n{\n')
    with pytest.raises(InputError, match="none of 2 rows can be packed"):
        pack(path, tmp_path / "out")
    path.write_text("\n")
    with pytest.raises(InputError, match="has no rows"):
        pack(path, tmp_path / "out")


# --- several processes ------------------------------------------------------------------------------------------------


def test_shards_of_several_writers_become_one_pack(tmp_path):
    path, out = many(tmp_path / "given", 50), tmp_path / "out"
    rows = RowFile(path)
    for worker, (start, stop) in enumerate([(20, 35), (0, 20), (35, 50)]):
        parts = list(write_shards(numbered(rows, start, stop), out, shard_bytes=20_000, prefix=f"w{worker}"))
        assert (parts[0].first, parts[-1].stop) == (start, stop)
    manifest = merge(out)
    assert [shard["url"][:2] for shard in manifest["shardlist"]] == sorted(
        (shard["url"][:2] for shard in manifest["shardlist"]), key=["w1", "w0", "w2"].index
    )
    packed = RowFile(out)
    assert [sample.id for sample in packed] == [f"r{row}" for row in range(50)]
    assert all(same(packed[row], rows[row]) for row in range(50))


def test_merge_refuses_what_is_no_pack(tmp_path):
    rows = RowFile(many(tmp_path / "given", 10))
    with pytest.raises(InputError, match="holds no finished shards"):
        merge(tmp_path)
    out = tmp_path / "out"
    list(write_shards(numbered(rows, 0, 6), out, shard_bytes=10**6, prefix="a"))
    list(write_shards(numbered(rows, 5, 9), out, shard_bytes=10**6, prefix="b"))
    with pytest.raises(InputError, match=r"b-000000.tar: data: begins with row 5, but a-000000.tar goes up to 5"):
        merge(out)
    list(write_shards(numbered(rows, 6, 9), out, shard_bytes=10**6, prefix="b", origin={"of": "another"}))
    with pytest.raises(InputError, match="belongs to other rows or settings"):
        merge(out)


def test_a_writer_whose_rows_are_all_bad_leaves_no_shard_in_the_pack(tmp_path):
    out = tmp_path / "out"
    rows = RowFile(many(tmp_path / "given", 3))
    list(write_shards(numbered(rows), out, shard_bytes=10**6, prefix="a"))
    list(write_shards([(3, Problem("x:4", "x:4: broken"))], out, shard_bytes=10**6, prefix="b"))
    manifest = merge(out)
    assert (manifest["rows"], manifest["left_out"]) == (3, 1)
    assert sorted(os.listdir(out)) == ["a-000000.tar", "index.npy", "media.npy", "pack.json", "problems.jsonl"]


# --- broken packs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda out: (out / "pack.json").write_text("{"), "pack.json: cannot be read as JSON"),
        (lambda out: (out / "pack.json").write_text("[]"), "pack.json: data: is no page of a pack"),
        (lambda out: (out / "pack.json").write_text('{"rows": 1}'), "is no page of a pack .*pack_version"),
        (lambda out: edit(out, pack_version=99), "pack_version: is version 99, known is 1; pack the rows again"),
        (lambda out: edit(out, rows=6), "index.npy: data: does not fit pack.json"),
        (
            lambda out: (out / "shard-000000.tar").unlink(),
            "shard-000000.tar: data: no such file; copy the whole folder",
        ),
        (lambda out: (out / "media.npy").write_bytes(b"x" * 200), "media.npy: data: cannot be read"),
        (lambda out: (out / "index.npy").write_bytes(b""), "index.npy: data: cannot be read"),
    ],
)
def test_a_broken_pack_is_told_when_it_is_opened(rows, tmp_path, break_it, said):
    out = tmp_path / "shards"
    pack(rows, out)
    break_it(out)
    with pytest.raises(InputError, match=said):
        RowFile(out)


def edit(out: Path, **changes) -> None:
    manifest = json.loads((out / "pack.json").read_text())
    (out / "pack.json").write_text(json.dumps(manifest | changes))


def test_a_shard_of_other_rows_is_told_by_the_row_and_by_its_media(rows, tmp_path):
    out = tmp_path / "shards"
    pack(rows, out)
    packed = RowFile(out)
    sample = packed[0]
    shard = out / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[512] = 0  # the first byte of the first row
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"shard-000000.tar#000000000.json: broken JSON"):
        packed[0]
    shard.write_bytes(bytes(512) + shard.read_bytes())
    with pytest.raises(InputError, match=r"no member|not a plain tar"):
        content(sample.media[0])
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-000000.tar: data: cannot be read \(No such file or directory\)"):
        packed[1]


def test_command_line(rows, tmp_path, command):
    out = tmp_path / "shards"
    code, said, told = command("data", "pack", rows, out, "--shard-mb", 1)
    assert (code, told) == (0, "")
    assert said.startswith(f"{out}: 7 rows in 1 shards, ")
    code, _, told = command("data", "pack", rows, out, "--shard-mb", 2)
    assert code == 2
    assert len(told.splitlines()) == 1
    bad = with_bad(tmp_path / "bad", 20, 2)
    code, said, _ = command("data", "pack", bad, tmp_path / "other")
    assert code == 0
    assert said.endswith("; 2 rows left out, see problems.jsonl\n")
    code, _, told = command("data", "pack", bad, tmp_path / "strict", "--quarantine-share", 0)
    assert (code, told.count("\n")) == (2, 1)


def test_what_docs_packing_says_runs(tmp_path, monkeypatch):
    path = many(tmp_path / "given", 30)
    monkeypatch.chdir(path.parent)
    path.rename("rows.jsonl")
    page = (ROOT / "docs" / "packing.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    assert len(blocks) == 2
    exec(blocks[1], {"__name__": "page"})
    assert RowFile("shards")[29].id == "r29"
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset("shards/part0-{000000..000000}.tar", shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [f"{number:09d}" for number in range(15)]

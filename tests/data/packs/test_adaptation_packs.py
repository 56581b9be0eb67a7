"""The packs solar and speakers, from small made-up cells and words; nothing is downloaded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from monoglot.data.packs import Package, build, fetch, solar, speakers
from monoglot.data.packs.fetch import MissingSource
from monoglot.data.rows import check_rows
from monoglot.errors import InputError, MediaError
from monoglot.tasks import TASKS


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


# --- solar -----------------------------------------------------------------------------------------------------------

CELLS = 1700
"""Enough for 20 blocks of 60, one of 414, and a part of the next."""


def kind_of(number: int) -> str:
    """Blocks 1, 3, 5 ... are mono, 2, 4 ... poly."""
    return "mono" if number > 1200 or (number - 1) // 60 % 2 == 0 else "poly"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """The wheel with small files for pictures; of block k, the first k cells are defective, two more are unsure."""
    data = tmp_path / "wheel/elpv_dataset/data"
    (data / "images").mkdir(parents=True)
    lines = []
    for number in range(1, CELLS + 1):
        block, place = divmod(number - 1, 60)
        said = 1.0 if place < block else 2 / 3 if place == block else 1 / 3 if place == block + 1 else 0.0
        (data / f"images/cell{number:04}.png").write_bytes(b"%d" % number)
        lines.append(f"images/cell{number:04}.png  {said}   {kind_of(number)}\n")
    (data / "labels.csv").write_text("".join(lines))
    package = Package("pip", "elpv-dataset", "1.0.0.post1", solar.SHA256, tmp_path / "wheel")
    monkeypatch.setattr(fetch, "pip", lambda name, version: package)
    return package


def test_solar_rows(wheel: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build("solar", tmp_path / "packs")
    told = capsys.readouterr().err
    assert told.startswith("solar: the pictures are CC BY-NC-SA 4.0: not for commercial use, ")
    found = {split: rows(folder, f"defects.{split}") for split in ("train", "valid", "test")}
    assert sum(map(len, found.values())) == CELLS
    row = next(row for row in found["train"] if row["id"] == "defects/cell1200")
    assert row["text"] == "is this solar cell defective?"
    assert (row["target"], row["choices"], row["group"]) == ("no", ["yes", "no"], "1141-1200")
    assert (folder / row["image"]).read_bytes() == b"1200"
    for rows_of_split in found.values():
        for row in rows_of_split:
            assert row["target"] == ("yes" if row["probability"] > 0.5 else "no")
    assert {row["probability"] for row in found["test"]} == {0.0, 1 / 3, 2 / 3, 1.0}
    for split in found:
        assert check_rows(folder / f"kinds.{split}.jsonl", known_tasks=TASKS).ok
        for row in rows(folder, f"kinds.{split}"):
            assert row["target"][:4] == kind_of(int(row["id"][-4:]))
    notice = (folder / "NOTICE.md").read_text()
    assert "CC BY-NC-SA 4.0" in notice
    assert "10.1016/j.solener.2019.02.067" in notice


def test_no_module_is_in_two_splits_and_each_has_good_and_bad_cells(wheel: Package, tmp_path: Path) -> None:
    folder = build("solar", tmp_path / "packs")
    groups = {
        split: Counter(row["group"] for row in rows(folder, f"defects.{split}")) for split in ("train", "valid", "test")
    }
    assert sum(map(len, groups.values())) == 22
    assert len(set().union(*groups.values())) == 22
    assert groups["train"]["1201-1614"] == 414
    assert groups["train"]["1615-1700"] == 86
    assert set(groups["test"].values()) == set(groups["valid"].values()) == {60}
    assert (len(groups["test"]), len(groups["valid"])) == (6, 4)
    share = {
        split: np.mean([row["target"] == "yes" for row in rows(folder, f"defects.{split}") if row["group"] < "1200"])
        for split in groups
    }
    assert max(share.values()) - min(share.values()) < 0.05


def test_another_wheel_than_the_pinned_one(wheel: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solar, "SHA256", "f" * 64)
    message = f"pack solar: source: pip package elpv-dataset: its sha256 is {wheel.sha256}, expected {'f' * 64}"
    with pytest.raises(InputError) as wrong:
        build("solar", tmp_path / "packs")
    assert str(wrong.value) == message


def test_blocks_of_the_real_numbers() -> None:
    cells = [solar.Cell(Path(), number, 0.0, "mono") for number in range(1, 2625)]
    sizes = Counter(len(block) for block in solar.blocks(cells))
    assert sizes == {60: 26, 414: 1, 530: 1, 72: 1, 48: 1}


# --- speakers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every speaker's package: words as tones, of one pitch a word; two packages in the telephone's code, as in apt."""
    home = tmp_path / "packages"
    for speaker in speakers.SPEAKERS:
        folder = home / speaker.package / "usr/share/asterisk/sounds" / speaker.folder / "digits"
        folder.mkdir(parents=True)
        terms = home / speaker.package / "usr/share/doc" / speaker.package / "copyright"
        terms.parent.mkdir(parents=True)
        terms.write_text(f"Terms of {speaker.package}.\n")
        for number, name in enumerate(speakers.NAMES):
            wave = 0.5 * np.sin(2 * np.pi * (300 + 50 * number) * np.arange(3200) / 8000)
            if speaker.package.startswith("asterisk-prompt") and "wav" not in speaker.package:
                settings = {"format": "RAW", "subtype": "GSM610"}
                soundfile.write(folder / f"{name}.gsm", wave, 8000, **settings)
            else:
                soundfile.write(folder / f"{name}.wav", wave, 8000)

    def give(name: str) -> Package:
        if not (home / name).is_dir():
            raise MissingSource(f"package {name}: not here")
        return Package("apt", name, "1", "0" * 64, home / name)

    monkeypatch.setattr(fetch, "apt", give)
    program = Package("program", "espeak-ng", "0", "0" * 64, Path("espeak-ng"))
    monkeypatch.setattr(speakers, "espeak_package", lambda: program)
    monkeypatch.setattr(speakers, "espeak", lambda text, voice: np.sin(np.arange(len(text) * 800)).astype(np.float32))
    return home


def pitch(file: Path) -> float:
    samples, rate = soundfile.read(file)
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def test_two_people_say_the_same_words(people: Path, tmp_path: Path) -> None:
    folder = build("speakers", tmp_path / "packs")
    for lang, words in speakers.WORDS.items():
        train, test = rows(folder, f"words_{lang}.train"), rows(folder, f"words_{lang}.test")
        assert [row["target"] for row in train] == [row["target"] for row in test] == words.split()
        assert len({row["speaker"] for row in (*train, *test)}) == 2
        for number, (heard, unseen) in enumerate(zip(train, test)):
            assert pitch(folder / heard["audio"]) == pytest.approx(300 + 50 * number, abs=8)
            assert pitch(folder / unseen["audio"]) == pytest.approx(300 + 50 * number, abs=8)
        for split in ("train", "test"):
            assert check_rows(folder / f"words_{lang}.{split}.jsonl", known_tasks=TASKS).ok
        assert Counter(row["group"] for row in rows(folder, f"words_{lang}_espeak.train")) == {
            f"espeak-ng {lang}+{timbre}": 30 for timbre in speakers.TIMBRES
        }
    row = rows(folder, "words_es.test")[12]
    assert row["id"] == "es/july-jim-nez/day-1"
    assert (row["target"], row["group"], row["licence"], row["lang"]) == ("lunes", "July Jiménez", "GPL-2.0", "es")
    notice = (folder / "NOTICE.md").read_text()
    assert "Marco Menardi and Paola Dal Zot" in notice
    assert notice.count("Terms of ") == notice.count("Terms of asterisk-prompt-fr-armelle.") == 1


def test_every_word_is_once_in_its_language() -> None:
    for words in speakers.WORDS.values():
        assert len(set(words.split())) == len(speakers.NAMES) == 30


def test_people_who_are_missing_are_left_out(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (people / "asterisk-prompt-es-co").rename(people / "gone")

    def missing() -> Package:
        raise MissingSource("the command espeak-ng is missing")

    monkeypatch.setattr(speakers, "espeak_package", missing)
    folder = build("speakers", tmp_path / "packs")
    assert json.loads((folder / "sources.json").read_text())["skipped"] == [
        "July Jiménez (es): package asterisk-prompt-es-co: not here",
        "words read by espeak-ng: the command espeak-ng is missing",
    ]
    assert sorted(file.name for file in folder.glob("words_es*")) == ["words_es.train.jsonl"]
    assert not list(folder.glob("*espeak*"))


def test_nobody_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Package:
        raise MissingSource(f"package {name}: not here")

    monkeypatch.setattr(fetch, "apt", missing)
    with pytest.raises(InputError, match=r"^pack speakers: source: package asterisk-core-sounds-fr-wav: not here$"):
        build("speakers", tmp_path / "packs")


def test_a_prompt_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"7\.gsm: audio: cannot be read \(.*\); the package has changed$"):
        speakers.read_prompt(tmp_path, "7")

"""The packs sounds, prompts and spoken, from small made-up kits, prompts and pictures; nothing is downloaded."""

from __future__ import annotations

import doctest
import gzip
import json
import shutil
import struct
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from monoglot.data.packs import Package, build, fetch, prompts, readings, sounds, speech, spoken
from monoglot.data.packs.fetch import MissingSource
from monoglot.errors import InputError, MediaError
from monoglot.rng import stream


def tone(file: Path | str, hertz: float, seconds: float = 0.3, rate: int = 44_100, channels: int = 1) -> None:
    """Write a dying sine."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * time) * np.exp(-5 * time)
    soundfile.write(file, np.stack([wave] * channels, axis=1), rate)


def kit(folder: Path, drums: dict[str, list[str]]) -> None:
    """Write a Hydrogen kit: {drum's name: files}."""
    parts = []
    for name, files in drums.items():
        layers = "".join(f"<layer><filename>{file}</filename></layer>" for file in files)
        parts.append(f"<instrument><name>{name}</name>{layers}</instrument>")
        for number, file in enumerate(files):
            if not (folder / file).exists():
                tone(folder / file, 100 + 50 * number, channels=2, rate=48_000)
    text = (
        f'<drumkit_info xmlns="http://example.org/kit"><instrumentList>{"".join(parts)}</instrumentList></drumkit_info>'
    )
    (folder / "drumkit.xml").write_text(text)


def sound_font(file: Path, names: list[str]) -> None:
    """Write the two chunks of a compressed sound font that matter: Ogg samples and their headers."""
    pool, table = b"", b""
    for number, name in enumerate(names):
        tone(file.with_suffix(".ogg"), 200 + 100 * number)
        ogg = file.with_suffix(".ogg").read_bytes()
        start, end = len(pool), len(pool) + len(ogg)
        table += struct.pack("<20sIIIIIBbHH", name.encode(), start, end, 0, 0, 44_100, 60, 0, 0, 17)
        pool += ogg
    table += struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    body = b"sfbk" + b"smpl" + struct.pack("<I", len(pool)) + pool + b"shdr" + struct.pack("<I", len(table)) + table
    file.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


TRANSCRIPT = """; a comment
beep: [this is a simple beep tone]
hello: Hello.
vm-intro: Please leave your message after the tone. (simple tone sound plays)
missing: There is no file for this.
conf-in: To lock the conference...
silence/1: (1 second of silence)
digits/h-40: fourtieth
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All packages, as folders; `fetch.apt` and `fetch.npm` give them."""
    home = tmp_path / "packages"
    drums = home / "hydrogen-drumkits/usr/share/hydrogen/data/drumkits"
    layers = [f"snare_{n:02}.wav" for n in range(12)]
    kit(drums / "rumpf_kit_z01_h2", {"bass drum 1": ["a.wav"], "d3 - snare": layers, "Whistle": ["w.wav"]})
    kit(drums / "BJA_Pacific", {"Ride": ["r1.wav", "r2.wav"]})
    kit(drums / "Millo-Drums_v.1", {"Snare": layers, "Kick": ["tom_01.wav"], "Hand Clap": ["c.wav"], "17": []})
    kit(drums / "Kit of unknown terms", {"Kick": ["k.wav"]})
    font = home / "fluidr3mono-gm-soundfont/usr/share/fluidr3mono-gm-soundfont/FluidR3Mono_GM.sf3"
    font.parent.mkdir(parents=True)
    sound_font(font, ["Std Kick(L)", "808 Cowbell", "Violin A4", "Piccolo C7(L)", "57_2_BD1_RIM"])
    samples = home / "sonic-pi-samples/usr/share/sonic-pi/samples"
    stems = "bd_808 bd_fat sn_dub drum_snare_soft drum_cymbal_soft tabla_ke1 tabla_na elec_bell perc_bell perc_bell2"
    stems += (
        " bass_hit_c bass_voxy_c bass_voxy_hit_c bass_drop_c loop_amen loop_amen_full loop_mika guit_em9 ambi_choir"
    )
    for number, stem in enumerate(stems.split()):
        tone(samples / f"{stem}.flac", 200 + 20 * number, seconds=6 if stem.startswith("loop") else 0.5)

    words = home / "asterisk-core-sounds-en/usr/share/doc/asterisk-core-sounds-en"
    words.mkdir(parents=True)
    text = TRANSCRIPT + "".join(f"vm-{n}: message number {n}\nphonetic/{n}: word {n}\n" for n in range(20, 60))
    text += "vm-same: word 20\nvm-long: " + "a very long menu " * 30
    (words / "core-sounds-en.txt.gz").write_bytes(gzip.compress(text.encode()))
    voice = home / "asterisk-core-sounds-en-wav/usr/share/asterisk/sounds/en_US_f_Allison"
    for name, _ in prompts.transcripts(text):
        if name != "missing":
            tone(voice / f"{name}.wav", 300, seconds=30 if name == "vm-long" else 0.4, rate=8_000)
    emoji = home / "emojibase-data"
    (emoji / "en").mkdir(parents=True)
    things = [
        {"label": f"{colour} {thing}", "group": 3} for colour in ("red", "blue") for thing in ("cat", "dog", "owl")
    ]
    flags = [{"label": "flag: Japan", "group": 9}, {"label": "keycap: 3", "group": 8}]
    (emoji / "en/data.json").write_text(json.dumps(things + flags))

    def give(name: str, version: str = "1") -> Package:
        if not (home / name).is_dir():
            raise MissingSource(f"package {name}: not here")
        return Package("test", name, version, "0" * 64, home / name)

    monkeypatch.setattr(fetch, "apt", give)
    monkeypatch.setattr(fetch, "npm", give)
    return home


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, speech.Voice]]:
    """A stand-in for espeak-ng; the list fills with what was spoken."""
    spoken_so_far: list[tuple[str, speech.Voice]] = []

    def say(text: str, voice: speech.Voice) -> np.ndarray:
        spoken_so_far.append((text, voice))
        return np.sin(np.arange(len(text) * 800) * voice.pitch / 1000).astype(np.float32)

    program = Package("program", "espeak-ng", "0", "0" * 64, Path("espeak-ng"))
    for module in (prompts, readings, spoken):
        monkeypatch.setattr(module, "espeak", say)
        monkeypatch.setattr(module, "espeak_package", lambda: program)
    return spoken_so_far


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("module", [sounds, prompts, readings, speech, spoken])
def test_examples(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


# --- sounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "drum"),
    [
        ("c#3 - stick", "rimshot"),
        ("Pearl Snare Rimshot", None),  # neither a plain snare nor a plain rim
        ("Ride Bell (Custom, Zagrebin 22)", "ride"),
        ("Crash/Ride Bow", None),
        ("Closed HH 3", "hi-hat"),
        ("VariBreaks Hat 1 Cl", "hi-hat"),
        ("Ohh Voices C 4(L)", None),
        ("Custom", None),
        ("drum_cymbal_pedal", "hi-hat"),
        ("Power Bass Drum 1(L", "kick"),
        ("56_53_SNR_RIM", "rimshot"),
        ("56_50_SNR_NORM_WHOL", "snare"),
        ("Dununba1 Bell Mute", "cowbell"),
        ("emptySample", None),
    ],
)
def test_names_of_drums(name: str, drum: str | None) -> None:
    assert sounds.drum_of(name) == drum


def test_rules_know_only_drums_that_can_be_answered() -> None:
    assert {drum for drum, _ in sounds.DRUM_RULES if drum} == set(sounds.DRUMS)
    assert {kit.use for kit in sounds.KITS.values()} == {"train", "valid", "test", "sharealike"}
    permissive = ("CC0 1.0", "CC BY 3.0", "MIT")
    assert all(kit.licence in permissive for kit in sounds.KITS.values() if kit.use in ("train", "valid"))


def test_sounds_are_split_by_kit(packages: Path, tmp_path: Path) -> None:
    folder = build("sounds", tmp_path / "out")
    train, valid, test = (rows(folder, f"drums.{split}") for split in ("train", "valid", "test"))
    kits = [{row["kit"] for row in part} for part in (train, valid, test)]
    assert kits == [{"rumpf_kit_z01_h2", "FluidR3", "Sonic Pi"}, {"FluidR3 TR-808"}, {"Millo-Drums_v.1"}]
    assert {row["licence"] for row in train} <= {"CC0 1.0", "CC BY 3.0", "MIT"}
    assert {row["kit"] for row in rows(folder, "drums_sharealike.train")} == {"BJA_Pacific"}
    assert {row["group"] for row in rows(folder, "sonicpi_drums.test")} == {"Sonic Pi drum/drum_snare_soft"}
    # 12 layers of a snare: 8 train, 2 test; the file `tom_01` contradicts the name Kick, so it is left out
    assert Counter(row["group"] for row in train)["rumpf_kit_z01_h2/d3 - snare"] == sounds.TRAIN_LAYERS
    assert Counter(row["target"] for row in test) == {"snare": sounds.TEST_LAYERS, "clap": 1}
    assert {row["target"] for row in train if row["kit"] == "FluidR3"} == {"kick", "rimshot"}
    assert all(row["target"] in row["choices"] for row in train + valid + test)
    notes = json.loads((folder / "sources.json").read_text())
    assert len(notes["packages"]) == 3
    assert any("Kit of unknown terms" in line for line in notes["skipped"])
    assert "Emanuel Rumpf" in (folder / "NOTICE.md").read_text()


def test_sounds_by_kind_keep_families_together(packages: Path, tmp_path: Path) -> None:
    folder = build("sounds", tmp_path / "out")
    splits: dict[str, set[str]] = {}
    for split in ("train", "valid", "test"):
        if (folder / f"sounds.{split}.jsonl").is_file():
            for row in rows(folder, f"sounds.{split}"):
                splits.setdefault(row["group"], set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert splits["drum"] == {"test"}  # the kit that tests the drums never trains
    assert "loop_amen" in splits
    assert "ambi_choir" not in splits
    every = [row for split in ("train", "test") for row in rows(folder, f"sounds.{split}")]
    loop = next(row for row in every if row["id"] == "sounds/loop_amen")
    info = soundfile.info(folder / loop["audio"])
    assert (info.samplerate, info.channels, info.format) == (sounds.RATE, 1, "FLAC")
    assert info.duration <= sounds.LONGEST


def test_the_same_seed_builds_the_same_pack(packages: Path, tmp_path: Path) -> None:
    first, second = (build("sounds", tmp_path / name, seed=3) for name in "ab")
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_sounds_do_with_what_is_there(packages: Path, tmp_path: Path) -> None:
    shutil.rmtree(packages / "hydrogen-drumkits")
    folder = build("sounds", tmp_path / "out")
    assert not (folder / "drums_sharealike.train.jsonl").exists()
    assert len(json.loads((folder / "sources.json").read_text())["skipped"]) == 1
    for package in packages.iterdir():
        shutil.rmtree(package)
    with pytest.raises(InputError, match="hydrogen-drumkits: not here"):
        build("sounds", tmp_path / "none")


def test_reading_mixes_down_and_resamples(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 440, seconds=1.0, rate=48_000, channels=2)
    samples = sounds.read_mono(tmp_path / "a.wav", 16_000)
    assert samples.shape == (16_000,)
    assert samples.dtype == np.float32
    assert np.argmax(np.abs(np.fft.rfft(samples))) == pytest.approx(440, abs=2)  # one bin a Hz
    (tmp_path / "b.wav").write_bytes(b"not a sound")
    with pytest.raises(MediaError, match=r"b\.wav: audio: cannot be read"):
        sounds.read_mono(tmp_path / "b.wav", 16_000)


def test_trim() -> None:
    rate = 1000
    silent = sounds.trim(np.zeros(5000, np.float32), rate)
    assert silent.size == 100  # the shortest
    long = sounds.trim(np.ones(9000, np.float32), rate)
    assert long.size == 4000
    assert long[-1] == 0  # faded out
    assert sounds.trim(np.ones(4000, np.float32), rate)[-1] == 1  # nothing was cut: no fade
    assert sounds.trim(np.zeros(0, np.float32), rate).size == 100


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_words_are_cleaned() -> None:
    assert prompts.clean("<beep ascending>") == ""
    assert prompts.clean("press # now") == "press pound now"
    assert prompts.clean('IAX (note: does not say "2")') == "IAX"
    assert prompts.clean("... extension ...") == "extension"
    assert prompts.clean("fourtieth") == "fortieth"
    assert prompts.key("You're muted!") != prompts.key("You are muted")


def test_prompts(packages: Path, voices: list, tmp_path: Path) -> None:
    folder = build("prompts", tmp_path / "out")
    parts = {split: rows(folder, f"transcribe.{split}") for split in ("train", "valid", "test")}
    every = {row["id"].removeprefix("transcribe/"): row for part in parts.values() for row in part}
    assert every["vm-intro"]["target"] == "Please leave your message after the tone."
    assert every["digits/h-40"]["target"] == "fortieth"
    assert not {"beep", "silence/1", "missing", "vm-long"} & set(every)
    groups = {split: {row["group"] for row in part} for split, part in parts.items()}
    assert not groups["train"] & groups["test"] | groups["train"] & groups["valid"] | groups["valid"] & groups["test"]
    assert 0.15 < len(groups["test"]) / sum(map(len, groups.values())) < 0.25

    labels = {row["id"]: row for split in ("train", "valid", "test") for row in rows(folder, f"category.{split}")}
    assert {row["target"] for row in labels.values()} == {"voicemail", "phonetic alphabet"}
    assert not {"category/vm-same", "category/phonetic/20"} & set(labels)  # the same words in two kinds
    assert all(row["choices"] == ["phonetic alphabet", "voicemail"] for row in labels.values())

    for split in ("train", "valid", "test"):
        for row in rows(folder, f"transcribe_espeak.{split}"):
            assert row["voice"] in speech.VOICES[split]
            assert (
                row["group"] in groups[split]
                if row["origin"] == "prompt"
                else row["target"].split()[0] in ("red", "blue")
            )
            assert soundfile.info(folder / row["audio"]).samplerate == speech.SPEECH_RATE
    assert all("flag" not in text for text, _ in voices)


def test_prompts_without_espeak(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech.espeak_package.cache_clear()
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    folder = build("prompts", tmp_path / "out")
    assert not list(folder.glob("transcribe_espeak*"))
    assert "espeak-ng is missing" in json.loads((folder / "sources.json").read_text())["skipped"][0]


# --- speech and spoken -----------------------------------------------------------------------------------------------


def test_no_accent_and_no_timbre_is_in_two_splits() -> None:
    parts = [[name.partition("+")[::2] for name in names] for names in speech.VOICES.values()]
    for which in (0, 1):
        seen = [voice for part in parts for voice in {pair[which] for pair in part}]
        assert len(seen) == len(set(seen))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_every_voice_is_one_of_its_own() -> None:
    """espeak-ng answers an unknown voice with another one and says nothing."""
    speech.espeak_package.cache_clear()
    names = [name for split in speech.VOICES.values() for name in split]
    heard = {name: speech.espeak("one", speech.Voice(name, 160, 50)).tobytes() for name in names}
    assert len(set(heard.values())) == len(names)
    again = speech.espeak("one", speech.Voice(names[0], 160, 50))
    assert again.tobytes() == heard[names[0]]
    assert 0.1 * speech.SPEECH_RATE < again.size < 2 * speech.SPEECH_RATE
    assert 0.1 < np.abs(again).max() <= 1


def test_a_drawn_voice_keeps_to_its_split() -> None:
    drawn = [speech.draw_voice("test", stream(0, "test", n)) for n in range(50)]
    assert {voice.name for voice in drawn} == set(speech.VOICES["test"])
    assert all(speech.SPEEDS[0] <= voice.speed <= speech.SPEEDS[1] for voice in drawn)


def test_readings_are_plain_sentences_once_in_voices_of_their_split(tmp_path, voices) -> None:
    said = {
        "train": ["Return a list of screens", "Call `f(x)` again and again", "Too short", "Return a list of screens"],
        "valid": ["Close the file when it is done"],
        "test": ["Draw a line between two points, then another"],
    }
    folder = tmp_path / "out/docstrings"
    folder.mkdir(parents=True)
    for split, texts in said.items():
        lines = [{"id": f"{split}{n}", "task": "summarize", "text": "x", "target": t} for n, t in enumerate(texts)]
        (folder / f"summaries.{split}.jsonl").write_text(
            "".join(json.dumps(o | {"licence": "MIT"}) + "\n" for o in lines)
        )
    (folder / "sources.json").write_text("{}")
    built = build("readings", tmp_path / "out")
    for split, texts in said.items():
        (row,) = rows(built, f"sentences.{split}")
        assert (row["target"], row["licence"]) == (texts[0], "MIT")
        assert row["voice"] in speech.VOICES[split]
        assert (built / row["audio"]).is_file()
    assert [text for text, _ in voices] == [texts[0] for texts in said.values()]


@pytest.fixture
def emoji(tmp_path: Path) -> Path:
    """A finished emoji pack of a few animals and tools; the folder of all packs. Nothing may train on the horse."""
    things = {"animal": ["eel", "cat", "newt", "gnu", "horse"], "tool": ["saw", "axe", "drill", "file: old"]}
    styles = ("twemoji", "fluent-flat", "streamline", "noto", "openmoji")
    concepts = []
    for subgroup, names in things.items():
        for name in names:
            code = f"{len(concepts):04x}"
            concepts.append(spoken.Concept(code, "", (name,), (name,), (), (), "things", subgroup, subgroup, styles))
            for style in styles:
                file = tmp_path / "out/emoji/media" / style / f"{code}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"a picture")
    (tmp_path / "out/emoji/concepts.json").write_text(json.dumps([asdict(concept) for concept in concepts]))
    (tmp_path / "out/emoji/sources.json").write_text("{}")
    return tmp_path / "out"


def test_spoken(emoji: Path, voices: list) -> None:
    folder = build("spoken", emoji)
    concepts = {concept.hexcode: concept for concept in spoken.read_concepts(emoji / "emoji")}
    styles = {"train": {"twemoji", "fluent-flat"}, "valid": {"streamline"}, "test": {"noto"}}
    for split in ("train", "valid", "test"):
        pairs = rows(folder, f"matching.{split}")
        assert abs(Counter(row["target"] for row in pairs)["yes"] - len(pairs) / 2) <= 1
        assert {row["style"] for row in pairs} <= styles[split]
        for row in pairs:
            assert (folder / row["image"]).is_file()
            assert row["voice"] in speech.VOICES[split]
            assert row["image"].endswith(f"/{row['style']}/{row['concept']}.png")
            assert (row["target"] == "yes") == (row["concept"] == row["spoken"])
            same = concepts[row["concept"]].subgroup == concepts[row["spoken"]].subgroup
            assert same or not row["hard"]
        assert sum(row["hard"] for row in pairs) == pytest.approx(len(pairs) / 4, abs=1)
        names = rows(folder, f"spoken_names.{split}")
        assert len(names) == 7 * spoken.TAKES[split]  # "file: old" is not plain words
        assert all(concepts[row["concept"]].name == row["target"] for row in names)
    # what a row says it holds is what was spoken for its file
    said = Counter(text for text, _ in voices)
    assert set(said) == {"eel", "cat", "newt", "gnu", "saw", "axe", "drill"}
    assert max(said.values()) == sum(spoken.TAKES.values())  # every take is recorded once and used in many rows


def test_spoken_needs_espeak(emoji: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech.espeak_package.cache_clear()
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="espeak-ng is missing"):
        build("spoken", emoji)

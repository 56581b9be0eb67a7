"""The pack `sounds`: single drum hits from named kits, and short sounds of a few plain kinds.

    drum kits, a sound font, Sonic Pi's samples -> one mono FLAC a hit -> "which drum is this?", "what kind of ...?"

Layers of one drum are near copies of each other, so a kit is never split: a whole kit trains, validates or tests.
Only kits under CC0, CC BY or MIT are in `drums.train` and `drums.valid`; the CC BY-SA kit that trains has a file of
its own (`drums_sharealike.train`); GPL kits only test.
"""

from __future__ import annotations

import io
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from monoglot.data.packs import fetch
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.fetch import MissingSource
from monoglot.errors import MediaError
from monoglot.rng import stream

RATE = 44_100
"""Hz of every file of this pack."""
LONGEST = 4.0
"""Seconds; longer sounds are cut and faded out."""
SHORTEST = 0.1
"""Seconds; shorter sounds are padded with silence, for the sake of front ends with long windows."""
TRAIN_LAYERS, TEST_LAYERS = 8, 2
"""How many recordings of one drum a row file may hold."""

DRUM_QUESTION = "which drum is this?"
DRUMS = ("kick", "snare", "rimshot", "tom", "hi-hat", "crash", "ride", "clap", "cowbell", "hand drum")
DRUM_RULES: tuple[tuple[str | None, str], ...] = (  # the first pattern found in a drum's name decides; None: left out
    (None, r"roll|swirl|snare.*rim ?shot|crash/ride|ride-crash|sticks|sleigh|tree|metronome|vibra|orch bass|taiko"),
    (
        None,
        r"voices|piccolo [a-g]|timpani|melodic|\bsyn\b|cymbal (hard|soft)",
    ),  # flutes, tuned drums, either cymbal
    ("hand drum", r"djembe|bongo|conga|tumba|cajon|tabla|closed slap"),
    ("rimshot", r"rim click|rim tap| rim$|side ?stick|\bstick\b"),
    ("clap", r"clap"),
    ("cowbell", r"cow ?bell|agogo|(sangban|dununba|kenkeni)\d bell"),
    ("hi-hat", r"\b[co]?hh|\bhat|hi-?\s?hat|[a-z]hat(\b|\d)|cymbal (closed|open|pedal)"),
    ("ride", r"\bride|paiste bell"),
    ("crash", r"crash|crsh|splash|china"),
    ("tom", r"\btom|floortom|studio|\btnr"),
    ("kick", r"kick|bass ?drum|\bbd|drum bass"),
    ("snare", r"snare|\bsnr|\bsn\b|piccolo|rm pwr"),
)

SOUND_QUESTION = "what kind of sound is this?"
KINDS: dict[str, str] = {  # kind -> which of Sonic Pi's file names (whole stem)
    "ambience": r"ambi_(?!choir|piano).*",  # a choir and a piano are neither a kind of their own nor a background
    "bass": r"bass_.*|glitch_bass_g",
    "bell": r"elec_(bell|chime|triangle)|perc_bell2?",
    "drum": r"bd_.*|sn_.*|drum_.*|tabla_.*|elec_(.*snare|.*kick|fuzz_tom)",
    "electronic": r"mehackit_.*|glitch_robot\d|elec_(beep|blip2?|blup|flip|plip|ping|twip)",
    "guitar": r"guit_.*",
    "loop": r"loop_.*",
}


@dataclass(frozen=True)
class Kit:
    """A drum kit and what may be done with it: `use` is train, valid, test, or sharealike (trains in its own file)."""

    author: str
    licence: str
    use: str
    drop: tuple[str, ...] = field(default=())
    """Drums whose name does not say what is heard."""


# Licences as in the package's debian/copyright (2017.09.19), which asked the authors where a kit says nothing.
KITS: dict[str, Kit] = {
    "rumpf_kit_z01_h2": Kit("Emanuel Rumpf", "CC BY 3.0", "train"),
    "Audiophob": Kit("soundcloud.com/audiophobdubstep", "CC0 1.0", "valid", ("Pedal HH", "Ride Jazz")),
    "BJA_Pacific": Kit("Luc Tanguay, Bransin James Anderson", "CC BY-SA 3.0 US", "sharealike"),
    "circAfrique v4": Kit("Jim Harney", "CC BY-SA 3.0", "test"),
    "ColomboAcousticDrumkit": Kit("Marcos Guglielmetti", "GPL-2+ with composition exception", "test"),
    "ElectricEmpireKit": Kit("Artemiy Pavlov", "GPL-2+", "test"),
    "ForzeeStereo": Kit("Vladimir Sadovnikov, Alexander Belokurov", "GPL-2", "test", ("Stick",)),
    "Gimme A Hand 1.0": Kit("Glen MacArthur", "GPL-2", "test"),
    "HardElectro1": Kit("Artemiy Pavlov", "GPL-2+", "test"),
    "Millo-Drums_v.1": Kit("Emiliano Grilli", "GPL-2", "test"),
    "Millo_MultiLayered2": Kit("Emiliano Grilli", "GPL-2", "test"),
    "Millo_MultiLayered3": Kit("Emiliano Grilli", "GPL-2", "test"),
    "The Black Pearl 1.0": Kit("Glen MacArthur", "GPL-2", "test"),
    "VariBreaks": Kit("Artemiy Pavlov", "GPL-2+", "test"),
}


@dataclass(frozen=True)
class Hit:
    """One recording of one drum. `sound` is a file, or a file's bytes."""

    kit: str
    licence: str
    drum: str
    name: str
    sound: Path | bytes


# --- sound as arrays -------------------------------------------------------------------------------------------------


def read_mono(source: Path | bytes, rate: int) -> np.ndarray:
    """Read a sound as float32[time] in [-1, 1] at `rate` Hz; channels are averaged.

    Raises:
        MediaError: the file cannot be read.
    """
    try:
        samples, found = soundfile.read(
            io.BytesIO(source) if isinstance(source, bytes) else source, dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, OSError) as failure:
        name = "a sound in memory" if isinstance(source, bytes) else source
        raise MediaError.at(name, "audio", f"cannot be read ({failure})", "give wav, flac, ogg or aiff") from failure
    mono = samples.mean(axis=1)
    return mono if found == rate else soxr.resample(mono, found, rate).astype(np.float32)


def flac(samples: np.ndarray, rate: int) -> bytes:
    """Write float32[time] as 16-bit mono FLAC.

    >>> soundfile.info(io.BytesIO(flac(np.zeros(8000, np.float32), 16_000))).duration
    0.5
    """
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def trim(
    samples: np.ndarray, rate: int, *, longest: float = LONGEST, shortest: float = SHORTEST, floor: float = 1e-3
) -> np.ndarray:
    """Cut what follows the last sample above `floor` times the peak; cut to `longest`, pad to `shortest` seconds.

    A sound that is too long ends in a fade of 20 ms.

    >>> trim(np.r_[np.ones(100), np.zeros(100_000)].astype(np.float32), 1000).size
    150
    """
    loud = np.flatnonzero(np.abs(samples) > floor * np.abs(samples).max(initial=0))
    end = int(loud[-1]) + 1 + rate // 20 if loud.size else 0  # 50 ms more
    limit = int(longest * rate)
    cut = samples[: min(end, limit)].copy()
    if end > limit < samples.size:
        fade = min(rate // 50, cut.size)
        cut[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return np.pad(cut, (0, max(0, int(shortest * rate) - cut.size)))


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spaced, without the extremes where that is possible.

    >>> spread("abcdefgh", 2), spread("ab", 8)
    (['c', 'g'], ['a', 'b'])
    """
    if len(items) <= count:
        return list(items)
    return [items[int((k + 0.5) * len(items) / count)] for k in range(count)]


def slug(name: str) -> str:
    """A file name's worth of a name: `slug("Hi-Hat Open (14\\")") == "hi-hat-open-14"`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


# --- sources ---------------------------------------------------------------------------------------------------------


def drum_of(name: str) -> str | None:
    """Which of DRUMS a drum's name means, None if it says too little or something else.

    >>> drum_of("Pearl Side Stick"), drum_of("SabianHatOpen-Soft"), drum_of("Whistle")
    ('rimshot', 'hi-hat', None)
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)  # TomLow, tom_low -> Tom Low, tom low
    return next((drum for drum, pattern in DRUM_RULES if re.search(pattern, words, re.IGNORECASE)), None)


def hydrogen_kit(folder: Path) -> Iterator[tuple[str, Path]]:
    """(drum's name, file) of every layer in a Hydrogen drum kit, in the order of drumkit.xml."""
    text = re.sub(rb'\sxmlns="[^"]*"', b"", (folder / "drumkit.xml").read_bytes(), count=1)
    for instrument in ElementTree.fromstring(text).iter("instrument"):
        for file in instrument.iter("filename"):
            if file.text and (folder / file.text).is_file():
                yield instrument.findtext("name") or "", folder / file.text


def sound_font(file: Path) -> Iterator[tuple[str, bytes]]:
    """(name, Ogg bytes) of every sample in a compressed sound font (SF3).

    Source: SoundFont 2.04, section 7.10 (the `shdr` chunk: 46 bytes a sample); in SF3 `start` and `end` are byte
    offsets of an Ogg Vorbis file. Chunks are looked up by name because writers disagree about padding bytes.
    """
    data = file.read_bytes()
    pool = data.index(b"smpl") + 8
    table = data.rindex(b"shdr")
    (size,) = struct.unpack_from("<I", data, table + 4)
    for name, start, end, *_, kind in struct.iter_unpack("<20sIIIIIBbHH", data[table + 8 : table + 8 + size]):
        if kind & 0x10:  # compressed
            yield name.split(b"\0")[0].decode("latin-1"), data[pool + start : pool + end]


def kit_hits(folder: Path, name: str, kit: Kit) -> Iterator[Hit]:
    """The hits of one Hydrogen kit whose name, and whose file's name if it says anything, mean the same drum."""
    seen: set[Path] = set()
    for instrument, file in hydrogen_kit(folder):
        drum = drum_of(instrument)
        heard = drum_of(re.sub(r"^\d+__[^_]+__", "", file.stem))
        if drum and heard in (None, drum) and instrument not in kit.drop and file not in seen:
            seen.add(file)
            yield Hit(name, kit.licence, drum, instrument, file)


def font_hits(file: Path) -> Iterator[Hit]:
    """The drums of FluidR3: the TR-808 as a kit of its own, and of the marching drums (`55_...`) some."""
    marching = r"\d\d_\d+_(SNR_(NORM|RIM$|HH|RIDE)|TNR\d_(NORM|RIM)|BD\d_RIM|(FULL|HALF)CRASH).*"
    for name, sound in sound_font(file):
        drum = drum_of(name) if not re.match(r"\d\d_", name) or re.fullmatch(marching, name) else None
        if drum:
            yield Hit("FluidR3 TR-808" if name.startswith("808") else "FluidR3", "MIT", drum, name, sound)


def sonic_pi_hits(samples: Sequence[Path]) -> Iterator[Hit]:
    """The drums among Sonic Pi's samples. The files `drum_*` are one acoustic kit; the others come from many people."""
    for file in samples:
        drum = drum_of(file.stem) if re.fullmatch(KINDS["drum"], file.stem) else None
        if drum:
            prefix = file.stem.split("_")[0]
            name = prefix if prefix == "tabla" else file.stem  # all tabla strokes are layers of one drum
            yield Hit("Sonic Pi drum" if prefix == "drum" else "Sonic Pi", "CC0 1.0", drum, name, file)


# --- the pack --------------------------------------------------------------------------------------------------------


def add_drums(writer: PackWriter, subset: str, split: str, hits: Sequence[Hit], layers: int) -> None:
    """Write hits as rows; of each drum in a kit at most `layers`, evenly spaced."""
    drums: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        drums.setdefault((hit.kit, hit.name), []).append(hit)
    numbers: dict[str, int] = {}
    for kept in drums.values():
        for hit in spread(kept, layers):
            stem = f"{slug(hit.kit)}/{slug(hit.name)}"
            numbers[stem] = numbers.get(stem, 0) + 1  # two names may share a slug
            stem = f"{stem}-{numbers[stem]}"
            audio = writer.media(f"drums/{stem}.flac", flac(trim(read_mono(hit.sound, RATE), RATE), RATE))
            row = {
                "id": f"{subset}/{stem}",
                "task": "classify",
                "audio": audio,
                "text": DRUM_QUESTION,
                "target": hit.drum,
                "choices": list(DRUMS),
                "kit": hit.kit,
                "licence": hit.licence,
                "group": f"{hit.kit}/{hit.name}",
                "name": hit.name,
            }
            writer.add(subset, split, row)


def family(stem: str) -> str:
    """Which of Sonic Pi's files belong together: takes, strengths and continuations of one recording.

    >>> family("loop_amen_full"), family("perc_bell2"), family("bass_voxy_hit_c"), family("tabla_ghe3")
    ('loop_amen', 'perc_bell', 'bass_voxy', 'tabla')
    """
    if re.match(r"tabla_|drum_", stem):
        return stem.split("_")[0]
    if re.fullmatch(r"elec_(hi|mid|lo)_snare", stem):
        return "elec_snare"
    stem = re.sub(r"(?<=[a-z])\d$", "", stem)
    stem = re.sub(r"(?<=[a-z]{3})(_full|_[a-g])$", "", stem)
    return re.sub(r"(?<=_voxy)_hit$", "", stem)


def split_families(families: Sequence[str], *seed_names: Any, fixed: dict[str, str]) -> dict[str, str]:
    """Give each family of one kind a split: about a quarter tests, a sixth validates, the rest trains."""
    free = sorted(set(families) - set(fixed))
    order = stream(*seed_names).permutation(len(free))
    tests, valids = max(1, round(len(free) / 4)), max(1, round(len(free) / 6)) if len(free) > 3 else 0
    splits = {free[k]: "test" if n < tests else "valid" if n < tests + valids else "train" for n, k in enumerate(order)}
    return {**splits, **{name: split for name, split in fixed.items() if name in families}}


def add_sounds(writer: PackWriter, samples: Sequence[Path]) -> None:
    """Sonic Pi's samples by kind. Its acoustic kit (`drum_*`), which tests the drums, tests here too."""
    for kind, pattern in KINDS.items():
        files = [file for file in samples if re.fullmatch(pattern, file.stem)]
        families: dict[str, list[Path]] = {}
        for file in files:
            families.setdefault(family(file.stem), []).append(file)
        fixed = {"drum": "test", "tabla": "train"}
        splits = split_families(list(families), writer.seed, "sounds", kind, fixed=fixed)
        for name, members in families.items():
            for file in spread(members, TRAIN_LAYERS):
                audio = writer.media(f"sounds/{file.stem}.flac", flac(trim(read_mono(file, RATE), RATE), RATE))
                row = {
                    "id": f"sounds/{file.stem}",
                    "task": "classify",
                    "audio": audio,
                    "text": SOUND_QUESTION,
                    "target": kind,
                    "choices": list(KINDS),
                    "licence": "CC0 1.0",
                    "group": name,
                }
                writer.add("sounds", splits[name], row)


def build(writer: PackWriter) -> None:
    """Build the pack from the sources that can be had; at least one must be there."""
    made, failures = 0, []
    for add in (_from_kits, _from_font, _from_sonic_pi):
        try:
            add(writer)
            made += 1
        except MissingSource as missing:
            failures.append(str(missing))
            writer.skip(add.__doc__ or "", missing)
    if not made:
        raise MissingSource(failures[0])


def _from_kits(writer: PackWriter) -> None:
    """Hydrogen's drum kits"""
    package = fetch.apt("hydrogen-drumkits")
    writer.source(package)
    home = package.folder / "usr/share/hydrogen/data/drumkits"
    for folder in writer.track(sorted(home.iterdir()), "drum kits"):
        kit = KITS.get(folder.name)
        if kit is None:
            writer.skip(f"drum kit {folder.name}", "its licence is not in the table KITS")
            continue
        hits = list(kit_hits(folder, folder.name, kit))
        if kit.use == "sharealike":
            add_drums(writer, "drums_sharealike", "train", hits, TRAIN_LAYERS)
        else:
            add_drums(writer, "drums", kit.use, hits, TRAIN_LAYERS if kit.use == "train" else TEST_LAYERS)
        writer.notice(
            f"Drum kit {folder.name}", kit.licence, f"By {kit.author}. From the Debian package {package.name}."
        )


def _from_font(writer: PackWriter) -> None:
    """the drums of the sound font FluidR3"""
    package = fetch.apt("fluidr3mono-gm-soundfont")
    writer.source(package)
    hits = list(font_hits(package.folder / "usr/share/fluidr3mono-gm-soundfont/FluidR3Mono_GM.sf3"))
    add_drums(writer, "drums", "train", [hit for hit in hits if hit.kit == "FluidR3"], TRAIN_LAYERS)
    add_drums(writer, "drums", "valid", [hit for hit in hits if hit.kit != "FluidR3"], TEST_LAYERS)
    terms = package.folder / "usr/share/doc/fluidr3mono-gm-soundfont/copyright"  # MIT asks that it comes along
    text = terms.read_text(encoding="utf-8") if terms.is_file() else "Copyright Frank Wen, Michael Cowgill and others."
    writer.notice("FluidR3 Mono GM sound font", "MIT", f"From the Debian package {package.name}.\n\n{text}")


def _from_sonic_pi(writer: PackWriter) -> None:
    """Sonic Pi's samples"""
    package = fetch.apt("sonic-pi-samples")
    writer.source(package)
    samples = sorted((package.folder / "usr/share/sonic-pi/samples").glob("*.flac"))
    hits = list(sonic_pi_hits(samples))
    add_drums(writer, "drums", "train", [hit for hit in hits if hit.kit == "Sonic Pi"], TRAIN_LAYERS)
    add_drums(writer, "sonicpi_drums", "test", [hit for hit in hits if hit.kit != "Sonic Pi"], len(hits))
    add_sounds(writer, samples)
    text = "All from freesound.org, slightly edited for Sonic Pi; its README.md names the author of each."
    writer.notice("Sonic Pi samples", "CC0 1.0", f"{text} From the Debian package {package.name}.")


PACKS.add("sounds", Pack("sounds", "drum hits from named kits, and short sounds by kind", build))

"""The pack `prompts`: telephone prompts with what they say and what they are for, and more speech by espeak-ng.

    sound files + transcript list -> cleaned text -> split by text -> "transcribe", "what kind of prompt is this?"

The same words are never in two splits; espeak-ng reads in a split that split's words, in that split's voices.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monoglot.data.packs import fetch
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.emoji_words import KEPT_OUT
from monoglot.data.packs.fetch import MissingSource
from monoglot.data.packs.sounds import flac, read_mono, slug, trim
from monoglot.data.packs.speech import SPEECH_RATE, draw_voice, espeak, espeak_package
from monoglot.rng import stream

PHONE_RATE = 8_000
"""Hz of the prompts, which were made for the telephone; kept as it is."""
LONGEST = 20.0
"""Seconds; the few longer prompts (menus read to the end, a demonstration) are left out."""
SPLIT_SHARES = {"test": 0.2, "valid": 0.08}
ESPEAK_ROWS = {"train": 600, "valid": 80, "test": 120}
FEWEST = 15
"""A category with fewer prompts is not asked about."""

CATEGORY_QUESTION = "what kind of prompt is this?"
CATEGORIES: dict[str, str] = {  # category -> which names of prompts; the first that matches
    "day or month": r"digits/(day|mon)-\d+|digits/(today|tomorrow|yesterday)",
    "number": r"digits/(h-)?(\d+|hundred|thousand|million|billion)",
    "letter": r"letters/([a-z]|zed)",
    "symbol": r"letters/(?!space).*|digits/(pound|star)",
    "phonetic alphabet": r"phonetic/.*",
    "conference": r"conf(bridge)?-.*",
    "voicemail": r"vm-.*",
    "queue": r"queue-.*",
    "directory": r"dir-.*",
}

SPELLING = {  # mistakes of the transcript that nobody says
    "fourtieth": "fortieth",
    "umute": "unmute",
    "represenatives": "representatives",
    "Un-indentified": "Unidentified",
    "witheld": "withheld",
    "exclaimation-point": "exclamation point",
    "exclamation-point": "exclamation point",
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Prompt:
    """One prompt: its name in the transcript (`digits/7`), its file, its words, and the split of these words."""

    name: str
    file: Path
    text: str
    split: str


def clean(text: str) -> str:
    """What is heard: no stage directions, no dots that mean "goes on", signs spelled out. Empty if nothing is said.

    >>> clean("...to exit the menu."), clean("press * now (simple tone plays)"), clean("[a tone]"), clean("at [@]")
    ('to exit the menu.', 'press star now', '', 'at')
    """
    text = re.sub(r"\[.*?\]|<.*?>|\(.*?\)", " ", text)
    text = re.sub(r"\.\.\.", " ", text).replace("*", "star").replace("#", "pound")
    for wrong, right in SPELLING.items():
        text = re.sub(rf"\b{wrong}\b", right, text)
    return " ".join(text.split())


def key(text: str) -> str:
    """The words alone, to tell whether two texts are said the same way.

    >>> key("Press 1, for ...") == key("press one for")
    True
    """
    spelled = re.sub(r"\b\d\b", lambda digit: DIGITS[int(digit[0])], text.lower())
    return " ".join(re.findall(r"[a-z0-9']+", spelled))


def transcripts(text: str) -> Iterator[tuple[str, str]]:
    """(name, words as written) of each line `name: words`; lines that start with `;` are comments."""
    for line in text.splitlines():
        name, colon, words = line.partition(":")
        if colon and not line.startswith(";"):
            yield name.strip(), words.strip()


def split_keys(keys: Iterable[str], seed: int, shares: Mapping[str, float] | None = None) -> dict[str, str]:
    """Give every distinct key a split: the shares of `SPLIT_SHARES`, and the rest trains."""
    shares = SPLIT_SHARES if shares is None else shares
    names = sorted(set(keys))
    splits: dict[str, str] = {}
    order = iter(stream(seed, "prompts", "split").permutation(len(names)))
    for split, share in shares.items():
        splits |= {names[next(order)]: split for _ in range(round(share * len(names)))}
    return {name: splits.get(name, "train") for name in names}


def read_prompts(folder: Path, text: str, seed: int) -> list[Prompt]:
    """The prompts of one speaker that are speech and have a file."""
    said = [(name, folder / f"{name}.wav", clean(words)) for name, words in transcripts(text)]
    said = [(name, file, words) for name, file, words in said if key(words) and file.is_file()]
    splits = split_keys((key(words) for *_, words in said), seed)
    return [Prompt(name, file, words, splits[key(words)]) for name, file, words in said]


def category_of(name: str) -> str | None:
    """What a prompt is for, from its name.

    >>> category_of("digits/mon-3"), category_of("vm-login"), category_of("beep")
    ('day or month', 'voicemail', None)
    """
    return next((label for label, pattern in CATEGORIES.items() if re.fullmatch(pattern, name)), None)


def categories(prompts: Sequence[Prompt]) -> dict[str, str]:
    """Category by prompt's name. Words used in two categories, and small categories, are left out."""
    found = {prompt.name: label for prompt in prompts if (label := category_of(prompt.name))}
    uses: dict[str, set[str]] = {}
    for prompt in prompts:
        uses.setdefault(key(prompt.text), set()).add(found.get(prompt.name, prompt.name))
    clear = {p.name: found[p.name] for p in prompts if p.name in found and len(uses[key(p.text)]) == 1}
    sizes = Counter(clear.values())
    return {name: label for name, label in clear.items() if sizes[label] >= FEWEST}


def add_prompts(writer: PackWriter, prompts: Sequence[Prompt], speaker: str) -> list[Prompt]:
    """Write the subsets `transcribe` and `category`; return the prompts that were not too long."""
    labels = categories(prompts)
    choices = [label for label in CATEGORIES if label in labels.values()]
    kept = []
    for prompt in writer.track(prompts, "prompts"):
        samples = read_mono(prompt.file, PHONE_RATE)
        if samples.size > LONGEST * PHONE_RATE:
            continue
        kept.append(prompt)
        audio = writer.media(f"prompts/{prompt.name}.flac", flac(samples, PHONE_RATE))
        shared = {"speaker": speaker, "licence": "CC BY-SA 3.0", "group": key(prompt.text)}
        row = {
            "id": f"transcribe/{prompt.name}",
            "task": "transcribe",
            "audio": audio,
            "text": "",
            "target": prompt.text,
        }
        writer.add("transcribe", prompt.split, {**row, **shared})
        if prompt.name in labels:
            row = {"id": f"category/{prompt.name}", "task": "classify", "audio": audio, "text": CATEGORY_QUESTION}
            writer.add("category", prompt.split, {**row, "target": labels[prompt.name], "choices": choices, **shared})
    return kept


# --- the same words, read by espeak-ng -------------------------------------------------------------------------------


def emoji_names(data: str) -> list[str]:
    """Names of emoji that are plain words, without flags, variants of people ("man: white hair") and what nothing trains on."""
    names = [entry["label"] for entry in json.loads(data) if entry.get("group") in (0, 1, 3, 4, 5, 6, 7, 8)]
    return sorted({n for n in names if re.fullmatch(r"[A-Za-z][A-Za-z -]{2,39}", n) and n not in KEPT_OUT})


def add_espeak(writer: PackWriter, split: str, texts: Sequence[str], origin: str, licence: str, rows: int) -> None:
    """Write up to `rows` rows of `transcribe_espeak`: some of the texts, each in a voice of the split."""
    chosen = stream(writer.seed, "prompts", "espeak", split, origin).permutation(len(texts))[:rows]
    for number in writer.track(sorted(int(k) for k in chosen), f"espeak-ng, {origin}, {split}"):
        if writer.full("transcribe_espeak", split):
            break
        text = texts[number]
        voice = draw_voice(split, stream(writer.seed, "prompts", "voice", split, text))
        name = f"{split}-{origin}-{number:04d}-{slug(text)[:40].strip('-')}"
        samples = trim(espeak(text, voice), SPEECH_RATE, longest=LONGEST)
        row = {
            "id": f"transcribe_espeak/{name}",
            "task": "transcribe",
            "audio": writer.media(f"espeak/{name}.flac", flac(samples, SPEECH_RATE)),
            "text": "",
            "target": text,
            **voice.fields,
            "origin": origin,
            "licence": licence,
            "group": key(text),
        }
        writer.add("transcribe_espeak", split, row)


def build(writer: PackWriter) -> None:
    """Build the pack; the synthetic part is left out where espeak-ng is missing."""
    sound = fetch.apt("asterisk-core-sounds-en-wav")
    words = fetch.apt("asterisk-core-sounds-en")
    writer.source(sound)
    writer.source(words)
    transcript = words.folder / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt"
    zipped = transcript.with_name(transcript.name + ".gz")
    text = gzip.decompress(zipped.read_bytes()).decode() if zipped.is_file() else transcript.read_text(encoding="utf-8")
    folder = sound.folder / "usr/share/asterisk/sounds/en_US_f_Allison"
    prompts = add_prompts(writer, read_prompts(folder, text, writer.seed), "Allison Smith")
    credit = "Recorded by Allison Smith (http://www.theivrvoice.com), financed by Digium, Inc. Converted to FLAC."
    writer.notice("Asterisk core sounds, English", "CC BY-SA 3.0", f"{credit} Transcripts cleaned of stage directions.")

    try:
        program = espeak_package()
    except MissingSource as missing:
        writer.skip("prompts read by espeak-ng", missing)
    else:
        writer.source(program)
        writer.notice(f"Speech by espeak-ng {program.version}", "GPL-3+ for the program, not for what it says", "")
        add_readings(writer, prompts)


def add_readings(writer: PackWriter, prompts: Sequence[Prompt]) -> None:
    """Have espeak-ng read the prompts' words (half of the rows) and names of emoji."""
    words = {key(prompt.text): prompt for prompt in prompts}
    for split, rows in ESPEAK_ROWS.items():
        texts = [prompt.text for prompt in words.values() if prompt.split == split]
        add_espeak(writer, split, texts, "prompt", "CC BY-SA 3.0", rows // 2)
    try:
        emoji = fetch.npm("emojibase-data", "17.0.0")
    except MissingSource as missing:
        writer.skip("names of emoji read by espeak-ng", missing)
        return
    writer.source(emoji)
    licence = emoji.folder / "LICENSE"  # MIT asks that it comes along
    text = licence.read_text(encoding="utf-8") if licence.is_file() else "Copyright (c) 2017-2019 Miles Johnson."
    writer.notice("emojibase-data, English names", "MIT", text)
    names = emoji_names((emoji.folder / "en/data.json").read_text(encoding="utf-8"))
    splits = split_keys((key(name) for name in names if key(name) not in words), writer.seed)
    for split, rows in ESPEAK_ROWS.items():
        texts = [name for name in names if splits.get(key(name)) == split]
        add_espeak(writer, split, texts, "emoji", "MIT", rows - rows // 2)


PACKS.add("prompts", Pack("prompts", "telephone prompts: what is said, and what kind of prompt it is", build))

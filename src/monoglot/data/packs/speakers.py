"""The pack `speakers`: which of 30 spoken words is this? One person's recordings train, another's test.

    telephone prompts of two people, in French, Italian, Spanish -> digits, days, months -> one row a word and speaker
    the same words by espeak-ng, in a file of their own -> more voices to train on

The prompts of apt carry the same names in every package (`digits/mon-3`), so that two people say the same word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from monoglot.data.packs import fetch
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.fetch import MissingSource
from monoglot.data.packs.prompts import PHONE_RATE
from monoglot.data.packs.sounds import flac, read_mono, slug, trim
from monoglot.data.packs.speech import SPEECH_RATE, Voice, espeak, espeak_package
from monoglot.errors import MediaError

QUESTION = "which word is spoken?"
NAMES = (*(str(n) for n in range(11)), *(f"day-{n}" for n in range(7)), *(f"mon-{n}" for n in range(12)))
"""Files in the folder `digits`: 0 to 10, Sunday to Saturday, January to December."""
WORDS = {
    "fr": (
        "zéro un deux trois quatre cinq six sept huit neuf dix dimanche lundi mardi mercredi jeudi vendredi samedi "
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"
    ),
    "it": (
        "zero uno due tre quattro cinque sei sette otto nove dieci domenica lunedì martedì mercoledì giovedì venerdì sabato "
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre"
    ),
    "es": (
        "cero uno dos tres cuatro cinco seis siete ocho nueve diez domingo lunes martes miércoles jueves viernes sábado "
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"
    ),
}
"""What is said, in the order of NAMES; ours, because the packages' transcripts miss accents and one number."""
TIMBRES = ("m1", "m3", "m7", "f1", "f2", "f4")
"""espeak-ng's variants that read each language."""


@dataclass(frozen=True)
class Speaker:
    """One person's recordings."""

    lang: str
    split: str
    name: str
    package: str
    folder: str
    """Where `digits` lies, below usr/share/asterisk/sounds."""
    licence: str
    credit: str = ""
    """If empty, the whole copyright file of the package goes into NOTICE.md."""


SPEAKERS = (
    Speaker(
        *("fr", "train", "June Wallack", "asterisk-core-sounds-fr-wav", "fr_CA_f_June", "CC BY-SA 3.0"),
        "Recorded by June Wallack (http://www.junewallack.com), financed by Digium, Inc., Unlimitel, BGM Informatique.",
    ),
    Speaker(
        *("fr", "test", "Armelle Desjardins", "asterisk-prompt-fr-armelle", "fr", "own terms, like BSD"),
    ),
    Speaker(
        *("it", "train", "Carlo Flora", "asterisk-core-sounds-it-wav", "it_IT_m_Carlo", "CC BY 3.0"),
        "Recorded by Carlo Flora (http://www.carloflora.com); Copyright 2012 Carlo Flora, http://www.segreterietelefoniche.it.",
    ),
    Speaker(
        *("it", "test", "Paola Dal Zot", "asterisk-prompt-it-menardi-wav", "it_IT_f_Menardi", "CC BY-SA 3.0"),
        "Made by Marco Menardi and Paola Dal Zot; from them, newer versions and other voices too: http://www.voip.ammdomus.it.",
    ),
    Speaker(
        *("es", "train", "Allison Smith", "asterisk-core-sounds-es-wav", "es_MX_f_Allison", "CC BY-SA 3.0"),
        "Recorded by Allison Smith (http://www.theivrvoice.com), financed by Digium, Inc.",
    ),
    Speaker(
        *("es", "test", "July Jiménez", "asterisk-prompt-es-co", "es", "GPL-2.0"),
        "Avatar Ltda. (http://www.avatar.com.co); voice: July E. Jiménez.",
    ),
)


def read_prompt(folder: Path, name: str) -> np.ndarray:
    """float32[time] at PHONE_RATE: `name.wav`, or `name.gsm`, which is a telephone's code without a header.

    Raises:
        MediaError: neither is there, or it cannot be read.
    """
    if (folder / f"{name}.wav").is_file():
        return read_mono(folder / f"{name}.wav", PHONE_RATE)
    file = folder / f"{name}.gsm"
    try:
        raw = {"samplerate": PHONE_RATE, "channels": 1, "format": "RAW", "subtype": "GSM610"}
        return soundfile.read(file, dtype="float32", **raw)[0]
    except (soundfile.LibsndfileError, OSError) as failure:
        raise MediaError.at(file, "audio", f"cannot be read ({failure})", "the package has changed") from failure


def add_word(writer: PackWriter, split: str, name: str, lang: str, samples: np.ndarray, rate: int, **held: str) -> None:
    """Write one row; `held` says who speaks and under which licence."""
    words = WORDS[lang].split()
    speaker = slug(held["speaker"])
    row = {
        "id": f"{lang}/{speaker}/{name}",
        "task": "classify",
        "audio": writer.media(f"{lang}/{speaker}/{name}.flac", flac(trim(samples, rate), rate)),
        "text": QUESTION,
        "target": words[NAMES.index(name)],
        "choices": words,
        "lang": lang,
    }
    subset = f"words_{lang}_espeak" if held["speaker"].startswith("espeak") else f"words_{lang}"
    writer.add(subset, split, {**row, **held, "group": held["speaker"]})


def add_speaker(writer: PackWriter, speaker: Speaker) -> None:
    """Write a row for each word that a person says."""
    package = fetch.apt(speaker.package)
    folder = package.folder / "usr/share/asterisk/sounds" / speaker.folder / "digits"
    writer.source(package)
    for name in NAMES:
        samples = read_prompt(folder, name)
        held = {"speaker": speaker.name, "licence": speaker.licence}
        add_word(writer, speaker.split, name, speaker.lang, samples, PHONE_RATE, **held)
    title = f"{speaker.name}, {speaker.lang} (apt {package.name} {package.version})"
    terms = package.folder / "usr/share/doc" / speaker.package / "copyright"
    credit = speaker.credit or terms.read_text(encoding="utf-8").strip()
    writer.notice(title, speaker.licence, f"{credit}\n\nWords cut at their end and converted to FLAC.")


def add_espeak(writer: PackWriter) -> None:
    """Have espeak-ng say the same words, in six timbres a language; all of them train."""
    program = espeak_package()
    writer.source(program)
    for lang, timbre in writer.track([(lang, timbre) for lang in WORDS for timbre in TIMBRES], "espeak-ng"):
        for name, word in zip(NAMES, WORDS[lang].split()):
            samples = espeak(word, Voice(f"{lang}+{timbre}", 160, 50))
            held = {"speaker": f"espeak-ng {lang}+{timbre}", "licence": "Apache-2.0"}
            add_word(writer, "train", name, lang, samples, SPEECH_RATE, **held)
    writer.notice(f"Speech by espeak-ng {program.version}", "GPL-3+ for the program, not for what it says", "")


def build(writer: PackWriter) -> None:
    """Build the pack; a person whose package is missing is left out, and so is what espeak-ng says where it is missing.

    Raises:
        MissingSource: no package is there.
    """
    failures = []
    for speaker in writer.track(SPEAKERS, "speakers"):
        try:
            add_speaker(writer, speaker)
        except MissingSource as missing:
            failures.append(missing)
            writer.skip(f"{speaker.name} ({speaker.lang})", missing)
    if len(failures) == len(SPEAKERS):
        raise failures[0]
    try:
        add_espeak(writer)
    except MissingSource as missing:
        writer.skip("words read by espeak-ng", missing)


PACKS.add(
    "speakers", Pack("speakers", "which of 30 words is spoken, by a voice that did not train (fr, it, es)", build)
)

"""The pack `readings`: whole sentences by synthetic voices, so that a model of names goes on hearing sentences.

    docstrings pack's summaries -> plain words -> espeak-ng reads each -> transcribe

Texts are split as the pack `docstrings` splits its libraries, voices as in `speech`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.sounds import flac, trim
from monoglot.data.packs.speech import SPEECH_RATE, draw_voice, espeak, espeak_package
from monoglot.data.rows import read_rows
from monoglot.nouns import Sample
from monoglot.rng import stream
from monoglot.tasks import TASKS

READ = {"train": 3000, "valid": 60, "test": 120}
"""How many sentences a split has."""
WORDS = (4, 14)
"""Fewest and most words of a sentence."""


def sayable(samples: Iterable[Sample]) -> list[Sample]:
    """Rows whose summary is a sentence of plain words, each text once.

    >>> rows = [Sample("1", "summarize", (), "", (text,)) for text in ("Return a list of screens", "Call `f(x)`")]
    >>> [row.id for row in sayable(rows)]
    ['1']
    """
    found: dict[str, Sample] = {}
    for sample in samples:
        text = sample.targets[0]
        plain = re.fullmatch(r"[A-Z][a-z]*(,? [a-z]+(-[a-z]+)*)+", text) is not None
        if plain and WORDS[0] <= len(text.split()) <= WORDS[1]:
            found.setdefault(text, sample)
    return list(found.values())


def build(writer: PackWriter) -> None:
    """Read sentences of the docstrings pack aloud."""
    program = espeak_package()
    writer.source(program)
    for split, wanted in READ.items():
        path = Path(writer.out) / "docstrings" / f"summaries.{split}.jsonl"
        rows = sayable(read_rows(path, known_tasks=TASKS)) if path.is_file() else []
        order = stream(writer.seed, "readings", split).permutation(len(rows))[:wanted]
        for number in writer.track(sorted(int(k) for k in order), f"sentences, {split}"):
            if writer.full("sentences", split):
                break
            text = rows[number].targets[0]
            voice = draw_voice(split, stream(writer.seed, "readings", "voice", split, text))
            samples = trim(espeak(text, voice), SPEECH_RATE)
            row = {
                "id": f"sentences/{split}/{number:04d}",
                "task": "transcribe",
                "audio": writer.media(f"{split}/{number:04d}.flac", flac(samples, SPEECH_RATE)),
                "text": "",
                "target": text,
                "lang": "en",
                "licence": rows[number].meta.get("licence", ""),
            }
            writer.add("sentences", split, row | voice.fields)
    writer.notice(f"Speech by espeak-ng {program.version}", "GPL-3+ for the program, not for what it says", "")
    writer.notice("Sentences", "see the NOTICE.md of the pack `docstrings`", "Each row says its sentence's licence.")


PACKS.add("readings", Pack("readings", "sentences of docstrings, read by synthetic voices", build, ("docstrings",)))

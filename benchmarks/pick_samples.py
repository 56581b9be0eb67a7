"""Picks the rows that `monoglot demo` answers: at random from test splits, before any model has answered them.

    python benchmarks/pick_samples.py --packs packs --out src/monoglot/assets/samples

`PICKS` says how many rows of which test file; one seed draws them all. A drawn row is passed over only if its licence is
not in `FREE`, if one of its media files is also in a training file, or if it is too large; never for its answer.
The photograph is the one thing chosen by hand: it is there because nothing like it was trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from monoglot.data.packs.fetch import pip
from monoglot.data.rows import MEDIA_KEYS, write_rows
from monoglot.files import write_text
from monoglot.rng import stream

FREE = ("CC0 1.0", "MIT", "Apache-2.0", "CC-BY-4.0", "CC BY 4.0", "CC BY 3.0", "BSD")
LARGEST = 200_000
"""Bytes of one media file."""
KEPT = ("id", "task", *MEDIA_KEYS, "start", "end", "text", "target", "targets", "box", "choices", "lang")

NOTO = "Noto Emoji, in no training picture"
SCENE = f"a scene of {NOTO}"
FILM = f"a film of {NOTO}"


@dataclass(frozen=True)
class Pick:
    """`count` rows of `packs/<pack>/<subset>.test.jsonl`; `source` names their notice below."""

    pack: str
    subset: str
    count: int
    about: str
    source: str


PICKS = (
    Pick("emoji", "names_en", 4, NOTO, "noto"),
    Pick("emoji", "names_ja", 2, NOTO, "noto"),
    Pick("emoji", "kinds", 1, NOTO, "noto"),
    Pick("emoji", "yesno", 1, NOTO, "noto"),
    Pick("emoji", "grounding", 2, SCENE, "noto"),
    Pick("emoji", "region_caption", 1, SCENE, "noto"),
    Pick("emoji", "counting", 1, SCENE, "noto"),
    Pick("emoji", "leftright", 1, SCENE, "noto"),
    Pick("emoji", "captions", 1, SCENE, "noto"),
    Pick("emoji", "matching", 1, SCENE, "noto"),
    Pick("clips", "direction", 1, FILM, "noto"),
    Pick("clips", "order", 1, FILM, "noto"),
    Pick("clips", "which_moves", 1, FILM, "noto"),
    Pick("clips", "change", 1, FILM, "noto"),
    Pick("clips", "animated", 2, "an animated Fluent Emoji; its still picture was trained on", "animated"),
    Pick("sounds", "sonicpi_drums", 2, "Sonic Pi, a kit in no training sound", "sonicpi"),
    Pick("sounds", "sounds", 1, "Sonic Pi, a family of sounds in no training row", "sonicpi"),
    Pick("spoken", "spoken_names", 2, "espeak-ng, a voice in no training sound", "espeak"),
    Pick("spoken", "matching", 2, "Noto Emoji and an espeak-ng voice, neither trained on", "noto and espeak"),
    Pick("docstrings", "summaries", 2, "a docstring of a library in no training text", "docstrings"),
)

APACHE = "Apache-2.0, the licence of monoglot itself; its text comes with monoglot as LICENSE."
MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions: The above copyright notice and
this permission notice shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED
"AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS
BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
NOTICES = {
    "noto": f"Noto Emoji, Copyright Google Inc (npm @iconify-json/noto 1.2.9). {APACHE} Changes: drawn to 192 x 192 "
    "pixels; in scenes and films turned, scaled and laid on backgrounds.",
    "animated": "Fluent Emoji, animated (npm @lobehub/fluent-emoji-anim-1 1.0.0). Copyright (c) Microsoft Corporation. "
    f"Package: Copyright (c) 2023 LobeHub. Changes: made smaller, laid on white, re-encoded. MIT:\n\n{MIT}",
    "sonicpi": "Samples of Sonic Pi (Debian package sonic-pi-samples), from freesound.org, CC0 1.0. "
    "Changes: mixed to one channel, cut to four seconds.",
    "espeak": "Speech that monoglot made with espeak-ng (the program is GPL-3+, what it says is not). The words are names "
    f"from emojibase-data 17.0.0, Copyright (c) Miles Johnson, MIT:\n\n{MIT}",
    "photo": "Chelsea the cat, by Stefan van der Walt, CC0 1.0 (from scikit-image 0.25.2). Changes: made smaller.",
}


def picked(pick: Pick, packs: Path, seed: int) -> list[tuple[dict[str, Any], list[Path]]]:
    """(row, its media files) of each row drawn."""
    folder = packs / pick.pack
    rows = [json.loads(line) for line in (folder / f"{pick.subset}.test.jsonl").read_text("utf-8").splitlines()]
    trained = training_media(folder)
    found: list[tuple[dict[str, Any], list[Path]]] = []
    for index in stream(seed, "samples", pick.pack, pick.subset).permutation(len(rows)):
        row = rows[int(index)]
        files = [folder / row[key] for key in MEDIA_KEYS if key in row]
        free = row["licence"] in FREE
        if free and all(file.stat().st_size <= LARGEST and digest(file) not in trained for file in files):
            found.append((row, files))
        if len(found) == pick.count:
            return found
    raise SystemExit(f"{folder}/{pick.subset}.test.jsonl: only {len(found)} rows can be used, {pick.count} are wanted")


def training_media(folder: Path, known: dict[Path, set[str]] = {}) -> set[str]:  # noqa: B006 (a memory on purpose)
    """Digests of every media file that a training row of the pack names."""
    if folder not in known:
        paths = set()
        for file in folder.glob("*.train.jsonl"):
            for line in file.read_text("utf-8").splitlines():
                row = json.loads(line)
                paths |= {folder / row[key] for key in MEDIA_KEYS if key in row}
        known[folder] = {digest(path) for path in paths}
    return known[folder]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, required=True, help="folder that `monoglot data build` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the samples; replaced")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    media = args.out / "media"
    shutil.rmtree(media, ignore_errors=True)
    media.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    covered: dict[str, str] = {}
    """File -> name of its notice."""
    for pick in PICKS:
        for row, files in picked(pick, args.packs, args.seed):
            kept = {key: row[key] for key in KEPT if key in row and row[key] != ""}
            for key, file in zip([key for key in MEDIA_KEYS if key in row], files):
                name = re.sub(r"[^a-z0-9]+", "-", f"{pick.subset}-{file.parent.name}-{file.stem}".lower()).strip("-")
                kept[key] = f"media/{name}{file.suffix}"
                shutil.copyfile(file, args.out / kept[key])
                source = pick.source.split(" and ")[-1 if key == "audio" else 0]
                covered[kept[key]] = source
            rows.append(
                kept | {"about": pick.about, "licence": row["licence"], "pack": pick.pack, "subset": pick.subset}
            )
    rows.append(photograph(args.out))
    covered["media/photo-chelsea.jpg"] = "photo"
    write_rows(args.out / "rows.jsonl", rows)
    write_text(args.out / "NOTICE.md", notice(covered, rows, args))
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{len(rows)} rows, {len(covered)} media files, {size / 1e6:.2f} MB in {args.out}")


def photograph(out: Path) -> dict[str, Any]:
    """The row of the photograph."""
    source = pip("scikit-image", "0.25.2").folder / "skimage/data/chelsea.png"
    picture = Image.open(source).convert("RGB")
    picture.thumbnail((360, 360), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    (out / "media/photo-chelsea.jpg").write_bytes(file.getvalue())
    return {
        "id": "photo/chelsea",
        "task": "name",
        "image": "media/photo-chelsea.jpg",
        "targets": ["cat", "cat face", "tabby cat", "domestic cat"],
        "lang": "en",
        "about": "a photograph, chosen by hand",
        "licence": "CC0 1.0",
        "pack": "scikit-image",
        "subset": "photo",
    }


def notice(covered: dict[str, str], rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """Where each file comes from and under which licence."""
    parts = [
        "# Sources of the bundled samples",
        f"Drawn from test splits by `python benchmarks/pick_samples.py --seed {args.seed}`, without a look at any answer.",
    ]
    for source, text in NOTICES.items():
        files = [f"- {file}" for file, whose in covered.items() if whose == source]
        parts += [f"## {source}", text, "\n".join(files)]
    libraries = sorted({row["id"].split("/")[0] for row in rows if row["pack"] == "docstrings"})
    for library in libraries:
        text = (args.packs / "docstrings/licences" / f"{library}.txt").read_text("utf-8")
        quoted = [f"- the row {row['id']} of rows.jsonl" for row in rows if row["id"].startswith(f"{library}/")]
        parts += [f"## docstrings of {library}", "Changes: markup, code and parameter lists taken out.", text.strip()]
        parts += ["\n".join(quoted)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()

"""Concepts of the pack `emoji`: what there is to draw, who drew it, and the drawings as pictures.

emojibase-data -> Concept (names, kind) + drawing packages -> Style, joined by code point -> one PNG a style
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from monoglot.data.packs.base import PackWriter, write_atomic
from monoglot.data.packs.emoji_words import (
    GROUPS,
    KEPT_OUT,
    KIND_OF,
    KINDS,
    NOT_THINGS,
    PLAIN,
    THE,
    UNCOUNTED,
    is_plural,
    plain_name,
    short_forms,
)
from monoglot.data.packs.fetch import MissingSource, Package, cache_dir, npm
from monoglot.data.packs.svg import render
from monoglot.errors import InputError

SIZE = 192
"""Side of a single picture, pixels."""
MIN_STYLES = 4
"""A concept must be drawn in at least this many styles, the test style among them."""

# Styles: who drew what, under which licence ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """One hand: a package of drawings. `kind` is how the package stores them: 'iconify', 'webp' or 'openmoji'."""

    name: str
    package: str
    version: str
    split: str
    licence: str
    """SPDX identifier; an iconify package must say the same about itself, else the style is skipped."""
    credit: str
    kind: str = "iconify"


_MICROSOFT = "copyright Microsoft Corporation, https://github.com/microsoft/fluentui-emoji"

# fmt: off
STYLES = (
    Style("twemoji", "@iconify-json/twemoji", "1.2.5", "train", "CC-BY-4.0",
          "Twemoji, copyright Twitter, Inc and other contributors, https://github.com/jdecked/twemoji"),
    Style("fluent-flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "train", "MIT",
          f"Fluent Emoji (flat), {_MICROSOFT}"),
    Style("fluent-colour", "@iconify-json/fluent-emoji", "1.2.7", "train", "MIT",
          f"Fluent Emoji (colour), {_MICROSOFT}"),
    Style("fluent-3d", "@lobehub/fluent-emoji-3d", "1.1.0", "train", "MIT",
          f"Fluent Emoji (3D), {_MICROSOFT}; packaged by LobeHub", "webp"),
    Style("emojione", "@iconify-json/emojione", "1.2.3", "train", "CC-BY-4.0",
          "EmojiOne 2, copyright Emoji One, https://github.com/EmojiTwo/emojitwo"),
    Style("fxemoji", "@iconify-json/fxemoji", "1.2.2", "train", "Apache-2.0",
          "FxEmojis, copyright Mozilla Foundation, https://github.com/mozilla/fxemoji"),
    Style("streamline", "@iconify-json/streamline-emojis", "1.2.4", "valid", "CC-BY-4.0",
          "Streamline Emojis, copyright Streamline, https://streamlinehq.com"),
    # The older @iconify-json/noto-v1 is left out on purpose: it is the test style's own first edition.
    Style("noto", "@iconify-json/noto", "1.2.9", "test", "Apache-2.0",
          "Noto Emoji, copyright Google Inc, https://github.com/googlefonts/noto-emoji"),
    Style("openmoji", "openmoji", "17.0.0", "test", "CC-BY-SA-4.0",
          "OpenMoji, the open-source emoji and icon project, https://openmoji.org", "openmoji"),
)
# fmt: on
"""Every style. OpenMoji is share-alike: its pictures and rows keep to `media/sharealike` and `names_*_sharealike`."""

TEST_STYLE = "noto"
SHAREALIKE = "openmoji"
NAMES = ("emojibase-data", "17.0.0")


def split_of(style: str) -> str:
    """The split that a style belongs to: 'train', 'valid' or 'test'.

    >>> split_of("noto"), split_of("twemoji")
    ('test', 'train')
    """
    return next(s.split for s in STYLES if s.name == style)


# Concepts: what there is to draw --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Concept:
    """One thing that several hands drew."""

    hexcode: str
    """Unicode code points in lower case, joined by '-', without fe0f and 200d: `1f408`."""
    emoji: str
    names_en: tuple[str, ...]
    """The name, then other forms that count as right."""
    names_ja: tuple[str, ...]
    tags_en: tuple[str, ...]
    tags_ja: tuple[str, ...]
    group: str
    """One of emojibase's ten groups, e.g. 'animals-nature'."""
    subgroup: str
    """One of emojibase's hundred subgroups, e.g. 'animal-mammal'."""
    kind: str
    """The subgroup in plain words, e.g. 'animal'."""
    styles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.names_en[0]

    @property
    def kept_out(self) -> bool:
        """Whether nothing trains on it: neither its pictures nor its name."""
        return self.name in KEPT_OUT


def read_concepts(folder: Path) -> list[Concept]:
    """Read `concepts.json` of a built emoji pack; `folder` is the pack's folder.

    Raises:
        InputError: the pack is not built yet.
    """
    path = Path(folder) / "concepts.json"
    if not path.is_file():
        raise InputError.at(path, "", "not there", "build the pack `emoji` first")
    found = []
    for row in read_json(path):
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "name"}
        found.append(Concept(**values))
    return found


def taught(concepts: Iterable[Concept]) -> list[Concept]:
    """The concepts that may be in rows that train, and in the tests of what was trained."""
    return [concept for concept in concepts if not concept.kept_out]


def picture_path(style: str, hexcode: str) -> str:
    """Where a picture lies below `media/`: `<style>/<hexcode>.png`, share-alike ones apart from the others.

    >>> picture_path("noto", "1f408"), picture_path("openmoji", "1f408")
    ('noto/1f408.png', 'sharealike/openmoji/1f408.png')
    """
    return f"{'sharealike/' if style == SHAREALIKE else ''}{style}/{hexcode}.png"


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def join_key(hexcode: str) -> str:
    """Code points as all packages can be joined by.

    >>> join_key("2764-FE0F-200D-1F525")
    '2764-1f525'
    """
    return hexcode.lower().replace("-fe0f", "").replace("-200d", "")


def squash(name: str) -> str:
    """A name without case, spaces and marks: `high-speed train` -> `highspeedtrain`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def concepts_from(data: Path) -> list[Concept]:
    """The concepts that `emojibase-data` names in both languages, not yet with styles.

    Left out: skin tones and hair (components), facing directions, families spelt out member by member, and the man and
    woman forms of a gesture or activity, whose drawing in many styles equals that of the person form.
    """
    japanese = {row["hexcode"]: row for row in read_json(data / "ja" / "data.json")}
    meta = read_json(data / "meta" / "groups.json")
    found = []
    for row in read_json(data / "en" / "data.json"):
        code = row["hexcode"]
        if "group" not in row or code not in japanese or meta["groups"][str(row["group"])] not in GROUPS:
            continue
        label = row["label"]
        if re.search(r"-264[02](-FE0F)?$", code) or ": facing" in label or ("," in label and ":" in label):
            continue
        if re.match(r"(family|kiss|couple with heart): ", label):
            continue
        group, subgroup = meta["groups"][str(row["group"])], meta["subgroups"][str(row["subgroup"])]
        name, other = plain_name(label), japanese[code]
        found.append(
            Concept(
                hexcode=join_key(code),
                emoji=row["emoji"],
                names_en=(name, *short_forms(name, subgroup)),
                names_ja=(other["label"],),
                tags_en=tuple(row.get("tags", ())),
                tags_ja=tuple(other.get("tags", ())),
                group=group,
                subgroup=subgroup,
                kind=KIND_OF.get(name, KINDS.get(subgroup, "thing")),
            )
        )
    return found


def in_scenes(concept: Concept) -> bool:
    """Whether a concept reads as a thing that can lie on a table of stickers."""
    return (
        concept.group not in ("symbols", "flags")
        and concept.subgroup not in ("family", "person-symbol")
        and not re.search(r"o'clock|-thirty|:|,", concept.name)
        and concept.name not in NOT_THINGS
    )


def is_countable(concept: Concept) -> bool:
    """Whether "how many ... are there?" reads well."""
    name = concept.name
    people = concept.group == "people-body" and concept.subgroup != "body-parts"
    listed = name in UNCOUNTED | THE | PLAIN or is_plural(name)
    return in_scenes(concept) and not listed and not people and len(name.split()) <= 3 and " and " not in name


STOP = {"with", "without", "of", "on", "in", "at", "and", "the", "a", "from", "to", "not", "for"}
GENERIC = {"face", "person", "man", "woman", "button", "sign", "symbol", "hand", "hands", "circle", "square"}
"""Words that two names may share and still be told apart by a careful eye."""


def words(concept: Concept) -> set[str]:
    """The words that a concept is called by, without the small ones."""
    return {word for name in concept.names_en for word in re.split(r"[\s-]+", name.lower())} - STOP


def confusable(a: Concept, b: Concept, *, careful: bool = False) -> bool:
    """Whether one name may be said of the other's picture; `careful` lets them share a GENERIC word."""
    shared = words(a) & words(b)
    if careful:
        shared -= GENERIC
    tagged = a.name in b.tags_en or b.name in a.tags_en
    return bool(shared) or tagged


# Drawings: from a package to pictures ---------------------------------------------------------------------------------


def drawings(style: Style, package: Package, known: dict[str, str]) -> dict[str, Path | str]:
    """What a style draws: {join key: SVG text, or the path of a picture or an SVG}.

    Args:
        known: {squashed name: join key}, for packages that name their drawings without code points.

    Raises:
        MissingSource: the package is not laid out as expected, or states another licence than `style.licence`.
    """
    if style.kind == "webp":
        return {join_key(path.stem): path for path in sorted(package.folder.glob("assets/*.webp"))}
    if style.kind == "openmoji":
        return {join_key(path.stem): path for path in sorted(package.folder.glob("color/svg/*.svg"))}
    info = read_json(package.folder / "info.json")
    icons = read_json(package.folder / "icons.json")
    if info["license"].get("spdx") != style.licence:
        raise MissingSource(f"{style.package}: its licence is {info['license'].get('spdx')}, expected {style.licence}")
    codes = package.folder / "chars.json"
    named = read_json(codes) if codes.is_file() else {}
    if named:
        pairs = [(join_key(code), name) for code, name in named.items()]
    else:
        every = [*icons["icons"], *icons.get("aliases", {})]
        pairs = [(key, name) for name in every if (key := _named(style, name, known, every))]
    found: dict[str, Path | str] = {}
    for key, name in pairs:
        if (svg := iconify_svg(icons, name)) is not None:
            found.setdefault(key, svg)
    return found


def _named(style: Style, name: str, known: dict[str, str], every: Sequence[str]) -> str | None:
    """The join key of a drawing that is only named."""
    renamed = RENAMED.get(style.name, {})
    if name in renamed:
        return known.get(squash(renamed[name]))
    if style.name == "fxemoji":
        # Where it draws an animal twice, `cat` is the face and `catside` the whole cat.
        if name.endswith("side") and name.removesuffix("side") in every:
            return known.get(name.removesuffix("side"))
        if f"{name}side" in every:
            return known.get(f"{name}face")
    if style.name == "streamline":
        name = name.removesuffix("-1")  # the first of several drawings of a thing
    return known.get(squash(name))


def _renamed(text: str) -> dict[str, str]:
    return dict(" ".join(pair.split()).split("=") for pair in text.split(","))


RENAMED = {
    "fxemoji": _renamed("""
        bouquetofflowers=bouquet, bow=ribbon, bullhorn=loudspeaker, bunny=rabbit face, bunnyside=rabbit,
        chilipepper=hot pepper, constructionsign=, couple=, couplekiss=, down=, dragonhead=dragon face,
        dragonside=dragon, evergreen=evergreen tree, fallingleaf=fallen leaf, fishcakeswirl=fish cake with swirl,
        forkknife=fork and knife, frontfacingchick=front-facing baby chick, hampster=hamster, heartarrow=heart
        with arrow, heartblue=, heartgreen=green heart, heartpurple=purple heart, heartyellow=yellow heart,
        heels=high-heeled shoe, keyboard=, lockandkey=locked with key, loudlycrying=loudly crying face,
        mensrunner=running shoe, mensshoe=man's shoe, moodbubble=right anger bubble, musicascend=musical notes,
        pigsnout=pig nose, pistol=, pouting=, present=wrapped gift, ringingbell=bell, snowmountains=snow-capped
        mountain, sparkle=, spurtingwhale=spouting whale, sunraincloud=sun behind rain cloud, tennisball=tennis,
        tramcar=, up=, videocasette=videocassette, wave=, winking=winking face
    """),
    "streamline": _renamed("turkey=, japan=, pistol=, champagne-glass-1="),
}
"""Drawings whose own name misleads or is in no list, in the words of emojibase; nothing after `=` leaves it out."""


def iconify_svg(icons: dict[str, Any], name: str) -> str | None:
    """One icon of an iconify `icons.json` as a complete SVG; None for an unknown name or a turned or cut alias.

    >>> iconify_svg({"icons": {"dot": {"body": "<circle r='1'/>"}}, "width": 2, "height": 2}, "dot")[-21:]
    "<circle r='1'/></svg>"
    """
    entry, seen = icons["icons"].get(name), 0
    while entry is None:
        alias = icons.get("aliases", {}).get(name)
        if alias is None or set(alias) - {"parent", "hidden"} or (seen := seen + 1) > 5:
            return None
        name = alias["parent"]
        entry = icons["icons"].get(name)
    left, top = (entry.get(key, icons.get(key, 0)) for key in ("left", "top"))
    width, height = (entry.get(key, icons.get(key, 16)) for key in ("width", "height"))  # iconify's own default is 16
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return (
        f'<svg {names} width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{entry["body"]}</svg>'
    )


def draw(drawing: Path | str) -> bytes:
    """A drawing as the bytes of an RGBA PNG of SIZE x SIZE, kept in the cache by what it was drawn from."""
    data = drawing.encode() if isinstance(drawing, str) else drawing.read_bytes()
    digest = hashlib.sha256(b"%d\n" % SIZE + data).hexdigest()
    kept = cache_dir() / "drawings" / digest[:2] / f"{digest}.png"
    if not kept.is_file():
        if isinstance(drawing, str) or drawing.suffix == ".svg":
            picture = render(data.decode("utf-8"), SIZE)
        else:
            picture = Image.open(drawing).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        write_atomic(kept, png(picture))
    return kept.read_bytes()


def png(picture: Image.Image) -> bytes:
    """A picture as PNG bytes."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def collect(writer: PackWriter) -> list[Concept]:
    """Fetch every style, join them, draw every concept in every style, write `concepts.json` and the notices."""
    names = npm(*NAMES)
    writer.source(names)
    writer.notice(
        f"Names: {NAMES[0]} {NAMES[1]}",
        "MIT (data derived from Unicode CLDR, Unicode licence v3)",
        "Copyright Miles Johnson, https://github.com/milesj/emojibase. Labels were lightly edited, short forms added.",
    )
    concepts = concepts_from(names.folder)
    known = known_names(names.folder, concepts)

    drawn: dict[str, dict[str, Path | str]] = {}
    for style in STYLES:
        try:
            package = npm(style.package, style.version)
            drawn[style.name] = drawings(style, package, known)
        except MissingSource as missing:
            if style.name == TEST_STYLE:
                raise
            writer.skip(f"style {style.name}", missing)
            continue
        writer.source(package)
        note = f"{style.credit}. Changes: drawn to {SIZE} x {SIZE} pixels; turned, scaled, put together into scenes."
        if style.licence.startswith("CC"):
            note += f"\nThe licence: https://creativecommons.org/licenses/{style.licence[3:-4].lower()}/4.0/"
        writer.notice(f"Style `{style.name}`: {style.package} {style.version}", style.licence, note)

    chosen = []
    for concept in concepts:
        styles = tuple(name for name, pictures in drawn.items() if concept.hexcode in pictures)
        if TEST_STYLE in styles and sum(name != SHAREALIKE for name in styles) >= MIN_STYLES:
            chosen.append(replace(concept, styles=styles))
    if writer.limit is not None:  # a quick look: fewer concepts, evenly taken
        chosen = chosen[:: math.ceil(len(chosen) / max(writer.limit, 60))]
    if not chosen:
        raise InputError.at(
            "pack emoji", "styles", f"no concept has {MIN_STYLES} styles", "see the skipped lines above"
        )

    jobs = [(concept.hexcode, style) for concept in chosen for style in concept.styles]
    for code, hand in writer.track(jobs, "drawing"):
        writer.media(picture_path(hand, code), draw(drawn[hand][code]))
    rows = [{"name": concept.name} | asdict(concept) for concept in chosen]
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    write_atomic(writer.folder / "concepts.json", text.encode())
    return chosen


def known_names(data: Path, concepts: Sequence[Concept]) -> dict[str, str]:
    """{squashed name: join key}: labels first, then Unicode's own names, then short codes."""
    known: dict[str, str] = {}
    keys = {concept.hexcode for concept in concepts}
    for row in read_json(data / "en" / "data.json"):
        known.setdefault(squash(row["label"]), join_key(row["hexcode"]))
    for concept in concepts:
        known.setdefault(squash(concept.name), concept.hexcode)
    lists = [data / "meta" / "unicode-names.json", *sorted((data / "en" / "shortcodes").glob("*.json"))]
    for path in lists:
        for code, names in read_json(path).items():
            for name in [names] if isinstance(names, str) else names:
                if join_key(code) in keys:
                    known.setdefault(squash(name), join_key(code))
    return known

"""Pack `packages`: what a Debian package is, at length -> in one line, in English and Japanese; and its section.

    apt's Translation-en, Translation-ja, Packages -> stanzas -> read_description -> (text, summary) -> row

The lists are fetched by apt itself into a folder of this project's cache; the system's own lists stay as they are.
Debian states no licence for these texts: build the pack where you use it, and don't ship it or weights trained on it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.docstrings import STRANGE, content_words, end_item
from monoglot.data.packs.fetch import TIMEOUT, MissingSource, Package, cache_dir, sha256_of
from monoglot.rng import stream

APT_HELPER = "/usr/lib/apt/apt-helper"
GROUP_START = 150
"""Packages whose English descriptions begin with the same characters, so many, are a group and stay in one split."""
MAX_ROWS_A_GROUP = 3
HELD_OUT = {"valid": {"ja": 200, "en": 500}, "test": {"ja": 500, "en": 1000}}
"""Rows of each language, one a group. A group is held out in both languages: a translation would give it away."""
WORDS = {"en": (15, 110), "ja": (40, 260)}
"""Fewest and most of a text: words in English, characters in Japanese."""
SUMMARY_WORDS = {"en": (2, 14), "ja": (5, 45)}
SHARED = {"en": 0.34, "ja": 0.5}
"""At least this share of the summary's content words (Japanese: of its kanji, katakana and letters) is in the text."""
MAX_ROWS_A_SECTION = 250
MIN_ROWS_A_SECTION = 100

GENERATED = re.compile(
    r"^librust-|^libghc-.*-(prof|doc)$|^linux-(image|headers|modules|support)|-dbg(sym)?$|^task-|-(l10n|i18n|locale)(-|$)|"
    r"^(language-pack|kde-l10n|firefox-.*-l10n|thunderbird-l10n|gcc-\d+-|g\+\+-\d+-|gfortran-|gnat-|gdc-|gobjc|libgcc|cpp-)"
)
"""Packages by the hundred with the same words: one crate feature, one kernel flavour, one cross compiler each."""
JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
TELLING = re.compile(r"[\u30a1-\u30fa\u4e00-\u9fffA-Za-z0-9]")
LIST_ITEM = re.compile(r"^([-*+•·o]|\d{1,2}[.)])\s+")


# -------------------------------------------------------------------------------------------------------------- stanzas


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a Debian control file as dictionaries; the lines of a long field stay lines.

    >>> list(stanzas("Package: a\\nDescription-en: short\\n long\\n .\\n more\\n\\nPackage: b\\n"))
    [{'Package': 'a', 'Description-en': 'short\\n long\\n .\\n more'}, {'Package': 'b'}]
    """
    for block in re.split(r"\n{2,}", text.strip()):
        fields: dict[str, str] = {}
        name = ""
        for line in block.split("\n"):
            if line[:1] in (" ", "\t"):
                fields[name] += "\n" + line
            elif ":" in line:
                name, value = line.split(":", 1)
                fields[name] = value.strip()
        yield fields


def read_description(field: str, lang: str) -> tuple[str, str] | None:
    """(text, summary) of a description field, or None if it is no good example of a summary.

    >>> body = " Slide tiles and\\n add them up.\\n .\\n This is a game for text mode, one puzzle after another"
    >>> read_description(f"puzzle game\\n{body}", "en")
    ('Slide tiles and add them up. This is a game for text mode, one puzzle after another.', 'puzzle game')
    """
    summary, _, body = field.partition("\n")
    summary = " ".join(summary.split()).rstrip(" .。")
    text = _cut(list(_paragraphs(body, lang)), lang)
    fewest, _ = WORDS[lang]
    low, high = SUMMARY_WORDS[lang]
    if _length(text, lang) < fewest or not low <= _length(summary, lang) <= high:
        return None
    if STRANGE.search(summary) or "<trans>" in text or summary.lower() in text.lower():
        return None
    return (text, summary) if _shared(summary, text, lang) >= SHARED[lang] else None


def _paragraphs(body: str, lang: str) -> Iterator[str]:
    """The paragraphs of a long description, list items as sentences; verbatim blocks that are no lists are left out."""
    lines: list[str] = []
    stop = "。" if lang == "ja" else "."
    for line in [*body.split("\n"), " ."]:
        line = line[1:]
        item = LIST_ITEM.sub("", line.strip())
        if line.strip() == ".":
            if lines:
                yield _join(lines, lang)
            lines = []
        elif item != line.strip() and item:
            if lines:
                lines[-1] = end_item(lines[-1], stop)
            lines.append(item)
        elif item:
            lines.append(item)


def _join(lines: list[str], lang: str) -> str:
    """Wrapped lines as one, ended by a full stop; between two Japanese characters there is no space."""
    joined = " ".join(" ".join(lines).split())
    if lang == "ja":
        joined = re.sub(r"(?<=[^\x00-\x7f]) (?=[^\x00-\x7f])|(?<=。) ", "", joined)
    if joined[-1] in ".!?。！？":
        return joined
    return joined.rstrip(":：,;、 ") + ("。" if lang == "ja" else ".")


def _cut(paragraphs: list[str], lang: str) -> str:
    """Whole sentences, as many as fit. What sets this package apart from its sisters stands last: it is kept first."""
    most = WORDS[lang][1]
    space = "" if lang == "ja" else " "
    told = [_sentences(paragraph, lang) for paragraph in paragraphs]
    last = ""
    if len(paragraphs) > 1 and re.match(r"(This|It) (is|package|metapackage|library|module)\b|本|この", paragraphs[-1]):
        last = space.join(told.pop())
    kept: list[str] = []
    for sentence in (sentence for sentences in told for sentence in sentences):
        if _length(space.join([*kept, sentence, last]), lang) > most:
            break
        kept.append(sentence)
    whole = space.join([*kept, last] if last else kept)
    return whole if _length(whole, lang) <= most else ""


def _sentences(paragraph: str, lang: str) -> list[str]:
    """The sentences of a paragraph, without those that send the reader to an address."""
    end = r"(?<=[。！？])" if lang == "ja" else r"(?<=[.!?])\s+(?=[A-Z\"'(\d])"
    return [found for found in re.split(end, paragraph) if found and not re.search(r"https?:|ftp:|www\.", found)]


def _length(text: str, lang: str) -> int:
    return len(text) if lang == "ja" else len(text.split())


def _shared(summary: str, text: str, lang: str) -> float:
    """The share of the summary's content that the text holds; 0 for a Japanese entry that is not translated."""
    if lang == "ja":
        if not JAPANESE.search(summary) or len(JAPANESE.findall(text)) < 0.3 * len(text):
            return 0.0
        telling = set(TELLING.findall(summary))
        return sum(letter in text for letter in telling) / max(len(telling), 1)
    content, body = content_words(summary), text.lower()
    return sum(word in body for word in content) / max(len(content), 1)


# --------------------------------------------------------------------------------------------------------- apt's lists


def fetch_lists() -> Path:
    """A folder with apt's lists, English and Japanese descriptions among them; made once, with `apt-get update`.

    Nothing of the system changes: lists and cache lie in `cache_dir()/apt-lists`. The sources are the system's own.

    Raises:
        MissingSource: no apt here, or it could not fetch the lists.
    """
    folder = cache_dir() / "apt-lists"
    if _lists(folder, "i18n_Translation-en") and _lists(folder, "i18n_Translation-ja"):
        return folder
    if shutil.which("apt-get") is None or not Path(APT_HELPER).exists():
        raise MissingSource("package descriptions: the command apt-get is missing; it comes with Debian and Ubuntu")
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    options = [
        *(f"Dir::State::lists={folder}", f"Dir::Cache={folder}/cache", "Acquire::Languages=ja,en"),
        *("Debug::NoLocking=1", "APT::Sandbox::User=root"),
    ]
    command = ["apt-get", "--quiet", "update", *(part for option in options for part in ("-o", option))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise MissingSource(f"package descriptions: apt-get did not finish within {TIMEOUT} seconds") from None
    if not _lists(folder, "i18n_Translation-en"):
        why = next((line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))), "no reason given")
        raise MissingSource(f"package descriptions: apt-get could not fetch Translation-en ({why})")
    return folder


def _lists(folder: Path, kind: str) -> list[Path]:
    """Main archive first: its file name is the shortest."""
    return sorted(folder.glob(f"*_{kind}*"), key=lambda path: (len(path.name), path.name))


def _read(path: Path) -> str:
    """The text of a list, however apt compressed it."""
    return subprocess.run([APT_HELPER, "cat-file", str(path)], capture_output=True, check=True).stdout.decode("utf-8")


def _release(folder: Path) -> str:
    """Codename and version of the distribution, as `sources.json` notes it."""
    for path in _lists(folder, "InRelease") or _lists(folder, "Release"):
        fields = dict(re.findall(r"^(Codename|Version): (.+)$", path.read_text("utf-8"), flags=re.MULTILINE))
        return "-".join(fields.values())
    return "unknown"


# -------------------------------------------------------------------------------------------------------------- build


@dataclass(frozen=True)
class Entry:
    """One package's description in one language."""

    package: str
    lang: str
    text: str
    summary: str
    group: str


def entries_of(lists: Mapping[str, Iterable[str]]) -> list[Entry]:
    """The good descriptions in the order of the lists: a package once a language, `MAX_ROWS_A_GROUP` of a group.

    Args:
        lists: language -> texts of its Translation files.
    """
    groups: dict[str, str] = {}
    found: list[Entry] = []
    for lang in sorted(lists):  # English first: it names the groups
        done: set[str] = set()
        said: set[str] = set()  # no summary twice: one that was trained on would not test anything
        sizes: Counter[str] = Counter()
        for stanza in (stanza for text in lists[lang] for stanza in stanzas(text)):
            package, field = stanza.get("Package", ""), stanza.get(f"Description-{lang}", "")
            if not field or package in done:
                continue
            done.add(package)
            if lang == "en":
                groups[package] = group_of(field)
            pair = None if GENERATED.search(package) else read_description(field, lang)
            if pair is None:
                continue
            group = groups.get(package) or group_of(field)
            if pair[1].lower() in said or sizes[group] >= MAX_ROWS_A_GROUP:
                continue
            said.add(pair[1].lower())
            sizes[group] += 1
            found.append(Entry(package, lang, *pair, group))
    return found


def group_of(field: str) -> str:
    """A short name of the group of a description: a digest of the first characters below its summary."""
    body = " ".join(field.partition("\n")[2].split())[:GROUP_START].lower()
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def split_groups(entries: list[Entry], seed: int) -> dict[str, str]:
    """group -> 'train', 'valid' or 'test': groups with Japanese first, then English ones, until each has its share."""
    langs: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        langs[entry.group].add(entry.lang)
    order = sorted(langs)
    order = [order[index] for index in stream(seed, "packages", "split").permutation(len(order))]
    order.sort(key=lambda group: "ja" not in langs[group])
    splits = dict.fromkeys(order, "train")
    for split, wanted in HELD_OUT.items():
        have: Counter[str] = Counter()
        for group in order:
            missing = [lang for lang in langs[group] if have[lang] < wanted[lang]]
            if splits[group] == "train" and missing and ("ja" not in langs[group] or "ja" in missing):
                splits[group] = split
                have.update(langs[group])
    return splits


def _build(writer: PackWriter) -> None:
    folder = fetch_lists()
    lists: dict[str, list[str]] = {}
    for lang in ("en", "ja"):
        paths = _lists(folder, f"i18n_Translation-{lang}")
        lists[lang] = [_read(path) for path in paths]
        if paths:
            name = f"Translation-{lang}"
            writer.source(Package("apt-lists", name, _release(folder), sha256_of(paths[0]), folder))
        else:
            writer.skip(f"Translation-{lang}", "this system's package sources do not offer it")
    sections = {
        stanza["Package"]: stanza["Section"].rsplit("/", 1)[-1]
        for path in _lists(folder, "binary-*_Packages")
        for stanza in stanzas(_read(path))
        if "Section" in stanza
    }
    entries = entries_of(lists)
    splits = split_groups(entries, writer.seed)
    held_out: set[tuple[str, str]] = set()
    kept: list[Entry] = []
    for entry in entries:
        if splits[entry.group] != "train":
            if (entry.lang, entry.group) in held_out:
                continue  # one row a group, so that test rows are independent
            held_out.add((entry.lang, entry.group))
        kept.append(entry)
        row = {
            **{"id": f"{entry.lang}/{entry.package}", "task": "summarize", "text": entry.text},
            **{"target": entry.summary, "lang": entry.lang, "group": entry.group},
        }
        writer.add(f"summaries_{entry.lang}", splits[entry.group], row)
    _add_sections(writer, [entry for entry in kept if entry.lang == "en"], splits, sections)
    writer.notice(
        f"Debian package descriptions ({_release(folder)})",
        "not stated",
        "Written by the maintainers of the packages and by the Debian Description Translation Project. Built on the "
        "machine where it is used; not to be shipped, nor weights that were trained on it.",
    )


def _add_sections(writer: PackWriter, entries: list[Entry], splits: dict[str, str], sections: dict[str, str]) -> None:
    """`sections`: which part of the archive a package belongs to, from its description; large sections are thinned."""
    sizes = Counter(sections.get(entry.package, "") for entry in entries)
    choices = sorted(name for name, size in sizes.items() if name and size >= MIN_ROWS_A_SECTION)
    taken: Counter[tuple[str, str]] = Counter()
    for index in stream(writer.seed, "packages", "sections").permutation(len(entries)):
        entry = entries[index]
        section, split = sections.get(entry.package, ""), splits[entry.group]
        if section in choices and taken[section, split] < MAX_ROWS_A_SECTION:
            taken[section, split] += 1
            row = {
                **{"id": f"section/{entry.package}", "task": "classify", "text": entry.text, "target": section},
                **{"choices": choices, "lang": "en", "group": entry.group},
            }
            writer.add("sections", split, row)


PACKS.add("packages", Pack("packages", "English, Japanese: what a Debian package is, at length -> in one line", _build))

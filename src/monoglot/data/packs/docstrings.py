"""Pack `docstrings`: English prose and its summary in a sentence, from the documentation of permissive libraries.

    wheel -> (ast, nothing is imported) -> docstring -> split_docstring -> (text, summary) -> row

The first sentence of a good docstring says in short what the paragraphs below it say at length: text = those paragraphs
without code, tables and markup, target = that sentence. Splits are by library: the test libraries are never trained on.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from monoglot.data.packs.base import PACKS, Pack, PackWriter, write_atomic
from monoglot.data.packs.fetch import MissingSource, pip
from monoglot.rng import stream

TEST = {"networkx": "3.4.2", "astropy": "6.1.7"}
VALID = {"tornado": "6.5.2", "vispy": "0.15.2", "xarray": "2025.6.1"}
TRAIN = {
    "arcade": "3.3.2", "biopython": "1.85", "bokeh": "3.7.3", "botorch": "0.15.1", "celery": "5.5.3",
    "cirq-core": "1.5.0", "cvxpy": "1.7.2", "dask": "2025.9.1", "dipy": "1.11.0", "distributed": "2025.9.1",
    "django": "5.2.6", "flax": "0.10.7", "geopandas": "1.1.1", "gpytorch": "1.14", "gymnasium": "1.2.0",
    "holoviews": "1.21.0", "ipython": "8.37.0", "jax": "0.6.2", "keras": "3.11.3", "kivy": "2.3.1", "kornia": "0.8.1",
    "librosa": "0.11.0", "manim": "0.19.0", "matplotlib": "3.10.6", "mne": "1.10.1", "monai": "1.5.0",
    "moviepy": "2.2.1", "nibabel": "5.3.2", "nilearn": "0.12.1", "nltk": "3.9.1", "numba": "0.61.2", "numpy": "2.2.6",
    "optax": "0.2.5", "pandas": "2.3.3", "pennylane": "0.42.3", "pyglet": "2.1.8", "pymc": "5.25.1", "pyomo": "6.9.4",
    "pyqtgraph": "0.13.7", "pyro-ppl": "1.9.1", "pyvista": "0.46.3", "qiskit": "2.2.0", "scikit-image": "0.25.2",
    "scikit-learn": "1.7.2", "scipy": "1.15.3", "shapely": "2.1.1", "sktime": "0.38.5", "sphinx": "8.1.3",
    "sqlalchemy": "2.0.43", "statsmodels": "0.14.5", "sunpy": "6.0.6", "sympy": "1.14.0",
    "tensorflow-probability": "0.25.0", "textual": "6.1.0", "torchmetrics": "1.8.2", "transformers": "4.56.1",
    "trimesh": "4.8.1", "twisted": "25.5.0",
}  # fmt: skip
"""Libraries of each split and the versions that were looked at, all with wheels for Python 3.10."""

PERMISSIVE = {
    "Apache": r"\bApache\b",
    "BSD": r"\bBSD\b|Redistribution and use in source and binary forms",
    "MIT": r"\bMIT\b|Permission is hereby granted, free of charge",
    "ISC": r"\bISCL?\b",
    "PSF": r"\bPSF\b|Python Software Foundation License",
    "Biopython (like MIT)": r"Biopython License Agreement",
}
"""Licences that allow to train and ship on, each with what it is recognised by in METADATA or its text."""
RESTRICTED = re.compile(r"\b[AL]?GPL|General Public Licen[cs]e|\bMPL\b|Mozilla Public|Creative Commons|NonCommercial")

MAX_ROWS_A_LIBRARY = 2500
MAX_ROWS_A_PATTERN = 3
"""Rows of one library whose summaries, or whose texts' first words, differ in names and numbers only."""
TEXT_WORDS = (20, 110)
"""Fewest and most words of a text; a longer one ends at the last sentence that fits."""
TARGET_WORDS = (3, 16)
SHARED_WORDS = 0.34
"""At least this share of the summary's content words has to stand in the text: else nobody could tell it from there."""
SAME_START = 150
"""Texts that begin with the same characters, so many, are the same."""

SKIPPED_FOLDERS = {
    *("tests", "test", "testing", "_vendor", "vendor", "vendored", "externals", "extern", "third_party"),
    *("examples", "benchmarks", "conftest"),
}


# -------------------------------------------------------------------------------------------------- a docstring in two

HEADING = re.compile(r"^[-=~^]{3,}$")
SECTION = re.compile(
    r"^((other |keyword |call )?(parameters|arguments|args)|params|returns?|raises|yields|examples?|usage|"
    r"see also|references?|attributes|methods|inputs?|outputs?|shape|(input|output) shape|signature|"
    r"notes?|warnings?|warns|todo|properties|events|citation|math)\s*:{0,2}$",
    re.IGNORECASE,
)
FIELD = re.compile(r"^(:[a-z]\w*( [^:]*)?:|@\w+|\.\. \[)", re.IGNORECASE)
BULLET = re.compile(r"^([-*+•]|\(?\d{1,2}[.)])\s+")
TABLE = re.compile(r"^([=+-]{3,}([ +][=+-]+)*|\|.*\|)$")
ROLE = re.compile(r":[\w:+-]+:`([^`]+)`")
LINK = re.compile(r"`([^`<]+?)\s*<[^>]*>`_{1,2}")
MARKDOWN_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
SENTENCE = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.)(?<! al\.)(?<!Eq\.)\s+(?=[A-Z\"'(`\d])"
)
STRANGE = re.compile(r"[{}\\<>|=$^~@#]|%\(|::|>>>|https?:|_\b|\b_|\(\)|\bTODO\b|\bFIXME\b|(^|\s):\w")
DANGLING = re.compile(
    r"\b(in|see|by|from|of|as|for|is|are|to|with|the|and|or|follows?|following|below|above|e\.g|i\.e)\s*[.,]$|"
    r"\b(in|see|by|from|of)\s*,|^(where|with|and|or|so|if|in|i\.e)\b|^\W*([Ss]ee|(For e|E)xample)\b"
)
STOP_WORDS = frozenset(
    """
    a an the of to for in on at by with from and or as is are be this that it its into if not no than then when
    which using use used return returns compute computes get gets set sets given class method function object
    objects base create creates make makes wrapper about all each any one
    """.split()  # noqa: SIM905 (sixty quoted words read worse)
)


def split_docstring(doc: str) -> tuple[str, str] | None:
    """(text, summary) of a docstring, or None if it is no good example of a summary.

    >>> more = "It walks over the edges and adds up their weights. Missing weights count as one, and loops count twice."
    >>> split_docstring(f"Sum of all weights.\\n\\n{more} An empty\\ngraph has none.\\n\\nArgs:\\n  G: the graph")[1]
    'Sum of all weights'
    """
    paragraphs = [lines for lines in _paragraphs(doc) if lines]
    if not paragraphs or any(_starts_section(line) or HEADING.match(line.strip()) for line in paragraphs[0]):
        return None
    head, *more = SENTENCE.split(clean_markup(" ".join(line.strip() for line in paragraphs[0])))
    text = _cut([*more, *(sentence for prose in _prose(paragraphs[1:]) for sentence in SENTENCE.split(prose))])
    summary = head.rstrip(" .!;:,")
    return (text, summary) if _is_good_summary(summary, text) else None


def _paragraphs(doc: str) -> Iterator[list[str]]:
    lines: list[str] = []
    for line in [*doc.expandtabs(4).splitlines(), ""]:
        if line.strip():
            lines.append(line.rstrip())
        else:
            yield lines
            lines = []


def _prose(paragraphs: list[list[str]]) -> Iterator[str]:
    """The paragraphs that are prose, cleaned, up to the first section (Parameters, Args:, :param ...)."""
    fenced = False
    for lines in paragraphs:
        first = lines[0].strip()
        if (len(lines) > 1 and HEADING.match(lines[1].strip())) or _starts_section(first):
            return
        if len(lines) > 1 and len(first.split()) < 3 and _indent(lines[1]) > _indent(lines[0]):
            continue  # a term and its definition
        fences = sum(line.strip().startswith("```") for line in lines)
        inside, fenced = fenced, fenced ^ (fences % 2 == 1)
        if inside or fences or lines[0][0] == " " or first.startswith(("..", ">>>", "...", "$", "In [", "#", "!")):
            continue  # code, a directive and what belongs to it, a title
        kept: list[str] = []
        for line in lines:
            if _starts_section(line) or line.strip().startswith((">>>", "..")):
                break
            item = BULLET.sub("", line.strip())
            if item != line.strip() and kept:
                kept[-1] = end_item(kept[-1])
            kept.append(item)
        if kept and BULLET.match(first):
            kept[-1] = end_item(kept[-1])
        if kept and not any(TABLE.match(line) for line in kept):
            yield clean_markup(" ".join(kept))


def end_item(line: str, stop: str = ".") -> str:
    """The last line of a list's item, so that every item is a sentence.

    >>> end_item("apples,"), end_item("pears, and"), end_item("Plums are these:")
    ('apples.', 'pears.', 'Plums are these:')
    """
    return line if line[-1] in ".:!?。：！？" else re.sub(r"[,;、]?(\s+(and|or))?$", "", line) + stop


def _starts_section(line: str) -> bool:
    return bool(SECTION.match(line.strip()) or FIELD.match(line.strip()))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def clean_markup(text: str) -> str:
    """Text without reStructuredText and Markdown marks.

    >>> clean_markup("See :func:`~numpy.linalg.svd` or ``x`` in the *big* `manual <http://a.b>`_ [1]_.")
    'See svd or x in the big manual.'
    """
    text = LINK.sub(r"\1", text)
    text = ROLE.sub(lambda match: re.sub(r"\s*<.*>$", "", match[1]).rsplit(".", 1)[-1] if match[1][0] == "~" else
                    re.sub(r"\s*<.*>$", "", match[1]).lstrip("!."), text)  # fmt: skip
    text = MARKDOWN_LINK.sub(r"\1", text)
    text = re.sub(r"\s*\[(\d+|\w+\d+)\]_?(?=\W|$)", "", text)  # footnotes
    text = re.sub(r"`+([^`]*)`+_{0,2}", r"\1", text)
    text = re.sub(r"(?<!\w)\[([A-Za-z]\w+)\](?!\w)|\s*\(PRIVATE\)", r"\1", text)
    text = re.sub(r"(\*{1,2})(?=\S)([^*]+)(?<=\S)\1", r"\2", text)
    return " ".join(text.replace("::", ":").split())


def _cut(sentences: list[str]) -> str:
    """As many whole sentences as fit, without those that lost a formula, a list or a footnote; code ends the text."""
    kept: list[str] = []
    for sentence in sentences:
        if len(" ".join([*kept, sentence]).split()) > TEXT_WORDS[1]:
            break
        if sentence[-1] in ".!?" and not STRANGE.search(sentence) and not DANGLING.search(sentence):
            kept.append(sentence)
    return " ".join(kept)


def _is_good_summary(summary: str, text: str) -> bool:
    words, body = summary.split(), text.lower()
    if not TARGET_WORDS[0] <= len(words) <= TARGET_WORDS[1] or len(text.split()) < TEXT_WORDS[0]:
        return False
    if (
        STRANGE.search(summary)
        or re.search("[_:]", summary)
        or not summary[0].isalpha()
        or summary.count("(") != summary.count(")")
    ):
        return False
    if "deprecated" in summary.lower() or re.match(
        r"(see|alias|same as|like|todo|note|internal|private|helper|test|copy of)\b", summary, re.I
    ):
        return False
    if sum(word[0].isalpha() for word in text.split()) < 0.85 * len(text.split()) or summary.lower() in body:
        return False
    content = content_words(summary)
    return len(content) > 1 and sum(word in body for word in content) >= SHARED_WORDS * len(content)


def content_words(text: str) -> set[str]:
    """Words that carry the content, cut to their first six letters, so that 'computes' meets 'computed'."""
    return {word[:6] for word in re.findall(r"[a-z]{3,}", text.lower()) if word not in STOP_WORDS}


# ----------------------------------------------------------------------------------------------------------- libraries


@dataclass(frozen=True)
class Doc:
    """One documented function or class of a library."""

    name: str
    text: str
    summary: str


def docs_of(folder: Path) -> Iterator[Doc]:
    """Every function and class below `folder` whose docstring is a good example, in the order of files and lines."""
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if SKIPPED_FOLDERS & set(inside.parts) or path.name.startswith(("test_", "conftest")):
            continue
        source = path.read_bytes()
        if RESTRICTED.search(source[:4000].decode("latin-1")):  # a file under a licence of its own
            continue
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # a template, or code for another Python
            continue
        module = ".".join(inside.with_suffix("").parts)
        for name, doc in _docstrings(tree, module.removesuffix(".__init__")):
            found = split_docstring(doc)
            if found is not None:
                yield Doc(name, *found)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = f"{name}.{child.name}"
            if doc := ast.get_docstring(child):
                yield inner, doc
            yield from _docstrings(child, inner)
        elif isinstance(child, (ast.stmt, ast.excepthandler)):
            yield from _docstrings(child, name)


def licence_of(folder: Path) -> tuple[str, str]:
    """(name, text) of the licence of an unpacked wheel; the name is '' unless it is one of `PERMISSIVE`."""
    metadata = "\n".join(path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.dist-info/METADATA")))
    fields = HeaderParser().parsestr(metadata)
    said = "\n".join(
        [fields.get("License-Expression") or "", (fields.get("License") or "").split("\n")[0]]
        + [line for line in fields.get_all("Classifier", []) if line.startswith("License ::")]
    )
    files = [path for path in folder.glob("*.dist-info/**/*") if re.match(r"(licen[cs]e|copying)", path.name, re.I)]
    texts = [path.read_text("utf-8", "replace") for path in sorted(files) if path.is_file()]
    for evidence in (said, *texts):
        if evidence == said and RESTRICTED.search(said):
            return "", ""
        names = [name for name, mark in PERMISSIVE.items() if re.search(mark, evidence)]
        if names:
            return names[0], texts[0] if texts else ""
    return "", ""


# -------------------------------------------------------------------------------------------------------------- build


def _build(writer: PackWriter) -> None:
    seen: set[str] = set()  # test libraries come first, so that nothing of theirs is trained on
    for split, libraries in (("test", TEST), ("valid", VALID), ("train", TRAIN)):
        for library in writer.track(libraries, f"{split} libraries", total=len(libraries)):
            if writer.full("summaries", split):
                break
            try:
                package = pip(library, libraries[library])
            except MissingSource as missing:
                writer.skip(f"{library} {libraries[library]}", missing)
                continue
            licence, licence_text = licence_of(package.folder)
            if not licence:
                writer.skip(f"{library} {package.version}", "its licence is not one of " + ", ".join(PERMISSIVE))
                continue
            rows = _rows(writer, library, licence, docs_of(package.folder), seen)
            for row in rows:
                writer.add("summaries", split, row)
            writer.source(package)
            if licence_text:
                write_atomic(writer.folder / "licences" / f"{library}.txt", licence_text.encode())
            full_text = f"Full text: licences/{library}.txt. " if licence_text else ""
            writer.notice(
                f"{library} {package.version}",
                licence,
                f"{full_text}{_copyright(licence_text)}\n\n{len(rows)} docstrings ({split}); "
                "changed: markup, code, tables and parameter lists taken out, cut at a sentence.",
            )
    if not seen:
        raise MissingSource("none of the Python libraries could be downloaded")


def _rows(writer: PackWriter, library: str, licence: str, docs: Iterable[Doc], seen: set[str]) -> list[dict[str, str]]:
    """The docstrings of one library that are not in `seen`, which they are added to, and not all of one pattern."""
    patterns: Counter[str] = Counter()
    rows = []
    for doc in docs:
        keys = {doc.text[:SAME_START].lower(), doc.summary.lower(), f"{library}/{doc.name}"}
        forms = {pattern(doc.summary), pattern(" ".join(doc.text.split()[:12]))}
        if keys & seen or any(patterns[form] >= MAX_ROWS_A_PATTERN for form in forms):
            continue
        seen |= keys
        patterns.update(forms)
        rows.append(
            {
                **{"id": f"{library}/{doc.name}", "task": "summarize", "text": doc.text, "target": doc.summary},
                **{"lang": "en", "library": library, "licence": licence},
            }
        )
    kept = sorted(stream(writer.seed, "docstrings", library).permutation(len(rows))[:MAX_ROWS_A_LIBRARY])
    return [rows[index] for index in kept]


def pattern(text: str) -> str:
    """A text without its names and numbers: what a generated docstring has in common with its sisters.

    >>> pattern("Configuration of a BertModel with 12 layers") == pattern("Configuration of a GPTModel with 24 layers")
    True
    """
    return re.sub(r"\S*(\w[A-Z]|\d|_)\S*", "*", text).lower()


def _copyright(licence_text: str) -> str:
    lines = [" ".join(line.split()) for line in licence_text.splitlines()]
    return "\n".join([line for line in lines if re.match(r"(copyright )?(\(c\)|©|copyright) .*\d{4}", line, re.I)][:5])


PACKS.add("docstrings", Pack("docstrings", "English: what a function does, at length -> in one sentence", _build))

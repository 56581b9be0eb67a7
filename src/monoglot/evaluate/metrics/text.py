"""Texts made comparable. Each metric family has its own customary way; they meet here.

normalised      exact match: lower case, single spaces, no sentence-ending mark at the end
words           word error rate: lower case, all punctuation dropped, split at spaces
characters      character error rate: the same text, letter by letter
caption_tokens  BLEU, ROUGE, CIDEr: the tokens that the COCO caption tool sees

Everything starts from Unicode NFKC (full-width letters and decomposed accents become the plain ones) and lower case.
Languages written without spaces are taken by character.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

UNSPACED = frozenset({"ja", "zh", "yue", "th", "lo", "km", "my", "bo"})
"""Languages whose words are not set apart by spaces: Japanese, Chinese, Cantonese, Thai, Lao, Khmer, Burmese, Tibetan."""


@lru_cache(maxsize=1000)
def is_unspaced(lang: str) -> bool:
    """True for 'ja', 'ja-JP', 'zh_CN' ...

    >>> is_unspaced("ja-JP"), is_unspaced("en")
    (True, False)
    """
    return re.split("[-_]", lang.lower())[0] in UNSPACED


def folded(text: str) -> str:
    """NFKC and lower case, without soft hyphens, byte order marks and spaces of no width."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text.translate(_UNSEEN)).lower()


def normalised(text: str) -> str:
    """Lower case, single spaces, without the marks that end a sentence (unless there is nothing else).

    >>> normalised("  The  red Cup. ")
    'the red cup'
    """
    spaced = " ".join(folded(text).split())
    return spaced.rstrip(" .,;:!?。、") or spaced


def words(text: str, lang: str = "en") -> list[str]:
    """Lower-case words without any punctuation (Unicode categories P*); characters for an unspaced language.

    Punctuation vanishes rather than becoming a space ("well-known" is one word), as in the jiwer tool.

    >>> words("Don't stop, well-known ICE!")
    ['dont', 'stop', 'wellknown', 'ice']
    >>> words("猫が、いる。", "ja")
    ['猫', 'が', 'い', 'る']
    """
    bare = _without_punctuation(folded(text))
    return list("".join(bare.split())) if is_unspaced(lang) else bare.split()


def characters(text: str, lang: str = "en") -> list[str]:
    """The characters of `words`, single spaces between words included (an unspaced language has none).

    >>> characters("A b!")
    ['a', ' ', 'b']
    """
    parts = words(text, lang)
    return parts if is_unspaced(lang) else list(" ".join(parts))


def caption_tokens(text: str, lang: str = "en") -> list[str]:
    """Lower-case Penn-Treebank-like tokens without punctuation; characters for an unspaced language.

    Clitics stand alone ("is n't", "man 's"), numbers, hyphenated words and abbreviations stay whole, signs such as $
    and % are tokens. Follows what the PTBTokenizer step of the COCO caption tool yields for captions; that tool's rarer
    rules (web addresses, smileys, currency renaming, brackets kept as "-lrb-") are left out. Of 5,545 English sentences
    without brackets, most of them technical, it split 22 in another way ("v8.6", "a/b/c").

    >>> caption_tokens("A man's dog isn't on the well-known beach, at 5:30 p.m.!")
    ['a', 'man', "'s", 'dog', 'is', "n't", 'on', 'the', 'well-known', 'beach', 'at', '5:30', 'p.m.']
    """
    if is_unspaced(lang):
        return words(text, lang)
    text = folded(text)
    return _plain_tokens(text) or _treebank(text)


def _plain_tokens(text: str) -> list[str]:
    """What `_treebank` says of letters, digits, commas and a full stop at the end, several times as fast; else nothing."""
    bare = text.replace(", ", " ").removesuffix(".")
    if not (bare.isascii() and bare.replace(" ", "").isalnum()):
        return []
    tokens = bare.split()
    return tokens if _UNPLAIN.isdisjoint(tokens) else []


def _treebank(text: str) -> list[str]:
    text = text.translate(_PLAIN_QUOTES)
    if "'" in text:
        text = _CLITIC.sub(r" \1", text)
    text = _FUSED.sub(r"\1\3\5\7\9 \2\4\6\8\10", text)
    if text.isascii():
        return _TOKEN.findall(text)
    return [text[token.start() : token.end()] for token in _TOKEN.finditer(_marks_as_letters(text))]


def _marks_as_letters(text: str) -> str:
    """The same length with a letter for each mark that belongs to one: vowel signs of Hindi and the like are no \\w."""
    shape: list[str] = []
    for char in text:
        belongs = unicodedata.category(char).startswith("M") and shape and shape[-1].isalnum()
        shape.append("x" if belongs else char)
    return "".join(shape)


def _without_punctuation(text: str) -> str:
    if text.isascii():
        return text.translate(_NO_ASCII_PUNCTUATION)
    return "".join(char for char in text if not unicodedata.category(char).startswith("P"))


_NO_ASCII_PUNCTUATION = {code: None for code in range(128) if unicodedata.category(chr(code)).startswith("P")}
_UNSEEN = dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF))
_PLAIN_QUOTES = str.maketrans("‘’“”", "''\"\"")
_SHORTENED = ("mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "etc", "no", "inc", "co", "ave", "blvd")
_UNPLAIN = frozenset({"cannot", "gonna", "wanna", "gotta", "gimme", "lemme", *_SHORTENED})
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b")
_FUSED = re.compile(r"(?<!\w)(?:(can)(not)|(gon|wan)(na)|(got)(ta)|(gim|lem)(me)|('t|y')(is|was|all))\b")
_TOKEN = re.compile(
    rf"""
      n't\b | (?<!\S)'(?:s|m|d|re|ve|ll)\b                                  # clitics, already set apart
    | y'(?!\S) | (?<!\S)'t(?!\S) | (?<!\w)'(?:em|n|cause|\d0s)\b            # y' all, 't is, 'em, '80s
    | (?:[a-z]\.){{2,}}                                                     # u.s., p.m.
    | \b(?:{"|".join(_SHORTENED)})\.                                        # shortened words keep their point
    | \bc(?:\+\+|\#)                                                        # c++, c#
    | (?:(?<!\w)[-+](?=\d))?\w+(?:[-./&!]\w+|(?<!\d)'\w+|(?<=\d)[,:]\d+)*  # well-known at&t 1/2 1,000.50 5:30 50cm
    | [$%&\#@*+=/<>|~^\\£€]                                                 # signs that carry meaning
    """,
    re.VERBOSE,
)

"""Texts made comparable: what each metric family compares."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monoglot.evaluate.metrics.text import (
    _plain_tokens,
    _treebank,
    caption_tokens,
    characters,
    folded,
    is_unspaced,
    normalised,
    words,
)

# Left: captions. Right: what Stanford's PTBTokenizer 3.4.1 (-lowerCase) makes of them, punctuation dropped.
TREEBANK = {
    "A man rides a wave.": "a man rides a wave",
    "A man's dog isn't on the well-known beach -- it's on!": "a man 's dog is n't on the well-known beach it 's on",
    "I don't know, he can't, won't, cannot; gonna wanna gotta lemme gimme.": (
        "i do n't know he ca n't wo n't can not gon na wan na got ta lem me gim me"
    ),
    "They're, we've, I'd, she'll, y'all, 'tis 'twas": "they 're we 've i 'd she 'll y' all 't is 't was",
    "The dogs' bowls are red, the '80s car costs $1,000.50 or 50% & more...": (
        "the dogs bowls are red the '80s car costs $ 1,000.50 or 50 % & more"
    ),
    "\"Quoted text\" and 'single quoted' and `backtick` text: fine? yes!": (
        "quoted text and single quoted and backtick text fine yes"
    ),
    "Mr. Smith vs. Dr. No at 5:30 p.m. in the U.S., 3.5 kg.": "mr. smith vs. dr. no at 5:30 p.m. in the u.s. 3.5 kg",
    "black/white t-shirt and/or 1/2 cup, #1 dog @ home": "black/white t-shirt and/or 1/2 cup # 1 dog @ home",
    "A café with naïve piñata and 日本語 text": "a café with naïve piñata and 日本語 text",
    'no.1 sign says "STOP".': "no. 1 sign says stop",
    "O'Brien's brother-in-law's car, two-way street": "o'brien 's brother-in-law 's car two-way street",
    "a 5'10\" tall man, 3-4 people": "a 5 10 tall man 3-4 people",
    "AT&T store, M&M's, R&B, C++ and C# code": "at&t store m&m 's r&b c++ and c# code",
    "dash — and “curly quotes” ‘single’ it’s": "dash and curly quotes single it 's",
    "girl eating a donut w/ sprinkles etc.": "girl eating a donut w / sprinkles etc.",
    "a -dog -- cat --- bird, -5 degrees +3": "a dog cat bird -5 degrees +3",
    "3,000,000 people; a+b=c *star*": "3,000,000 people a + b = c * star *",
}
PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}


@pytest.mark.parametrize(("caption", "tokens"), TREEBANK.items())
def test_caption_tokens_are_the_treebank_tokenizers(caption, tokens):
    assert caption_tokens(caption) == tokens.split()


@pytest.mark.slow
def test_the_table_above_is_what_the_tokenizer_says(tmp_path):
    package = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("needs java")
    (tmp_path / "captions.txt").write_text("\n".join(TREEBANK), encoding="utf-8")
    jar = Path(package.__file__).parent / package.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer"]
    run = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", tmp_path / "captions.txt"], capture_output=True, check=True
    )
    said = [[t for t in line.split() if t not in PUNCTUATION] for line in run.stdout.decode().splitlines()]
    assert said == [tokens.split() for tokens in TREEBANK.values()]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "dog", "t-shirt", "1980", "red"])).map(" ".join))
def test_plain_captions_are_split_at_spaces(caption):
    assert caption_tokens(caption) == caption.split()


PIECES = [
    "a",
    "dog",
    "Cannot",
    "gonna",
    "5",
    "6,7",
    "etc",
    "mr",
    "p.m",
    "u.s",
    "-",
    ",",
    ".",
    "'",
    "n't",
    "é",
    "x_y",
    "\n",
    "no",
]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([" ", "", ", ", "."]))))
def test_plain_texts_are_split_as_all_others(pieces):
    text = folded("".join(piece + gap for piece, gap in pieces))
    assert _plain_tokens(text) in ([], _treebank(text))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_taken(text):
    for lang in ("en", "ja"):
        assert all(token and not token.isspace() for token in caption_tokens(text, lang))
        assert "".join(words(text, lang)) == "".join(characters(text, lang)).replace(" ", "")
    assert normalised(normalised(text)) == normalised(text)


def test_japanese_is_taken_by_character():
    assert caption_tokens("赤い車、走る。", "ja") == list("赤い車走る")
    assert words("ｶｰ ２台", "ja-JP") == list("カー2台")
    assert [is_unspaced(lang) for lang in ("ja", "ja_JP", "zh-Hant", "JA", "en", "jam", "")] == [True] * 4 + [False] * 3


def test_composed_and_decomposed_accents_are_equal():
    assert words("cafe\u0301") == words("caf\u00e9") == ["café"]
    assert normalised("Cafe\u0301!") == normalised(" CAF\u00c9 ")


def test_vowel_signs_stay_with_their_letters():
    assert caption_tokens("एक लाल किताब, मेज़ पर।", "hi") == ["एक", "लाल", "किताब", "मेज़", "पर"]
    assert caption_tokens("புத்தகம் மேசை", "ta") == ["புத்தகம்", "மேசை"]
    assert caption_tokens("I ❤️ it 👍🏽") == ["i", "it"]


def test_what_has_no_width_is_no_character():
    assert words("co\u00adoperate", "en") == ["cooperate"]
    assert characters("ไก่\u200bแดง", "th") == characters("ไก่แดง", "th")
    assert normalised("\ufeffa cat") == "a cat"

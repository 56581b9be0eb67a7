"""GPT-2's words in the published order, from the files that came with a published model.

encoder.json + vocab.bpe + dict.txt (fairseq)   or   vocab.json + merges.txt (Hugging Face's BART) -> Tokenizer with our ids
"""

from __future__ import annotations

import json
from pathlib import Path

from monoglot.errors import InputError
from monoglot.files import read_json
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import SPECIALS, Vocabulary

FAIRSEQ = ("encoder.json", "vocab.bpe", "dict.txt")
HUGGING_FACE = ("vocab.json", "merges.txt")


def read_bpe(folder: Path, vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer of a published model.

    `dict.txt` gives the order: the word on its n-th line, named by its GPT-2 number, has the id 3 + n. In Hugging Face's
    `vocab.json` the ids are those already.

    Raises:
        InputError: a file is absent or damaged, or the dictionary has not as many words as the vocabulary.
    """
    folder = Path(folder)
    if all((folder / name).is_file() for name in HUGGING_FACE):
        words, merges = _read_words(folder / "vocab.json"), _read_merges(folder / "merges.txt")
        if [words.pop(special, None) for special in SPECIALS] != list(range(len(SPECIALS))):
            wrong = "does not begin with <s>, <pad>, </s>, <unk>: its words are in GPT-2's order, not in the model's"
            raise InputError.at(folder / "vocab.json", "", wrong, f"give {', '.join(FAIRSEQ)}")
        words = {w: n for w, n in words.items() if n < vocabulary.mask and not w.startswith("madeupword")}
        order = {number: number for number in words.values()}
    else:
        missing = [name for name in FAIRSEQ if not (folder / name).is_file()]
        if missing:
            fix = f"give the folder of {', '.join(FAIRSEQ)}, or of {', '.join(HUGGING_FACE)}"
            raise InputError.at(folder, "bpe", f"{', '.join(missing)} missing", fix)
        words, merges = _read_words(folder / "encoder.json"), _read_merges(folder / "vocab.bpe")
        order = _read_order(folder / "dict.txt", vocabulary)
    try:
        return Tokenizer.from_gpt2(json.dumps({"model": {"vocab": words, "merges": merges}}), vocabulary, order)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises plain Exception
        raise InputError.at(folder, "bpe", f"words and merges do not fit each other ({error})") from None


def _read_words(path: Path) -> dict[str, int]:
    words = read_json(path, "words and their numbers")
    if not isinstance(words, dict) or not all(type(number) is int for number in words.values()):
        raise InputError.at(path, "", "is not a table of words and their numbers")
    return words


def _read_merges(path: Path) -> list[str]:
    lines = [line for line in _read_lines(path) if not line.startswith("#version")]
    for number, line in enumerate(lines, 1):
        if len(line.split(" ")) != 2:
            raise InputError.at(path, "", f"{line[:40]!r} is not a pair of pieces", line=number)
    return lines


def _read_order(path: Path, vocabulary: Vocabulary) -> dict[int, int]:
    """GPT-2's number -> id. Lines are `number count`; filler lines (`madeupword0000 0`) stand for no word."""
    order: dict[int, int] = {}
    lines = _read_lines(path)
    if len(lines) != vocabulary.num_words:
        wrong = f"has {len(lines)} words, the checkpoint's vocabulary {vocabulary.num_words}"
        raise InputError.at(path, "", wrong, "give the dict.txt that this checkpoint was trained with")
    for number, line in enumerate(lines):
        symbol = line.split(" ")[0]
        if symbol.isdecimal():
            order[int(symbol)] = len(SPECIALS) + number
        elif not symbol.startswith("madeupword"):
            raise InputError.at(path, "", f"{symbol[:40]!r} is not the number of a GPT-2 word", line=number + 1)
    return order


def _read_lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.at(path, "", f"cannot be read ({error})") from None

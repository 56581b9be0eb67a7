"""Text <-> ids: GPT-2's byte-level BPE, whose tokenizer.json already holds the vocabulary's ids, and symbols looked up by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import tokenizers

from monoglot.errors import InputError
from monoglot.nouns import Symbols
from monoglot.text.vocabulary import SPECIALS, UNK, Vocabulary

_SYMBOL = re.compile(r"<(code|bin)_(\d+)>")
_REMEMBERED = 128  # characters; prompts and short answers come again and again, documents don't


class Tokenizer:
    """Text to ids and back.

    Words go through byte-level BPE, so any Unicode text survives a round trip. Only `Symbols` are looked up by name: a user who writes
    "<bin_3>" in a question gets its letters, not a location.
    """

    def __init__(self, words: tokenizers.Tokenizer, vocabulary: Vocabulary):
        self.words = words
        self.vocabulary = vocabulary
        top = max(words.get_vocab().values(), default=-1)
        if top > vocabulary.mask:
            raise InputError(
                f"tokenizer.json has ids up to {top}, but the vocabulary's words end at {vocabulary.mask - 1}"
            )
        self._encode_words = lru_cache(maxsize=65536)(self._encode_words_uncached)

    @classmethod
    def load(cls, path: Path, vocabulary: Vocabulary) -> Tokenizer:
        """Read a tokenizer.json. Raises InputError when it is not one."""
        try:
            words = tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError.at(
                path, "tokenizer", f"cannot be read ({error.strerror})", "the model folder is incomplete"
            ) from None
        except Exception as error:  # tokenizers raises plain Exception
            raise InputError.at(path, "tokenizer", f"is not a tokenizer.json ({error})") from None
        return cls(words, vocabulary)

    @classmethod
    def from_gpt2(cls, gpt2_json: str, vocabulary: Vocabulary, word_ids: Mapping[int, int] | None = None) -> Tokenizer:
        """Give the ids of this vocabulary to GPT-2's BPE.

        Args:
            gpt2_json: a tokenizer.json with GPT-2's words and merges.
            vocabulary: the layout to fit into.
            word_ids: BPE id -> vocabulary id, as the published dictionary orders them; by default words follow in BPE order.
        """
        model = json.loads(gpt2_json)["model"]
        shift = len(SPECIALS)
        # GPT-2's own end of text is not a word: ours is </s>.
        known = {
            token: old
            for token, old in model["vocab"].items()
            if (old in word_ids if word_ids else old < vocabulary.num_words) and token != "<|endoftext|>"
        }
        vocab = {token: (word_ids[old] if word_ids else old + shift) for token, old in known.items()}
        taken = set(vocab.values())
        vocab |= dict(zip(SPECIALS, range(shift)))
        # Filler rows keep the ids without holes, as the published dictionary does.
        fillers = (number for number in range(shift, vocabulary.mask) if number not in taken)
        vocab |= {f"madeupword{index:04d}": number for index, number in enumerate(fillers)}
        vocab["<mask>"] = vocabulary.mask
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        merges = [(a, b) for a, b in pairs if a in vocab and b in vocab and a + b in vocab]
        words = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
        words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        words.decoder = tokenizers.decoders.ByteLevel()
        return cls(words, vocabulary)

    def save(self, path: Path) -> None:
        Path(path).write_text(self.words.to_str(), encoding="utf-8")

    def encode(self, text: str) -> np.ndarray:
        """int64 ids of `text` (words, or `Symbols`), without bos and eos."""
        if isinstance(text, Symbols):
            return np.array([self.symbol(name) for name in text.split()], dtype=np.int64)
        encode = self._encode_words if len(text) <= _REMEMBERED else self._encode_words_uncached
        return np.array(encode(text), dtype=np.int64)

    def _encode_words_uncached(self, text: str) -> list[int]:
        return self.words.encode(text, add_special_tokens=False).ids

    def symbol(self, name: str) -> int:
        """The id of a symbol by its name; `<unk>`'s when there is none, as in the published dictionary."""
        if name == "<mask>":
            return self.vocabulary.mask
        if match := _SYMBOL.fullmatch(name):
            member = self.vocabulary.bin if match[1] == "bin" else self.vocabulary.code
            return member(int(match[2]))
        return SPECIALS.index(name) if name in SPECIALS else UNK

    def decode(self, ids: Iterable[int]) -> str:
        """Ids back to text. Specials are left out; locations and codes are spelled out with a space between; broken UTF-8 becomes U+FFFD."""
        kept = [(number, kind) for number in map(int, ids) if (kind := self.vocabulary.kind(number)) != "special"]
        pieces: list[str] = []
        for is_word, group in groupby(kept, key=lambda item: item[1] == "word"):
            numbers = [number for number, _ in group]
            pieces.append(
                self.words.decode(numbers, skip_special_tokens=False) if is_word else " ".join(map(self._name, numbers))
            )
        return " ".join(piece.strip() if len(pieces) > 1 else piece for piece in pieces)

    def _name(self, number: int) -> str:
        kind = self.vocabulary.kind(number)
        if kind == "mask":
            return "<mask>"
        first = self.vocabulary.bins.start if kind == "bin" else self.vocabulary.mask + 1
        return f"<{kind}_{number - first}>"

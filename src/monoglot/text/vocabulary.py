"""Which id means what. The layout is fixed by three counts; ids in order: specials, words, mask, image codes, location bins.

Source: the published model's dictionary (OFA, arXiv 2202.03052; UnIVAL, arXiv 2307.16184): 4 + 50260 + 1 + 8192 + 1000 = 59457.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


class Vocabulary(BaseModel):
    """The layout of the vocabulary.

    >>> published = Vocabulary()
    >>> published.size, published.mask, published.code(0), published.bin(0)
    (59457, 50264, 50265, 58457)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_words: int = Field(50260, ge=1, description="Byte-level BPE words, including any filler rows.")
    num_codes: int = Field(8192, ge=0, description="Image codes of a VQGAN; 0 for a model that never writes pictures.")
    num_bins: int = Field(1000, ge=2, description="Location bins along one side of a picture.")

    @property
    def mask(self) -> int:
        return len(SPECIALS) + self.num_words

    @property
    def size(self) -> int:
        return self.mask + 1 + self.num_codes + self.num_bins

    def code(self, index: int) -> int:
        """The id of `<code_index>`."""
        return self._member("code", index, self.mask + 1, self.num_codes)

    def bin(self, index: int) -> int:
        """The id of `<bin_index>`."""
        return self._member("bin", index, self.size - self.num_bins, self.num_bins)

    @property
    def codes(self) -> range:
        """Ids of all image codes."""
        return range(self.mask + 1, self.mask + 1 + self.num_codes)

    @property
    def bins(self) -> range:
        """Ids of all location bins."""
        return range(self.size - self.num_bins, self.size)

    def _member(self, kind: str, index: int, first: int, count: int) -> int:
        if not 0 <= index < count:
            raise ValueError(f"<{kind}_{index}> is not in a vocabulary of {count} {kind}s")
        return first + index

    def kind(self, token_id: int) -> Literal["special", "word", "mask", "code", "bin"]:
        """What an id stands for. Raises ValueError when it lies outside of the vocabulary."""
        if not 0 <= token_id < self.size:
            raise ValueError(f"id {token_id} is outside of a vocabulary of {self.size}")
        if token_id < len(SPECIALS):
            return "special"
        if token_id < self.mask:
            return "word"
        if token_id == self.mask:
            return "mask"
        return "bin" if token_id in self.bins else "code"

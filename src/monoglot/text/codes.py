"""Image codes <-> symbols. A row writes a picture as numbers of a VQGAN's codebook, row by row: "17 4095 3 ..."."""

from __future__ import annotations

import re
from collections.abc import Iterable

from monoglot.errors import InputError
from monoglot.nouns import Symbols

_CODE = re.compile(r"<code_(\d{1,6})>", re.ASCII)


def codes_to_text(codes: Iterable[int]) -> Symbols:
    """Write codes as tokens.

    >>> codes_to_text([17, 4095])
    '<code_17> <code_4095>'
    """
    return Symbols(" ".join(f"<code_{code}>" for code in codes))


def text_to_codes(text: str) -> list[int]:
    """Read every code that `text` holds as a token.

    >>> text_to_codes("<code_17> and <code_4095>")
    [17, 4095]
    """
    return [int(number) for number in _CODE.findall(text)]


def numbers_to_codes(numbers: str, where: str) -> list[int]:
    """Read codes as a row writes them. Raises InputError when there is anything but numbers.

    >>> numbers_to_codes("17 4095", "rows.jsonl:3")
    [17, 4095]
    """
    words = numbers.split()
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 6):
            raise InputError.at(
                where, "target", f"{word[:20]!r} is not an image code", 'expected numbers: "17 4095 ..."'
            )
    return [int(word) for word in words]

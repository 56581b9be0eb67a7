"""Messages that name file, field and fix."""

from __future__ import annotations

import pytest

from monoglot.errors import InputError, MediaError


@pytest.mark.parametrize(
    ("arguments", "line", "message"),
    [
        (("rows.jsonl", "box", "x1 < x0", "give x0 y0 x1 y1"), 3, "rows.jsonl:3: box: x1 < x0; give x0 y0 x1 y1"),
        (("rows.jsonl", "box", "x1 < x0"), None, "rows.jsonl: box: x1 < x0"),
        (("rows.jsonl", "", "is empty", "write rows"), None, "rows.jsonl: is empty; write rows"),
        (("", "box", "is missing"), None, "box: is missing"),
        (("rows.jsonl", "id", "is missing"), 0, "rows.jsonl:0: id: is missing"),
    ],
)
def test_messages(arguments, line, message):
    assert str(InputError.at(*arguments, line=line)) == message


def test_kinds():
    assert isinstance(MediaError.at("a.png", "image", "is empty"), MediaError)
    assert issubclass(MediaError, InputError)
    assert issubclass(InputError, ValueError)

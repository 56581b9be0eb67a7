"""The two kinds of failure: the caller's input is wrong (`InputError`, exit code 2), or we are (anything else, exit code 1)."""

from __future__ import annotations


class InputError(ValueError):
    """What a user gave is wrong. The message is one line that names the file, the field and the fix.

    >>> str(InputError.at("rows.jsonl", "box", "x1 < x0", "give x0 y0 x1 y1 with x0 <= x1", line=3))
    'rows.jsonl:3: box: x1 < x0; give x0 y0 x1 y1 with x0 <= x1'
    """

    @classmethod
    def at(cls, file: object, field: str, wrong: str, fix: str = "", *, line: int | None = None) -> InputError:
        """Build `file[:line]: field: what is wrong; what was expected`. An empty part is left out."""
        where = f"{file}:{line}" if line is not None else str(file)
        parts = [where, field, f"{wrong}; {fix}" if fix else wrong]
        return cls(": ".join(part for part in parts if part))


class MediaError(InputError):
    """A picture, clip or sound that cannot be read. Training quarantines such a sample; prediction reports it in its row."""

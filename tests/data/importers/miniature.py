"""Pictures for miniature data sets."""

from __future__ import annotations

import io

from PIL import Image


def picture(colour: str = "red", size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """The bytes of a picture file; `size` is (width, height)."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()

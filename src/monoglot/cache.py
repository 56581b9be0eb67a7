"""Where monoglot keeps what it downloaded: packages of data, pretrained parts. Deleting the folder is always safe."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder named by the environment variable `MONOGLOT_CACHE`, else `~/.cache/monoglot`; not created here."""
    return Path(os.environ.get("MONOGLOT_CACHE") or Path.home() / ".cache" / "monoglot").expanduser()

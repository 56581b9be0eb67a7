"""Importers: published data sets, as their publishers lay them out, into rows.

    IMPORTERS[kind](files, settings) -> import_rows -> rows.jsonl (+ tar shards for pictures that came inside, + a file of problems)

Each family is one module that adds its kinds to `IMPORTERS`; they are imported here, in plain sight: one line a family.
"""

from monoglot.data.importers import again as again
from monoglot.data.importers import coco as coco
from monoglot.data.importers import folders as folders
from monoglot.data.importers import ofa as ofa
from monoglot.data.importers import parquet as parquet
from monoglot.data.importers import refer as refer
from monoglot.data.importers import snli_ve as snli_ve
from monoglot.data.importers import table as table
from monoglot.data.importers import video as video
from monoglot.data.importers import vqa as vqa
from monoglot.data.importers.base import IMPORTERS, Kind, explain, import_rows, make_kind
from monoglot.data.importers.work import Item, Report, Work

__all__ = ["IMPORTERS", "Item", "Kind", "Report", "Work", "explain", "import_rows", "make_kind"]

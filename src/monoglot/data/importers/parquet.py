"""Parquet files as Hugging Face writes them: pictures and sounds as {"bytes", "path"}, classes as numbers with names.

row group -> {column: value} -> (Mapping of table.py) -> rows; bytes go into tar shards
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from monoglot.data.importers.base import IMPORTERS
from monoglot.data.importers.table import Mapped
from monoglot.data.importers.work import Item, Work
from monoglot.errors import InputError

BATCH = 64
"""Rows that are in memory at a time, beside the compressed row group."""


class Parquet(Mapped):
    """Columns of any table. A picture or sound may be
        {"bytes": ..., "path": "cat.jpg"}   Hugging Face's Image and Audio; without bytes, path is a file below --media
        bytes, or a file's name, or a list of these
    A class label (a number) becomes its name, which Hugging Face keeps in the file: {"_type": "ClassLabel", "names": [...]}.
    Rows are read 64 at a time, so memory does not grow with their number. Needs the extra `parquet` (pyarrow).

    Source: huggingface.co/docs/datasets, features/image.py: pa.struct({"bytes": pa.binary(), "path": pa.string()}).
    """

    summary: ClassVar[str] = "Parquet files of Hugging Face data sets; you say which column is what"
    example: ClassVar[str] = "parquet train-00000-of-00001.parquet task=name image=image targets=label"

    def items(self, work: Work) -> Iterator[Item]:
        for file in self.files:
            table = _open(file)
            names = table.schema_arrow.names
            self.check_columns(names, file)
            wanted = self._wanted(names)
            labels = _labels(table.schema_arrow.metadata)
            number, size = 0, file.stat().st_size / max(1, table.metadata.num_rows)
            for batch in table.iter_batches(batch_size=BATCH, columns=wanted):
                for row in batch.to_pylist():
                    work.advance(size)
                    for column in labels.keys() & row.keys():
                        row[column] = _name(row[column], labels[column])
                    yield Item(row, file, place=f"[{number}]")
                    number += 1

    def _wanted(self, names: list[str]) -> list[str] | None:
        """The columns that are read: those that a setting names; all if there is a template."""
        templates = any("{" in str(getattr(self, setting)) for setting in ("id", "image", "video", "audio", "text"))
        used = {column for _, column in self.columns()}
        return None if templates else [name for name in names if name in used]


def _open(file: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        fix = "pip install 'monoglot[parquet]'"
        raise InputError.at(file, "", "reading parquet needs pyarrow, which is not installed", fix) from None
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        wrong = f"cannot be read as parquet ({' '.join(str(error).split())[:120]})"
        raise InputError.at(file, "", wrong, "copy or download it again") from None


def _labels(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the classes, by column, from what Hugging Face notes in the file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature["names"], list)
        }
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _name(value: Any, names: list[str]) -> Any:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


PARQUET = IMPORTERS.add("parquet", Parquet)

"""Published layouts in miniature: written by hand, imported, and checked as a user's rows are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monoglot.data.importers import import_rows, make_kind
from monoglot.data.rows import check_rows
from monoglot.tasks import TASKS, pose


@pytest.fixture
def write(tmp_path) -> Callable[[str, Any], Path]:
    """Write a file below the test's folder: text, bytes, or anything else as JSON."""

    def put(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


@pytest.fixture
def imported(tmp_path) -> Callable[..., list[dict]]:
    """Import, and return the rows, which `check_rows` has found nothing wrong with."""

    def run(kind: str, *words: object, out: str = "out/rows.jsonl", **options: Any) -> list[dict]:
        path = tmp_path / out
        run.report = import_rows(make_kind(kind, [str(word) for word in words]), path, **options)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if options.get("check", True):
            checked = check_rows(path, known_tasks=TASKS, check=pose)
            assert checked.problems == []
            assert checked.good == len(rows) == run.report.rows
        return rows

    return run


@pytest.fixture
def problems(tmp_path) -> Callable[..., list[str]]:
    """What an import told of entries that gave no row, without the folder of the test."""

    def read(out: str = "out/rows.jsonl") -> list[str]:
        lines = (tmp_path / f"{out}.problems.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["problem"].replace(f"{tmp_path}/", "") for line in lines]

    return read

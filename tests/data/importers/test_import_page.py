"""docs/import.md: its commands are ones that there are, and make every file that a published recipe names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from monoglot.data.importers import IMPORTERS, make_kind

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/import.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if line.startswith("monoglot data import ")]


@pytest.mark.parametrize("line", [line for line in LINES if " list" not in line], ids=lambda line: line[21:70])
def test_files_and_settings_of_a_command_are_read(line):
    words = shlex.split(line, comments=True)[3:]
    options = [index for index, word in enumerate(words) if word.startswith("--")]
    kind = make_kind(words[0], words[1 : options[0]])
    assert kind.files
    assert words[options[-1]] == "--out"


def test_every_file_of_a_published_recipe_is_made():
    wanted = set()
    for page in (ROOT / "recipes/published").glob("*.yaml"):
        recipe = yaml.safe_load(page.read_text())
        for source in recipe["mixture"]:
            wanted |= {f"{recipe['data_folder']}/{source[key]}" for key in ("data", "choices") if key in source}
        assert re.search(rf"\b{page.stem}\b", PAGE), page.stem
    made = set(re.findall(r"(?:--out |answers=)(data/\S+)", "\n".join(LINES)))
    assert wanted
    assert sorted(wanted - made) == []


def test_every_kind_is_in_the_table():
    table = PAGE.partition("## Kinds")[2].partition("\n- **")[0]
    assert set(re.findall(r"`(\w+)`", re.sub(r"\|[^|]*\|[^|]*\|$", "|", table, flags=re.M))) >= set(IMPORTERS)

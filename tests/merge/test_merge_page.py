"""docs/merge.md names every method, and every field of a page with its default."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from monoglot.merge import MERGERS
from monoglot.merge.recipe import MergePage, Search, make_page

TEXT = (Path(__file__).parents[2] / "docs" / "merge.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", [MergePage, Search])
def test_every_field_stands_there_with_its_default(model):
    (section,) = re.findall(rf"^### [^\n]*\(`{model.__name__}`\)\n(.*?)(?=^#|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", section, flags=re.MULTILINE)
    wanted = [
        (name, "needed" if field.is_required() else f"`{json.dumps(field.default)}`", field.description)
        for name, field in model.model_fields.items()
    ]
    assert rows == wanted


def test_every_method_stands_there_with_its_paper():
    for name, merger in MERGERS.items():
        (row,) = re.findall(rf"^\| `{name}` \| .*$", TEXT, flags=re.MULTILINE)
        for number in re.findall(r"\d{4}\.\d{5}", merger.source) if name != "average" else ["2203.05482"]:
            assert number in row
        assert ("`base`" in row) == merger.needs_base


def test_the_page_that_is_shown_is_one():
    (shown,) = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert make_page(yaml.safe_load(shown)).search.trials == 12

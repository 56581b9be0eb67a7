"""docs/recipes.md says of every field of a recipe what it is and what it is by default, and of no other; its pages are recipes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from monoglot.merge.recipe import make_page
from monoglot.modalities.audio import AudioConfig
from monoglot.modalities.image import ImageConfig
from monoglot.modalities.video import VideoConfig
from monoglot.model.config import ModelConfig
from monoglot.model.lora import Lora
from monoglot.text.vocabulary import Vocabulary
from monoglot.train.balance import Balance
from monoglot.train.recipe import (
    Connector,
    FeatureCache,
    Guard,
    HeldOut,
    Loss,
    Optimizer,
    Plateau,
    Recipe,
    Rows,
    Source,
    Words,
)

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
MODELS: tuple[type[BaseModel], ...] = (
    *(Recipe, Source, HeldOut, Plateau, Balance, Guard, Optimizer, Loss, Lora, Words, Connector, Rows, FeatureCache),
    *(ModelConfig, Vocabulary, ImageConfig, VideoConfig, AudioConfig),
)


def section(name: str) -> str:
    """The part of the page under the heading that ends in (`name`), up to the next heading."""
    found = re.findall(rf"^#+ [^\n]*\(`{name}`\)\n(.*?)(?=^#|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"docs/recipes.md has {len(found)} sections about {name}"
    return found[0]


def default(field: FieldInfo) -> str:
    """A field's default as the page writes it."""
    if field.is_required():
        return "needed"
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{json.dumps(field.default)}`"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_stands_there_with_its_default(model):
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", section(model.__name__), flags=re.MULTILINE)
    assert [(name, said) for name, said, _ in rows] == [(name, default(f)) for name, f in model.model_fields.items()]
    assert all(meaning.endswith(".") for _, _, meaning in rows)


def test_a_wrong_default_would_be_noticed(monkeypatch):
    monkeypatch.setitem(globals(), "TEXT", TEXT.replace("| `clip` | `1.0` |", "| `clip` | `5.0` |"))
    with pytest.raises(AssertionError):
        test_every_field_stands_there_with_its_default(Optimizer)


PAGES = [
    page
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for page in re.findall(r"^```yaml\n(name: .*?)^```", file.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_documentation_is_a_recipe(page):
    given = yaml.safe_load(page)
    if "parents" in given:  # a merge's
        assert make_page(given).parents
    else:
        assert Recipe.model_validate(given).curriculum

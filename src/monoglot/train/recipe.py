"""A run is one page: every setting of training, documented field by field. Leftover keys raise.

recipe.yaml (+ key=value from the command line) -> Recipe
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from monoglot.errors import InputError
from monoglot.model.config import ModelConfig
from monoglot.registry import unknown_name
from monoglot.text.vocabulary import Vocabulary


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Page):
    """One data set in the mixture."""

    name: str = Field(description="How the data set is called in progress, curves and logs.")
    data: str = Field(description="A JSONL file of rows; relative to the recipe's folder of data (`data_folder`).")
    quota: int = Field(ge=1, description="How many of its rows stand in every step.")
    weight: float = Field(1.0, gt=0, description="How much its loss counts beside its share of the rows.")
    augment: int = Field(
        0,
        description="Number of augmented copies to go through, one an epoch, beside the plain one; negative: colours only, nothing moves.",
    )
    limit: int | None = Field(None, ge=1, description="Use only the first rows (for experiments).")


class Optimizer(_Page):
    """AdamW with a linear warm-up and a linear decay to zero."""

    lr: float = Field(1e-3, gt=0, description="Highest learning rate of what starts fresh.")
    lr_parts: dict[str, float] = Field({}, description="Other highest rates for parameters whose name starts so.")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Decay of the two moments; as in arXiv 1706.03762.")
    weight_decay: float = Field(0.01, ge=0, description="On matrices only; not on biases, norms and position tables.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the rate rises from 0.")
    clip: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")


class Words(_Page):
    """Train the rows of words that occur in answers; needs `words` among what is frozen, since it takes their place."""

    lr: float = Field(3e-4, gt=0, description="Highest learning rate of these rows.")
    others: int = Field(
        2048, ge=0, description="How many random other words stand for the rest of the vocabulary in each step."
    )


class FeatureCache(_Page):
    """Frozen encoders need to see a picture once: what they say is kept on disk."""

    gigabytes: float = Field(8.0, ge=0, description="The cache never grows beyond this; 0 turns it off.")
    folder: str | None = Field(None, description="Where; the user's cache folder unless given.")


class Recipe(_Page):
    """Everything a run needs."""

    name: str = Field(description="What the run is called; its folder and its model card carry it.")
    seed: int = Field(0, description="Decides the order of rows, dropout and fresh weights.")
    model: ModelConfig | None = Field(
        None, description="Settings of a new model; leave out when `start` is a model folder."
    )
    start: str = Field(
        "warm",
        description="'warm' (parts that packages carry), 'cold' (the same eyes and ears, a random rest), or a model folder to go on from.",
    )
    freeze: tuple[str, ...] = Field(
        ("words", "encoders"), description="Parameters whose name starts so are not trained."
    )
    data_folder: str = Field("packs", description="What the data paths below are relative to.")
    mixture: tuple[Source, ...] = Field(min_length=1, description="What every step is made of.")
    balance: str = Field("share", description="How much each data set's loss counts; see monoglot.train.balance.")
    steps: int = Field(ge=1, description="Length of the run; the learning rate falls to zero at its end.")
    smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="What matrix products are computed in; 'auto' takes bfloat16 where the machine has it."
    )
    optimizer: Optimizer = Optimizer()
    validate_every: int = Field(0, ge=0, description="Steps between looks at the held-out rows; 0 for never.")
    validation: tuple[Source, ...] = Field((), description="Held-out rows: the first `quota` of each are looked at.")
    checkpoint_minutes: float = Field(3.0, gt=0, description="A run that is stopped loses at most this.")
    words: Words | None = Field(
        None, description="Train words that occur and project on few others; leave out to project on all."
    )
    feature_cache: FeatureCache = FeatureCache()
    quarantine_share: float = Field(
        0.01, ge=0, le=1, description="The run stops when more than this share of the rows cannot be read."
    )
    int8: tuple[str, ...] = Field(
        (), description="Matrices of the finished model to store as 8-bit integers, by pattern."
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Recipe:
        names = [source.name for source in self.mixture]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two data sets of the mixture have one name: {sorted({n for n in names if names.count(n) > 1})}"
            )
        if self.model is None and self.start in ("warm", "cold"):
            raise ValueError(f"start: {self.start} needs the settings of a model under `model`")
        if self.model is not None and self.start not in ("warm", "cold"):
            raise ValueError(f"start: {self.start} brings its own settings; leave out `model`")
        return self

    @property
    def rows_per_step(self) -> int:
        return sum(source.quota for source in self.mixture)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML page; `overrides` are `key=value` with dots for nesting, values in YAML.

    Raises InputError that names the file, the field and, for a misspelt key, its nearest neighbours.
    """
    try:
        page = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.at(
            path,
            "recipe",
            f"cannot be read ({error.strerror})",
            "give a YAML file, for example recipes/nano_quick.yaml",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError.at(path, "recipe", f"is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(page, dict):
        raise InputError.at(path, "recipe", "is not a page of keys and values")
    for override in overrides:
        _override(page, override)
    try:
        return Recipe.model_validate(page)
    except ValidationError as error:
        raise InputError.at(path, *_first_problem(error)) from None


def _override(page: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError.at("command line", override, "is not key=value", "for example steps=100 or optimizer.lr=0.001")
    *parents, last = key.split(".")
    for parent in parents:
        page = page.setdefault(parent, {})
        if not isinstance(page, dict):
            raise InputError.at("command line", override, f"{parent!r} holds no keys")
    try:
        page[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError.at("command line", override, "the value is not YAML", "put it in quotes") from None


def _first_problem(error: ValidationError) -> tuple[str, str]:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known: Any = Recipe
        for part in first["loc"][:-1]:
            known = {
                "mixture": Source,
                "validation": Source,
                "optimizer": Optimizer,
                "words": Words,
                "feature_cache": FeatureCache,
                "model": ModelConfig,
                "vocabulary": Vocabulary,
            }.get(str(part), known)
        return field, unknown_name("key", str(first["loc"][-1]), known.model_fields)
    return field, first["msg"].removeprefix("Value error, ")

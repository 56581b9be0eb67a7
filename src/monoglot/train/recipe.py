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
    choices: str | None = Field(
        None, description="A file of answers, one a line, in `data_folder`: the choices of every row that has none."
    )


class Optimizer(_Page):
    """AdamW with a linear warm-up and a linear decay to zero (the published polynomial decay of power 1)."""

    lr: float = Field(1e-3, gt=0, description="Highest learning rate of what starts fresh.")
    lr_parts: dict[str, float] = Field({}, description="Other highest rates for parameters whose name starts so.")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Decay of the two moments; as in arXiv 1706.03762.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled, times the learning rate; on what `decay` says.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the rate rises from 0.")
    clip: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    decay: Literal["matrices", "all"] = Field(
        "matrices", description="What weights decay: 'all' takes in biases, norms and position tables, as published."
    )


class Loss(_Page):
    """What is minimised. Source: section 19 of the published model's arithmetic."""

    kind: Literal["cross_entropy", "encouraging", "self_critical"] = Field(
        "cross_entropy",
        description="'encouraging' rewards being surer still (arXiv 2110.06537); 'self_critical' has the model write and "
        "rewards what scores above its other answers in CIDEr-D (arXiv 1612.00563).",
    )
    log_end: float = Field(
        0.75, gt=0, le=1, description="Probability from which the bonus of 'encouraging' grows in a line; 1 for never."
    )
    drop_worst: float = Field(
        0.0, ge=0, lt=1, description="Share of the tokens, those with the largest losses, that are left out."
    )
    drop_worst_after: int = Field(0, ge=0, description="Only after this many steps.")
    r_drop: float = Field(
        0.0, ge=0, description="How much disagreement between two passes with other dropout counts (arXiv 2106.14448)."
    )
    constrain: bool = Field(
        False, description="The softmax runs over what a row's choices allow, as it does when the model is used."
    )
    answers: int = Field(5, ge=2, description="How many answers 'self_critical' compares for each row.")
    answer_length: int = Field(16, ge=1, description="Longest answer that 'self_critical' writes, in tokens.")

    @model_validator(mode="after")
    def _go_together(self) -> Loss:
        others = {"drop_worst": self.drop_worst, "r_drop": self.r_drop, "constrain": self.constrain}
        if self.kind == "self_critical" and any(others.values()):
            given = ", ".join(name for name, value in others.items() if value)
            raise ValueError(f"{given}: has no meaning for 'self_critical', which rewards whole answers")
        return self


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
        description="'warm' (parts that packages carry), 'cold' (the same eyes and ears, a random rest), or a bundled model or model folder to go on from.",
    )
    model_changes: dict[str, Any] = Field(
        {}, description="Settings in which the model differs from the folder that it starts from; new modalities too."
    )
    freeze: tuple[str, ...] = Field(
        ("words", "encoders"), description="Parameters whose name starts so are not trained."
    )
    data_folder: str = Field("packs", description="What the data paths below are relative to.")
    mixture: tuple[Source, ...] = Field(min_length=1, description="What every step is made of.")
    balance: str = Field("share", description="How much each data set's loss counts; see monoglot.train.balance.")
    steps: int | None = Field(
        None, ge=1, description="Length of the run, if not in `epochs`; the learning rate falls to zero at its end."
    )
    epochs: int | None = Field(
        None, ge=1, description="Length of the run, in passes over the mixture's first data set."
    )
    schedule_epochs: int | None = Field(
        None, ge=1, description="The learning rate falls as if the run were this long; leave out for its own length."
    )
    rows_at_once: int | None = Field(
        None, ge=1, description="Most rows that are computed together; gradients of a step's parts are added up."
    )
    source_words: int | None = Field(None, ge=1, description="A row's text is cut to so many words.")
    target_words: int | None = Field(None, ge=1, description="Answers are cut to so many words.")
    smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    loss: Loss = Loss()
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a running average of all weights, which is looked at and kept in the end.",
    )
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
            raise ValueError(f"model: {self.start} has its own settings; say under `model_changes` what differs")
        return self

    @model_validator(mode="after")
    def _settings_go_together(self) -> Recipe:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("length: give either steps or epochs")
        if self.schedule_epochs is not None and self.schedule_epochs < (self.epochs or self.schedule_epochs + 1):
            raise ValueError("schedule_epochs: needs `epochs`, and to be no less than that")
        if self.model_changes and self.start in ("warm", "cold"):
            raise ValueError(f"model_changes: start {self.start!r} has its settings under `model`")
        if self.words is not None and (self.loss.constrain or self.loss.kind == "self_critical"):
            what = "loss.constrain" if self.loss.constrain else "the loss 'self_critical'"
            raise ValueError(f"words: cannot be used with {what}, which needs the whole vocabulary")
        if self.loss.kind == "self_critical" and self.smoothing:
            raise ValueError("smoothing: has no meaning for the loss 'self_critical'")
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
        raise InputError.at(path, *first_problem(error)) from None


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


def first_problem(error: ValidationError, page: Any = Recipe) -> tuple[str, str]:
    """Which field of the page is wrong, and how; for a misspelt key with its nearest neighbours."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known: Any = page
        for part in first["loc"][:-1]:
            known = {
                "mixture": Source,
                "validation": Source,
                "optimizer": Optimizer,
                "words": Words,
                "loss": Loss,
                "feature_cache": FeatureCache,
                "model": ModelConfig,
                "vocabulary": Vocabulary,
            }.get(str(part), known)
        return field, unknown_name("key", str(first["loc"][-1]), known.model_fields)
    return field, first["msg"].removeprefix("Value error, ")

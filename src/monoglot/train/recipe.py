"""A run is one page: every setting of training, documented field by field. Leftover keys raise.

recipe.yaml (+ key=value from the command line) -> Recipe
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from monoglot.errors import InputError
from monoglot.model.config import ModelConfig
from monoglot.model.lora import Lora
from monoglot.registry import unknown_name
from monoglot.text.vocabulary import Vocabulary
from monoglot.train.balance import BALANCERS, Balance


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Page):
    """One data set in the mixture. How often its rows are drawn is said by `quota` or by `weight`."""

    name: str = Field(description="How the data set is called in progress, curves and logs.")
    data: str = Field(
        description="A JSONL file of rows, or a folder of packed shards; relative to the recipe's folder of data (`data_folder`)."
    )
    quota: float | None = Field(
        None, gt=0, description="How many of its rows stand in every step; 0.25: one in every fourth."
    )
    weight: float | None = Field(
        None,
        ge=0,
        description="Its share of the stage's `rows` beside the other data sets; 1 if neither this nor `quota` is given.",
    )
    loss_weight: float = Field(1.0, gt=0, description="How much its loss counts beside its share of the rows.")
    augment: int = Field(
        0,
        description="Number of augmented copies to go through, one an epoch, beside the plain one; negative: colours only, nothing moves.",
    )
    modality_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="How often a row with media of several modalities is shown without one of them, drawn at random.",
    )
    limit: int | None = Field(None, ge=1, description="Use only the first rows (for experiments).")
    choices: str | None = Field(
        None, description="A file of answers, one a line, in `data_folder`: the choices of every row that has none."
    )

    @model_validator(mode="after")
    def _one_way_to_draw(self) -> Source:
        if self.quota is not None and self.weight is not None:
            raise ValueError(f"{self.name}: give quota (rows a step) or weight (share of the rows), not both")
        return self


class HeldOut(_Page):
    """Rows that are looked at while training and never trained on."""

    name: str = Field(description="How they are called in progress, curves and logs.")
    data: str = Field(description="As in the mixture.")
    rows: int = Field(64, ge=1, description="How many are looked at, spread evenly over the file.")
    choices: str | None = Field(None, description="As in the mixture.")

    @property
    def source(self) -> Source:
        """As a data set that is read whole."""
        return Source(name=self.name, data=self.data, choices=self.choices)


class Plateau(_Page):
    """Ends a stage when held-out losses no longer fall; `steps` is then the most it may take."""

    scores: tuple[str, ...] = Field(min_length=1, description="Names of `validation` sets whose losses are watched.")
    patience: int = Field(3, ge=1, description="So many looks in a row without one loss that is lower end the stage.")
    least: float = Field(0.01, ge=0, description="Nats a token by which a loss has to fall to count as lower.")
    best: bool = Field(
        False, description="The stage ends with the weights of the look whose losses had the lowest mean, not its last."
    )


class Optimizer(_Page):
    """AdamW with a linear warm-up; then, as published, a linear decay to zero (polynomial decay of power 1)."""

    lr: float = Field(1e-3, gt=0, description="Highest learning rate of what starts fresh.")
    lr_parts: dict[str, float] = Field({}, description="Other highest rates for parameters whose name starts so.")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Decay of the two moments; as in arXiv 1706.03762.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled, times the learning rate; on what `decay` says.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the rate rises from 0.")
    clip: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    decay: Literal["matrices", "all"] = Field(
        "matrices", description="What weights decay: 'all' takes in biases, norms and position tables, as published."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="How the rate goes on after the warm-up: down to 0 in a line, down to 0 in a half wave, or not at all.",
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

    lr: float = Field(
        3e-4,
        ge=0,
        description="Highest learning rate of these rows; 0: they stay as they are, and only the projection is cut short.",
    )
    others: int = Field(
        2048, ge=0, description="How many random other words stand for the rest of the vocabulary in each step."
    )


class Rows(_Page):
    """Rows that are read once."""

    data: str = Field(description="A JSONL file of rows, or a folder of packed shards; relative to `data_folder`.")
    limit: int | None = Field(None, ge=1, description="Use only the first rows.")


class Connector(_Page):
    """A connector that is fitted in closed form before the first step: media of one answer begin close together, near its words."""

    modality: str = Field(description="Whose connector; its encoder is taken as it is.")
    data: tuple[Rows, ...] = Field(
        min_length=1,
        description="Rows with one such item and an answer; of a row with a box only what lies under it counts.",
    )
    also: tuple[str, ...] = Field((), description="Modalities with the same encoder, whose connectors begin alike.")
    pooled: bool = Field(
        False, description="The connector of the token that stands for a whole item, not that of cells."
    )


class FeatureCache(_Page):
    """Frozen encoders need to see a picture once: what they say is kept on disk."""

    gigabytes: float = Field(8.0, ge=0, description="The cache never grows beyond this; 0 turns it off.")
    folder: str | None = Field(None, description="Where; the user's cache folder unless given.")


class Guard(_Page):
    """What happens when a step goes wrong: it is left out; after several in a row the run goes back to its last good state."""

    spike: float = Field(
        10.0,
        ge=0,
        description="A step whose gradient norm is this many times its usual is left out; 0: only what is not finite.",
    )
    patience: int = Field(
        8, ge=1, description="So many left out in a row bring back the last checkpoint; its rows are not seen again."
    )
    returns: int = Field(3, ge=0, description="So often a run may go back; then it stops.")


class Stage(_Page):
    """A part of a run: what it draws from, what it trains, how it ends."""

    name: str = Field(
        description="What it is called; of a page, what the run is called: its folder and its model card carry it."
    )
    mixture: tuple[Source, ...] = Field((), description="What every step is made of.")
    rows: float | None = Field(
        None,
        gt=0,
        description="Rows in every step, when data sets have weights; those with a quota of their own are among them.",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Shares are weight x rows^(1 / temperature): 1 is proportional to size, 2 to its root. Leave out for the weights alone.",
    )
    max_repeats: float | None = Field(
        None,
        gt=0,
        description="In this stage no data set is gone through more often; what it leaves goes to the others.",
    )
    replay: float = Field(0.0, ge=0, lt=1, description="Share of every step that repeats data sets of earlier stages.")
    balance: Balance = Field(
        Balance(), description="How much each data set's loss counts, or how often it is drawn; a name or settings."
    )
    steps: int | None = Field(
        None,
        ge=1,
        description="Length, if not in `epochs` or `tokens`; the learning rate has fallen to its end by then.",
    )
    epochs: int | None = Field(None, ge=1, description="Length in passes over the mixture's first data set.")
    tokens: int | None = Field(
        None, ge=1, description="Length in tokens read and written, media included, padding not."
    )
    plateau: Plateau | None = Field(None, description="End earlier, when held-out losses no longer fall.")
    schedule_epochs: int | None = Field(
        None, ge=1, description="The learning rate falls as if the stage were this long; leave out for its own length."
    )
    schedule_steps: int | None = Field(
        None, ge=1, description="The same in steps: the next stage goes on at that rate."
    )
    freeze: tuple[str, ...] = Field(
        ("words", "encoders"), description="Parameters whose name starts so are not trained."
    )
    train_only: tuple[str, ...] = Field(
        (), description="Only parameters whose name starts so are trained; in place of `freeze`."
    )
    model_changes: dict[str, Any] = Field(
        {},
        description="Settings in which the model differs from how the stage finds it: resolution, frames, dropout; new modalities too.",
    )
    optimizer: Optimizer = Optimizer()
    words: Words | None = Field(
        None, description="Train words that occur and project on few others; leave out to project on all."
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Stage:
        names = [source.name for source in self.mixture]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two data sets of the mixture have one name: {sorted({n for n in names if names.count(n) > 1})}"
            )
        return self

    def problem(self) -> tuple[str, str] | None:
        """(field, what is wrong) if this cannot be run as a stage; a page with `stages` need not be one itself."""
        if not self.mixture:
            return "mixture", "has no data set; give at least one"
        if sum(length is not None for length in (self.steps, self.epochs, self.tokens)) != 1:
            return "length", "give either steps, epochs or tokens"
        if self.schedule_epochs is not None and self.schedule_epochs < (self.epochs or self.schedule_epochs + 1):
            return "schedule_epochs", "needs `epochs`, and to be no less than that"
        if self.schedule_steps is not None and self.schedule_steps < (self.steps or self.schedule_steps + 1):
            return "schedule_steps", "needs `steps`, and to be no less than that"
        if self.plateau is not None and self.steps is None:
            return "plateau", "needs `steps`: the most that the stage may take"
        if self.max_repeats is not None and self.tokens is not None:
            return "max_repeats", "needs `steps` or `epochs`: how long is the stage?"
        fixed = sum(source.quota for source in self.mixture if source.quota is not None)
        weights = [1.0 if source.weight is None else source.weight for source in self.mixture if source.quota is None]
        if weights and self.rows is None:
            return "rows", "is missing; data sets without a quota share so many rows a step by their weights"
        if weights and not sum(weights):
            return "mixture", "the weights sum to zero; nothing would be drawn"
        if self.rows is not None and weights and self.rows <= fixed:
            return (
                "rows",
                f"the quotas take {fixed:g} of {self.rows:g} rows; nothing is left for the data sets with weights",
            )
        if self.rows is not None and not weights and self.rows != fixed:
            return "rows", f"is {self.rows:g}, but the quotas sum to {fixed:g}; leave it out"
        return None


class Recipe(Stage):
    """Everything a run needs. A page is one stage; with `stages`, what stands on the page itself holds for every stage that does not say otherwise."""

    seed: int = Field(0, description="Decides the order of rows, dropout and fresh weights.")
    model: ModelConfig | None = Field(
        None, description="Settings of a new model; leave out when `start` is a model folder."
    )
    start: str = Field(
        "warm",
        description="'warm' (parts that packages carry), 'cold' (the same eyes and ears, a random rest), or a bundled model or model folder to go on from.",
    )
    connectors: tuple[Connector, ...] = Field(
        (), description="Connectors that begin fitted to rows, in place of as `start` has them."
    )
    stages: tuple[Stage, ...] = Field((), description="The curriculum: stages in their order; leave out for one stage.")
    adapter: bool = Field(
        False, description="What is trained is stored alone, as an adapter of `start`, in place of a whole model."
    )
    lora: Lora | None = Field(
        None,
        description="Low-rank changes beside the layers are trained in place of all else; folded into the model unless `adapter`.",
    )
    data_folder: str = Field("packs", description="What the data paths are relative to.")
    validate_every: int = Field(0, ge=0, description="Steps between looks at the held-out rows; 0 for never.")
    validation: tuple[HeldOut, ...] = Field((), description="Held-out rows to look at.")
    samples: int = Field(
        2, ge=0, description="Answers to so many rows of each held-out set are kept at each look, for the report."
    )
    rows_at_once: int | None = Field(
        None, ge=1, description="Most rows that are computed together; gradients of a step's parts are added up."
    )
    tokens_at_once: int | None = Field(
        None, ge=1, description="Most tokens, padding included, that are computed together; one row always is."
    )
    checkpoint_activations: bool = Field(
        False,
        description="Compute layers once more going back, in place of keeping what they said: less memory, more time.",
    )
    workers: int = Field(
        0, ge=0, le=16, description="Processes that read rows ahead; 0: a thread. The rows are the same."
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
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="With several processes: each holds the whole model ('ddp'), or a share of it ('fsdp')."
    )
    guard: Guard = Guard()
    conflicts_every: int = Field(
        0, ge=0, description="Steps between measurements of how the data sets' gradients agree; 0 for never."
    )
    checkpoint_minutes: float = Field(3.0, gt=0, description="A run that is killed loses at most this.")
    feature_cache: FeatureCache = FeatureCache()
    quarantine_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="The run stops when surely more than this share of the rows cannot be read; 0: at the first.",
    )
    track: tuple[str, ...] = Field(
        (), description="Trackers that follow the run: 'tensorboard', 'mlflow'; each is an extra."
    )
    int8: tuple[str, ...] = Field(
        (), description="Matrices of the finished model to store as 8-bit integers, by pattern."
    )

    @model_validator(mode="before")
    @classmethod
    def _stages_inherit(cls, page: Any) -> Any:
        if not isinstance(page, dict) or not isinstance(page.get("stages"), (list, tuple)):
            return page
        if page.get("replay"):
            raise ValueError("replay: is said by a stage, which repeats those before it")
        given = {key: value for key, value in page.items() if key in Stage.model_fields and key not in _OWN}
        return page | {"stages": [_inherit(given, stage) for stage in page["stages"]]}

    @model_validator(mode="after")
    def _settings_go_together(self) -> Recipe:
        if self.model is None and self.start in ("warm", "cold"):
            raise ValueError(f"start: {self.start} needs the settings of a model under `model`")
        if self.model is not None and self.start not in ("warm", "cold"):
            raise ValueError(f"model: {self.start} has its own settings; say under `model_changes` what differs")
        if self.model_changes and self.start in ("warm", "cold"):
            raise ValueError(f"model_changes: start {self.start!r} has its settings under `model`")
        if (self.adapter or self.lora) and self.start in ("warm", "cold"):
            raise ValueError(f"{'adapter' if self.adapter else 'lora'}: needs a model folder as `start`")
        if self.adapter and (self.model_changes or any(stage.model_changes for stage in self.stages)):
            raise ValueError("adapter: is for the model as `start` has it; leave out `model_changes`")
        best = any(stage.plateau is not None and stage.plateau.best for stage in self.curriculum)
        if (self.adapter or best) and any(stage.words is not None for stage in self.curriculum):
            raise ValueError(
                f"words: {'an adapter' if self.adapter else 'plateau.best'} keeps no rows of words; leave it out"
            )
        if self.parallel == "fsdp" and (self.adapter or self.lora or best):
            what = "adapter" if self.adapter else "lora" if self.lora else "plateau.best"
            raise ValueError(f"parallel: {what} needs the whole model in each process; use 'ddp'")
        if (self.adapter or self.lora) and self.connectors:
            raise ValueError("connectors: an adapter changes them by training only; leave it out")
        if self.loss.kind == "self_critical" and self.smoothing:
            raise ValueError("smoothing: has no meaning for the loss 'self_critical'")
        if self.loss.kind == "self_critical" and self.parallel == "fsdp":
            raise ValueError("parallel: the loss 'self_critical' needs the whole model in each process; use 'ddp'")
        measures = {stage.balance.kind for stage in self.curriculum if BALANCERS[stage.balance.kind].needs_norms}
        if self.parallel == "fsdp" and (measures or self.conflicts_every):
            what = f"balance '{measures.pop()}'" if measures else "conflicts_every"
            raise ValueError(f"parallel: {what} needs the whole model in each process; use 'ddp'")
        return self

    @model_validator(mode="after")
    def _every_stage_can_run(self) -> Recipe:
        looked_at = [held_out.name for held_out in self.validation]
        names = [stage.name for stage in self.curriculum]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: two have one name: {sorted({n for n in names if names.count(n) > 1})}")
        data: dict[str, Source] = {}
        for index, stage in enumerate(self.curriculum):
            where = f"stages.{index}." if self.stages else ""
            if problem := stage.problem():
                raise ValueError(f"{where}{problem[0]}: {problem[1]}")
            if stage.replay and not index:
                raise ValueError(f"{where}replay: the first stage has nothing to repeat")
            if stage.words is not None and (self.loss.constrain or self.loss.kind == "self_critical"):
                what = "loss.constrain" if self.loss.constrain else "the loss 'self_critical'"
                raise ValueError(f"{where}words: cannot be used with {what}, which needs the whole vocabulary")
            for source in stage.mixture:
                if data.setdefault(source.name, source).data != source.data:
                    raise ValueError(
                        f"{where}mixture: {source.name!r} is another file in an earlier stage; give it another name"
                    )
            for name in stage.plateau.scores if stage.plateau else ():
                if name not in looked_at or not self.validate_every:
                    fix = (
                        unknown_name("validation set", name, looked_at)
                        if self.validate_every
                        else "validate_every is 0"
                    )
                    raise ValueError(f"{where}plateau.scores: {fix}")
        return self

    @property
    def curriculum(self) -> tuple[Stage, ...]:
        """The stages; a page without any is one itself."""
        return self.stages or (self,)


_LENGTHS = ("steps", "epochs", "tokens")
_SCHEDULES = ("schedule_epochs", "schedule_steps")
_OWN = ("name", "model_changes", "replay")
"""What a stage does not take over from its page: the page's `model_changes` are made once, before the first stage."""
_LISTS = ("mixture", "validation", "stages", "connectors")


def _inherit(page: dict[str, Any], stage: Any) -> Any:
    """A stage as it was written, with what it leaves out taken from its page. Whoever gives a length of its own has no other."""
    if not isinstance(stage, dict):
        return stage
    if any(stage.get(length) is not None for length in _LENGTHS):
        page = {key: value for key, value in page.items() if key not in (*_LENGTHS, *_SCHEDULES)}
    return merged(page, stage)


def as_page(recipe: Recipe) -> dict[str, Any]:
    """A recipe as `read_recipe` reads it: what is not said is left out, unless a stage would take it over from its page."""
    page = json.loads(recipe.model_dump_json(exclude_none=True))
    for stage, written in zip(recipe.stages, page.get("stages", ())):
        written |= {key: None for key in Stage.model_fields if key in page and getattr(stage, key) is None}
    return page


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`settings` with `changes` put over them, mappings inside of mappings too."""
    both = {**settings, **changes}
    return {
        key: merged(settings[key], value) if isinstance(value, dict) and isinstance(settings.get(key), dict) else value
        for key, value in both.items()
    }


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
    for override in overrides:
        _check_effect(page, override)
    try:
        return Recipe.model_validate(page)
    except ValidationError as error:
        raise InputError.at(path, *first_problem(error)) from None


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`key=value` changes as a page of their own.

    >>> read_overrides(["steps=100", "optimizer.lr=0.001"])
    {'steps': 100, 'optimizer': {'lr': 0.001}}
    """
    page: dict[str, Any] = {}
    for override in overrides:
        _override(page, override)
    return page


def _override(page: dict[str, Any], override: str) -> None:
    """Change one value of a page; `mixture.names.quota` and `stages.0.steps` reach into lists, by an item's name or number."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError.at("command line", override, "is not key=value", "for example steps=100 or optimizer.lr=0.001")
    *parents, last = key.split(".")
    inside: Any = page
    for parent in parents:
        if isinstance(inside, dict):
            inside = inside.setdefault(parent, [] if parent in _LISTS else {})
        else:
            inside = inside[_place(inside, parent, override)]
        if not isinstance(inside, (dict, list)):
            raise InputError.at("command line", override, f"{parent!r} holds no keys")
    place = last if isinstance(inside, dict) else _place(inside, last, override)
    try:
        inside[place] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError.at("command line", override, "the value is not YAML", "put it in quotes") from None


def _place(items: list[Any], key: str, override: str) -> int:
    """Where in a list of the page the item of that name or number stands."""
    names = [str(item.get("name")) if isinstance(item, dict) else "" for item in items]
    if key in names:
        return names.index(key)
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    fix = "data sets of a stage are changed by stages.NAME.mixture.NAME" if not items else ""
    raise InputError.at("command line", override, unknown_name("item", key, names), fix)


def _check_effect(page: dict[str, Any], override: str) -> None:
    """InputError for a change to the page that no stage takes over, since each says otherwise."""
    key = override.partition("=")[0]
    first = key.partition(".")[0]
    stages = page.get("stages")
    if not isinstance(stages, list) or first not in Stage.model_fields or first in _OWN:
        return
    if stages and all(isinstance(stage, dict) and _says(stage, key) for stage in stages):
        what = "a length of its own" if first in _LENGTHS else f"its own {key!r}"
        raise InputError.at("command line", override, f"every stage has {what}", f"change stages.NAME.{key}")


def _says(stage: dict[str, Any], key: str) -> bool:
    """True if a stage does not take a key over from its page."""
    if key in _LENGTHS:
        return any(stage.get(length) is not None for length in _LENGTHS)
    inside: Any = stage
    for part in key.split("."):
        if not isinstance(inside, dict):
            return True
        if part not in inside:
            return False
        inside = inside[part]
    return True


def first_problem(error: ValidationError, page: Any = Recipe) -> tuple[str, str]:
    """Which field of the page is wrong, and how; for a misspelt key with its nearest neighbours."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known: Any = page
        for part in first["loc"][:-1]:
            known = {
                "mixture": Source,
                "validation": HeldOut,
                "stages": Stage,
                "plateau": Plateau,
                "balance": Balance,
                "guard": Guard,
                "optimizer": Optimizer,
                "words": Words,
                "loss": Loss,
                "lora": Lora,
                "feature_cache": FeatureCache,
                "model": ModelConfig,
                "vocabulary": Vocabulary,
            }.get(str(part), known)
        return field, unknown_name("key", str(first["loc"][-1]), known.model_fields)
    return field, first["msg"].removeprefix("Value error, ")

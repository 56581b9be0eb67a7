"""A stage that is under way: its data and how often each is drawn, what is trained, what balances it, when it ends.

Recipe, index of the stage -> Plan (data sets, quotas, length; no model)      Plan + model -> StageRun
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from monoglot.data.curriculum import Ending, with_replay
from monoglot.data.features import CachingPreparer, FeatureCache
from monoglot.data.mixture import Mixture, Segment, capped, share_out
from monoglot.errors import InputError
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Sample
from monoglot.registry import unknown_name
from monoglot.tasks import TASKS, pose
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import EOS
from monoglot.train.balance import BALANCERS
from monoglot.train.distributed import World, spread
from monoglot.train.losses import Objective
from monoglot.train.optim import build_optimizer
from monoglot.train.recipe import Recipe, Stage
from monoglot.train.steps import AHEAD, IN_BFLOAT16, IN_FLOAT32, DataSet, Reader, most_bad
from monoglot.train.trainee import Trainee
from monoglot.train.words import ActiveWords

_PROBED = 64
"""Rows of each data set that are looked at before a run begins."""


@dataclass
class Plan:
    """What a stage draws and how long it lasts, known before there is a model."""

    index: int
    page: Stage
    data: list[DataSet]
    """The stage's own data sets, then those it repeats."""
    quotas: list[float]
    """Rows a step of each, to begin with."""
    steps: int | None
    """Length; None if tokens end it."""
    schedule: int | None
    """Steps after which the learning rate would be at its end; None if tokens say it."""

    @property
    def names(self) -> list[str]:
        return [rows.source.name for rows in self.data]

    def capped(self, quotas: Sequence[float]) -> list[float]:
        """Quotas under which nothing is repeated more often than the page allows."""
        if self.page.max_repeats is None or self.steps is None:
            return list(quotas)
        return capped(quotas, [self.page.max_repeats * len(rows) / self.steps for rows in self.data])


def make_plans(recipe: Recipe) -> list[Plan]:
    """All stages with their data opened and tried. InputError for what cannot be drawn or is no task's; nothing has been trained yet."""
    opened: dict[str, DataSet] = {}
    plans: list[Plan] = []
    for index, page in enumerate(recipe.curriculum):
        own = [opened.setdefault(source.name, DataSet(recipe, source)) for source in page.mixture]
        own = [rows if rows.source == source else rows.under(source) for rows, source in zip(own, page.mixture)]
        named = dict(zip((source.name for source in page.mixture), own))
        quotas = with_replay(
            dict(zip(named, _quotas(page, own))), [dict(zip(plan.names, plan.quotas)) for plan in plans], page.replay
        )
        for plan in plans:
            named = {name: data for name, data in zip(plan.names, plan.data) if name in quotas} | named
        data = [named[name] for name in quotas]
        steps, schedule = run_length(page, len(own[0]), quotas[page.mixture[0].name])
        plan = Plan(index, page, data, list(quotas.values()), steps, schedule)
        plan.quotas = plan.capped(plan.quotas)
        if sum(plan.quotas) < 1:
            where = f"stages.{index}.mixture" if recipe.stages else "mixture"
            wrong = f"draws {sum(plan.quotas):.2g} rows a step"
            raise InputError.at("recipe", where, wrong, "give at least one: raise rows, quotas or max_repeats")
        plans.append(plan)
    for rows in opened.values():
        _try(rows, recipe.quarantine_share)
    return plans


def _try(rows: DataSet, share: float) -> None:
    """InputError for a data set of which surely too many rows, or all, cannot be put as a task; their media are not opened."""
    wrong = []
    probed = rows.spread(_PROBED)
    for row in probed:
        try:
            sample = rows[row]
            if sample.task not in TASKS:
                raise InputError.at(rows.where(row), "task", unknown_name("task", sample.task, TASKS))
            pose(sample)
        except InputError as error:
            wrong.append(error)
    if len(wrong) == len(probed) or len(wrong) > most_bad(len(probed), share):
        raise wrong[0]


def _quotas(page: Stage, data: list[DataSet]) -> list[float]:
    """Rows a step of a stage's own data sets."""
    fixed = sum(source.quota for source in page.mixture if source.quota is not None)
    shared = [rows for rows in data if rows.source.quota is None]
    weights = [1.0 if rows.source.weight is None else rows.source.weight for rows in shared]
    sizes = [len(rows) for rows in shared]
    rows_left = (page.rows or fixed) - fixed
    shares = iter(share_out(rows_left, weights, sizes, temperature=page.temperature) if shared else [])
    return [next(shares) if rows.source.quota is None else rows.source.quota for rows in data]


def run_length(page: Stage, rows: int, quota: float) -> tuple[int | None, int | None]:
    """Steps of a stage, and steps after which its learning rate is at its end, when its first data set has so many rows and this quota."""
    if page.epochs is None:
        return page.steps, page.schedule_steps or page.steps
    return math.ceil(page.epochs * rows / quota), math.ceil((page.schedule_epochs or page.epochs) * rows / quota)


class Begin(Protocol):
    """Where a stage begins: the run's step, and rows drawn of each data set by name before."""

    @property
    def first(self) -> int: ...
    @property
    def places(self) -> dict[str, float]: ...


class StageRun:
    """A stage with its model, ready to run or to go on.

    Args:
        model: what is to be trained of it requires a gradient.
        stand: where the run stands as the stage begins.
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        model: UnifiedModel,
        tokenizer: Tokenizer,
        world: World,
        *,
        cache: FeatureCache | None,
        in_bfloat16: bool,
        stand: Begin,
    ):
        self.plan, self.first, page = plan, stand.first, plan.page
        model.to(world.device)
        model.checkpoint_layers = recipe.checkpoint_activations
        self.words = _active_words(recipe, page, model, tokenizer, plan.data)
        objective = Objective(recipe.loss, recipe.smoothing)
        self.trainee = Trainee(
            model, objective, words=self.words, cache=cache, in_bfloat16=in_bfloat16, beside_others=world.size > 1
        )
        layers = (*model.encoder_layers, *model.decoder_layers)
        self.module: nn.Module = spread(self.trainee, layers, world, recipe.parallel)
        self.module.train()
        self.optimizer = build_optimizer(
            model, page.optimizer
        )  # after `spread`, which may put shares in place of weights
        if self.words is not None and page.words is not None and page.words.lr:
            rate = page.words.lr
            group = {"params": [self.words.table], "lr": rate, "base_lr": rate, "weight_decay": 0.0}
            self.optimizer.add_param_group(group)
        sizes = [len(rows) for rows in plan.data]
        self.mixture = Mixture(plan.names, sizes, plan.quotas, seed=recipe.seed, first=self.first, places=stand.places)
        loss_weights = torch.tensor([rows.source.loss_weight for rows in plan.data])
        self.balancer = BALANCERS[page.balance.kind](torch.tensor(plan.quotas), loss_weights, page.balance)
        plateau = page.plateau
        watched = (plateau.scores, plateau.patience, plateau.least) if plateau else ()
        self.ending = Ending(plan.steps, page.tokens, *watched)
        preparer = CachingPreparer(tokenizer, model.config)
        preparer.cache = cache
        shapes = IN_BFLOAT16 if in_bfloat16 else IN_FLOAT32
        self.reader = Reader(recipe, plan.data, self.mixture, preparer, world, shapes)

    @property
    def end(self) -> int | None:
        """The run's step before which the stage ends, if that is known."""
        return None if self.plan.steps is None else self.first + self.plan.steps

    def progress(self, step: int, tokens: int) -> tuple[int, int]:
        """(done, whole): how far the stage has come, for the learning rate."""
        if self.plan.schedule is None:
            return self.ending.progress(step - self.first, tokens)
        return step - self.first, self.plan.schedule

    def rebalance(self, step: int) -> None:
        """After a step: quotas follow the balancer's draws, once no worker has read beyond."""
        factors = self.balancer.draws()
        if factors is None:
            return
        wanted = self.plan.capped([quota * factor for quota, factor in zip(self.plan.quotas, factors.tolist())])
        if wanted != list(self.mixture.segments[-1].quotas):
            self.mixture.change(step + 1 + AHEAD, wanted)

    def state(self) -> dict[str, Any]:
        """What has to be kept to go on, beside tensors; for JSON."""
        segments = [[segment.first, segment.quotas, segment.places] for segment in self.mixture.segments]
        return {"segments": segments, "balancer": self.balancer.state(), "ending": self.ending.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.mixture.segments = [Segment(first, tuple(q), tuple(p)) for first, q, p in state["segments"]]
        self.balancer.load_state(state["balancer"])
        self.ending.load_state(state["ending"])


def _active_words(
    recipe: Recipe, page: Stage, model: UnifiedModel, tokenizer: Tokenizer, data: list[DataSet]
) -> ActiveWords | None:
    """The words of all answers; reading them is the one thing that passes over all rows before a stage."""
    if page.words is None:
        return None
    if model.words.weight.requires_grad:
        raise InputError.at("recipe", "words", "would be trained twice", "put 'words' into freeze, or leave this out")
    answers: set[str] = set()
    for sample in samples(data):
        with suppress(InputError):
            target = pose(sample, model.config.wording).target
            answers.update((target,) if isinstance(target, str) else target)
    ids = {EOS, *model.config.vocabulary.bins, *(int(i) for answer in answers for i in tokenizer.encode(answer))}
    words = ActiveWords(model.words.weight, ids, others=page.words.others, seed=recipe.seed)
    words.table.requires_grad_(page.words.lr > 0)
    return words


def samples(data: list[DataSet]) -> Iterator[Sample]:
    """All rows that can be read; a wrong one is quarantined when its turn comes."""
    for rows in data:
        for index in range(len(rows)):
            with suppress(InputError):
                yield rows[index]


def facts_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """What each data set of a stage is, for metrics.jsonl."""
    found = {}
    for rows, quota in zip(plan.data, plan.quotas):
        task = None
        with suppress(InputError):
            task = rows[0].task
        found[rows.source.name] = {"task": task, "rows": len(rows), "quota": round(quota, 4)}
    return found

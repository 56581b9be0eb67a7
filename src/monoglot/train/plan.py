"""What a recipe will do, before it does it: what is seen when, how long it takes, how much memory; and its hardest step, once.

    Recipe -> plans -> for each stage: typical steps, timed; the longest rows of a sample as one step -> tables

Nothing is kept but features of frozen encoders, which the run would keep as well.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from monoglot.data.prepare import Example
from monoglot.errors import InputError
from monoglot.train.distributed import World, open_world
from monoglot.train.gradients import backward, counts, loss_scale, tokens_by_source
from monoglot.train.optim import freeze
from monoglot.train.recipe import Recipe
from monoglot.train.run import Stand, kept_features, peak_memory, precision
from monoglot.train.stages import Plan, StageRun, facts_of, make_plans
from monoglot.train.start import changed_model, start_model
from monoglot.train.steps import Step, lengths

_SAMPLED = 64  # rows of each data set among which the longest are looked for
_TIMED = 3  # typical steps that are timed


@dataclass(frozen=True)
class Estimate:
    """What a stage will take on this machine."""

    seconds: float
    tokens_a_step: float
    """Read and written, media included, padding not."""
    padding: float
    """Share of the places that hold nothing."""
    hardest_rows: int
    hardest_tokens: int
    """Of the longest rows of a sample, as one step; padding included."""
    hardest_seconds: float
    peak_mb: int
    """Most memory of this process so far."""


def show_plan(recipe: Recipe, console: Console | None = None) -> None:
    """Print the plan of a recipe. InputError for whatever would stop the run at its start, and when the hardest step does not fit."""
    console = console or Console()
    plans = make_plans(recipe)
    for plan in plans:
        console.print(_what_is_seen(plan))
    model, tokenizer, _ = start_model(recipe)
    world = World(device=open_world().device)
    estimates, first = [], 0
    for plan in plans:
        if plan.page is not recipe and plan.page.model_changes:
            model = changed_model(model, plan.page.model_changes, seed=recipe.seed)
        freeze(
            model, plan.page.freeze, plan.page.train_only, changes=recipe.lora is not None or not plan.page.train_only
        )
        cache, in_bfloat16 = kept_features(recipe, model), precision(recipe, world.device) == "bfloat16"
        stand = Stand(first=first)
        stage = StageRun(recipe, plan, model, tokenizer, world, cache=cache, in_bfloat16=in_bfloat16, stand=stand)
        estimates.append(_try(recipe, stage, console))
        first += plan.steps or 0
        if cache is not None:
            cache.close()
    console.print(_what_it_takes(plans, estimates, precision(recipe, world.device)))


def _what_is_seen(plan: Plan) -> Table:
    """One stage: each data set, how often, how many times over."""
    page = plan.page
    length = f"{plan.steps} steps" if plan.steps is not None else f"{page.tokens:,} tokens"
    until = f", or until {', '.join(page.plateau.scores)} no longer fall" if page.plateau else ""
    title = f"stage {plan.index + 1}: {page.name}, {length}{until}, {sum(plan.quotas):.3g} rows a step"
    table = Table(
        "data set",
        "task",
        "rows",
        "rows a step",
        "share",
        "drawn",
        "passes",
        title=title,
        title_justify="left",
        box=None,
    )
    for (name, facts), quota in zip(facts_of(plan).items(), plan.quotas):
        drawn = None if plan.steps is None else quota * plan.steps
        table.add_row(
            name,
            facts["task"] or "?",
            f"{facts['rows']:,}",
            f"{quota:.3g}",
            f"{quota / sum(plan.quotas):.1%}",
            "" if drawn is None else f"{drawn:,.0f}",
            "" if drawn is None else f"{drawn / facts['rows']:.2f}",
        )
    return table


def _what_it_takes(plans: list[Plan], estimates: list[Estimate], computed_in: str) -> Table:
    """All stages: time, tokens, memory."""
    table = Table(
        *("stage", "time", "tokens a step", "padding", "hardest step", "its time", "peak memory"),
        title=f"on this machine, {torch.get_num_threads()} threads, {computed_in}; the hardest step is of the longest of {_SAMPLED} rows a data set",
        title_justify="left",
        box=None,
    )
    for plan, estimate in zip(plans, estimates):
        table.add_row(
            plan.page.name,
            spoken(estimate.seconds),
            f"{estimate.tokens_a_step:,.0f}",
            f"{estimate.padding:.1%}",
            f"{estimate.hardest_rows} rows, {estimate.hardest_tokens:,} tokens",
            f"{estimate.hardest_seconds:.2f} s",
            f"{estimate.peak_mb:,} MB",
        )
    if len(plans) > 1:
        table.add_row("in all", spoken(sum(estimate.seconds for estimate in estimates)), *[""] * 5)
    return table


def _try(recipe: Recipe, stage: StageRun, console: Console) -> Estimate:
    """Typical steps, each timed twice: with features that are not kept yet, and with those that are; then the hardest."""
    steps = [stage.reader.step(index) for index in _typical(stage)]
    cold, warm = [], []
    for step in track(
        steps,
        f"typical steps of {stage.plan.page.name}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        cold.append(_seconds(stage, step))
        warm.append(_seconds(stage, stage.reader.step(step.index)))
    tokens = torch.stack([counts(step.parts, len(stage.plan.names), World()).tokens for step in steps]).mean(0)
    hardest = _hardest(recipe, stage, console)
    try:
        hardest_seconds = _seconds(stage, hardest)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        rows = sum(len(part.batch) for part in hardest.parts)
        fix = "lower rows_at_once or tokens_at_once, or set checkpoint_activations: true"
        raise InputError.at(
            "recipe", stage.plan.page.name, f"the hardest step ({rows} rows) does not fit into memory", fix
        ) from None
    read = float(tokens[:2].sum())
    whole = float(tokens.sum())
    length = stage.plan.steps or math.ceil((stage.plan.page.tokens or 0) / max(read, 1))
    fresh = _share_of_fresh(stage.plan, length)
    seconds = length * (float(np.median(warm)) + fresh * max(0.0, float(np.median(cold)) - float(np.median(warm))))
    places = sum(part.batch.source_ids.numel() + part.batch.target_in.numel() for part in hardest.parts)
    rows = sum(len(part.batch) for part in hardest.parts)
    return Estimate(seconds, read, float(tokens[2]) / max(whole, 1), rows, places, hardest_seconds, peak_memory())


def _typical(stage: StageRun) -> list[int]:
    """A few steps spread over the stage."""
    length = stage.plan.steps or 1000
    return [stage.first + int(share * length) for share in np.linspace(0, 1, _TIMED, endpoint=False)]


def _share_of_fresh(plan: Plan, steps: int) -> float:
    """Share of the drawn rows that are drawn for the first time, in one of their augmented copies."""
    fresh = sum(
        min(quota * steps, len(rows) * (abs(rows.source.augment) + 1)) for rows, quota in zip(plan.data, plan.quotas)
    )
    return fresh / max(sum(plan.quotas) * steps, 1e-9)


def _hardest(recipe: Recipe, stage: StageRun, console: Console) -> Step:
    """The longest rows of a sample of each data set, as many as a step has."""
    examples: list[Example] = []
    sources: list[int] = []
    for index, (rows, quota) in enumerate(zip(stage.plan.data, stage.plan.quotas)):
        found = []
        for row in track(
            rows.spread(_SAMPLED),
            f"longest rows of {rows.source.name}",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            try:
                found.append(stage.reader.preparer.example(rows[row]))
            except InputError:
                continue  # training quarantines it
        found.sort(key=lambda example: -sum(lengths(example)))
        longest = [found[place % len(found)] for place in range(math.ceil(quota))] if found else []
        examples += longest
        sources += [index] * len(longest)
    parts = stage.reader.together(examples)
    made = [stage.reader.part([examples[i] for i in some], [sources[i] for i in some]) for some in parts]
    return Step(stage.first, made, len(examples))


def _seconds(stage: StageRun, step: Step) -> float:
    """How long forward, backward and update of a step take."""
    began = time.monotonic()
    stage.trainee.train()
    stage.optimizer.zero_grad(set_to_none=True)
    if stage.words is not None:
        stage.words.draw(step.index)
    count, parts = len(stage.plan.names), step.parts
    total = tokens_by_source(parts, count, stage.trainee.objective, step.index)
    quotas = torch.tensor(stage.plan.quotas)
    scale = loss_scale(stage.balancer.weights(), counts(parts, count, World()).rows, quotas)
    backward(stage.trainee, parts, total, scale, World(), step.index)
    for group in stage.optimizer.param_groups:
        group["lr"] = 0.0  # the work of an update, without one
    stage.optimizer.step()
    return time.monotonic() - began


def spoken(seconds: float) -> str:
    """A length of time as people say it.

    >>> [spoken(s) for s in (4.2, 75, 4000, 200000)]
    ['4 s', '1 min 15 s', '1 h 7 min', '2 d 8 h']
    """
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = round(seconds)
    said: list[str] = []
    for unit, size in units:
        if left >= size or (unit == "s" and not said):
            said.append(f"{left // size} {unit}")
            left %= size
    return " ".join(said[:2])

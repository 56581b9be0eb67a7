"""The training loop: tasks mixed by quotas in every step, one loss.

    Recipe -> model, data -> (rows -> batch -> [own answers, if the loss is self-critical] -> loss -> step)* -> model folder

A run is a folder: recipe.yaml, metrics.jsonl (a line every few steps), quarantine.jsonl, checkpoint.pt, model/ when it is done.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from pydantic import ValidationError

from monoglot import __version__
from monoglot.cache import cache_dir
from monoglot.data.collate import Batch
from monoglot.data.features import CachingPreparer, FeatureCache, fingerprint
from monoglot.errors import InputError
from monoglot.files import atomic_path, write_text
from monoglot.interop.parts import part_or_none
from monoglot.interop.warm_start import tokenizer_from_part, warm_start
from monoglot.model.config import ModelConfig
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.nouns import Sample
from monoglot.store import BUNDLED, load_model, model_folder, save_model
from monoglot.tasks import pose
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import EOS
from monoglot.train.balance import BALANCERS
from monoglot.train.critic import Critic, mean_score
from monoglot.train.losses import Objective, cross_entropy, log_probabilities
from monoglot.train.optim import build_optimizer, follow, freeze, schedule, set_rate
from monoglot.train.progress import Progress
from monoglot.train.recipe import Recipe, first_problem
from monoglot.train.steps import DataSet, Part, Quarantine, Reader, Step
from monoglot.train.words import ActiveWords

_LOG_EVERY = 10  # steps


def train(recipe: Recipe, folder: Path, *, resume: bool = False, quiet: bool = False) -> Path:
    """Run a recipe and return the finished model's folder.

    Args:
        folder: the run's folder; must be new unless `resume`.
        resume: go on from the folder's checkpoint.

    Raises:
        InputError: the recipe, its data or the folder are not as they must be; told before anything is trained.
    """
    folder = Path(folder)
    checkpoint = folder / "checkpoint.pt"
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise InputError.at(folder, "run", "the folder is not empty", "give a new one, or --resume to go on")
    if resume and folder.exists() and any(folder.iterdir()) and not (folder / "recipe.yaml").exists():
        raise InputError.at(
            folder, "run", "has no recipe.yaml, so no run to go on with", "give a new folder, or the run's"
        )
    data = [DataSet(recipe, source) for source in recipe.mixture]
    held_out = [DataSet(recipe, source) for source in recipe.validation]
    steps, schedule_steps = run_length(recipe, len(data[0]))
    balancer = BALANCERS[recipe.balance]([s.quota for s in recipe.mixture], [s.weight for s in recipe.mixture])
    model, tokenizer, lineage = start_model(recipe)
    _set_up(model, recipe)
    optimizer = build_optimizer(model, recipe.optimizer)
    words = _active_words(recipe, model, tokenizer, data, optimizer)
    critic = Critic(model, tokenizer, _samples(data), recipe.loss) if recipe.loss.kind == "self_critical" else None
    average = copy.deepcopy(model).eval().requires_grad_(False) if recipe.ema else None
    first = _restore(checkpoint, recipe, model, average, optimizer) if resume and checkpoint.exists() else 0
    if words is not None:
        words.table.data.copy_(model.words.weight[words.ids])
    # Only now: a recipe that is refused leaves the folder as it was.
    write_text(
        folder / "recipe.yaml",
        yaml.safe_dump(json.loads(recipe.model_dump_json(exclude_none=True)), sort_keys=False, allow_unicode=True),
    )

    preparer = CachingPreparer(tokenizer, model.config)
    preparer.cache = _open_cache(recipe, model)
    quarantine = Quarantine(folder / "quarantine.jsonl", recipe.quarantine_share)
    reader = Reader(recipe, data, preparer, quarantine)
    objective = Objective(recipe.loss, recipe.smoothing)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=_precision(recipe) == "bfloat16")

    def encode(batch: Batch) -> Memory:
        return model.encode(batch, _features(model, batch, preparer.cache))

    saved = time.monotonic()
    names = [source.name for source in recipe.mixture]
    recent = torch.zeros(len(names))  # each data set's last mean loss, for balancers that look at it
    with Progress(names, steps, first, folder / "metrics.jsonl", quiet=quiet) as progress:
        for step in reader.ahead(first, steps):
            parts = step.parts
            if critic is not None:
                model.eval()
                with torch.no_grad(), autocast:
                    parts = [critic(part, encode(part.batch)) for part in parts]
            model.train()
            for encoder in model.encoders.values():  # frozen ones say the same each time: no dropout, nothing hidden
                encoder.train(any(parameter.requires_grad for parameter in encoder.parameters()))
            set_rate(optimizer, schedule(step.index, schedule_steps, recipe.optimizer.warmup))
            optimizer.zero_grad(set_to_none=True)
            total = _tokens_by_source(parts, len(names), objective, step.index)
            by_source = torch.zeros(len(names))
            if words is not None:
                words.draw(step.index)
            for part in parts:
                with autocast:
                    memory = encode(part.batch)
                    if part.copies is not None:
                        memory = memory.select(part.copies)
                    valid = part.batch.target_valid
                    states = model.decode(part.batch.target_in, memory, code_rows=part.batch.code_rows)[valid]
                    logits = model.logits(states) if words is None else words.logits(states)
                target = part.batch.target_out[valid] if words is None else words.columns(part.batch.target_out[valid])
                groups, weights = part.each_token(part.sources), part.each_token(part.weights)
                losses = objective(logits, target, groups, weights, part.allowed, step=step.index)
                means = (losses[:, None] * F.one_hot(groups, len(names))).sum(0) / total.clamp(min=1e-9)
                (balancer.weights(recent) * means).sum().backward()
                by_source += means.detach()
            by_source[total == 0] = torch.nan
            recent = torch.where(total > 0, by_source, recent)
            norm = torch.nn.utils.clip_grad_norm_(
                [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None],
                recipe.optimizer.clip,
            )
            if torch.isfinite(norm):
                optimizer.step()
                if words is not None:
                    words.write_back()
                if average is not None and recipe.ema is not None:
                    follow(average, model, recipe.ema)
            progress.step(
                step.index,
                by_source.tolist(),
                _rows_by_source(step, len(names)),
                float(norm),
                optimizer.param_groups[0]["lr"],
                log=step.index % _LOG_EVERY == 0,
                score=mean_score(parts) if critic is not None else None,
            )
            last = step.index + 1 == steps
            if last or time.monotonic() - saved > 60 * recipe.checkpoint_minutes:
                _save(checkpoint, recipe, model, average, optimizer, step.index + 1)
                saved = time.monotonic()
            if recipe.validate_every and not last and (step.index + 1) % recipe.validate_every == 0:
                progress.note(validate(held_out, average or model, reader))
    if preparer.cache is not None:
        preparer.cache.close()
    lineage |= {
        "recipe": json.loads(recipe.model_dump_json(exclude_none=True)),
        "monoglot": __version__,
        "torch": torch.__version__,
    }
    save_model(
        folder / "model",
        average or model,
        tokenizer,
        dtype=torch.bfloat16,
        int8=recipe.int8,
        card=_card(recipe, model, steps),
        lineage=lineage,
    )
    return folder / "model"


def run_length(recipe: Recipe, rows: int) -> tuple[int, int]:
    """Steps of the run, and steps after which its learning rate would be zero, when the first data set has so many rows."""
    if recipe.epochs is None:
        assert recipe.steps is not None, "the recipe checks this"
        return recipe.steps, recipe.steps
    quota = recipe.mixture[0].quota
    return math.ceil(recipe.epochs * rows / quota), math.ceil((recipe.schedule_epochs or recipe.epochs) * rows / quota)


def start_model(recipe: Recipe) -> tuple[UnifiedModel, Tokenizer, dict[str, Any]]:
    """The model that a run begins with, its tokenizer and where it comes from."""
    if recipe.start not in ("warm", "cold"):
        model, tokenizer = load_model(model_folder(recipe.start))
        if recipe.model_changes:
            torch.manual_seed(recipe.seed)
            model = changed_model(model, recipe.model_changes)
        return model, tokenizer, {"parents": [recipe.start]}
    assert recipe.model is not None, "the recipe checks this"
    torch.manual_seed(recipe.seed)
    model = UnifiedModel(recipe.model)
    from_part = tokenizer_from_part(part_or_none("whisper-tiny-en"), recipe.model.vocabulary)
    if from_part is not None:
        tokenizer = from_part
    else:
        tokenizer = Tokenizer.load(BUNDLED / "nano" / "tokenizer.json", recipe.model.vocabulary)
    parts = warm_start(model, tokenizer, seed=recipe.seed, language=recipe.start == "warm")
    return model, tokenizer, {"parents": [], "parts": parts, "start": recipe.start}


def changed_model(model: UnifiedModel, changes: dict[str, Any]) -> UnifiedModel:
    """The model under other settings, with its weights; what a new modality needs is fresh.

    Raises InputError for settings that are none, or that do not fit the weights.
    """
    try:
        config = ModelConfig.model_validate(merged(model.config.model_dump(mode="json"), changes))
    except ValidationError as error:
        field, wrong = first_problem(error, ModelConfig)
        raise InputError.at("recipe", f"model_changes.{field}", wrong) from None
    changed = UnifiedModel(config)
    weights, wanted = model.state_dict(), changed.state_dict()
    fresh = set(config.modalities) - set(model.config.modalities)
    differ = [
        name
        for name in {**wanted, **weights}
        if not fresh & set(name.split("."))
        and getattr(weights.get(name), "shape", 0) != getattr(wanted.get(name), "shape", 1)
    ]
    if differ:
        wrong = f"the weights of the start do not fit: {', '.join(differ[:3])}"
        raise InputError.at(
            "recipe", "model_changes", wrong, "sizes, frames, dropout and new modalities can be changed"
        )
    changed.load_state_dict(weights, strict=False)
    return changed.eval()


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`settings` with `changes` put over them, mappings inside of mappings too."""
    both = {**settings, **changes}
    return {
        key: merged(settings[key], value) if isinstance(value, dict) and isinstance(settings.get(key), dict) else value
        for key, value in both.items()
    }


def validate(held_out: list[DataSet], model: UnifiedModel, reader: Reader) -> dict[str, float]:
    """Mean loss a token of each held-out source, in nats; over what the rows' choices allow if the recipe's loss is."""
    result = {}
    model.eval()
    for rows in held_out:
        examples = [reader.preparer.example(rows[index]) for index in range(min(rows.source.quota, len(rows)))]
        most = reader.recipe.rows_at_once or len(examples)
        losses = []
        for at in range(0, len(examples), most):
            part = reader.part(examples[at : at + most], [])
            batch = part.batch
            with torch.no_grad():
                features = _features(model, batch, getattr(reader.preparer, "cache", None))
                memory = model.encode(batch, features)
                states = model.decode(batch.target_in, memory, code_rows=batch.code_rows)[batch.target_valid]
                log_p = log_probabilities(model.logits(states), part.allowed)
                losses.append(cross_entropy(log_p, batch.target_out[batch.target_valid], allowed=part.allowed))
        result[rows.source.name] = float(torch.cat(losses).mean())
    return result


def _features(model: UnifiedModel, batch: Batch, cache: FeatureCache | None) -> dict[str, list[torch.Tensor]]:
    """Encode what is not kept yet; keep it. Frozen features are rounded as the cache rounds them, so a resumed run sees the same."""
    if cache is None:
        return model.encode_media(batch.media)
    for media in batch.media.values():
        for index, key in media.keys.items():
            # Kept since the batch was read ahead.
            if index not in media.encoded and (kept := cache.get(key)) is not None:
                media.items[index] = torch.from_numpy(kept[0].astype(np.float32))
                media.encoded.add(index)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        features = model.encode_media(batch.media)
    for name, media in batch.media.items():
        for index, key in media.keys.items():
            if index not in media.encoded:
                rounded = features[name][index].to(torch.float16)
                cache.put(key, rounded.numpy(), media.grids[index])
                features[name][index] = rounded.float()
    return features


def _tokens_by_source(parts: list[Part], count: int, objective: Objective, step: int) -> torch.Tensor:
    """float[count]: target tokens of each data set that the loss is taken of in a step, rows weighted."""
    total = torch.zeros(count)
    for part in parts:
        of_source = F.one_hot(part.each_token(part.sources), count)
        weighted = (of_source * part.each_token(part.batch.weights)[:, None]).sum(0)
        total = total + weighted * objective.kept_share(of_source.sum(0), step)
    return total


def _rows_by_source(step: Step, count: int) -> list[int]:
    """Rows of each data set in a step."""
    none = torch.zeros(0, dtype=torch.long)
    return torch.bincount(torch.cat([none, *(part.sources for part in step.parts)]), minlength=count).tolist()


def _samples(data: list[DataSet]) -> Iterator[Sample]:
    """All rows that can be read; a wrong one is quarantined when its turn comes."""
    for rows in data:
        for index in range(len(rows)):
            with suppress(InputError):
                yield rows[index]


def _active_words(
    recipe: Recipe, model: UnifiedModel, tokenizer: Tokenizer, data: list[DataSet], optimizer: torch.optim.Optimizer
) -> ActiveWords | None:
    """The words of all answers, as one more group of the optimizer."""
    c = recipe.words
    if c is None:
        return None
    if model.words.weight.requires_grad:
        raise InputError.at("recipe", "words", "would be trained twice", "put 'words' into freeze, or leave this out")
    answers: set[str] = set()
    for sample in _samples(data):
        with suppress(InputError):
            target = pose(sample, model.config.wording).target
            answers.update((target,) if isinstance(target, str) else target)
    ids = {EOS, *model.config.vocabulary.bins, *(int(i) for answer in answers for i in tokenizer.encode(answer))}
    words = ActiveWords(model, ids, others=c.others, seed=recipe.seed)
    optimizer.add_param_group({"params": [words.table], "lr": c.lr, "base_lr": c.lr, "weight_decay": 0.0})
    return words


def _set_up(model: UnifiedModel, recipe: Recipe) -> None:
    freeze(model, recipe.freeze)
    torch.manual_seed(recipe.seed)


def _precision(recipe: Recipe) -> str:
    """bfloat16 without instructions for it is several times slower than float32 (docs/log.md)."""
    if recipe.precision != "auto":
        return recipe.precision
    can = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # private: another torch may not have it
    return "bfloat16" if torch.backends.cpu.get_cpu_capability() == "AVX512" and can() else "float32"


def _open_cache(recipe: Recipe, model: UnifiedModel) -> FeatureCache | None:
    """None when the encoders are trained or the cache is turned off."""
    c = recipe.feature_cache
    if c.gigabytes == 0 or any(p.requires_grad for p in model.encoders.parameters()):
        return None
    folder = Path(c.folder) if c.folder else cache_dir() / "features"
    settings = model.config.model_dump(mode="json")["modalities"]
    return FeatureCache(folder / fingerprint(model.encoders, settings), int(c.gigabytes * 1e9))


def _save(
    path: Path,
    recipe: Recipe,
    model: UnifiedModel,
    average: UnifiedModel | None,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    state = {
        "recipe": recipe.model_dump_json(),
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
    }
    if average is not None:
        state["average"] = average.state_dict()
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch says that the disk is full
            raise OSError(str(error).splitlines()[0]) from error


def _restore(
    path: Path,
    recipe: Recipe,
    model: UnifiedModel,
    average: UnifiedModel | None,
    optimizer: torch.optim.Optimizer,
) -> int:
    try:
        state = torch.load(path, weights_only=True)
        begun = Recipe.model_validate_json(state["recipe"])  # fields that came later have their defaults
    except Exception as error:  # torch raises many kinds for a damaged file
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError.at(
            path, "checkpoint", f"cannot be read ({why})", "start the run again in a new folder"
        ) from None
    if changed := _changed(begun.model_dump(mode="json"), recipe.model_dump(mode="json")):
        raise InputError.at(
            path, "recipe", f"changed since the run began: {changed}", "use the run's own recipe.yaml, or a new folder"
        )
    model.load_state_dict(state["model"])
    if average is not None:
        average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    return int(state["step"])


def _changed(old: dict[str, Any], new: dict[str, Any]) -> str:
    return ", ".join(key for key in {**old, **new} if old.get(key) != new.get(key))


def _card(recipe: Recipe, model: UnifiedModel, steps: int) -> str:
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    sources = "\n".join(f"- {s.name}: {s.data}, {s.quota} rows a step" for s in recipe.mixture)
    return f"# {recipe.name}\n\nA monoglot model of {millions:.1f} M parameters, trained for {steps} steps on\n\n{sources}\n"

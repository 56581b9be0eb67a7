"""The training loop: tasks mixed by quotas in every step, one loss.

    Recipe -> model, data -> (mixture -> rows -> examples -> batch -> loss -> step)* -> model folder

A run is a folder: recipe.yaml, metrics.jsonl (a line every few steps), quarantine.jsonl, checkpoint.pt, model/ when it is done.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from monoglot import __version__
from monoglot.cache import cache_dir
from monoglot.data.collate import Batch
from monoglot.data.features import CachingPreparer, FeatureCache, fingerprint
from monoglot.data.mixture import Mixture
from monoglot.data.prepare import Example
from monoglot.data.rowfile import RowFile
from monoglot.errors import InputError
from monoglot.files import atomic_path, write_text
from monoglot.interop.parts import part_or_none
from monoglot.interop.warm_start import tokenizer_from_part, warm_start
from monoglot.model.unified import UnifiedModel
from monoglot.store import load_model, model_folder, save_model
from monoglot.tasks import pose
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import EOS
from monoglot.train.balance import BALANCERS
from monoglot.train.losses import token_losses
from monoglot.train.optim import build_optimizer, freeze, schedule, set_rate
from monoglot.train.progress import Progress
from monoglot.train.recipe import Recipe, Source
from monoglot.train.words import ActiveWords

_LOG_EVERY = 10  # steps
_AHEAD = 3  # batches that are read while one is computed


@dataclass
class Step:
    """The rows of one step, in parts of similar length so that little is padded."""

    index: int
    parts: list[Part]


@dataclass
class Part:
    """Some rows of a step, collated; `sources[b]` says which data set row b came from."""

    batch: Batch
    sources: torch.Tensor


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
        raise InputError.at(folder, "run", "has no recipe.yaml, so no run to go on with", "give a new folder, or the run's")
    rows = [_row_file(recipe, source) for source in recipe.mixture]
    for held_out in recipe.validation:
        _row_file(recipe, held_out)
    balancer = BALANCERS[recipe.balance]([s.quota for s in recipe.mixture], [s.weight for s in recipe.mixture])
    model, tokenizer, lineage = start_model(recipe)
    _set_up(model, recipe)
    optimizer = build_optimizer(model, recipe.optimizer)
    words = _active_words(recipe, model, tokenizer, rows, optimizer)
    first = _restore(checkpoint, recipe, model, optimizer) if resume and checkpoint.exists() else 0
    if words is not None:
        words.table.data.copy_(model.words.weight[words.ids])
    # Only now: a recipe that is refused leaves the folder as it was.
    write_text(
        folder / "recipe.yaml",
        yaml.safe_dump(json.loads(recipe.model_dump_json(exclude_none=True)), sort_keys=False, allow_unicode=True),
    )

    preparer = CachingPreparer(tokenizer, model.config)
    preparer.cache = _open_cache(recipe, model)
    mixture = Mixture([len(file) for file in rows], [source.quota for source in recipe.mixture], recipe.seed)
    quarantine = Quarantine(folder / "quarantine.jsonl", recipe.quarantine_share)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=_precision(recipe) == "bfloat16")

    saved = time.monotonic()
    names = [source.name for source in recipe.mixture]
    recent = torch.zeros(len(names))  # each data set's last mean loss, for balancers that look at it
    with Progress(names, recipe.steps, first, folder / "metrics.jsonl", quiet=quiet) as progress:
        for step in _steps_ahead(recipe, mixture, rows, preparer, quarantine, first):
            model.train()
            for encoder in model.encoders.values():  # frozen ones say the same each time: no dropout, nothing hidden
                encoder.train(any(parameter.requires_grad for parameter in encoder.parameters()))
            set_rate(optimizer, schedule(step.index, recipe.steps, recipe.optimizer.warmup))
            optimizer.zero_grad(set_to_none=True)
            total, by_source = _tokens_by_source(step, len(names)), torch.zeros(len(names))
            if words is not None:
                words.draw(step.index)
            for part in step.parts:
                with autocast:
                    memory = model.encode(part.batch, _features(model, part.batch, preparer.cache))
                    valid = part.batch.target_valid
                    states = model.decode(part.batch.target_in, memory)[valid]
                    logits = model.logits(states) if words is None else words.logits(states)
                target = part.batch.target_out[valid] if words is None else words.columns(part.batch.target_out[valid])
                losses = token_losses(logits, target, smoothing=recipe.smoothing)
                means = (losses[:, None] * _membership(part, len(names))).sum(0) / total.clamp(min=1e-9)
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
            counts = torch.bincount(
                torch.cat([torch.zeros(0, dtype=torch.long), *(part.sources for part in step.parts)]),
                minlength=len(names),
            )
            progress.step(
                step.index,
                by_source.tolist(),
                counts.tolist(),
                float(norm),
                optimizer.param_groups[0]["lr"],
                log=step.index % _LOG_EVERY == 0,
            )
            last = step.index + 1 == recipe.steps
            if last or time.monotonic() - saved > 60 * recipe.checkpoint_minutes:
                _save(checkpoint, recipe, model, optimizer, step.index + 1)
                saved = time.monotonic()
            if recipe.validate_every and not last and (step.index + 1) % recipe.validate_every == 0:
                progress.note(validate(recipe, model, tokenizer, preparer))
    if preparer.cache is not None:
        preparer.cache.close()
    lineage |= {
        "recipe": json.loads(recipe.model_dump_json(exclude_none=True)),
        "monoglot": __version__,
        "torch": torch.__version__,
    }
    save_model(
        folder / "model",
        model,
        tokenizer,
        dtype=torch.bfloat16,
        int8=recipe.int8,
        card=_card(recipe, model),
        lineage=lineage,
    )
    return folder / "model"


def start_model(recipe: Recipe) -> tuple[UnifiedModel, Tokenizer, dict[str, Any]]:
    """The model that a run begins with, its tokenizer and where it comes from."""
    if recipe.start not in ("warm", "cold"):
        model, tokenizer = load_model(model_folder(recipe.start))
        return model, tokenizer, {"parents": [recipe.start]}
    assert recipe.model is not None, "the recipe checks this"
    torch.manual_seed(recipe.seed)
    model = UnifiedModel(recipe.model)
    from_part = tokenizer_from_part(part_or_none("whisper-tiny-en"), recipe.model.vocabulary)
    if from_part is not None:
        tokenizer = from_part
    else:
        bundled = Path(__file__).parent.parent / "assets" / "nano" / "tokenizer.json"
        tokenizer = Tokenizer.load(bundled, recipe.model.vocabulary)
    parts = warm_start(model, tokenizer, seed=recipe.seed, language=recipe.start == "warm")
    return model, tokenizer, {"parents": [], "parts": parts, "start": recipe.start}


def validate(recipe: Recipe, model: UnifiedModel, tokenizer: Tokenizer, preparer: CachingPreparer) -> dict[str, float]:
    """Mean loss a token of each held-out source, in nats."""
    result = {}
    model.eval()
    for source in recipe.validation:
        rows = _row_file(recipe, source)
        examples = [preparer.example(rows[index]) for index in range(min(source.quota, len(rows)))]
        with torch.no_grad():
            batch = preparer.collate(examples)
            features = _features(model, batch, preparer.cache)
            logits = model.logits(model.decode(batch.target_in, model.encode(batch, features))[batch.target_valid])
            result[source.name] = float(token_losses(logits, batch.target_out[batch.target_valid]).mean())
    return result


class Quarantine:
    """Rows that cannot be read: counted, listed, and the end of the run when they are too many."""

    def __init__(self, path: Path, share: float):
        self.path, self.share = path, share
        self.seen, self.bad = 0, 0

    def add(self, sample_where: str, error: InputError) -> None:
        self.bad += 1
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"row": sample_where, "error": str(error)}, ensure_ascii=False) + "\n")
        if self.bad > (max(10, self.share * self.seen) if self.share else 0):
            raise InputError.at(
                self.path,
                "data",
                f"{self.bad} of {self.seen} rows cannot be read",
                f"mend them or raise quarantine_share ({self.share})",
            )


def _steps_ahead(
    recipe: Recipe, mixture: Mixture, rows: list[RowFile], preparer: CachingPreparer, quarantine: Quarantine, first: int
) -> Iterator[Step]:
    """Steps in order, read by a thread a little ahead of the loop."""
    ready: queue.Queue[Step | BaseException] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def work() -> None:
        try:
            for index in range(first, recipe.steps):
                step = _read_step(index, recipe, mixture, rows, preparer, quarantine)
                while not stop.is_set():
                    try:
                        ready.put(step, timeout=0.5)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
        except BaseException as error:  # handed to the loop, which raises it
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(first, recipe.steps):
            step = ready.get()
            if isinstance(step, BaseException):
                raise step
            yield step
    finally:
        stop.set()


def _read_step(
    index: int, recipe: Recipe, mixture: Mixture, rows: list[RowFile], preparer: CachingPreparer, quarantine: Quarantine
) -> Step:
    examples: list[Example] = []
    sources: list[int] = []
    for draw in mixture.step(index):
        quarantine.seen += 1
        copies = recipe.mixture[draw.source].augment
        variant = (draw.epoch % (abs(copies) + 1)) * (1 if copies > 0 else -1)
        where = rows[draw.source].where(draw.row)
        try:
            sample = rows[draw.source][draw.row]
            example = preparer.example(sample, variant=variant)
            if not len(example.sequence.target_ids):
                raise InputError.at(where, "target", "is missing", "training needs the answer")
        except InputError as error:
            quarantine.add(where, error)
            continue
        examples.append(example)
        sources.append(draw.source)
    groups = similar_lengths([len(example.sequence.source_ids) for example in examples])
    parts = [
        Part(preparer.collate([examples[i] for i in group]), torch.tensor([sources[i] for i in group]))
        for group in groups
    ]
    return Step(index, parts)


def similar_lengths(lengths: list[int], waste: float = 0.25) -> list[list[int]]:
    """Indices in groups of similar length: padding a group to its longest adds at most that share to its tokens.

    >>> similar_lengths([10, 200, 11, 190])
    [[0, 2], [3, 1]]
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = lengths[index] * (len(groups[-1]) + 1) if groups else 0
        if not groups or padded > (1 + waste) * (tokens + lengths[index]):
            groups.append([])
            tokens = 0
        groups[-1].append(index)
        tokens += lengths[index]
    return groups


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


def _membership(part: Part, count: int) -> torch.Tensor:
    """float[N, count]: for each target token its row's weight, in the column of its data set."""
    valid = part.batch.target_valid
    source = part.sources[:, None].expand_as(valid)[valid]
    weight = part.batch.weights[:, None].expand_as(valid)[valid]
    return F.one_hot(source, count) * weight[:, None]


def _tokens_by_source(step: Step, count: int) -> torch.Tensor:
    """float[count]: target tokens of each data set in a step, rows weighted."""
    return sum((_membership(part, count).sum(0) for part in step.parts), start=torch.zeros(count))


def _active_words(
    recipe: Recipe, model: UnifiedModel, tokenizer: Tokenizer, rows: list[RowFile], optimizer: torch.optim.Optimizer
) -> ActiveWords | None:
    """The words of all answers, as one more group of the optimizer."""
    c = recipe.words
    if c is None:
        return None
    if model.words.weight.requires_grad:
        raise InputError.at("recipe", "words", "would be trained twice", "put 'words' into freeze, or leave this out")
    answers: set[str] = set()
    for file in rows:
        for index in range(len(file)):
            with suppress(InputError):  # a wrong row is quarantined when its turn comes
                sample = file[index]
                target = pose(sample, model.config.wording).target
                answers.update((target,) if isinstance(target, str) else target)
    ids = {EOS, *model.config.vocabulary.bins, *(int(i) for answer in answers for i in tokenizer.encode(answer))}
    words = ActiveWords(model, ids, others=c.others, seed=recipe.seed)
    optimizer.add_param_group({"params": [words.table], "lr": c.lr, "base_lr": c.lr, "weight_decay": 0.0})
    return words


def _row_file(recipe: Recipe, source: Source) -> RowFile:
    rows = RowFile(Path(recipe.data_folder) / source.data, limit=source.limit)
    if not len(rows):
        raise InputError.at(rows.path, "data", "has no rows", f"data set {source.name!r} needs at least one")
    return rows


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


def _save(path: Path, recipe: Recipe, model: UnifiedModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {
        "recipe": recipe.model_dump_json(),
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
    }
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch says that the disk is full
            raise OSError(str(error).splitlines()[0]) from error


def _restore(path: Path, recipe: Recipe, model: UnifiedModel, optimizer: torch.optim.Optimizer) -> int:
    try:
        state = torch.load(path, weights_only=True)
        begun = json.loads(state["recipe"])
    except Exception as error:  # torch raises many kinds for a damaged file
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError.at(
            path, "checkpoint", f"cannot be read ({why})", "start the run again in a new folder"
        ) from None
    if changed := _changed(begun, json.loads(recipe.model_dump_json())):
        raise InputError.at(
            path, "recipe", f"changed since the run began: {changed}", "use the run's own recipe.yaml, or a new folder"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    return int(state["step"])


def _changed(old: dict[str, Any], new: dict[str, Any]) -> str:
    return ", ".join(key for key in {**old, **new} if old.get(key) != new.get(key))


def _card(recipe: Recipe, model: UnifiedModel) -> str:
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    sources = "\n".join(f"- {s.name}: {s.data}, {s.quota} rows a step" for s in recipe.mixture)
    return f"# {recipe.name}\n\nA monoglot model of {millions:.1f} M parameters, trained for {recipe.steps} steps on\n\n{sources}\n"

"""One run: a page with what differs, trained and scored in this process, as one line of results.

Planned -> recipe -> train -> model -> greedy answers to held-out rows -> record
[Planned] -> those without a record yet -> processes -> RESULTS/QUESTION.jsonl, a line as each run ends
"""

from __future__ import annotations

import json
import platform
import resource
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml

from monoglot.data.features import CachingPreparer, FeatureCache, fingerprint
from monoglot.data.rows import read_rows
from monoglot.decode.predict import load
from monoglot.decode.search import SearchSettings
from monoglot.evaluate.run import evaluate
from monoglot.files import appending
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Sample
from monoglot.store import save_model
from monoglot.tasks import TASKS
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe, merged
from monoglot.train.run import processor_name
from monoglot.train.start import changed_model, start_model
from monoglot.train.trainee import features

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "recipes" / "evidence.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "evidence"
MOST_TEST_ROWS = 250
"""Larger test sets are asked every k-th row."""
_BATCH = 64
_MATRICES = ("encoder_layers", "decoder_layers", "source.connectors")
"""Drawn at 1 / sqrt(inputs) in place of 0.02, which is made for width 768: at width 128 signals are too small for a short run to learn."""


@dataclass(frozen=True)
class Planned:
    """A run to be done."""

    question: str
    arm: str
    seed: int
    page: dict[str, Any]
    """What differs from recipes/evidence.yaml."""
    asked: tuple[str, ...]
    """Data sets whose test rows are scored."""
    start: str | None = None
    """Arm of the same question and seed whose model it goes on from."""
    keep: bool = False
    """Whether its model is kept, for others to start from."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Noted in the record as they are."""


def do_all(planned: Sequence[Planned], work: Path, command: str, *, jobs: int, fresh: bool = False) -> None:
    """Do the runs that have no record yet, `jobs` at a time; those that start from others come after them.

    Args:
        fresh: a new process for each run, so that its peak memory is its own.
    """
    done = {(plan.question, run["arm"], run["seed"]) for plan in planned for run in records(plan.question)}
    todo = [plan for plan in planned if (plan.question, plan.arm, plan.seed) not in done]
    for waits in (False, True):
        ready = [(plan, work, command) for plan in todo if (plan.start is not None) == waits]
        with get_context("spawn").Pool(jobs, _one_thread, maxtasksperchild=1 if fresh else None) as pool:
            for record in pool.imap_unordered(_do, ready):
                write(record)
                print(_told(record), flush=True)


def _told(record: dict[str, Any]) -> str:
    scores = "  ".join(f"{name} {100 * score['value']:.0f}" for name, score in record["scores"].items())
    seconds = f"{record['seconds']:.0f} s ({record['cpu_seconds']:.0f} of processor time)"
    return f"{record['arm']}, seed {record['seed']}: {seconds}  {scores}"


def _one_thread() -> None:
    torch.set_num_threads(1)


def records(question: str) -> list[dict[str, Any]]:
    """The runs of a question that are done."""
    path = RESULTS / f"{question}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def write(record: dict[str, Any]) -> None:
    """A line more in the results of its question."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with appending(RESULTS / f"{record['question']}.jsonl") as file:
        file.write(json.dumps(record) + "\n")


def _do(given: tuple[Planned, Path, str]) -> dict[str, Any]:
    return do(*given)


def do(plan: Planned, work: Path, command: str) -> dict[str, Any]:
    """Train and score."""
    recipe = recipe_of(plan, work)
    folder = folder_of(plan, work)
    shutil.rmtree(folder, ignore_errors=True)
    began, before = time.monotonic(), _cpu_seconds()
    train(recipe, folder, quiet=True)
    seconds, cpu_seconds, peak_mb = time.monotonic() - began, _cpu_seconds() - before, _peak_mb()
    scores = score(folder / "model", plan.asked, work) if plan.asked else {}
    record = {
        "question": plan.question,
        "arm": plan.arm,
        "seed": plan.seed,
        **plan.facts,
        "steps": sum(stage.steps or 0 for stage in recipe.curriculum),
        "rows": _rows_drawn(folder / "metrics.jsonl"),
        "scores": scores,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_mb": peak_mb,
        "page": plan.page,
        "command": command,
        "date": datetime.now().isoformat(timespec="seconds"),
        "machine": machine(),
    }
    shutil.rmtree(folder / "checkpoint")
    if not plan.keep:
        shutil.rmtree(folder / "model")
    return record


def folder_of(plan: Planned, work: Path) -> Path:
    return work / "runs" / plan.question / plan.arm / str(plan.seed)


def recipe_of(plan: Planned, work: Path) -> Recipe:
    """The page of a run. It starts from the seed's own untrained model, or from the model of another run."""
    page = _page(work)
    del page["model"]
    start = work / "start" / str(plan.seed)
    if plan.start is not None:
        start = work / "runs" / plan.question / plan.start / str(plan.seed) / "model"
    return Recipe.model_validate(merged(page, plan.page) | {"start": str(start), "seed": plan.seed})


def _page(work: Path) -> dict[str, Any]:
    page = yaml.safe_load(PAGE.read_text("utf-8"))
    places = {"data_folder": str(work / "rows"), "feature_cache": {"folder": str(work / "features"), "gigabytes": 8}}
    return page | places


def score(model: Path, asked: Sequence[str], work: Path) -> dict[str, dict[str, Any]]:
    """The first metric of each test set, answered greedily."""
    predictor = load(model, search=SearchSettings(beam=1), precision="float32")  # as features are kept
    cache = _cache(predictor.model, work)
    predictor.keep_features(cache)
    found = {}
    for name in asked:
        rows = test_rows(work, name)
        first = evaluate(predictor, rows, batch_size=_BATCH)[0][0]
        found[name] = {"metric": first.metric, "value": first.value, "rows": first.rows}
    cache.close()
    return found


def test_rows(work: Path, name: str) -> list[Sample]:
    rows = list(read_rows(work / "rows" / f"{name}.test.jsonl", known_tasks=TASKS))
    return rows[:: -(-len(rows) // MOST_TEST_ROWS)]


def _cache(model: UnifiedModel, work: Path) -> FeatureCache:
    settings = model.config.model_dump(mode="json")["modalities"]
    return FeatureCache(work / "features" / fingerprint(model.encoders, settings), 8 << 30)


# --- before all runs ---


def make_starts(work: Path, seeds: Sequence[int]) -> None:
    """An untrained model for each seed: pretrained eyes and ears, a random rest. Rounded once, so that all runs share kept features."""
    for seed in seeds:
        model, tokenizer, _ = start_model(Recipe.model_validate(_page(work) | {"seed": seed}))
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.startswith(_MATRICES) and weight.dim() == 2:
                    weight.normal_(std=weight.shape[1] ** -0.5)
        save_model(work / "start" / str(seed), model, tokenizer, dtype=torch.bfloat16)


def fill_features(work: Path, names: Sequence[str], changes: dict[str, Any], *, jobs: int) -> None:
    """Encode all media of these data sets under changed settings of the model, so that no run has to."""
    with get_context("spawn").Pool(jobs, _one_thread) as pool:
        pool.starmap(_fill, [(work, names, changes, part, jobs) for part in range(jobs)])


def _fill(work: Path, names: Sequence[str], changes: dict[str, Any], part: int, parts: int) -> None:
    predictor = load(work / "start" / "0")
    model = changed_model(predictor.model, changes)
    preparer = CachingPreparer(predictor.tokenizer, model.config)
    preparer.cache = _cache(model, work)
    samples = [
        sample
        for name in names
        for sample in [*read_rows(work / "rows" / f"{name}.train.jsonl", known_tasks=TASKS), *test_rows(work, name)]
    ]
    for first in range(part * _BATCH, len(samples), parts * _BATCH):
        examples = [preparer.example(sample, with_target=False) for sample in samples[first : first + _BATCH]]
        features(model, preparer.collate(examples), preparer.cache)
    preparer.cache.close()


# --- what is measured ---


def machine() -> str:
    return f"{processor_name()}, one thread a run, torch {torch.__version__}, {platform.system()} {platform.machine()}"


def _rows_drawn(metrics: Path) -> dict[str, int]:
    drawn: dict[str, int] = {}
    for line in metrics.read_text("utf-8").splitlines():
        for name, rows in (json.loads(line).get("rows") or {}).items():
            drawn[name] = drawn.get(name, 0) + rows
    return drawn


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

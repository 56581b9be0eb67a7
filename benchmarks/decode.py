"""How much faster the quick way through the decoder is than the plain one, stage by stage, and what many choices cost: medians of ratios, measured in turns.

python benchmarks/decode.py [--model base|nano] [--repeat 9] [--beam 5] [--length 16] [--bfloat16] [--out benchmarks/results/FILE.json]

Processor time, one thread. Weights of `base` are random (UnIVAL's sizes, 384 pixels: 24 x 24 places and 8 of text); `nano` is the bundled one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import monoglot
from monoglot.decode.constrain import BoxGrammar, Trie
from monoglot.decode.predict import Predictor, load
from monoglot.decode.search import SearchSettings, beam_search, score_answers
from monoglot.decode.steps import FoldedSteps, FoldedTexts, PlainSteps, PlainTexts
from monoglot.model.config import ModelConfig
from monoglot.model.inference import for_inference
from monoglot.model.unified import Memory, UnifiedModel

PLACES = {"base": 24 * 24 + 8, "nano": 5 * 5 + 8}
Pair = tuple[Callable[[], object], Callable[[], object]]


def compare(plain: Callable[[], object], quick: Callable[[], object], repeat: int) -> dict[str, float]:
    """Quartiles of plain / quick, run in turns after a turn that does not count, and both medians."""
    taken: list[tuple[float, float]] = []
    for _ in range(repeat + 1):
        pair = []
        for run in (plain, quick):
            started = time.process_time()
            run()
            pair.append(time.process_time() - started)
        taken.append((pair[0], pair[1]))
    ratios = [a / b for a, b in taken[1:]]
    low, middle, high = statistics.quantiles(ratios, n=4) if repeat > 1 else ratios * 3
    return {
        "ratio": round(middle, 2),
        "lower_quartile": round(low, 2),
        "upper_quartile": round(high, 2),
        "plain_ms": round(1000 * statistics.median(a for a, _ in taken[1:]), 1),
        "quick_ms": round(1000 * statistics.median(b for _, b in taken[1:]), 1),
    }


def stages(model: UnifiedModel, places: int, beam: int, length: int) -> dict[str, Pair]:
    c = model.config
    states, positions = torch.randn(2, 1, places, c.width).to(model.words.weight.dtype)
    memory = Memory(states, torch.ones(1, places, dtype=torch.bool), positions if model.untied else None)
    settings = SearchSettings(beam=beam, max_length=length, min_length=length)
    start, words = torch.tensor([c.start]), torch.arange(beam)[:, None] + 10

    def search(steps, **more) -> Callable[[], object]:
        given = {"settings": settings} | more
        return lambda: beam_search(model, memory, steps=lambda m, mem, width, codes: steps(m, mem, codes), **given)

    def first(steps) -> object:
        way = steps(model, memory if steps is FoldedSteps else memory.select(torch.zeros(beam, dtype=torch.long)), None)
        way(start if steps is FoldedSteps else start.expand(beam, -1))
        return way

    def later(steps) -> Callable[[], object]:
        way = first(steps)
        if steps is FoldedSteps:
            way.select(torch.zeros(beam, dtype=torch.long), beam)
        order = torch.arange(beam).flip(0)

        def step() -> Tensor:
            way.select(order, beam)
            return way(words)

        return step

    answers = [[100 + n % 10, 200 + n // 10, 300 + n] for n in range(100)]

    def scores(texts) -> Callable[[], object]:
        return lambda: score_answers(model, memory, [answers], constraints=[Trie(answers)], texts=texts)

    free = {"settings": SearchSettings(beam=beam, max_length=4, min_length=0)}
    box = free | {"constraints": [BoxGrammar(c.vocabulary)]}
    choices = free | {"constraints": [Trie([[100 + n, 200 + n % 7] for n in range(20)])]}
    return {
        f"search, {length} tokens": (search(PlainSteps), search(FoldedSteps)),
        "search, a box": (search(PlainSteps, rules=[lambda log_p, now: None], **box), search(FoldedSteps, **box)),
        "search, 20 choices": (
            search(PlainSteps, rules=[lambda log_p, now: None], **choices),
            search(FoldedSteps, **choices),
        ),
        "first step": (lambda: first(PlainSteps), lambda: first(FoldedSteps)),
        "later step": (later(PlainSteps), later(FoldedSteps)),
        "scores of 100 answers": (scores(PlainTexts), scores(FoldedTexts)),
    }


def questions(predictor: Predictor) -> dict[str, Pair]:
    """A question about a picture with 1,000 choices of one to three words, and the same with two of them."""
    predictor.keep_features(None)  # each question sees its picture for the first time
    random.seed(0)
    parts = [
        "bird",
        "boat",
        "car",
        "cat",
        "door",
        "fish",
        "glass",
        "green",
        "house",
        "lamp",
        "moon",
        "red",
        "small",
        "tree",
    ]
    names: dict[str, None] = {}
    while len(names) < 1000:
        names[" ".join(random.sample(parts, random.randint(1, 3)))] = None
    picture = np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)

    def ask(choices: list[str]) -> object:
        return predictor.predict(task="vqa", image=picture, text="what is it?", choices=choices)

    many, two = list(names), list(names)[:2]
    return {
        "1,000 choices that were asked before, against 2": (lambda: ask(many), lambda: ask(two)),
        "1,000 new choices, against 2": (lambda: ask(random.sample(many, len(many))), lambda: ask(two)),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(PLACES), default="nano")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--bfloat16", action="store_true", help="weights in bfloat16, for processors that have it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.model == "base":
        model = UnifiedModel(ModelConfig()).eval()
    else:
        predictor = load("nano")
        model = predictor.model
    if arguments.bfloat16:
        model = model.bfloat16()
    results: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/decode.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]},
        "versions": {"torch": torch.__version__, "monoglot": monoglot.__version__},
        "settings": {
            "threads": 1,
            "places": PLACES[arguments.model],
            "beam": arguments.beam,
            "turns": arguments.repeat,
        },
    }

    def keep(name: str, plain: Callable[[], object], quick: Callable[[], object]) -> None:
        results[name] = compare(plain, quick, arguments.repeat)
        print(name, results[name], flush=True)
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")

    for name, pair in stages(model, PLACES[arguments.model], arguments.beam, arguments.length).items():
        keep(name, *pair)
    if "image" in model.encoders:
        size = model.config.modalities["image"].size
        picture = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8)]
        folded = for_inference(model)
        keep("picture", lambda: model.encoders["image"](picture), lambda: folded.encoders["image"](picture))
        for name, pair in questions(predictor).items():
            keep(name, *pair)


if __name__ == "__main__":
    main()

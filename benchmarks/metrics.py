"""Caption scores of 5,000 pictures with five references each: how long here, and in the COCO caption tool.

python benchmarks/metrics.py [--pictures 5000] [--repeat 5] [--meteor] [--out benchmarks/results/FILE.json]

The two take turns, so that a busy machine slows both; a ratio is of one turn. Values must be equal. The tool gets texts
that are tokens already (its tokeniser is a Java program), ours splits them itself. Seconds are of the processor: both
sides use one thread. --meteor compares METEOR too, for which the tool starts Java; seconds are then those of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

import monoglot
from monoglot.evaluate.metrics import METRICS

Set = tuple[list[str], list[list[str]]]
"""Predictions, references."""
Values = dict[str, tuple[float, np.ndarray]]
"""Name of a score -> of the set, of each picture."""


def captions(pictures: int, references: int = 5, seed: int = 0) -> Set:
    """Texts of about eleven of 9,000 words, the n-th word 1 / n as often as the first; answers share half with a reference."""
    rng = np.random.default_rng(seed)
    often = 1 / np.arange(1, 9001)
    lengths = rng.integers(8, 15, (pictures, references + 1))
    drawn = rng.choice(np.array(english(9000)), int(lengths.sum()), p=often / often.sum())
    pieces = [list(piece) for piece in np.split(drawn, np.cumsum(lengths)[:-1])]
    others, expected = pieces[:pictures], [pieces[i : i + references] for i in range(pictures, len(pieces), references)]
    said = [
        [mine if rng.random() < 0.5 else other for mine, other in zip(texts[0], text)]
        for texts, text in zip(expected, others)
    ]
    return [" ".join(one) for one in said], [[" ".join(one) for one in texts] for texts in expected]


def english(count: int) -> list[str]:
    """Made-up words that no tokeniser takes apart."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    return [syllables[i % 70] + syllables[i // 70 % 70] + syllables[i // 4900 % 70] for i in range(count)]


def tool_bleu(texts: Set) -> Values:
    scorer = BleuScorer(n=4)
    for said, expected in zip(*texts):
        scorer += (said, expected)
    values, items = scorer.compute_score(option="closest")
    return {f"bleu_{n}": (values[n - 1], np.array(items[n - 1])) for n in (1, 2, 3, 4)}


def tool(name: str, make: Callable[[], Any]) -> Callable[[Set], Values]:
    def run(texts: Set) -> Values:
        said, expected = texts
        value, items = make().compute_score(dict(enumerate(expected)), {i: [text] for i, text in enumerate(said)})
        return {name: (value, np.array(items))}

    return run


def ours(*names: str) -> Callable[[Set], Values]:
    def run(texts: Set) -> Values:
        scores = {name: METRICS[name].score(*texts) for name in names}
        return {name: (one.value, one.per_item) for name, one in scores.items()}

    return run


RIVALS = {
    "BLEU-1 to 4": (ours("bleu_1", "bleu_2", "bleu_3", "bleu_4"), tool_bleu),
    "ROUGE-L": (ours("rouge_l_coco"), tool("rouge_l_coco", Rouge)),
    "CIDEr-D": (ours("cider_d"), tool("cider_d", Cider)),
}
WITH_JAVA = {"METEOR": (ours("meteor"), tool("meteor", Meteor))}


def largest_difference(mine: Values, theirs: Values) -> float:
    assert mine.keys() == theirs.keys()
    pairs = [(mine[name], theirs[name]) for name in mine]
    return max(max(abs(a[0] - b[0]), float(np.abs(a[1] - b[1]).max())) for a, b in pairs)


def compare(
    pairs: dict[str, tuple[Callable, Callable]],
    pictures: int,
    turns: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Any]:
    """Each turn has captions of its own, so that nothing is remembered, and the other side goes first."""
    seconds = {name: ([], []) for name in pairs}
    differences = dict.fromkeys(pairs, 0.0)
    for turn in range(turns):
        texts = captions(pictures, seed=turn)
        for name, pair in pairs.items():
            values: dict[int, Values] = {}
            for side in (0, 1) if turn % 2 else (1, 0):
                started = clock()
                values[side] = pair[side](texts)
                seconds[name][side].append(clock() - started)
            differences[name] = max(differences[name], largest_difference(values[0], values[1]))
    rows = {name: {**rivalry(*seconds[name]), "largest_difference": differences[name]} for name in pairs}
    totals = [[sum(times) for times in zip(*(seconds[name][side] for name in pairs))] for side in (0, 1)]
    return {**rows, "all of these": rivalry(*totals)}


def rivalry(mine: list[float], theirs: list[float]) -> dict[str, Any]:
    ratios = [slow / quick for quick, slow in zip(mine, theirs)]
    return {"ours_seconds": spread(mine), "tool_seconds": spread(theirs), "times_faster": spread(ratios)}


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--meteor", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    results: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/metrics.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "load": os.getloadavg()[0],
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pycocoevalcap": version("pycocoevalcap"),
            "monoglot": monoglot.__version__,
        },
        "pictures": arguments.pictures,
        "references": 5,
        "turns": arguments.repeat,
    }
    if arguments.meteor:
        results |= compare(RIVALS | WITH_JAVA, arguments.pictures, arguments.repeat, time.perf_counter)
    else:
        results |= compare(RIVALS, arguments.pictures, arguments.repeat)
    far = {
        name: row for name, row in results.items() if isinstance(row, dict) and row.get("largest_difference", 0) > 1e-6
    }
    assert not far, f"values differ: {far}"
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

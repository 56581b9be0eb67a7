"""What the parts that nano starts from say of speech, before anything is learned: Whisper tiny.en as it is, on the same rows.

    recipe -> start_model (at step 0 it transcribes as Whisper does, tests/interop/test_warm_start.py) -> results/nano/parts.json

    python -m benchmarks.nano.parts [--recipe recipes/nano_quick.yaml] [--limit N]

nano's question is left away: it means nothing yet; and sounds are filled up as Whisper's were. The page shows these error rates among the plain baselines.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.nano.__main__ import LIMIT, RESULTS, ROOT
from benchmarks.nano.measure import measure, missing
from benchmarks.nano.sets import SETS
from monoglot.decode.predict import Predictor
from monoglot.files import write_json
from monoglot.nouns import Posed, Sample
from monoglot.tasks import TASKS
from monoglot.train.recipe import read_recipe
from monoglot.train.start import start_model

BARE = "transcribe_bare"
"""transcribe, without a question."""
WINDOW = 30.0
"""Seconds; what Whisper was trained on. Source: arXiv 2212.04356, section 2.2."""


def pose(sample: Sample) -> Posed:
    return Posed(sample.media, f" {sample.targets[0]}" if sample.targets else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nano.parts", description=__doc__)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "nano_quick.yaml")
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--limit", type=lambda text: int(text) or None, default=LIMIT)
    arguments = parser.parse_args()
    TASKS.add(BARE, replace(TASKS["transcribe"], pose=pose))
    model, tokenizer, _ = start_model(read_recipe(arguments.recipe, [f"model.modalities.audio.pad_seconds={WINDOW}"]))
    predictor = Predictor(model.eval(), tokenizer)
    sets = {}
    for asked in SETS:
        if asked.task == "transcribe" and missing(arguments.packs, asked) is None:

            def change(sample: Sample) -> Sample:
                return replace(sample, task=BARE)

            record = measure(predictor, asked, arguments.packs, limit=arguments.limit, nearest=None, change=change)
            assert record is not None, "the recipe's model hears"
            sets[asked.stem] = record | {"task": "transcribe"}
            print(f"{asked.stem}: {record['metric']} {100 * record['value']:.1f}% (n = {record['rows']})", flush=True)
    write_json(arguments.results / "parts.json", {"limit": arguments.limit, "sets": sets})


if __name__ == "__main__":
    main()

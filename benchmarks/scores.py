"""The held-out table of the README: `monoglot evaluate` on every test set of the packs, and the block between `<!-- scores -->` marks.

make packs && python benchmarks/scores.py [--model nano] [--packs packs] [--limit N]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from datetime import date
from pathlib import Path

import torch

from monoglot.evaluate.report import evaluate_files

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# What a row of the table is called; test rows; rows that its plain baselines learn from; what is held out.
SETS = (
    ("emoji names, English", "emoji/names_en", "noto drawing style"),
    ("emoji names, Japanese", "emoji/names_ja", "noto drawing style"),
    ("what kind of thing", "emoji/kinds", "noto drawing style"),
    ("is this a ...?", "emoji/yesno", "noto drawing style"),
    ("find the sticker", "emoji/grounding", "noto drawing style"),
    ("what is in the box", "emoji/region_caption", "noto drawing style"),
    ("how many", "emoji/counting", "noto drawing style"),
    ("left or right of", "emoji/leftright", "noto drawing style"),
    ("scene captions", "emoji/captions", "noto drawing style"),
    ("picture and text match", "emoji/matching", "noto drawing style"),
    ("clip: which way", "clips/direction", "noto drawing style"),
    ("clip: what comes first", "clips/order", "noto drawing style"),
    ("clip: which one moves", "clips/which_moves", "noto drawing style"),
    ("clip: grow, shrink, turn, slide", "clips/change", "noto drawing style"),
    ("clip: name", "clips/clip_names", "noto drawing style"),
    ("animated emoji: name", "clips/animated", "concepts never seen animated"),
    ("drums", "sounds/drums", "kits"),
    ("kinds of sound", "sounds/sounds", "families of files"),
    ("prompts, transcript", "prompts/transcribe", "texts of the prompts"),
    ("espeak voices, transcript", "prompts/transcribe_espeak", "voices"),
    ("spoken names, transcript", "spoken/spoken_names", "voices"),
    ("kind of prompt", "prompts/category", "texts of the prompts"),
    ("picture and spoken name match", "spoken/matching", "noto drawing style and voices"),
    ("docstring summaries", "docstrings/summaries", "libraries"),
)
PERCENT = {"exact_match", "accuracy", "vqa_accuracy", "iou_at_0.5", "wer", "cer"}


def table(results: dict[str, list[dict]]) -> str:
    """Markdown: the first metric of each set, its interval and its baselines."""
    lines = [
        "| held-out set | held out by | n | metric | nano | 95% interval | plain baselines |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, stem, held_out in SETS:
        if stem not in results:
            continue
        score = results[stem][0]

        def shown(value: float, metric: str = score["metric"]) -> str:
            return f"{100 * value:.1f}%" if metric in PERCENT else f"{value:.3f}"

        interval = f"{shown(score['low'])} to {shown(score['high'])}" if score["low"] is not None else ""
        rivals = ", ".join(f"{name} {shown(value)}" for name, value in score["baselines"].items())
        metric = score["metric"] + ("" if score["higher_is_better"] else " (lower is better)")
        lines.append(
            f"| {label} | {held_out} | {score['rows']} | {metric} | **{shown(score['value'])}** | {interval} | {rivals} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--only", nargs="*", help="sets to run, for example emoji/names_en; others keep what scores.json has"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "scores.json")
    parser.add_argument("--no-baselines", action="store_true")
    arguments = parser.parse_args()
    kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    results = kept.get("sets", {})
    for _, stem, _ in SETS:
        test = arguments.packs / f"{stem}.test.jsonl"
        train = arguments.packs / f"{stem}.train.jsonl"
        if not test.exists() or (arguments.only and stem not in arguments.only):
            continue
        scores = evaluate_files(
            arguments.model, [test], [] if arguments.no_baselines else [train], limit=arguments.limit
        )
        results[stem] = [score.to_json() for score in scores[test.stem]]
        record = {
            "command": " ".join(["python", "benchmarks/scores.py", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "sets": results,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    block = f"<!-- scores -->\n{table(results)}\n<!-- /scores -->"
    readme.write_text(
        re.sub(r"<!-- scores -->.*?<!-- /scores -->", lambda _: block, text, flags=re.S), encoding="utf-8"
    )


if __name__ == "__main__":
    main()

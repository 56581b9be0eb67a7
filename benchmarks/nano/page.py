"""From records to docs/nano.md, its figures, and the table of the README.

    results/nano/nano.json (+ <rival>.json, measured on the same rows) -> tables -> docs/nano.md, docs/nano_*.png, README.md

Letters: N rows, K terms a row, R resamples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.nano.sets import ABLATIONS, HELD_OUT, OUTSIDE, PARTS, REFERENCE, RIVALS, SETS, WHOLE, Set
from monoglot.evaluate.intervals import sum_by_group
from monoglot.evaluate.metrics import METRICS
from monoglot.files import atomic_path, write_text
from monoglot.rng import stream

Record = dict[str, Any]
Records = dict[str, Record]
"""By a set's stem."""

BINS = 10
"""Of the reliability table."""
RESAMPLES = 1000
MONTAGE = (3, 8)
"""Rows and columns of pictures."""
ASKED = {
    "emoji/grounding": "where is: {}",
    "emoji/grounding_one": "where is: {}",
    "emoji/region_caption": "what is in the box?",
    "emoji/matching": "does it fit: {}",
    "spoken/matching": "does the spoken name fit?",
}
"""How the figure puts the question where a row's text is no question."""
PERCENT = {"exact_match", "accuracy", "vqa_accuracy", "iou_at_0.5", "wer", "cer"}


def number(value: float, metric: str) -> str:
    """A score as a page says it.

    >>> number(0.5, "accuracy"), number(0.5, "rouge_l")
    ('50.0%', '0.500')
    """
    return f"{100 * value:.1f}%" if metric in PERCENT else f"{value:.3f}"


def points(value: Any, higher_is_better: bool) -> Any:
    """A score on one scale, 0 to 100, more is better: an error rate is taken from 1, and nothing counts more than 1.

    >>> points(0.25, True), points(0.25, False), points(1.5, True)
    (25.0, 75.0, 100.0)
    """
    return 100 * (np.minimum(value, 1.0) if higher_is_better else 1 - np.minimum(value, 1.0))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def span(record: Record) -> str:
    """The 95% interval in words; empty for a single group."""
    if record["low"] is None:
        return ""
    return f"{number(record['low'], record['metric'])} to {number(record['high'], record['metric'])}"


def named(record: Record) -> str:
    return record["metric"] + ("" if record["higher_is_better"] else " (lower is better)")


def counted(record: Record) -> str:
    return str(record["rows"]) if record["rows"] == record["of"] else f"{record['rows']} of {record['of']}"


def plain_cell(record: Record) -> str:
    return ", ".join(f"{name} {number(value, record['metric'])}" for name, value in record["baselines"].items())


def with_parts(records: Records, parts: Records) -> Records:
    """The records with the untrained parts' score among the plain baselines, where they answered the same rows."""
    found = dict(records)
    for stem in shared(records, parts):
        plain = records[stem]["baselines"] | {"parts, untrained": parts[stem]["value"]}
        found[stem] = records[stem] | {"baselines": plain}
    return found


def readme_table(records: Records) -> str:
    """The sets of HELD_OUT: score, interval, plain baselines."""
    heads = ("held-out set", "held out by", "n", "metric", "nano", "95% interval", "plain baselines")
    rows = [
        (s.label, s.held_out, counted(r), named(r), f"**{number(r['value'], r['metric'])}**", span(r), plain_cell(r))
        for s in HELD_OUT
        if (r := records.get(s.stem))
    ]
    return table(heads, rows)


def set_table(sets: Sequence[Set], records: Records, dedicated: Records) -> str:
    """Like the README's, with the task and the dedicated model."""
    heads = ("set", "task", "held out by", "n", "metric", "nano", "95% interval", "plain baselines", "dedicated model")
    rows = []
    for s in sets:
        if r := records.get(s.stem):
            rival = dedicated.get(s.stem)
            other = number(rival["value"], r["metric"]) if rival and rival["drawn"] == r["drawn"] else ""
            score = f"**{number(r['value'], r['metric'])}**"
            rows.append((s.label, r["task"], s.held_out, counted(r), named(r), score, span(r), plain_cell(r), other))
    return table(heads, rows)


def language_table(*measured: Records) -> str:
    """Sets that are there in English and in Japanese, on the same pictures."""
    rows = []
    for records, s in ((records, s) for records in measured for s in SETS):
        twin = re.sub(r"(?<=_)en(?=_|$)", "ja", s.stem) if "_en" in s.stem else f"{s.stem}_ja"
        if s.lang == "en" and s.stem in records and twin in records:
            english, japanese = records[s.stem], records[twin]
            cells = (f"{number(r['value'], r['metric'])} ({span(r)})" for r in (english, japanese))
            rows.append((s.label.removesuffix(", English"), counted(english), *cells, plain_cell(english)))
    return table(("set", "n", "English", "Japanese", "plain baselines, English"), rows)


# Against other models ------------------------------------------------------------------------------------------------


def shared(a: Records, b: Records, sets: Sequence[Set] = SETS) -> list[str]:
    """The sets that both have, of the same rows, in the page's order."""
    return [s.stem for s in sets if s.stem in a and s.stem in b and a[s.stem]["drawn"] == b[s.stem]["drawn"]]


def resampled(a: Record, b: Record, stem: str, resamples: int = RESAMPLES) -> np.ndarray:
    """float64[R, 2]: points of a and of b on the same rows drawn anew, whole groups at a time."""
    metric = METRICS[a["metric"]]
    terms = np.hstack([np.asarray(a["terms"]), np.asarray(b["terms"])])
    terms = sum_by_group(terms, a["groups"])
    rng = stream(0, "nano page", stem)
    size, half = len(terms), terms.shape[1] // 2
    times = np.stack([np.bincount(rng.integers(size, size=size), minlength=size) for _ in range(resamples)])
    totals = times @ terms
    values = (metric.value(totals[:, :half]), metric.value(totals[:, half:]))
    return np.stack([points(value, metric.higher_is_better) for value in values], axis=1)


def by_task(records: Records, stems: Sequence[str], value: Callable[[str], np.ndarray]) -> np.ndarray:
    """The mean over tasks of the mean over each task's sets."""
    tasks: dict[str, list[np.ndarray]] = {}
    for stem in stems:
        tasks.setdefault(records[stem]["task"], []).append(value(stem))
    return np.mean([np.mean(values, axis=0) for values in tasks.values()], axis=0)


def against(
    a: Records, b: Records, sets: Sequence[Set] = SETS
) -> tuple[list[tuple[str, float, float]], tuple[float, float, float, float]] | None:
    """A (ours) and B on the sets that both have; None if there are none.

    Returns:
        [(stem, points of A, points of B)], and the average over tasks: A, B, and the 95% interval of A - B.
    """
    stems = shared(a, b, sets)
    if not stems:
        return None

    def value(records: Records) -> Callable[[str], np.ndarray]:
        return lambda stem: np.asarray(points(records[stem]["value"], records[stem]["higher_is_better"]))

    draws = {stem: resampled(a[stem], b[stem], stem) for stem in stems}
    both = by_task(a, stems, lambda stem: draws[stem])
    low, high = np.quantile(both[:, 0] - both[:, 1], [0.025, 0.975])
    lines = [(stem, float(value(a)(stem)), float(value(b)(stem))) for stem in stems]
    average = float(by_task(a, stems, value(a))), float(by_task(a, stems, value(b)))
    return lines, (*average, float(low), float(high))


def rival_section(name: str, a: Records, b: Records) -> str:
    """Every shared set, and the averages over tasks, in points: of the held-out sets, and of all."""
    found = against(a, b)
    if found is None:
        return ""
    lines = found[0]
    title = RIVALS.get(name, name)
    labels = {s.stem: s.label for s in SETS}
    rows = [(labels[stem], a[stem]["task"], f"{x:.1f}", f"{y:.1f}", f"{x - y:+.1f}", "") for stem, x, y in lines]
    for label, average in (("held-out sets", against(a, b, HELD_OUT)), ("all sets", found)):
        if average:
            ours, theirs, low, high = average[1]
            cells = (f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}", f"{low:+.1f} to {high:+.1f}")
            rows.append((f"**average over tasks, {label}**", "", *(f"**{cell}**" for cell in cells)))
    wins = sum(x > y for _, x, y in lines)
    told = f"nano is ahead in {wins} of {len(lines)} sets. Intervals: paired bootstrap, 95%."
    heads = ("set", "task", "nano", title, "difference", "95% interval")
    return f"### {title[0].upper()}{title[1:]}\n\n{told}\n\n{table(heads, rows)}\n"


def ablation_section(rivals: dict[str, dict[str, Any]]) -> str:
    """The recipe without a part, against the recipe, both of the same number of steps: averages over tasks, and task by task, in points."""
    reference: Records = rivals.get(REFERENCE, {}).get("sets", {})
    rows, measured = [], {}
    for name, label in ABLATIONS.items():
        found = against(reference, rivals[name]["sets"]) if name in rivals and reference else None
        if found:
            lines, (ours, theirs, low, high) = found
            ahead = sum(x > y for _, x, y in lines)
            change = f"{theirs - ours:+.1f} ({-high:+.1f} to {-low:+.1f})"
            measured[label] = lines
            rows.append((label, str(len(lines)), f"{ours:.1f}", f"{theirs:.1f}", change, f"{ahead} of {len(lines)}"))
    if not rows:
        return ""
    heads = ("ablation", "sets", "recipe", "without it", "difference, 95%", "sets where the recipe is ahead")
    steps, stages = (rivals[REFERENCE].get(key) for key in ("steps", "stages"))
    told = (
        f"The recipe{f' in {stages} stages' if stages else ''} without a part, against the recipe, "
        f"both of {f'{steps} steps' if steps else 'the same number of steps'}, "
        "a fraction of what the bundled model had; one seed; averages over tasks, in points."
    )
    return f"### Ablations\n\n{told}\n\n{table(heads, rows)}\n\n{task_table(reference, measured)}"


def task_table(reference: Records, measured: dict[str, list[tuple[str, float, float]]]) -> str:
    """Points of each task: the recipe's, and what each ablation has more or less on the sets that it was asked."""
    tasks = list(dict.fromkeys(reference[s.stem]["task"] for s in SETS if s.stem in reference))
    rows = []
    for task in tasks:
        own = [points(r["value"], r["higher_is_better"]) for r in reference.values() if r["task"] == task]
        cells = [f"{np.mean(own):.1f}"]
        for lines in measured.values():
            gaps = [theirs - ours for stem, ours, theirs in lines if reference[stem]["task"] == task]
            cells.append(f"{np.mean(gaps):+.1f}" if gaps else "")
        rows.append((task, *cells))
    return table(("task", "recipe", *(label.split(":")[0] for label in measured)), rows)


# Calibration ---------------------------------------------------------------------------------------------------------


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[tuple[int, float, float]]:
    """(rows, mean confidence, share right) of each bin of equal width over [0, 1]; bins without rows are left out.

    >>> reliability(np.array([0.1, 0.9, 0.9, 1.0]), np.array([False, True, True, False]), bins=2)
    [(1, 0.1, 0.0), (3, 0.9333333333333332, 0.6666666666666666)]
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [place == k for k in range(bins)]
    return [(int(k.sum()), float(confidence[k].mean()), float(right[k].mean())) for k in inside if k.any()]


def calibration_error(lines: Sequence[tuple[int, float, float]]) -> float:
    """Expected calibration error: the mean gap of confidence and share right, each bin by its rows. Source: Guo et al. 2017 (arXiv 1706.04599).

    >>> calibration_error([(1, 0.1, 0.0), (3, 0.9, 0.7)])
    0.175
    """
    return sum(rows * abs(sure - right) for rows, sure, right in lines) / sum(rows for rows, _, _ in lines)


def judged(records: Records, sets: Sequence[Set], choices: bool) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and right or wrong of all rows with choices, or of all names that are asked for freely."""
    chosen = [
        r
        for s in sets
        if (r := records.get(s.stem)) and r["right"] is not None
        if (r["choices"] if choices else r["task"] == "name" and not r["choices"])
    ]
    sure = np.array([c for r in chosen for c in r["confidence"]])
    return sure, np.array([c for r in chosen for c in r["right"]], dtype=bool)


KINDS = (
    ("choices", True, HELD_OUT),
    ("names", False, HELD_OUT),
    ("choices, outside", True, OUTSIDE),
    ("names, outside", False, OUTSIDE),
)


def calibration(records: Records, figure: Path) -> str:
    """Writes the reliability diagram; its table and errors in words."""
    curves, rows = [], []
    for label, choices, sets in KINDS:
        sure, right = judged(records, sets, choices)
        if len(sure):
            lines = reliability(sure, right)
            curves.append((label, lines))
            error = 100 * calibration_error(lines)
            rows.append(
                (
                    label,
                    str(len(sure)),
                    f"{100 * sure.mean():.1f}%",
                    f"{100 * right.mean():.1f}%",
                    f"{error:.1f} points",
                )
            )
    if not curves:
        return ""
    draw_reliability(curves, figure)
    bins = [
        (label, f"{100 * sure:.0f}%", f"{100 * right:.0f}%", str(count))
        for label, lines in curves
        for count, sure, right in lines
    ]
    return (
        table(("answers", "n", "mean confidence", "right", "expected calibration error"), rows)
        + f"\n\n![How often answers of a given confidence are right]({figure.name})\n\n<details><summary>The bins</summary>\n\n"
        + table(("answers", "confidence", "right", "n"), bins)
        + "\n\n</details>"
    )


def draw_reliability(curves: Sequence[tuple[str, list[tuple[int, float, float]]]], path: Path) -> None:
    figure, axes = _figure(5.2, 4.6)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for (label, lines), colour, mark in zip(curves, ("#0072b2", "#d55e00", "#56b4e9", "#e69f00"), "osos"):
        rows, sure, right = (np.array(column) for column in zip(*lines))
        axes.plot(sure, right, color=colour, linewidth=1.2, label=f"{label} (n = {rows.sum():,})")
        axes.scatter(sure, right, s=12 + 120 * np.sqrt(rows / rows.sum()), color=colour, marker=mark, alpha=0.85)
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _save(figure, path)


# What it can't do ----------------------------------------------------------------------------------------------------


def worst(records: Records, count: int = 6) -> list[Set]:
    """The sets where nano gains least over the better plain baseline, in points; nothing is there to gain over counts as zero."""

    def gain(s: Set) -> float:
        r = records[s.stem]
        plain = [float(points(value, r["higher_is_better"])) for value in r["baselines"].values()]
        return float(points(r["value"], r["higher_is_better"])) - max(plain, default=0.0)

    return sorted((s for s in SETS if s.stem in records), key=gain)[:count]


def failures(records: Records) -> str:
    """Three wrong answers of each of the worst sets, as drawn."""
    parts = []
    for s in worst(records):
        r = records[s.stem]
        wrong = [row for row in r["shown"] if row["right"] is not True and row["answer"] != row["truth"]][:3]
        lines = [
            (
                _short(row["text"]) or "what is it?" if r["task"] != "transcribe" else "what is said?",
                _short(row["truth"]),
                _short(row["answer"]),
                f"{100 * row['confidence']:.0f}%",
            )
            for row in wrong
        ]
        best = plain_cell(r)
        head = f"**{s.label}**: {number(r['value'], r['metric'])} {named(r)}{f'; {best}' if best else ''}"
        parts.append(f"{head}\n\n{table(('asked', 'right', 'nano', 'confidence'), lines)}" if lines else head)
    return "\n\n".join(parts)


def _short(text: str, length: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def montage(records: Records, packs: Path, path: Path) -> str:
    """Writes a figure of right and wrong answers about pictures, in the proportion they occur; the sentence under it."""
    cells = MONTAGE[0] * MONTAGE[1]
    about = [s for s in HELD_OUT if s.free and s.lang == "en" and (r := records.get(s.stem)) and r["right"] is not None]
    rows = [
        (s, row)
        for s in about
        for row in records[s.stem]["shown"]
        if row["media"] and row["media"][0] == "image" and row["truth"] and (packs / row["media"][1]).is_file()
    ]
    stems = {s.stem for s, _ in rows}
    if not rows:
        return ""
    share = float(np.mean([np.mean(records[stem]["right"]) for stem in sorted(stems)]))
    rng = stream(0, "montage")
    rows = [rows[k] for k in rng.permutation(len(rows))]
    right, wrong = ([(s, row) for s, row in rows if row["right"] is truth] for truth in (True, False))
    count = cells  # fewer, where there are not enough of either to keep the proportion
    while (good := round(share * count)) > len(right) or count - good > len(wrong):
        count -= 1
    picked = [*right[:good], *wrong[: count - good]]
    picked = [picked[k] for k in rng.permutation(len(picked))]
    draw_montage(picked, packs, path)
    shown = sum(row["right"] for _, row in picked)
    return (
        f"![Right and wrong answers]({path.name})\n\nAnswers about held-out pictures, drawn at random: {shown} of {len(picked)} "
        f"are right, as are {100 * share:.0f}% on average over these {len(stems)} sets."
    )


def draw_montage(picked: Sequence[tuple[Set, dict[str, Any]]], packs: Path, path: Path) -> None:
    from matplotlib.patches import Rectangle
    from PIL import Image

    figure, grid = _figure(1.7 * MONTAGE[1], 2.35 * MONTAGE[0], MONTAGE)
    for axes in grid.ravel():
        axes.axis("off")
    for axes, (s, row) in zip(grid.ravel(), picked):
        picture = Image.open(packs / row["media"][1]).convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        axes.imshow(ground.convert("RGB"))
        width, height = picture.size
        if row["box"]:
            x0, y0, x1, y1 = (float(v) for v in row["box"].split())
            axes.add_patch(
                Rectangle((x0 * width, y0 * height), (x1 - x0) * width, (y1 - y0) * height, fill=False, color="#d55e00")
            )
        colour, mark = ("#00693e", "✓") if row["right"] else ("#b3261e", "✗")
        axes.set_title(
            _short(ASKED.get(s.stem, "{}").format(row["text"] or "what is this?"), 32),
            fontsize=6.5,
            color="#555555",
            pad=2,
        )
        said = "here" if row["box"] == row["answer"] else f"{_short(row['answer'], 28)} {100 * row['confidence']:.0f}%"
        said += "" if row["right"] or row["box"] == row["answer"] else f"\n({_short(row['truth'], 28)})"
        axes.text(0.5, -0.03, said, transform=axes.transAxes, ha="center", va="top", fontsize=7, color=colour)
        axes.text(
            0.02,
            0.98,
            mark,
            transform=axes.transAxes,
            ha="left",
            va="top",
            fontsize=11,
            color=colour,
            family="DejaVu Sans",
        )
    _save(figure, path)


def _figure(width: float, height: float, grid: tuple[int, int] = (1, 1)) -> tuple[Any, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(*grid, figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    with atomic_path(path) as scratch:
        figure.savefig(scratch, format="png", dpi=100, metadata={"Software": None})
    pyplot.close(figure)


# The page ------------------------------------------------------------------------------------------------------------


def page(kept: dict[str, Any], rivals: dict[str, dict[str, Any]], packs: Path, docs: Path) -> str:
    """docs/nano.md. `kept` is results/nano/nano.json, `rivals` the other files by their names."""
    records: Records = with_parts(kept["sets"], rivals.get(PARTS, {}).get("sets", {}))
    dedicated: Records = rivals.get("dedicated", {}).get("sets", {})
    order = [*RIVALS, *sorted(set(rivals) - {*RIVALS, *ABLATIONS, REFERENCE, PARTS, WHOLE})]
    sections = [rival_section(name, records, rivals[name]["sets"]) for name in order if name in rivals]
    sections.append(ablation_section(rivals))
    whole = rivals.get(WHOLE, {})
    tasks = {r["task"] for r in records.values()}
    mean = float(
        by_task(
            records,
            list(records),
            lambda stem: np.asarray(points(records[stem]["value"], records[stem]["higher_is_better"])),
        )
    )
    absent = [s.label for s in SETS if s.stem not in records]
    drawn = (
        "all rows of each set"
        if kept["limit"] is None
        else f"at most {kept['limit']} rows of each set, drawn at random by a fixed seed"
    )
    parts = [
        "# nano: what it can do, and what it can't",
        "<!-- written by `make nano-scores`; change benchmarks/nano/, not this page -->",
        f"The bundled model, measured on {len(records)} sets of {len(tasks)} tasks: {drawn} (`n`); intervals are 95% "
        "bootstrap intervals over groups where rows name theirs. One number for all of it, the mean over tasks of the mean over "
        f"their sets in points (0 to 100, an error rate taken from 100): **{mean:.1f}**.",
        f"Command: `{kept['command']}`, {kept['date']}, {kept['machine']}, {kept['threads']} threads, torch {kept['torch']}; weights `{kept['weights'][:12]}`. "
        "Each answer of each row: `benchmarks/results/nano/`.",
        "## Held out",
        "Rows like those that train, apart from what the third column says.",
        set_table(HELD_OUT, records, dedicated),
        "## Outside",
        "Drawn, taken, recorded or asked by other people. Nothing of it trains. Names are *taught* if drawings of the thing train, "
        "under the same name; *never taught* are the concepts of `KEPT_OUT` (src/monoglot/data/packs/emoji_words.py): no picture and no "
        "name of them is in any training row of these packs, so that a free answer can hardly be right, and one of ten is a matter of what "
        "the words and pictures of the parts brought along. The nearest neighbour answers with the name of the nearest training picture, "
        "by the same frozen features.",
        set_table(OUTSIDE, records, dedicated),
        "## Per language",
        language_table(whole["sets"] if whole.get("weights") == kept["weights"] else {}, records),
        "## Calibration",
        "Is an answer of confidence 0.8 right in 80%? Rows with choices, and names asked for freely.",
        calibration(records, docs / "nano_calibration.png"),
    ]
    if any(sections):
        parts += [
            "## Against other models",
            "On the same rows, in points.",
            *(section for section in sections if section),
        ]
    parts += [
        "## What it can't do",
        "The sets where it gains least over the better plain baseline, and wrong answers as they were drawn.",
        failures(records),
        "## Right and wrong, in the proportion they occur",
        montage(records, packs, docs / "nano_answers.png"),
    ]
    if absent:
        parts.append(f"Not measured: {', '.join(absent)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def write(kept: dict[str, Any], rivals: dict[str, dict[str, Any]], packs: Path, root: Path) -> None:
    """docs/nano.md, its figures, and the block between `<!-- scores -->` marks of README.md."""
    write_text(root / "docs/nano.md", page(kept, rivals, packs, root / "docs"))
    readme = root / "README.md"
    block = f"<!-- scores -->\n{readme_table(with_parts(kept['sets'], rivals.get(PARTS, {}).get('sets', {})))}\n<!-- /scores -->"
    text = re.sub(
        r"<!-- scores -->.*?<!-- /scores -->", lambda _: block, readme.read_text(encoding="utf-8"), flags=re.S
    )
    write_text(readme, text)

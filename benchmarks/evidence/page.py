"""docs/evidence.md from the results: a table and a figure a question, between marks; the words around them are written by hand.

RESULTS/QUESTION.jsonl -> scores by arm, task and seed -> mean and t interval over seeds -> tables, docs/evidence_QUESTION.png
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.evidence.questions import COMMON, IMBALANCES, MIXED, RARE, SHARES, SOUNDS
from benchmarks.evidence.runs import RESULTS, ROOT, records
from monoglot.evaluate.intervals import over_seeds as interval
from monoglot.files import write_text

PAGE = ROOT / "docs" / "evidence.md"
DATA = {
    "kinds": ("picture", "what kind of thing is this?", "drawing style (noto)"),
    "groups": ("picture", "which broad group does this belong to?", "drawing style (noto)"),
    "names": ("picture", "its name", "two drawing styles (noto, openmoji)"),
    "clip_kinds": ("clip", "what kind of thing is this?", "drawing style (noto)"),
    "drums": ("sound", "which drum is this?", "drum kits"),
    "prompts": ("speech", "what kind of prompt is this?", "texts of the prompts"),
    "sounds": ("sound", "what kind of sound is this?", "families of files"),
    "docstrings": ("text", "its summary; only pretrained on", "libraries"),
}
"""data set -> media, question, what sets the test rows apart."""

Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
"""arm -> task -> seed -> percent."""


# --- numbers ---


def scores_of(runs: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Percent by arm, task and seed, with the mean over tasks as the task `mean`."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for run in runs:
        values = {task: 100 * score["value"] for task, score in run["scores"].items()}
        for task, value in (values | ({"mean": mean(values.values())} if values else {})).items():
            found.setdefault(run["arm"], {}).setdefault(task, {})[run["seed"]] = value
    return found


def shown(values: Sequence[float], form: str = ".1f") -> str:
    middle, half = interval(values)
    return f"{middle:{form}} ± {half:{form}}"


def signed(values: Sequence[float]) -> str:
    middle, half = interval(values)
    return f"{middle:+.1f} ± {half:.1f}"


def difference(scores: Scores, arm: str, other: str, task: str) -> list[float]:
    """By how much an arm is above another, seed by seed."""
    both = sorted(scores[arm][task].keys() & scores[other][task].keys())
    return [scores[arm][task][seed] - scores[other][task][seed] for seed in both]


# --- tables ---


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_task(scores: Scores, arms: Sequence[str], tasks: Sequence[str]) -> str:
    rows = [[arm, *(shown(list(scores[arm][task].values())) for task in tasks)] for arm in arms]
    return table(["", *tasks], rows)


def above(scores: Scores, pairs: Sequence[tuple[str, str]], tasks: Sequence[str]) -> str:
    """Differences of pairs of arms, seed by seed."""
    rows = [[f"{arm} - {other}", *(signed(difference(scores, arm, other, t)) for t in tasks)] for arm, other in pairs]
    return table(["difference by seed", *tasks], rows)


def budget(runs: Sequence[dict[str, Any]]) -> str:
    """What was run, where, at what price."""
    seeds = len({run["seed"] for run in runs})
    rows = sorted({sum(run["rows"].values()) for run in runs})
    asked = {task: score["rows"] for run in runs for task, score in run["scores"].items()}
    said = [
        f"{len(runs)} runs, {seeds} seeds",
        f"{rows[0]} to {rows[-1]} rows drawn a run" if len(rows) > 1 else f"{rows[0]} rows drawn a run",
        f"{sum(run['seconds'] for run in runs) / 60:.0f} minutes of training ({sum(run['cpu_seconds'] for run in runs) / 60:.0f} of processor time)",
        "test rows: " + ", ".join(f"{task} {count}" for task, count in asked.items()),
        f"`{runs[0]['command']}`, {max(run['date'] for run in runs)[:10]}, {runs[0]['machine']}",
    ]
    return "; ".join(said) + "."


def data_sets() -> str:
    """What the rows are."""
    facts = json.loads((RESULTS / "data.json").read_text("utf-8"))
    header = ["data set", "reads", "asks", "rows", "answers", "test rows", "most common answer", "held out by"]
    rows = []
    for name, (reads, asks, held_out) in DATA.items():
        found = facts[name]
        usual = f"{100 * found['most_common']:.1f}" if found["most_common"] else ""
        rows.append(
            [
                f"`{name}`",
                reads,
                asks,
                f"{found['rows']:,}",
                str(found["answers"]),
                str(found["test_rows"]),
                usual,
                held_out,
            ]
        )
    return table(header, rows)


# --- questions ---


def mixing(runs: Sequence[dict[str, Any]]) -> str:
    scores, tasks = scores_of(runs), (*MIXED, "mean")
    bars("mixing", scores, list(scores), tasks)
    pairs = [(arm, "proportional") for arm in scores if arm != "proportional"]
    return "\n\n".join([by_task(scores, list(scores), tasks), above(scores, pairs, tasks), rows_drawn(runs)])


def rows_drawn(runs: Sequence[dict[str, Any]]) -> str:
    """Rows of each data set that a run of each arm has drawn."""
    of_arm = {run["arm"]: run["rows"] for run in runs}
    names = list(dict.fromkeys(name for rows in of_arm.values() for name in rows))
    lines = [[arm, *(str(rows.get(name, "")) for name in names)] for arm, rows in of_arm.items()]
    return table(["rows drawn", *names], lines)


def curriculum(runs: Sequence[dict[str, Any]]) -> str:
    scores = scores_of(runs)
    dear = ["one stage", "curriculum", "curriculum, 96 px"]
    kept = [f"{arm}, rate kept" for arm in ("one stage", "curriculum")]
    arms, tasks = [*dear, *kept], list(scores["one stage"])
    prices = {"processor seconds": "cpu_seconds", "seconds": "seconds", "peak MB": "peak_mb"}
    paid = {
        arm: {price: [run[key] for run in runs if run["arm"] == f"{arm}, cost"] for price, key in prices.items()}
        for arm in dear
    }
    costs = [[arm, *(shown(values, ".0f") for values in paid[arm].values())] for arm in dear]
    ratios = [
        [100 * (ours / other - 1) for ours, other in zip(paid[dear[1]][price], paid[dear[0]][price])]
        for price in prices
    ]
    costs.append(["curriculum - one stage by seed, %", *(signed(values) for values in ratios)])
    bars("curriculum", scores, arms, tasks)
    differ = above(scores, [*((arm, dear[0]) for arm in dear[1:]), (kept[1], kept[0])], tasks)
    return "\n\n".join([by_task(scores, arms, tasks), differ, table(["cost, encoders trained", *prices], costs)])


def together(runs: Sequence[dict[str, Any]]) -> str:
    scores = scores_of(runs)
    scores["alone"] = {task: scores[f"{task} alone"][task] for task in MIXED}
    arms = ["alone", "all", *(f"without {name}" for name in MIXED)]
    lines = [
        [task, *(shown(list(scores[arm][task].values())) if task in scores[arm] else "" for arm in arms)]
        for task in MIXED
    ]
    bars("together", scores, arms[:2], MIXED)
    return "\n\n".join([table(["score of", *arms], lines), above(scores, [("all", "alone")], MIXED)])


def transfer(runs: Sequence[dict[str, Any]]) -> str:
    scores, tasks = scores_of(run for run in runs if run["scores"]), (*SOUNDS, "mean")
    arms = list(scores)
    bars("transfer", scores, arms, tasks)
    pairs = [(arm, "sounds after nothing") for arm in arms if arm != "sounds after nothing"]
    return "\n\n".join([by_task(scores, arms, tasks), above(scores, pairs, tasks)])


AUTO, RULE = "auto", "temperature 3"
BY_HAND = ("proportional", "equal", *(f"rare {share:.0%}" for share in SHARES))
FIXED = (*BY_HAND, RULE)
"""Mixtures that stay; the best of them in hindsight is what tuning could reach."""


def auto(runs: Sequence[dict[str, Any]]) -> str:
    every, tasks = scores_of(runs), (*COMMON, RARE, "mean")
    tables, verdicts = [], []
    for imbalance in IMBALANCES:
        of_level = {arm: values for arm, values in every.items() if arm.startswith(f"1:{imbalance} ")}
        scores = {arm.partition(" ")[2]: values for arm, values in of_level.items()}
        arms = [arm for arm in (*FIXED, AUTO) if arm in scores]
        tables += [f"**1:{imbalance}**", by_task(scores, arms, tasks)]
        verdicts += [[f"1:{imbalance}", arm, *verdict(scores, arm)] for arm in (AUTO, RULE, "equal", "proportional")]
    columns = [
        "behind the best by hand",
        "behind the best fixed",
        "behind the best of each task",
        f"{RARE} above proportional",
    ]
    rare_by_imbalance(every)
    pairs = [(f"1:{imbalance} {AUTO}", f"1:{imbalance} {RULE}") for imbalance in IMBALANCES]
    drawn = rows_drawn([run for run in runs if run["imbalance"] == IMBALANCES[-1]])
    return "\n\n".join(
        [*tables, table(["imbalance", "mixture", *columns], verdicts), above(every, pairs, tasks), drawn]
    )


def verdict(scores: Scores, arm: str) -> list[str]:
    """How far an arm is behind the mixture that is best in the mean over tasks, and behind the best of each task, where it is furthest; the rare task."""
    fixed = [other for other in FIXED if other in scores]
    each = max(
        max(_mean(scores, other, task) for other in fixed) - _mean(scores, arm, task) for task in (*COMMON, RARE)
    )
    rare = signed(difference(scores, arm, "proportional", RARE))
    return [_regret(scores, arm, BY_HAND), _regret(scores, arm, FIXED), f"{each:.1f}", rare]


def _regret(scores: Scores, arm: str, among: Sequence[str]) -> str:
    best = max((other for other in among if other in scores), key=lambda other: _mean(scores, other, "mean"))
    if best == arm:
        return "is the best"
    worst = max((*COMMON, RARE), key=lambda task: _mean(scores, best, task) - _mean(scores, arm, task))
    return f"{shown(difference(scores, best, arm, worst))} ({worst}; {best})"


def _mean(scores: Scores, arm: str, task: str) -> float:
    return mean(scores[arm][task].values())


# --- figures ---


def bars(name: str, scores: Scores, arms: Sequence[str], tasks: Sequence[str]) -> None:
    """Groups of bars: a group a task, a bar an arm, with its interval."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    width = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        found = [interval(list(scores[arm][task].values())) for task in tasks]
        places = [place + (index - (len(arms) - 1) / 2) * width for place in range(len(tasks))]
        axes.bar(places, [m for m, _ in found], width, yerr=[h for _, h in found], label=arm, error_kw={"lw": 0.8})
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_ylim(0, 100)
    axes.set_ylabel("% right")
    _save(figure, axes, name)


def rare_by_imbalance(scores: Scores) -> None:
    """Score of the rare task, and the mean over tasks, against how rare it is."""
    figure, both = plt.subplots(1, 2, figsize=(7.5, 2.8), sharex=True)
    for axes, task in zip(both, (RARE, "mean")):
        for arm in (*FIXED, AUTO):
            names = {place: f"1:{imbalance} {arm}" for place, imbalance in enumerate(IMBALANCES)}
            means = {place: _mean(scores, name, task) for place, name in names.items() if name in scores}
            style = {"fmt": "o-", "lw": 2.5} if arm == AUTO else {"fmt": ".--", "lw": 1}
            axes.errorbar(list(means), list(means.values()), label=arm, **style)
        axes.set_xticks(range(len(IMBALANCES)), [f"1:{imbalance}" for imbalance in IMBALANCES])
        axes.set_title(task if task == RARE else "mean over tasks", fontsize=9)
    both[0].set_ylabel("% right")
    _save(figure, both[1], "auto")


def _save(figure: Any, axes: Any, name: str) -> None:
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(PAGE.parent / f"evidence_{name}.png", dpi=90)
    plt.close(figure)


# --- the page ---

BLOCKS: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
    "mixing": mixing,
    "curriculum": curriculum,
    "together": together,
    "transfer": transfer,
    "auto": auto,
}


def write_page() -> None:
    """Put the blocks of the questions that have results into the page."""
    text = _put(PAGE.read_text("utf-8"), "data", data_sets())
    for name, block in BLOCKS.items():
        if runs := sorted(records(name), key=lambda run: run["seed"]):
            text = _put(text, name, f"{block(runs)}\n\n![{name}](evidence_{name}.png)\n\n{budget(runs)}")
    write_text(PAGE, text)


def _put(text: str, name: str, block: str) -> str:
    """`block` in place of what stands between the marks called `name`."""
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    end = f"<!-- /{name} -->"
    return f"{before}<!-- {name} -->\n{block}\n{rest[rest.index(end) :]}"

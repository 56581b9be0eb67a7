"""A run as one page, at its end or at any time before.

a run's folder -> (history: read) -> History -> (curves: drawn) -> sections -> report.html in the folder
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from monoglot import report
from monoglot.evaluate.metrics import METRICS
from monoglot.nouns import Box, Media, Prediction, Sample
from monoglot.report import curves, page
from monoglot.report.answers import BRIEF, card, cut, judge, readable
from monoglot.report.figures import Picture
from monoglot.report.history import History, Line, nansum, number, read_history
from monoglot.tasks import TASKS

ROWS_A_SET, ROWS_IN_ALL = 4, 60
"""Watched rows that are shown: of each data set, and of all together (one of each at least)."""
TURNS = 10
"""Most answers that are shown of a watched row."""
EVENTS = 20
"""Most skipped steps that are listed."""
REASONS = 10
"""Rows in quarantine that are listed."""
ORIGIN = ("parents", "start", "parts", "monoglot", "torch")
"""What is said of a model's lineage.json."""
PAIRS, OPPOSED = 5, -0.05
"""Pairs of data sets with opposed gradients that are listed, and the mean cosine from which they are."""


def write_run_report(folder: Path, *, price_per_hour: float | None = None, watts: float | None = None) -> Path:
    """Make a run's page, `report.html` in its folder, also while the run goes on.

    Args:
        folder: a run's folder: recipe.yaml, metrics.jsonl and, where there are any, quarantine.jsonl and model/.
        price_per_hour: what an hour of the machine costs, in any currency; the page then says what the run cost.
        watts: what the machine draws on average; the page then says what energy the run took.

    Returns:
        The path of the page.

    Raises:
        InputError: the extra `report` is missing, the folder is no run's, or the page cannot be written.
    """
    report.require()
    history = read_history(folder)
    html = page.render(
        history.name,
        [section for section in sections(history, price_per_hour, watts) if section.blocks],
        lead=status(history),
        facts=facts(history),
        foot="Made by monoglot report from the files beside this page." + unreadable(history),
    )
    return page.write(history.folder / "report.html", html)


def sections(history: History, price_per_hour: float | None, watts: float | None) -> list[page.Section]:
    """The page's parts in order; one without blocks has nothing to show."""
    skipped, bad = history.happened("skipped", "back"), len(history.quarantine)
    return [
        page.Section("Data sets", data_sets(history), aside="where each stands now"),
        page.Section("Loss", plate(curves.losses(history), LOSS), aside="nats a token, each panel on its own scale"),
        page.Section("Regret", plate(curves.regrets(history), REGRET), aside="held-out loss above its lowest so far"),
        page.Section("Mixture", (*plate(curves.mixture(history), MIXTURE), *stages(history))),
        page.Section("Balance", plate(curves.weights(history), BALANCE), aside="how much each loss counts"),
        page.Section("Answers over time", answers(history), aside=f"{len(history.samples)} fixed held-out rows"),
        page.Section("Speed and memory", (*plate(curves.signs(history)), *speeds(history))),
        page.Section("Cost", costs(history, price_per_hour, watts)),
        page.Section("Conflicts", conflicts(history), aside="do the data sets pull the same way?"),
        page.Section("Skipped steps", events(history), aside=f"{len(skipped)}" if skipped else "none"),
        page.Section("Quarantine", quarantine(history), aside=f"{bad:,} row{'' if bad == 1 else 's'}"),
        page.Section("Recipe", recipe(history)),
    ]


LOSS = (
    "The faint line is the loss of single steps, the blue one the mean of up to nine neighbours. Single steps, the first "
    "above all, may lie above their panel. Dashed lines part the stages."
)
REGRET = "Pale is as good as this set has ever been in the run; a dark cell was worse by so much."
MIXTURE = "Rows a step, stacked. Dashed lines part the stages."
BALANCE = "Factor of each data set's mean loss in a step; together they make 100%."
WATCHED = (
    "The same held-out rows are answered at every look, however they come out. Looks in a row with the same answer are one "
    "line. ✓ right, ✗ wrong by the task's main metric, ◐ more or less good."
)
CONFLICTS = (
    "Cosine between the gradients of two data sets, at the last look. Blue: a step for one helps the other; red: it undoes "
    "part of the other's."
)


# --- the head ---------------------------------------------------------------------------------------------------------


def status(history: History) -> str:
    """Whether the run is over, in a sentence."""
    planned = history.planned_steps
    of = f" of {planned:,}" if planned and planned != history.last_step else ""
    if history.finished:
        return f"Finished after {history.last_step:,} steps."
    return f"Not finished: step {history.last_step:,}{of} is the last one written. The run goes on, or was stopped."


def facts(history: History) -> list[tuple[str, str]]:
    """(what, value) pairs; what is not known is left out."""
    begins = history.happened("begin")
    machines = [begin.get("machine") or {} for begin in begins]
    rows, tokens = history.rows(), nansum(history.total("tokens", part) for part in ("source", "target"))
    named = [stage.name for stage in history.stages if stage.name]
    found = [
        ("stages", str(len(named)) if named else ""),
        ("steps", f"{history.last_step:,}"),
        ("data sets", str(len(history.names)) if history.names else ""),
        ("training time", duration(history.seconds)),
        ("rows", amount(rows)),
        ("tokens, without padding", amount(tokens)),
        ("processor", ", ".join(dict.fromkeys(machine_of(machine) for machine in machines))),
        ("precision", ", ".join(dict.fromkeys(str(begin.get("precision", "")) for begin in begins))),
        ("torch", ", ".join(dict.fromkeys(str(machine.get("torch", "")) for machine in machines))),
        ("started", str(begins[0].get("time", "")).replace("T", " ") if begins else ""),
        ("resumed", times(len(begins) - 1) if len(begins) > 1 else ""),
        ("steps skipped", f"{len(history.happened('skipped')):,}"),
        ("rows in quarantine", f"{len(history.quarantine):,}"),
    ]
    return [(what, value) for what, value in found if value.strip(", ")]


def machine_of(machine: dict[str, Any]) -> str:
    """`AMD EPYC, 2 threads, 2 processes`"""
    threads, processes = machine.get("threads"), machine.get("processes") or 1
    parts = [str(machine.get("processor", "")), plural(threads, "thread") if threads else ""]
    return ", ".join(part for part in (*parts, plural(processes, "process") if processes > 1 else "") if part)


# --- what was learned -------------------------------------------------------------------------------------------------


def data_sets(history: History) -> tuple[page.Block, ...]:
    """A line for each data set: rows, losses, regret."""
    told = {name: source for stage in history.stages for name, source in stage.sources.items()}
    lines = []
    for name in dict.fromkeys([*history.names, *history.looked_at]):
        rows, size = history.total("rows", name), number((told.get(name) or {}).get("rows"))
        looks = history.held_out(name)
        lowest = int(np.argmin(looks.values)) if len(looks) else 0
        lines.append(
            (
                name,
                str((told.get(name) or {}).get("task") or "–").replace("_", " "),
                amount(rows) or "–",
                f"{rows / size:.2f}" if size > 0 and not math.isnan(rows) else "–",
                nats(history.series("loss", name).known().smooth().last),
                nats(looks.last),
                f"{nats(looks.values[lowest])} at {looks.steps[lowest]:,}" if len(looks) else "–",
                nats(history.regret(name).last),
                share(history.series("weights", name).known().last),
            )
        )
    columns = ("", "task", "rows seen", "passes", "loss", "held out", "lowest", "regret", "weight")
    return (without_empty(page.Table(columns, tuple(lines), numbers=tuple(range(2, 9)))),) if lines else ()


def without_empty(table: page.Table) -> page.Table:
    """Columns in which nothing stands are left out."""
    kept = [index for index in range(len(table.columns)) if index == 0 or any(row[index] != "–" for row in table.rows)]
    return page.Table(
        tuple(table.columns[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in table.rows),
        numbers=tuple(place for place, index in enumerate(kept) if index in table.numbers),
        caption=table.caption,
    )


def plate(picture: Picture | None, caption: str = "") -> tuple[page.Block, ...]:
    return (page.Plate(picture, caption),) if picture is not None else ()


def stages(history: History) -> tuple[page.Block, ...]:
    """A line for each stage: when it was, what it was made of."""
    lines = []
    for stage in history.stages:
        quotas = {name: number((source or {}).get("quota")) for name, source in stage.sources.items()}
        made_of = ", ".join(name if math.isnan(q) else f"{name} {q:.3g}" for name, q in quotas.items())
        rows = amount(history.rows(stage=stage)) or "–"
        lines.append((stage.name, f"{stage.start:,}–{stage.end:,}", rows, made_of or "–"))
    if not lines[0][0]:  # the run has no stages
        return ()
    return (page.Table(("stage", "steps", "rows", "rows a step of each data set"), tuple(lines), numbers=(1, 2)),)


def conflicts(history: History) -> tuple[page.Block, ...]:
    """The heat map, and the pairs that are most opposed on average."""
    picture = curves.conflicts(history)
    if picture is None:
        return ()
    pairs: dict[tuple[str, str], list[float]] = {}
    for line in history.lines["conflicts"]:
        names, cosines = curves.cosines_of(line)
        for i, j in zip(*np.tril_indices(len(names), -1)):
            if not math.isnan(cosines[i, j]):
                pairs.setdefault((names[j], names[i]), []).append(float(cosines[i, j]))
    means = sorted((sum(values) / len(values), pair, len(values)) for pair, values in pairs.items())
    opposed = tuple(
        (" and ".join(pair), f"{mean:+.2f}", f"{looks:,}") for mean, pair, looks in means[:PAIRS] if mean <= OPPOSED
    )
    if not opposed:
        said = f"On average over all looks no two data sets are opposed: no cosine is below {OPPOSED}."
        return (*plate(picture, CONFLICTS), page.Prose((said,)))
    table = page.Table(("most opposed, on average", "cosine", "looks"), opposed, numbers=(1, 2))
    return (*plate(picture, CONFLICTS), table)


# --- answers over time ------------------------------------------------------------------------------------------------


def answers(history: History) -> tuple[page.Block, ...]:
    """The watched rows: the first few of each data set."""
    by_set: dict[str, list[list[Line]]] = {}
    for (name, _), looks in history.samples.items():
        by_set.setdefault(name, []).append(looks)
    if not by_set:
        return ()
    most = max(1, min(ROWS_A_SET, ROWS_IN_ALL // len(by_set)))
    rows = [watched(looks) for group in by_set.values() for looks in group[:most]]
    left = len(history.samples) - len(rows)
    more = f" Of each data set the first {most} are shown; {left} more are in metrics.jsonl." if left else ""
    return (page.Prose((WATCHED + more,)), page.Story(tuple(rows)))


def watched(looks: Sequence[Line]) -> page.Watched:
    """One row and its answers in time."""
    sample = sample_of(looks[0])
    turns = []
    for _, same in groupby(looks, key=lambda look: look.get("answer")):
        group = list(same)
        when = f"{group[0]['step']:,}" + (f"–{group[-1]['step']:,}" if len(group) > 1 else "")
        given = prediction_of(sample, group[-1])
        shown = cut(readable(given.text, given.box), BRIEF)
        if given.box:
            shown = shown.replace("y ", "y\N{NO-BREAK SPACE}")
        turns.append(page.Turn(when, shown, number(group[-1].get("confidence")), judge(sample, given)))
    shown_card = card(sample, prediction_of(sample, looks[-1]))
    notes = []
    if len(turns) > TURNS:
        kept = np.linspace(0, len(turns) - 1, TURNS).round().astype(int)
        notes.append(f"{TURNS} of {len(turns)} different answers in a row, evenly picked.")
        turns = [turns[index] for index in kept]
    if len(shown_card.views) < len(sample.media):
        notes.append("Some of its media cannot be read any more.")
    return page.Watched(shown_card, str(looks[0].get("set", "")), tuple(turns), " ".join(notes))


def sample_of(line: Line) -> Sample:
    """A watched row as it stands in metrics.jsonl: `media` holds [modality, path] or [modality, path, start, end]."""
    task, target = str(line.get("task") or ""), line.get("target")
    answered_by_box = box_of(task, target)
    targets = line.get("targets") or [target]
    return Sample(
        id=str(line.get("id", "")),
        task=task,
        media=tuple(Media(str(item[0]), *item[1:4]) for item in line.get("media") or []),
        text=str(line.get("text") or ""),
        targets=() if answered_by_box else tuple(text for text in targets if isinstance(text, str) and text),
        box=answered_by_box or corners(line.get("box")),
        lang=str(line.get("lang") or "en"),
    )


def prediction_of(sample: Sample, line: Line) -> Prediction:
    """One answer to a watched row."""
    answer, sure = line.get("answer"), number(line.get("confidence"))
    text = answer if isinstance(answer, str) else ""
    confidence = 0.0 if math.isnan(sure) else min(1.0, max(0.0, sure))
    return Prediction(sample.id, sample.task, text, box_of(sample.task, answer), confidence)


def box_of(task: str, said: Any) -> Box | None:
    """The box that an answer stands for, where the task answers with one: four numbers, also as words, or location tokens."""
    if task not in TASKS or METRICS[TASKS[task].metrics[0]].reads != "box":
        return None
    if isinstance(said, str) and (found := TASKS[task].answer(said)):
        return found if isinstance(found, tuple) else None
    return corners(said.split() if isinstance(said, str) else said)


def corners(said: Any) -> Box | None:
    """x0 y0 x1 y1, if that is what it is."""
    try:
        x0, y0, x1, y1 = map(float, said)
    except (TypeError, ValueError):
        return None
    return (x0, y0, x1, y1) if math.isfinite(x0 + y0 + x1 + y1) else None


# --- how it ran -------------------------------------------------------------------------------------------------------


def speeds(history: History) -> tuple[page.Block, ...]:
    """Medians and tenths over the written lines."""
    found = history.speeds
    forms: list[tuple[str, str, Callable[[float], str]]] = [
        ("rows a second", "rows", rate),
        ("tokens a second", "tokens", rate),
        ("waiting for data", "wait", share),
        ("padding", "padding", share),
    ]
    lines = tuple(
        (title, *(form(float(value)) for value in np.percentile(found[key].values, (50, 10, 90))))
        for title, key, form in forms
        if len(found[key])
    )
    if not lines:
        return ()
    return (page.Table(("", "median", "a tenth is below", "a tenth is above"), lines, numbers=(1, 2, 3)),)


def costs(history: History, price_per_hour: float | None, watts: float | None) -> tuple[page.Block, ...]:
    """Hours, and what they cost where prices are given."""
    if math.isnan(history.seconds):
        return ()
    hours = history.seconds / 3600
    starts = [(machine, spent) for machine, spent in history.machines if number(machine.get("threads")) > 0]
    work = sum(spent * machine["threads"] * (machine.get("processes") or 1) for machine, spent in starts)
    points = [("Training time:", f"{duration(history.seconds)}.")]
    if starts:
        points.append(("Processor hours:", f"{precise(work)}, which is hours times threads times processes."))
    if watts is not None:
        points.append(("Energy:", f"{precise(hours * watts / 1000)} kWh at {watts:g} W on average."))
    if price_per_hour is not None:
        points.append(("Money:", f"{precise(hours * price_per_hour)} at {price_per_hour:g} an hour."))
    after = "Time between a kill and its resume, and steps that were done again, are not in it."
    return (page.Prose((), tuple(points)), page.Prose((after,)))


def events(history: History) -> tuple[page.Block, ...]:
    """What was skipped, and where the run went back."""
    found = history.happened("skipped", "back")
    lines = []
    for event in found[:EVENTS]:
        back = event["event"] == "back"
        what = f"back to the weights of step {event.get('to', '?')}" if back else "left out"
        lines.append((f"{event['step']:,}", what, str(event.get("why", ""))))
    if not lines:
        return ()
    left = f"The first {EVENTS} of {len(found)}; the others are in metrics.jsonl." if len(found) > EVENTS else ""
    return (page.Table(("step", "what", "why"), tuple(lines), caption=left),)


def quarantine(history: History) -> tuple[page.Block, ...]:
    """Rows that could not be read."""
    bad = len(history.quarantine)
    if not bad:
        return ()
    sizes = {name: number(source.get("rows")) for stage in history.stages for name, source in stage.sources.items()}
    size = nansum(sizes.values())
    shares = "" if math.isnan(size) else f", {share(bad / size)} of the {amount(size)} in the data sets"
    said = f"{plural(bad, 'row')} could not be read{shares}. All are in quarantine.jsonl."
    lines = tuple((entry["row"], cut(entry["error"], 300)) for entry in history.quarantine[:REASONS])
    caption = f"The first {REASONS}." if bad > REASONS else ""
    return (page.Prose((said,)), page.Table(("row", "what is wrong"), lines, caption=caption))


def recipe(history: History) -> tuple[page.Block, ...]:
    """The page that the run was made from, and where the model comes from."""
    points = tuple((f"{key}:", origin(history.lineage[key])) for key in ORIGIN if key in history.lineage)
    folds = (page.Fold("recipe.yaml", history.page),) if history.page.strip() else ()
    return (*((page.Prose((), points),) if points else ()), *folds)


def unreadable(history: History) -> str:
    """What the foot says about lines that are none."""
    if not history.unreadable:
        return ""
    numbers = ", ".join(map(str, history.unreadable[:5])) + (" ..." if len(history.unreadable) > 5 else "")
    return f" Lines of metrics.jsonl that could not be read and are left out: {numbers}."


# --- numbers as words -------------------------------------------------------------------------------------------------


def origin(value: Any) -> str:
    """
    >>> origin(["nano"]), origin({"eyes": "lite0"}), origin([])
    ('nano', 'eyes lite0', 'none')
    """
    if isinstance(value, dict):
        return cut("; ".join(f"{key} {origin(inner)}" for key, inner in value.items()), 300)
    if isinstance(value, list):
        return cut(", ".join(map(origin, value)), 300) or "none"
    return cut(str(value), 120)


def duration(seconds: float) -> str:
    """
    >>> duration(59.6), duration(754), duration(7325), duration(200000), duration(float("nan"))
    ('1 min', '12 min 34 s', '2 h 02 min', '2 d 7 h', '')
    """
    if math.isnan(seconds):
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def amount(value: float) -> str:
    """
    >>> amount(31200), amount(4_860_000), amount(2.5e9), amount(float("nan"))
    ('31,200', '4.86 million', '2.5 billion', '')
    """
    if math.isnan(value):
        return ""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}"


def nats(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else amount(value)


def precise(value: float) -> str:
    """
    >>> precise(0.00123), precise(1234.56)
    ('0.0012', '1,235')
    """
    return f"{value:.2g}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def share(value: float) -> str:
    """
    >>> share(0.034), share(0.5), share(float("nan"))
    ('3.4%', '50%', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.0f}%" if value >= 0.1 or value == 0 else f"{100 * value:.2g}%"


def plural(count: int, word: str) -> str:
    """
    >>> plural(1, "row"), plural(2, "process")
    ('1 row', '2 processes')
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}{'es' if word.endswith('s') else 's'}"


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"

"""What an adaptation changed, as one page: scores before and after, the rows whose answers changed, what there is to know.

Scores, samples, answers before and after -> sections -> report.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from monoglot import report
from monoglot.evaluate.run import Score
from monoglot.nouns import Prediction, Sample
from monoglot.report import page
from monoglot.report.answers import BRIEF, card, cut, judge, readable

SHOWN = 8
"""Rows of each kind that are shown."""
KINDS = (
    ("Mended", "Wrong before, right now."),
    ("Broken", "Right before, wrong now."),
    ("Still wrong", "Wrong before and now; the answer may have changed."),
    ("Changed", "Answers that are neither right nor wrong, only more or less good."),
)
Pair = tuple[list[Score], list[Score]]
"""Scores before and after."""


def write_adapt_report(
    folder: Path,
    facts: Sequence[tuple[str, str]],
    samples: Sequence[Sample],
    said: Mapping[str, Sequence[Prediction]],
    before: list[Score],
    after: list[Score],
    old: Mapping[str, Pair],
    notes: Sequence[str],
) -> Path:
    """Write `report.html` in the folder.

    Args:
        samples: held-out rows.
        said: answers to them, `before` and `after`.
        old: scores of old abilities.

    Raises:
        InputError: the extra `report` is missing, or the page cannot be written.
    """
    report.require()
    groups = changed(samples, said["before"], said["after"]) if samples else {}
    sections = [page.Section("Scores", scores(before, after, old))]
    for name, meaning in KINDS:
        rows = groups.get(name, [])
        if rows:
            shown = tuple(watched(*row) for row in rows[:: max(1, len(rows) // SHOWN)][:SHOWN])
            blocks: tuple[page.Block, ...] = (page.Prose((meaning,)), page.Story(shown))
            sections.append(page.Section(name, blocks, aside=f"{len(rows)} of {len(samples)} held-out rows"))
    if notes:
        sections.append(page.Section("About the rows", (page.Prose(points=tuple(("", note) for note in notes)),)))
    html = page.render(
        folder.resolve().name,
        sections,
        lead="A model before and after it was adapted, by rows that were held out." if samples else "",
        facts=facts,
        foot="Made by monoglot adapt. lineage.json beside this page has parents, data and scores.",
    )
    return page.write(folder / "report.html", html)


def scores(before: Sequence[Score], after: Sequence[Score], old: Mapping[str, Pair]) -> tuple[page.Block, ...]:
    """The table of scores; a sentence where there are none."""
    if not before and not old:
        return (page.Prose(("No rows were held out: there are too few of each answer, and all were learned from.",)),)
    lines = [line(f"{was.task}", was, now) for was, now in zip(before, after)]
    for name, (was_old, now_old) in old.items():
        lines += [line(f"{name}: {was.task} (old)", was, now) for was, now in zip(was_old, now_old)]
    columns = ("Rows", "Metric", "n", "Before", "After", "95% interval", "Plain baselines")
    return (page.Table(columns, tuple(lines), numbers=(2, 3, 4, 5)),)


def line(name: str, was: Score, now: Score) -> tuple[str, ...]:
    interval = "" if now.low is None or now.high is None else f"{now.low:.3f} – {now.high:.3f}"
    rivals = ", ".join(f"{rival} {value:.3f}" for rival, value in was.baselines.items())
    return name, now.metric.replace("_", " "), str(now.rows), f"{was.value:.3f}", f"{now.value:.3f}", interval, rivals


def changed(
    samples: Sequence[Sample], before: Sequence[Prediction], after: Sequence[Prediction]
) -> dict[str, list[tuple[Sample, Prediction, Prediction]]]:
    """Rows by what became of them; those that were right and stay so are left out."""
    found: dict[str, list[tuple[Sample, Prediction, Prediction]]] = {}
    for sample, was, now in zip(samples, before, after):
        one, other = judge(sample, was), judge(sample, now)
        if one is None or other is None:
            continue
        if one.right is None or other.right is None:
            kind = "Changed" if (was.text, was.box) != (now.text, now.box) else ""
        else:
            kind = {(False, True): "Mended", (True, False): "Broken", (False, False): "Still wrong"}.get(
                (one.right, other.right), ""
            )
        if kind:
            found.setdefault(kind, []).append((sample, was, now))
    return found


def watched(sample: Sample, was: Prediction, now: Prediction) -> page.Watched:
    """One row with both answers."""
    turns = [
        page.Turn(when, cut(readable(said.text, said.box), BRIEF), said.confidence, judge(sample, said))
        for when, said in (("before", was), ("after", now))
    ]
    return page.Watched(card(sample, now), str(sample.meta.get("group", "")), tuple(turns))

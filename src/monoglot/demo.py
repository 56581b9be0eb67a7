"""`monoglot demo`: the bundled samples, answered one by one, as one page.

    samples/rows.jsonl -> Predictor -> predictions.jsonl, report.html, a table in the terminal

The samples were drawn at random from test splits before any model had answered them (benchmarks/pick_samples.py), so
right and wrong answers stand here as often as they do there.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track
from rich.table import Table as Lines
from rich.text import Text

from monoglot import report
from monoglot.data.rows import read_rows, write_rows
from monoglot.nouns import Prediction, Sample
from monoglot.report import page
from monoglot.report.answers import Verdict, card, cut, judge, question_of, readable, truth_of

if TYPE_CHECKING:
    from monoglot.decode.predict import Predictor

SAMPLES = Path(__file__).parent / "assets" / "samples"
"""rows.jsonl, media/ and NOTICE.md, which come with the package."""
KINDS = ("Pictures", "Clips", "Sounds", "Speech", "Pictures with sound", "Texts", "Something else entirely")
"""Sections of the page, in order; `kind_of` says which one a row belongs to."""


@dataclass(frozen=True)
class Machine:
    """What answered, and on what."""

    model: str
    parameters: int
    threads: int
    cores: int
    processor: str
    load_seconds: float
    total_seconds: float
    """All answers, without loading and warming up."""


def run_demo(out: Path, model: str | Path = "nano", *, samples: Path = SAMPLES, console: Console | None = None) -> Path:
    """Answer the bundled samples and write `out/report.html` and `out/predictions.jsonl`.

    Args:
        out: folder to write to; made if it is not there.
        model: a bundled model's name or a model folder.
        samples: a folder with rows.jsonl; other rows than the bundled ones may have media of any kind.
        console: where to print; the terminal unless given.

    Returns:
        The path of report.html.

    Raises:
        InputError: the extra `report` is missing, the model or a row is wrong, or `out` cannot be written.
    """
    report.require()
    from monoglot.decode.predict import load

    console = console or Console()
    rows = list(read_rows(samples / "rows.jsonl"))
    started = time.perf_counter()
    predictor = load(model)
    loaded = time.perf_counter() - started
    warm_up(predictor, rows)
    answers = []
    for sample in track(rows, "answering", console=console, transient=True):
        answers.append(answer(predictor, sample))
    machine = machine_of(predictor, loaded, sum(prediction.seconds for prediction in answers))

    write_rows(out / "predictions.jsonl", (prediction.to_json() for prediction in answers))
    pairs = list(zip(rows, answers))
    path = page.write(out / "report.html", to_html(pairs, machine))
    show(pairs, machine, console)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
    return path


def warm_up(predictor: Predictor, rows: Sequence[Sample]) -> None:
    """Answer one row of each kind, unseen and untimed: the first of a kind also pays for getting ready."""
    first = {kind_of(sample): sample for sample in reversed(rows)}
    for sample in first.values():
        answer(predictor, sample)


def answer(predictor: Predictor, sample: Sample) -> Prediction:
    """One row alone; its seconds run from the file on disk to the answer."""
    started = time.perf_counter()
    (prediction,) = predictor.predict_many([sample], batch_size=1)
    return replace(prediction, seconds=time.perf_counter() - started)


def kind_of(sample: Sample) -> str:
    """Which of KINDS a row belongs to."""
    media = {item.modality for item in sample.media}
    if sample.meta.get("subset") == "photo":
        return "Something else entirely"
    if len(media) > 1:
        return "Pictures with sound"
    if "audio" in media:
        return "Speech" if sample.task == "transcribe" else "Sounds"
    return {"image": "Pictures", "video": "Clips"}[media.pop()] if media else "Texts"


def machine_of(predictor: Predictor, load_seconds: float, total_seconds: float) -> Machine:
    """What ran."""
    import torch

    model = predictor.model
    return Machine(
        model=model.config.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        threads=torch.get_num_threads(),
        cores=os.cpu_count() or 1,
        processor=platform.machine(),
        load_seconds=load_seconds,
        total_seconds=total_seconds,
    )


# --- the summary ------------------------------------------------------------------------------------------------------

Pair = tuple[Sample, Prediction]


def summary(pairs: Sequence[Pair]) -> page.Table:
    """One line for each kind and task: rows, result, mean seconds."""
    groups: dict[str, list[Pair]] = {}
    for kind in KINDS:
        for sample, prediction in pairs:
            if kind_of(sample) == kind:
                groups.setdefault(f"{kind}: {sample.task.replace('_', ' ')}", []).append((sample, prediction))
    lines = tuple((name, str(len(group)), result(group), mean_seconds(group)) for name, group in groups.items())
    total = ("All", str(len(pairs)), result(pairs, graded=False), mean_seconds(pairs))
    return page.Table(("What", "Rows", "Result", "A row takes"), lines, numbers=(1, 3), total=total)


def result(pairs: Iterable[Pair], *, graded: bool = True) -> str:
    """`3 of 4 right`, and the mean of what is scored but neither right nor wrong."""
    verdicts = [verdict for pair in pairs if (verdict := judge(*pair))]
    decided = [verdict.right for verdict in verdicts if verdict.right is not None]
    parts = [f"{sum(decided)} of {len(decided)} right"] if decided else []
    scored: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.right is None:
            scored.setdefault(verdict.name, []).append(verdict)
    if graded:
        parts += [f"{name} {sum(v.value for v in group) / len(group):.2f}" for name, group in scored.items()]
    return ", ".join(parts) or "–"


def mean_seconds(pairs: Sequence[Pair]) -> str:
    return page.seconds(sum(prediction.seconds for _, prediction in pairs) / len(pairs)) if pairs else "–"


# --- the page ---------------------------------------------------------------------------------------------------------


def to_html(pairs: Sequence[Pair], machine: Machine) -> str:
    """The report."""
    cores = f"{machine.cores} core{'s' if machine.cores != 1 else ''}, {machine.processor}"
    facts = (
        ("model", machine.model),
        ("parameters", f"{machine.parameters / 1e6:.1f} million"),
        ("machine", cores),
        ("threads", str(machine.threads)),
        ("loaded in", page.seconds(machine.load_seconds)),
        (f"{len(pairs)} answers in", page.seconds(machine.total_seconds)),
    )
    sections = [page.Section("At a glance", (summary(pairs),)), page.Section("How to read this", (GUIDE,))]
    for kind in KINDS:
        group = [pair for pair in pairs if kind_of(pair[0]) == kind]
        if group:
            blocks: tuple[page.Block, ...] = (page.Cards(tuple(card(*pair) for pair in group)),)
            if kind in NOTES:
                blocks = (page.Prose((NOTES[kind],)), *blocks)
            sections.append(page.Section(kind, blocks, aside=result(group)))
    sections.append(page.Section("What this does not show", (limits(pairs),)))
    return page.render(
        f"{len(pairs)} questions to {machine.model}",
        sections,
        lead="One model answered all of this: pictures, clips, sounds, speech and texts, with the same weights, on this machine's processor.",
        facts=facts,
        foot="Written by monoglot demo. The same answers are in predictions.jsonl, beside this file.",
    )


GUIDE = page.Prose(
    points=(
        (
            "Right or wrong",
            "is decided by the task's main metric: a name must be one of those given as truth, word for word; a box must "
            "overlap the true one by half or more; a transcript must have every word right.",
        ),
        (
            "Summaries and captions",
            "are more or less good, not right or wrong. They carry ROUGE-L: 0 shares no word with the truth, 1 is the "
            "same sentence.",
        ),
        (
            "Sure",
            "is the probability that the model gives to its answer. Next are the answers it would have given after that one.",
        ),
        ("On pictures,", "the solid box is the answer and the dashed one the truth."),
        (
            "Clips",
            "are shown as eight frames, evenly over their length, sounds as their waveform above the spectrogram "
            "that it hears.",
        ),
        (
            "Time",
            "runs from the file on disk to the answer, one row at a time, after one row of each kind to warm up.",
        ),
    )
)
NOTES = {
    "Something else entirely": "A photograph. nano's training rows hold drawings only, so see what it makes of this, and how "
    "sure it is."
}


def limits(pairs: Sequence[Pair]) -> page.Prose:
    """What not to conclude."""
    return page.Prose(
        (
            f"These {len(pairs)} rows were drawn at random from test splits, before any model had answered them. They "
            "show what kind of mistake to expect; for how often, they are too few. The evaluation beside the model has "
            "the scores with intervals and plain baselines.",
        ),
        (
            (
                "A small world.",
                "nano learned from emoji-like drawings, short synthetic films, single sounds, telephone prompts by one "
                "speaker, synthetic voices and docstrings. Of photographs and free speech it has what its eyes "
                "(EfficientNet-Lite0) and its ears (Whisper tiny.en) brought along.",
            ),
            (
                "Sure is not right.",
                "A high probability means that the model knows no better answer, not that there is none.",
            ),
            ("Strict marks.", "A synonym that the truth does not list counts as wrong."),
            ("Not for decisions about people,", "or for any that cannot be taken back."),
        ),
    )


# --- the terminal -----------------------------------------------------------------------------------------------------


def show(pairs: Sequence[Pair], machine: Machine, console: Console) -> None:
    """Print each answer and the result."""
    lines = Lines(box=None, pad_edge=False, header_style="dim", expand=True)
    lines.add_column("")
    lines.add_column("question", ratio=3, overflow="ellipsis", no_wrap=True)
    lines.add_column("answer", ratio=3, overflow="ellipsis", no_wrap=True)
    lines.add_column("truth", ratio=3, overflow="ellipsis", no_wrap=True, style="dim")
    lines.add_column("sure", justify="right", no_wrap=True)
    lines.add_column("time", justify="right", no_wrap=True)
    for kind in KINDS:
        group = [pair for pair in pairs if kind_of(pair[0]) == kind]
        if group:
            lines.add_row("", Text(kind, style="bold"), Text(result(group), style="bold"))
        for sample, prediction in group:
            said = prediction.error or readable(prediction.text, prediction.box)
            lines.add_row(
                mark(judge(sample, prediction)),
                Text(cut(question_of(sample)[0], 80)),
                Text(cut(said, 80)),
                Text(cut(truth_of(sample), 80)),
                page.percent(prediction.confidence),
                page.seconds(prediction.seconds),
            )
    console.print(lines)
    console.print(
        f"{result(pairs, graded=False)} · {machine.model}, {machine.parameters / 1e6:.1f} million parameters · "
        f"{len(pairs)} answers in {page.seconds(machine.total_seconds)} with {machine.threads} of {machine.cores} cores",
        highlight=False,
    )


def mark(verdict: Verdict | None) -> Text:
    """The sign of a verdict, told by shape and colour."""
    if verdict is None:
        return Text(" ")
    if verdict.right is None:
        return Text("◐", style="magenta")
    return Text("✓", style="green") if verdict.right else Text("✗", style="red")

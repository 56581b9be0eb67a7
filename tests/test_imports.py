"""What importing costs, and which way imports go."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import monoglot

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "monoglot"
LEVELS = [
    {"errors", "registry", "config", "nouns", "rng", "files", "cache", "plugins", "__init__"},
    {"text"},
    {"modalities"},
    {"tasks"},
    {"data"},
    {"model"},
    {"adapters"},
    {"store", "interop"},
    {"decode"},
    {"evaluate"},
    {"export"},
    {"report"},
    {"train"},
    {"adapt"},
    {"merge"},
    {"bench"},
    {"explain"},
    {"demo", "cli", "serve", "web", "__main__"},
]
"""A part of the package imports from its own level and those before it."""
UNWANTED = {"torchvision", "torchaudio", "torchcodec"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = "import sys; print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'tokenizers', 'av', 'PIL'}))"


def test_importing_monoglot_brings_no_torch():
    assert run(f"import monoglot; monoglot.Sample, monoglot.Prediction, monoglot.__version__; {HEAVY}") == "[]\n"


@pytest.mark.parametrize(
    "verb",
    [
        [],
        ["predict"],
        ["train"],
        ["adapt"],
        ["fewshot"],
        ["transfer"],
        ["compare"],
        ["merge"],
        ["export"],
        ["bench"],
        ["data"],
    ],
)
def test_help_brings_no_torch(verb):
    arguments = [*verb, "--help"]
    code = f"""
import runpy, sys
sys.argv = ["monoglot", *{arguments}]
try:
    runpy.run_module("monoglot", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
{HEAVY}
"""
    lines = run(code).splitlines()
    assert lines[-1] == "[]"
    assert any("Usage" in line for line in lines)


def test_load_and_predictor_come_when_asked_for():
    code = "import monoglot; monoglot.load, monoglot.Predictor; import sys; print('torch' in sys.modules)"
    assert run(code) == "True\n"
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        monoglot.laod  # noqa: B018


def test_unwanted_packages_are_not_imported():
    modules = sorted(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    )
    loaded = run(f"""
import importlib, sys
for name in {modules}:
    try:
        importlib.import_module(name)
    except ImportError as error:  # an extra that is not installed
        assert not (error.name or "").startswith("monoglot"), error
print(sorted(set(sys.modules) & {UNWANTED}))
""")
    assert loaded == "[]\n"


def test_unwanted_packages_are_not_required():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = set(re.findall(r'"([A-Za-z0-9_.-]+)[^"]*"', project.partition("[project]")[2].partition("[tool.")[0]))
    assert {"torch", "pytest"} <= required
    assert not {name.lower() for name in required} & UNWANTED
    for path in PACKAGE.rglob("*.py"):
        imported = {name.split(".")[0] for name, _ in imports(path, everywhere=True)}
        assert not imported & UNWANTED, path


def imports(path: Path, *, everywhere: bool = False) -> list[tuple[str, int]]:
    """Full names that a file imports, with their lines: when it is loaded, or also later."""

    def walk(nodes):
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
            elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not everywhere:
                continue
            elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from walk(ast.iter_child_nodes(node))

    return list(walk(ast.parse(path.read_text(encoding="utf-8")).body))


def level(part: str) -> int:
    found = [number for number, parts in enumerate(LEVELS) if part in parts]
    assert found, f"'monoglot.{part}' has no level; give it one in LEVELS (and in the order of the documentation)"
    return found[0]


def test_imports_go_one_way():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inner = path.relative_to(PACKAGE)
        own = level(inner.parts[0].removesuffix(".py"))
        if str(inner) == "__init__.py":
            own = len(LEVELS)  # `load` and `Predictor` are lent from below
        for name, line in imports(path, everywhere=True):
            head, _, rest = name.partition(".")
            part = rest.split(".")[0]
            if head == "monoglot" and part not in ("", "__version__") and level(part) > own:
                wrong.append(f"{inner}:{line} imports {name}")
    assert not wrong


def test_no_module_imports_itself_by_detours():
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    needs = {}
    for module, path in modules.items():
        targets = {name if name in modules else name.rpartition(".")[0] for name, _ in imports(path)}
        needs[module] = {name for name in targets if name in modules and name not in (module, "monoglot")}
    # A package's own page names its modules; those may name each other, not the page.
    done: set[str] = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for needed in sorted(needs[module]):
                visit(needed, [*trail, module])
            done.add(module)

    for module in sorted(modules):
        visit(module, [])

"""Writes docs/parity.md: how far this model is from the published one, on every stored case.

python benchmarks/parity.py [--out docs/parity.md]

It runs the tests in tests/parity (the only comparison there is) and renders what they noted. Golden tensors that are too
large for the repository are looked for in $MONOGLOT_REFERENCE, else in ../shared/reference.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SETS = {
    "tiny": "the transformer in miniature: weights by formula, features of media as stored",
    "full": "the published size: weights by formula, pictures, clips and sounds through their encoders",
    "preprocess": "what happens before the model: words, boxes, places, pictures, frames, sound; and two scores",
}
LEFT_OUT = {
    "tiny/loss_variants/ce_eps0.1_sentence_avg": "losses are means over tokens here, not over rows",
    "tiny/loss_variants/ce_eps0.1_ignore_eos": "no loss here leaves tokens out by their place",
    "tiny/loss_variants/ce_eps0.1_ignore_prefix2": "no loss here leaves tokens out by their place",
}
"""Stored cases that are not compared, and why."""


def notes(file: Path) -> dict[str, Any]:
    """Run the tests; what they noted, as `Records.to_json` in tests/parity/record.py."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "tests/parity", "--parity", str(file)]
    subprocess.run(command, cwd=ROOT, check=False)
    return json.loads(file.read_text())


def stored_cases(reference: Path) -> list[str]:
    """The name of every case in the folder of golden tensors."""

    def read(file: str) -> Any:
        path = reference / file
        return json.loads(path.read_text()) if path.is_file() else {}

    tiny = [f"tiny/{path.stem.removeprefix('case_')}" for path in sorted((reference / "tiny").glob("case_*"))]
    tiny += [f"tiny/generation/{name}" for name in read("tiny/generation.json").get("runs", {})]
    tiny += [f"tiny/criterion/{name}" for name in read("tiny/criterion_expected.json")]
    misc = read("tiny/losses_and_misc.json")
    tiny += [f"tiny/loss_variants/{name}" for name in misc.get("loss_variants", {})]
    tiny += ["tiny/gradients", "tiny/candidates"] if misc else []
    full = [f"full/{name}" for name in read("full/full_expected.json").get("cases", {})]
    full += [f"full/modules/{name}" for name in ("image", "video", "audio") if full]
    preprocess = ["tokenizer", "places", "boxes", "image", "video", "audio", "metrics"]
    return tiny + full + [f"preprocess/{name}" for name in preprocess if (reference / "preprocess").is_dir()]


def page(noted: dict[str, Any], cases: Iterable[str]) -> str:
    """The page in Markdown."""
    rows = summed(noted["agreements"])
    failed = [test for test in noted["tests"] if test["outcome"] == "failed"]
    skipped = [test for test in noted["tests"] if test["outcome"] == "skipped"]
    beyond = [row for row in rows if not row["holds"]]
    verdict = (
        "All hold." if not (failed or beyond) else f"**{len(beyond)} beyond their bound, {len(failed)} tests failed.**"
    )
    lines = [
        "# Parity with the published model",
        "",
        "Written by `make parity` (`benchmarks/parity.py`), which runs the tests in `tests/parity` and shows what they compared; do not edit.",
        "The stored values are outputs of the published code (UnIVAL, arXiv 2307.16184) with weights drawn by a formula:",
        "its own weights could not be had.",
        "",
        f"{date.today().isoformat()}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads: {len(rows)} comparisons of {sum(row['values'] for row in rows):,} values. {verdict}",
        "",
        "Differences of numbers are the largest absolute ones, or relative where it says so. Whole numbers and texts have to be equal;",
        "`unequal` counts those that are not.",
    ]
    for name, about in SETS.items():
        of_set = [row for row in rows if row["case"].split("/")[0] == name]
        lines += ["", f"## {name}: {about}", ""]
        lines += table(of_set) if of_set else ["Nothing was compared."]
    silent = {test["test"] for test in noted["tests"]} - {one["test"] for one in noted["agreements"]}
    quiet = [
        test
        for test in noted["tests"]
        if test["test"] in silent and test["outcome"] == "passed" and "test_record.py" not in test["test"]
    ]
    if quiet:
        lines += ["", "## Checks that pass without a number", ""]
        lines += [f"- {count} x `{test}`" for test, count in counted(quiet)]
    if failed or skipped:
        lines += ["", "## Failed or not run", ""]
        lines += [f"- `{short(test['test'])}`: **failed**" for test in failed]
        lines += [f"- `{short(test['test'])}`: not run, {test['reason']}" for test in skipped]
    bare = [case for case in cases if not any(covers(row["case"], case) for row in rows)]
    if bare:
        lines += ["", "## Stored, but not compared", ""]
        lines += [f"- `{case}`: {LEFT_OUT[case]}" for case in bare if case in LEFT_OUT]
        lines += [f"- {cases}: nothing noted yet" for cases in grouped(case for case in bare if case not in LEFT_OUT)]
    return "\n".join(lines) + "\n"


def summed(agreements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each case and thing compared: the largest difference, the number of values."""
    rows: dict[tuple, dict[str, Any]] = {}
    for one in agreements:
        row = rows.setdefault(
            (one["case"], one["what"], one["bound"], one["kind"]),
            {**one, "values": 0, "difference": 0.0},
        )
        row["values"] += one["values"]
        row["difference"] = max(row["difference"], one["difference"])
        row["holds"] = row["difference"] <= row["bound"]
    return sorted(rows.values(), key=lambda row: row["case"])


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| case | compared | values | largest difference | bound | |", "|---|---|---|---|---|---|"]
    last = None
    for row in rows:
        case = row["case"].partition("/")[2] if row["case"] != last else ""
        last = row["case"]
        unit = "" if row["kind"] == "absolute" else f" {row['kind']}"
        verdict = "pass" if row["holds"] else "**fail**"
        found, bound = number(row["difference"]) + unit, number(row["bound"])
        lines.append(f"| {cell(case)} | {cell(row['what'])} | {row['values']:,} | {found} | {bound} | {verdict} |")
    return lines


def number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1e}"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def covers(compared: str, case: str) -> bool:
    """True if a comparison is of this case, or of a part of it."""
    return compared == case or compared.startswith((case + "/", case + " "))


def short(test: str) -> str:
    return test.removeprefix("tests/parity/")


def grouped(cases: Iterable[str]) -> list[str]:
    """Names that share their folder in one line."""
    folders: dict[str, list[str]] = {}
    for case in cases:
        folder, _, name = case.rpartition("/")
        folders.setdefault(folder, []).append(f"`{name}`")
    return [f"`{folder}/`: {', '.join(names)}" for folder, names in folders.items()]


def counted(tests: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Tests without their parameters, and how many of each there are."""
    names = [short(test["test"]).partition("[")[0] for test in tests]
    return [(name, names.count(name)) for name in dict.fromkeys(names)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "parity.md")
    arguments = parser.parse_args()
    reference = Path(os.environ.get("MONOGLOT_REFERENCE", ROOT.parent / "shared" / "reference"))
    with tempfile.TemporaryDirectory() as folder:
        noted = notes(Path(folder) / "notes.json")
    arguments.out.write_text(page(noted, stored_cases(reference)), encoding="utf-8")
    held = all(one["difference"] <= one["bound"] for one in noted["agreements"])
    return 0 if held and not any(test["outcome"] == "failed" for test in noted["tests"]) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What each part of the pretraining engine is worth, measured at equal budget (docs/evidence.md).

python -m benchmarks.evidence prepare --packs packs      rows, untrained models and kept features
python -m benchmarks.evidence mixing                     or curriculum, together, transfer, auto: runs that have no result yet
python -m benchmarks.evidence page                       tables and figures of docs/evidence.md from benchmarks/results/evidence
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: a run has one thread, so two at a time do not disturb each other

from benchmarks.evidence.page import write_page
from benchmarks.evidence.questions import CLIPS, FEW_FRAMES, MIXED, PICTURES, QUESTIONS, SEEDS, SMALL, SOUNDS
from benchmarks.evidence.rows import Packs, facts, write_all
from benchmarks.evidence.runs import RESULTS, do_all, fill_features, make_starts
from monoglot.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", *QUESTIONS, "page"])
    parser.add_argument("--packs", type=Path, default=Path("packs"), help="where `make packs` put them")
    parser.add_argument("--work", type=Path, default=Path("out/evidence"), help="rows, models, features and runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--arms", default="", help="only arms whose name ends so")
    arguments = parser.parse_args()
    if arguments.what == "page":
        write_page()
    elif arguments.what == "prepare":
        folder = arguments.work / "rows"
        names = write_all(Packs(arguments.packs), folder, MIXED)
        write_json(RESULTS / "data.json", {name: facts(folder, name) for name in names})
        make_starts(arguments.work, SEEDS)
        fill_features(arguments.work, (*MIXED, *SOUNDS), {}, jobs=arguments.jobs)
        for changes in (SMALL, FEW_FRAMES):
            fill_features(arguments.work, (*PICTURES, *CLIPS), changes, jobs=arguments.jobs)
    else:
        command = f"python -m benchmarks.evidence {arguments.what}"
        planned = [plan for plan in QUESTIONS[arguments.what]() if plan.arm.endswith(arguments.arms)]
        do_all(planned, arguments.work, command, jobs=arguments.jobs, fresh=arguments.what == "curriculum")


if __name__ == "__main__":
    main()

"""What each part of the pretraining engine is worth, measured at equal budget (docs/evidence.md).

python -m benchmarks.evidence prepare --packs packs      rows, untrained models and kept features
python -m benchmarks.evidence mixing                     or curriculum, together, transfer, auto: runs that have no result yet
python -m benchmarks.evidence page                       tables and figures of docs/evidence.md from benchmarks/results/evidence
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: a run has one thread, so two at a time do not disturb each other

from benchmarks.evidence.page import write_page
from benchmarks.evidence.questions import CLIPS, LOW, MIXED, PICTURES, QUESTIONS, SEEDS, SOUNDS
from benchmarks.evidence.rows import Packs, write_all
from benchmarks.evidence.runs import do_all, fill_features, make_starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", *QUESTIONS, "page"])
    parser.add_argument("--packs", type=Path, default=Path("packs"), help="where `make packs` put them")
    parser.add_argument("--work", type=Path, default=Path("out/evidence"), help="rows, models, features and runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    if arguments.what == "page":
        write_page()
    elif arguments.what == "prepare":
        for file, rows in write_all(Packs(arguments.packs), arguments.work / "rows", MIXED).items():
            print(f"{file}: {rows} rows")
        make_starts(arguments.work, SEEDS)
        fill_features(arguments.work, (*MIXED, *SOUNDS), {}, jobs=arguments.jobs)
        fill_features(arguments.work, (*PICTURES, *CLIPS), LOW, jobs=arguments.jobs)
    else:
        command = " ".join(["python -m benchmarks.evidence", *sys.argv[1:]])
        do_all(QUESTIONS[arguments.what](), arguments.work, command, jobs=arguments.jobs)


if __name__ == "__main__":
    main()

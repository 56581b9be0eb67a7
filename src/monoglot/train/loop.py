"""The training loop: stages in their order, data sets mixed by quotas in every step, one loss.

Recipe -> Run -> for each stage: (rows -> parts -> [own answers] -> gradients -> step -> [look] -> [checkpoint])* -> model folder
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from monoglot.train.distributed import open_world
from monoglot.train.recipe import Recipe
from monoglot.train.run import Run
from monoglot.train.steps import Step

_COMPILED = 16384
"""Matrix products that oneDNN keeps compiled; its own 1,024 are fewer than the shapes of a mixture."""


def train(recipe: Recipe, folder: Path, *, resume: bool = False, quiet: bool = False) -> Path:
    """Run a recipe and return the finished model's folder.

    Args:
        folder: the run's folder; must be new unless `resume`.
        resume: go on from the folder's last checkpoint.

    Raises:
        InputError: the recipe, its data or the folder are not as they must be; told before anything is trained.
        Stopped: the process was asked to stop; where the run stands is saved.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_COMPILED))  # read when the first is compiled
    world = open_world()
    try:
        with Run(recipe, Path(folder), world, resume=resume, quiet=quiet) as run:
            while not run.is_done:
                stage = run.stage
                for step, seconds_waited in _timed(stage.reader.ahead(run.stand.step, stage.end)):
                    run.do(step, seconds_waited)
                    run.do_what_is_due()
                    if run.stage_is_over:
                        break
                run.next_stage()
            return run.finish()
    finally:
        world.close()


def _timed(steps: Iterable[Step]) -> Iterator[tuple[Step, float]]:
    """Each step with the seconds that it was waited for."""
    began = time.monotonic()
    for step in steps:
        yield step, time.monotonic() - began
        began = time.monotonic()

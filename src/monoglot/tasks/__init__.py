"""Tasks: Sample -> pose -> Posed, and decoded text -> answer. Importing this package registers every one below.

`pose` puts a row in the wording of a model; a task's own `pose` knows ours.
"""

from monoglot.tasks import (
    answer_matching,
    caption,
    classify,
    detect,
    entailment,
    generate_image,
    grounding,
    infill,
    infill_image,
    matching,
    name,
    region_caption,
    summarize,
    transcribe,
    vqa,
)
from monoglot.tasks.base import TASKS, Task
from monoglot.tasks.wording import Wording, pose

__all__ = [
    "TASKS",
    "Task",
    "Wording",
    "answer_matching",
    "caption",
    "classify",
    "detect",
    "entailment",
    "generate_image",
    "grounding",
    "infill",
    "infill_image",
    "matching",
    "name",
    "pose",
    "region_caption",
    "summarize",
    "transcribe",
    "vqa",
]

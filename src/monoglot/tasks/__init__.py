"""Tasks: Sample -> pose -> Posed, and decoded text -> answer. Importing this package registers every one below."""

from monoglot.tasks import (
    caption,
    classify,
    entailment,
    grounding,
    matching,
    name,
    region_caption,
    summarize,
    transcribe,
    vqa,
)
from monoglot.tasks.base import TASKS, Task

__all__ = [
    "TASKS",
    "Task",
    "caption",
    "classify",
    "entailment",
    "grounding",
    "matching",
    "name",
    "region_caption",
    "summarize",
    "transcribe",
    "vqa",
]

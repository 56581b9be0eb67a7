"""vqa: media + question -> a short answer; among the row's choices if it has any."""

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media, need_text, target


def pose(sample: Sample) -> Posed:
    media = need_media(sample, task="vqa")
    question = need_text(sample, task="vqa", what="a question")
    return Posed((*media, question), target(sample), choices=sample.choices)


VQA = TASKS.add(
    "vqa", Task(pose=pose, metrics=("vqa_accuracy",), source="the bare question: UnIVAL (arXiv 2307.16184)")
)

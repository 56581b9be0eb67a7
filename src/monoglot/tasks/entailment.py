"""entailment: does the picture imply the sentence? yes, no or maybe."""

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, kind_of, need_media, need_text, target

ANSWERS = ("no", "yes", "maybe")


def pose(sample: Sample) -> Posed:
    media = need_media(sample, task="entailment")
    hypothesis = need_text(sample, task="entailment", what="a hypothesis").strip()
    return Posed(
        (*media, f' does the {kind_of(media)} describe " {hypothesis} "?'),
        target(sample),
        choices=sample.choices or ANSWERS,
    )


ENTAILMENT = TASKS.add(
    "entailment",
    Task(
        pose=pose, metrics=("accuracy",), source="prompt and answers: UnIVAL (arXiv 2307.16184), SNLI-VE", max_length=3
    ),
)

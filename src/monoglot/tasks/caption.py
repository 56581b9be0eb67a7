"""caption: media -> what they show or sound like."""

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, kind_of, need_media, target


def pose(sample: Sample) -> Posed:
    media = need_media(sample, task="caption")
    return Posed((*media, f" what does the {kind_of(media)} describe?"), target(sample))


CAPTION = TASKS.add(
    "caption",
    Task(
        pose=pose,
        metrics=("cider_d", "rouge_l"),
        source="prompt: UnIVAL (arXiv 2307.16184), as OFA (arXiv 2202.03052)",
        max_length=40,
        length_penalty=1.0,
    ),
)

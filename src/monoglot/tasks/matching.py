"""matching: do media and a text, or two media, belong together? yes or no."""

from monoglot.errors import InputError
from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, kind_of, need_media, target

ANSWERS = ("yes", "no")


def pose(sample: Sample) -> Posed:
    media = need_media(sample, task="matching")
    text = " ".join(sample.text.split())
    if text:
        question = f' does the {kind_of(media)} describe " {text} "?'
    elif len(media) >= 2:
        question = f" does the {media[1].modality} describe the {media[0].modality}?"
    else:
        raise InputError.at(
            sample.where or f"sample {sample.id}",
            "text",
            "task 'matching' needs a text or a second media item",
            "both are missing",
        )
    return Posed((*media, question), target(sample), choices=sample.choices or ANSWERS)


MATCHING = TASKS.add(
    "matching",
    Task(
        pose=pose,
        metrics=("accuracy",),
        source="prompt with text: UnIVAL (arXiv 2307.16184); of two media: ours",
        max_length=3,
    ),
)

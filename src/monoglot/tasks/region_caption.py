"""region_caption: picture + box -> what is in the box."""

from monoglot.errors import InputError
from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media, target
from monoglot.text.boxes import box_to_text


def pose(sample: Sample) -> Posed:
    media = need_media(sample, "image", task="region_caption")
    if sample.box is None:
        raise InputError.at(
            sample.where or f"sample {sample.id}",
            "box",
            "task 'region_caption' needs the region",
            "give x0 y0 x1 y1 as fractions",
        )
    # Two leading spaces: as the published pretraining code has it.
    return Posed((*media, "  what does the region describe? region:", box_to_text(sample.box)), target(sample))


REGION_CAPTION = TASKS.add(
    "region_caption",
    Task(
        pose=pose, metrics=("exact_match", "rouge_l"), source="prompt: UnIVAL (arXiv 2307.16184), grounded captioning"
    ),
)

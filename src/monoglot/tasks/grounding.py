"""grounding: picture + phrase -> the box of what the phrase names."""

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media, need_text
from monoglot.text.boxes import box_to_text, text_to_box


def pose(sample: Sample) -> Posed:
    media = need_media(sample, "image", task="grounding")
    phrase = need_text(sample, task="grounding", what="the phrase to find").strip()
    location = box_to_text(sample.box) if sample.box is not None else ""
    return Posed((*media, f' which region does the text " {phrase} " describe?'), location, writes="box")


GROUNDING = TASKS.add(
    "grounding",
    Task(
        pose=pose,
        answer=text_to_box,
        metrics=("iou_at_0.5", "iou"),
        source="prompt and corner order: UnIVAL (arXiv 2307.16184), pretraining data set",
        max_length=5,
    ),
)

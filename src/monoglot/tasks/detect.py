"""detect: picture -> everything in it, each thing with its box."""

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media
from monoglot.text.boxes import objects_to_parts, read_objects, text_to_objects, write_objects


def pose(sample: Sample) -> Posed:
    media = need_media(sample, "image", task="detect")
    objects = read_objects(sample.targets[0], sample.where or f"sample {sample.id}") if sample.targets else []
    return Posed((*media, " what are the objects in the image?"), objects_to_parts(objects) or "", writes="objects")


def answer(text: str) -> str:
    """`cup 0.100 0.250 0.400 0.900; dog ...`: the same as a row's target."""
    return write_objects(text_to_objects(text))


DETECT = TASKS.add(
    "detect",
    Task(
        pose=pose,
        answer=answer,
        metrics=("objects_f1",),
        source="prompt and order of the answer: OFA (arXiv 2202.03052)",
        max_length=120,
        length_penalty=1.0,
    ),
)

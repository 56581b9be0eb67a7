"""infill_image: a picture with its middle hidden -> the middle, as the codes of a VQGAN."""

from dataclasses import replace

from monoglot.nouns import Media, Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media
from monoglot.tasks.generate_image import answer, codes

MIDDLE = (1 / 3, 1 / 3, 2 / 3, 2 / 3)
"""128 of 384 pixels: the grid of 16 x 16 codes, 8 pixels each."""


def pose(sample: Sample) -> Posed:
    media = need_media(sample, "image", task="infill_image")
    return Posed((*map(_hide, media), " what is the image in the middle part?"), codes(sample), writes="codes")


def _hide(media: Media) -> Media:
    return replace(media, hidden=MIDDLE) if media.modality == "image" else media


INFILL_IMAGE = TASKS.add(
    "infill_image",
    Task(
        pose=pose,
        answer=answer,
        metrics=("wer",),  # the share of codes that are wrong
        source="prompt and the hidden part: OFA (arXiv 2202.03052)",
    ),
)

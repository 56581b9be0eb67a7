"""generate_image: a description -> a picture, as the codes of a VQGAN (`monoglot.interop.vqgan` paints them)."""

from monoglot.nouns import Posed, Sample, Symbols
from monoglot.tasks.base import TASKS, Task, need_text
from monoglot.text.codes import codes_to_text, numbers_to_codes, text_to_codes

CAPTION_WORDS = 64


def pose(sample: Sample) -> Posed:
    need_text(sample, task="generate_image", what="a description")
    caption = " ".join(sample.text.split()[:CAPTION_WORDS])
    return Posed((*sample.media, f" what is the complete image? caption: {caption}"), codes(sample), writes="codes")


def codes(sample: Sample) -> Symbols:
    """The first reference, `17 4095 ...`, as symbols; empty when the answer is not known."""
    numbers = sample.targets[0] if sample.targets else ""
    return codes_to_text(numbers_to_codes(numbers, sample.where or f"sample {sample.id}"))


def answer(text: str) -> str:
    """`17 4095 ...`: the same as a row's target."""
    return " ".join(map(str, text_to_codes(text)))


GENERATE_IMAGE = TASKS.add(
    "generate_image",
    Task(
        pose=pose,
        answer=answer,
        metrics=("wer",),  # the share of codes that are wrong
        source="prompt and drawing: UnIVAL (arXiv 2307.16184), as OFA (arXiv 2202.03052)",
        top_k=256,
    ),
)

"""summarize: a text -> a shorter one in the same language."""

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_text, target


def pose(sample: Sample) -> Posed:
    text = need_text(sample, task="summarize", what="the text to summarise")
    return Posed((*sample.media, ' what is the summary of article "', text, ' "?'), target(sample))


SUMMARIZE = TASKS.add(
    "summarize",
    Task(
        pose=pose,
        metrics=("rouge_l",),
        source="prompt: OFA (arXiv 2202.03052), Gigaword",
        max_length=60,
        length_penalty=1.0,
    ),
)

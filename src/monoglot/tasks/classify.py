"""classify: media or text, and a question -> one of the row's choices."""

from monoglot.errors import InputError
from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, target, words


def pose(sample: Sample) -> Posed:
    if not sample.choices:
        raise InputError.at(
            sample.where or f"sample {sample.id}",
            "choices",
            "task 'classify' needs the possible answers",
            'for example ["yes", "no"]',
        )
    if not sample.media and not sample.text.strip():
        raise InputError.at(
            sample.where or f"sample {sample.id}", "text", "task 'classify' needs media or text", "both are missing"
        )
    question = words(sample) if sample.text.strip() else " what is this?"
    return Posed((*sample.media, question), target(sample), choices=sample.choices)


CLASSIFY = TASKS.add("classify", Task(pose=pose, metrics=("accuracy",), source="the bare question, as for vqa"))

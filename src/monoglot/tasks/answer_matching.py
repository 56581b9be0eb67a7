"""answer_matching: media, a question and an answer to it -> is the answer right? yes or no."""

from monoglot.errors import InputError
from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media, need_text, target

ANSWERS = ("yes", "no")


def pose(sample: Sample) -> Posed:
    """The row's text holds both: what stands after its last question mark is the answer."""
    media = need_media(sample, task="answer_matching")
    text = need_text(sample, task="answer_matching", what="a question and an answer").strip()
    question, mark, said = text.rpartition("?")
    if not mark or not question.strip() or not said.strip():
        wrong, fix = "has no answer after a question mark", 'write both: "what colour is the cup? red"'
        raise InputError.at(sample.where or f"sample {sample.id}", "text", wrong, fix)
    prompt = f' what is the answer to question " {question.strip()}? ". is " {said.strip()} "?'
    return Posed((*media, prompt), target(sample), choices=sample.choices or ANSWERS)


ANSWER_MATCHING = TASKS.add(
    "answer_matching",
    Task(
        pose=pose,
        metrics=("accuracy",),
        source="prompt: UnIVAL (arXiv 2307.16184), pretraining data set",
        max_length=3,
    ),
)

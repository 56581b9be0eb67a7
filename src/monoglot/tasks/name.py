"""name: media -> the name of the one thing they show, in the row's language; among the row's choices if it has any."""

from monoglot.errors import InputError
from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media, target

LANGUAGES = {
    "en": "",
    "ja": " in Japanese",
    "fr": " in French",
    "es": " in Spanish",
    "de": " in German",
    "it": " in Italian",
    "ru": " in Russian",
}


def pose(sample: Sample) -> Posed:
    media = need_media(sample, task="name")
    if sample.lang not in LANGUAGES:
        raise InputError.at(sample.where, "lang", f"{sample.lang!r} has no prompt", f"known: {', '.join(LANGUAGES)}")
    return Posed((*media, f" what is this called{LANGUAGES[sample.lang]}?"), target(sample), choices=sample.choices)


NAME = TASKS.add(
    "name", Task(pose=pose, metrics=("exact_match",), source="prompt: ours, in the manner of OFA's", max_length=40)
)

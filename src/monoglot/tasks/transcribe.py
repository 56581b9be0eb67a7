"""transcribe: speech -> its words."""

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS, Task, need_media, target


def pose(sample: Sample) -> Posed:
    media = need_media(sample, "audio", "video", task="transcribe")
    return Posed((*media, " what does the audio say?"), target(sample))


TRANSCRIBE = TASKS.add(
    "transcribe",
    Task(
        pose=pose,
        metrics=("wer", "cer"),
        source="prompt: ours, in the manner of OFA's",
        max_length=120,
        length_penalty=1.0,
    ),
)

"""How a row is put to a model: the one place where the wording of published checkpoints differs from ours.

    Sample -> (vary) -> (clean its words) -> Task.pose -> Posed -> (ask as the checkpoint was asked)

'own'                  nano's, and for training anew: words as the row has them.
'unival_pretraining'   the published pretraining code: captions and questions lower-cased and cut.
'unival_finetuning'    the published fine-tuned checkpoints: questions end in "?", the decoder reads the question before it answers, and
                       captions of sounds are asked for as videos' (so they were trained).
Tasks that the published model does not know are worded the same in all three.
Source: sections 2 and 3 of the published model's arithmetic (UnIVAL, arXiv 2307.16184).
"""

from __future__ import annotations

import re
import string
from dataclasses import replace
from typing import Literal

from monoglot.nouns import Posed, Sample
from monoglot.tasks.base import TASKS

Wording = Literal["own", "unival_pretraining", "unival_finetuning"]
SOURCE_WORDS = 80
"""Longest question, caption or phrase in a prompt, in words."""
CAPTION_WORDS = {"unival_pretraining": 30, "unival_finetuning": 20}
"""Longest caption to be written, in words."""


def pose(sample: Sample, wording: Wording = "own", *, variant: int = 0) -> Posed:
    """The sample as its task puts it, in a model's wording.

    Args:
        variant: which form a row takes whose task makes its question itself, such as a text with gaps.

    Raises:
        InputError: the sample lacks what its task needs.

    >>> from monoglot.nouns import Media
    >>> sample = Sample("1", "vqa", (Media("image", "cup.png"),), "What colour")
    >>> pose(sample).prompt[-1], pose(sample, "unival_finetuning").prompt[-1]
    (' What colour', ' what colour?')
    """
    task = TASKS[sample.task]
    if task.vary is not None:
        sample = task.vary(sample, variant)
    if wording == "own":
        return task.pose(sample)
    posed = task.pose(_cleaned(sample, wording))
    if wording == "unival_finetuning" and sample.task == "caption":
        words = str(posed.prompt[-1]).replace(" the audio ", " the video ")
        return replace(posed, prompt=(*posed.prompt[:-1], words))
    return replace(posed, echo=wording == "unival_finetuning" and sample.task in ("vqa", "entailment"))


def _cleaned(sample: Sample, wording: Wording) -> Sample:
    """The sample with its words as the published data set writes them; other tasks' words stay."""
    if sample.task == "vqa":
        question = clean(sample.text, SOURCE_WORDS)
        asks = question and wording == "unival_finetuning" and not question.endswith("?")
        return replace(sample, text=question + "?" if asks else question)
    if sample.task in ("matching", "answer_matching", "entailment", "grounding"):
        return replace(sample, text=clean(sample.text, SOURCE_WORDS, people=True))
    if sample.task in ("caption", "region_caption"):
        longest = CAPTION_WORDS[wording]
        plain = wording == "unival_finetuning" and sample.task == "caption"
        targets = (without_marks(one, longest) if plain else clean(one, longest, people=True) for one in sample.targets)
        return replace(sample, targets=tuple(targets))
    return sample


def clean(text: str, longest: int, *, people: bool = False) -> str:
    """Lower case, no marks at the start, dashes and slashes as spaces, at most `longest` words.

    Args:
        people: also write `<person>` as a word, as captions have it.

    >>> clean("...A red-white cup / <person>  sits", 6, people=True)
    'a red white cup person sits'
    """
    text = text.lower().lstrip(",.!?*#:;~").replace("-", " ").replace("/", " ")
    if people:
        text = text.replace("<person>", "person")
    return " ".join(re.sub(r"\s{2,}", " ", text).strip().split(" ")[:longest])


def without_marks(caption: str, longest: int) -> str:
    """A caption as fine-tuning trains it: no punctuation, at most `longest` words, letters as they are.

    >>> without_marks("A dog's bone, red.", 20)
    'A dogs bone red'
    """
    return " ".join(caption.translate(str.maketrans("", "", string.punctuation)).split()[:longest])

"""The exact words of each task, as published (section 3 of the published model's description) or as ours."""

from __future__ import annotations

import pytest

from monoglot.errors import InputError
from monoglot.nouns import Media, Sample, Symbols
from monoglot.tasks import TASKS

IMAGE, AUDIO, VIDEO = (Media(name, f"a.{name}") for name in ("image", "audio", "video"))
BOX = (0.0, 0.25, 0.5, 1.0)
BINS = "<bin_0> <bin_250> <bin_500> <bin_999>"


@pytest.mark.parametrize(
    ("sample", "prompt", "target"),
    [
        (Sample("1", "caption", (IMAGE,), targets=("a cup",)), (IMAGE, " what does the image describe?"), " a cup"),
        (Sample("1", "caption", (VIDEO,)), (VIDEO, " what does the video describe?"), ""),
        (Sample("1", "caption", (AUDIO, IMAGE)), (AUDIO, IMAGE, " what does the audio describe?"), ""),
        (Sample("1", "vqa", (IMAGE,), "  what \n colour? ", ("red", "dark")), (IMAGE, " what colour?"), " red"),
        (Sample("1", "matching", (IMAGE,), "a cup", ("yes",)), (IMAGE, ' does the image describe " a cup "?'), " yes"),
        (Sample("1", "matching", (AUDIO, VIDEO)), (AUDIO, VIDEO, " does the video describe the audio?"), ""),
        (Sample("1", "entailment", (IMAGE,), "it is red"), (IMAGE, ' does the image describe " it is red "?'), ""),
        (
            Sample("1", "grounding", (IMAGE,), "the cup", box=BOX),
            (IMAGE, ' which region does the text " the cup " describe?'),
            BINS,
        ),
        (
            Sample("1", "region_caption", (IMAGE,), targets=("a cup",), box=BOX),
            (IMAGE, "  what does the region describe? region:", BINS),
            " a cup",
        ),
        (Sample("1", "summarize", (), "a b"), (' what is the summary of article "', " a b", ' "?'), ""),
        (Sample("1", "name", (IMAGE,)), (IMAGE, " what is this called?"), ""),
        (Sample("1", "name", (IMAGE,), lang="ja"), (IMAGE, " what is this called in Japanese?"), ""),
        (Sample("1", "transcribe", (AUDIO,)), (AUDIO, " what does the audio say?"), ""),
        (Sample("1", "classify", (AUDIO,), choices=("a", "b")), (AUDIO, " what is this?"), ""),
        (Sample("1", "classify", (), "is it?", choices=("a", "b")), (" is it?",), ""),
    ],
)
def test_wording(sample, prompt, target):
    posed = TASKS[sample.task].pose(sample)
    assert posed.prompt == prompt
    assert posed.target == target
    assert isinstance(posed.target, Symbols) == (target == BINS)


@pytest.mark.parametrize(
    ("sample", "choices"),
    [
        (Sample("1", "matching", (IMAGE,), "a cup"), ("yes", "no")),
        (Sample("1", "entailment", (IMAGE,), "a cup"), ("no", "yes", "maybe")),
        (Sample("1", "entailment", (IMAGE,), "a cup", choices=("x", "y")), ("x", "y")),
        (Sample("1", "vqa", (IMAGE,), "a?", choices=("x", "y")), ("x", "y")),
        (Sample("1", "vqa", (IMAGE,), "a?"), ()),
        (Sample("1", "caption", (IMAGE,)), ()),
    ],
)
def test_choices(sample, choices):
    assert TASKS[sample.task].pose(sample).choices == choices


def test_boxes_in_pixels_are_told():
    with pytest.raises(InputError, match="is it in pixels"):
        TASKS["region_caption"].pose(Sample("1", "region_caption", (IMAGE,), box=(10, 10, 50, 50)))

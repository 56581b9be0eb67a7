"""The exact words of each task in our own wording; the published ones are in tests/parity/test_published_prompts.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.nouns import Media, Sample, Symbols
from monoglot.tasks import TASKS, pose
from monoglot.tasks.infill import GAP, make_gaps

IMAGE, AUDIO, VIDEO = (Media(name, f"a.{name}") for name in ("image", "audio", "video"))
BOX = (0.0, 0.25, 0.5, 1.0)
BINS = "<bin_0> <bin_250> <bin_500> <bin_999>"
MASK = "<mask>"
HIDDEN = Media("image", "a.image", hidden=(1 / 3, 1 / 3, 2 / 3, 2 / 3))


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
        (
            Sample("1", "answer_matching", (VIDEO,), "what colour? red", ("no",)),
            (VIDEO, ' what is the answer to question " what colour? ". is " red "?'),
            " no",
        ),
        (
            Sample("1", "infill", (), "<mask> red <mask>, and  a<mask>", ("a cup",)),
            (' what is the complete text of "', MASK, " red", MASK, ", and a", MASK, ' "?'),
            " a cup",
        ),
        (
            Sample("1", "detect", (IMAGE,), targets=("red cup 0 .25 .5 1; dog 0 0.25 0.5 1;",)),
            (IMAGE, " what are the objects in the image?"),
            (BINS, " red cup", BINS, " dog"),
        ),
        (Sample("1", "detect", (IMAGE,)), (IMAGE, " what are the objects in the image?"), ""),
        (
            Sample("1", "generate_image", (), "A red\n cup" + " x" * 70, ("17 4095",)),
            (" what is the complete image? caption: A red cup" + " x" * 61,),
            "<code_17> <code_4095>",
        ),
        (Sample("1", "infill_image", (IMAGE,)), (HIDDEN, " what is the image in the middle part?"), ""),
    ],
)
def test_wording(sample, prompt, target):
    posed = pose(sample)
    assert posed == TASKS[sample.task].pose(sample)
    assert posed.prompt == prompt
    assert [isinstance(part, Symbols) for part in posed.prompt] == [part in (MASK, BINS) for part in prompt]
    assert posed.target == target
    parts = (posed.target,) if isinstance(posed.target, str) else posed.target
    assert [isinstance(part, Symbols) for part in parts if part] == [part.startswith("<") for part in parts if part]
    assert not posed.echo


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


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample("1", "infill", (), "no gap here"), "sample 1: text: has no <mask>"),
        (Sample("1", "answer_matching", (IMAGE,), "what colour is it"), "text: has no answer after a question mark"),
        (Sample("1", "answer_matching", (IMAGE,), "what colour is it? "), "text: has no answer after a question mark"),
        (Sample("1", "detect", (IMAGE,), targets=("cup 0 0 1",)), "target: 'cup 0 0 1' is not an object"),
        (Sample("1", "detect", (IMAGE,), targets=("cup 10 10 20 20",)), "is not an object; expected a label and"),
        (Sample("1", "detect", (IMAGE,), targets=("cup 0.5 0 0.1 1",)), "is not an object"),
        (Sample("1", "generate_image", (), "a cup", ("3 x",)), "target: 'x' is not an image code"),
        (Sample("1", "generate_image"), "task 'generate_image' needs a description"),
        (Sample("1", "infill_image", (AUDIO,)), "image: task 'infill_image' needs one"),
    ],
)
def test_what_cannot_be_posed(sample, message):
    with pytest.raises(InputError, match=message) as caught:
        pose(sample)
    assert "\n" not in str(caught.value)


# --- gaps -------------------------------------------------------------------------------------------------------------

WORDS = [f"w{index}" for index in range(200)]


def test_a_raw_row_gets_other_gaps_each_time():
    text = " ".join(WORDS)
    rows = [Sample(name, "infill", (), text, (text,)) for name in "ab"]
    seen = {pose(row, variant=variant).prompt for row in rows for variant in (0, 1, -1)}
    assert len(seen) == 6
    assert pose(rows[0], variant=1) == pose(rows[0], variant=1)
    assert all(pose(row, variant=variant).target == " " + text for row in rows for variant in (0, 1))
    marked = Sample("1", "infill", (), "a <mask>", ("a b",))
    assert pose(marked, variant=3) == pose(marked), "gaps that a row has stay"


@given(st.integers(0, 60), st.integers(0, 10**6))
def test_gaps_hide_words_and_keep_the_others_in_order(count, seed):
    words = WORDS[:count]
    gapped = make_gaps(words, np.random.default_rng(seed))
    left = [word for word in gapped if word != GAP]
    assert left == [word for word in words if word in set(left)]
    assert count - len(left) <= -(-count * 3 // 10), "never more than its share"
    assert (GAP in gapped) == (count > 0)


def test_a_third_of_the_words_in_spans_of_three():
    """Overlaps and the end of the text take a little off; BART's Poisson(3) has e^-3 spans of no words."""
    rng = np.random.default_rng(0)
    made = [make_gaps(WORDS, rng) for _ in range(300)]
    hidden = np.mean([len(WORDS) - sum(word != GAP for word in gapped) for gapped in made])
    gaps = np.mean([gapped.count(GAP) for gapped in made])
    assert 0.24 < hidden / len(WORDS) < 0.3
    assert 15 < gaps < 22, "60 words in spans of 3"
    assert make_gaps(WORDS, rng, ratio=0) == WORDS
    assert all(len(make_gaps(WORDS[:10], rng, ratio=1, span=100)) <= 10 for _ in range(20))

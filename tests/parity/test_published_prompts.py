"""The published wording, and what the decoder is given and asked, as section 3 of the published model's arithmetic has them."""

from __future__ import annotations

import numpy as np
import pytest
from small import square, tiny_config

from monoglot.data.prepare import Preparer
from monoglot.nouns import Media, Sample
from monoglot.store import BUNDLED, read_config
from monoglot.tasks import pose
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import BOS, EOS, PAD

IMAGE, AUDIO, VIDEO = (Media(name, f"a.{name}") for name in ("image", "audio", "video"))
PRE, FINE = "unival_pretraining", "unival_finetuning"
SAID = "A man-made <person> / Thing, here."
LONG = " ".join(f"W{index}" for index in range(100))
CUT = " ".join(f"w{index}" for index in range(100))


def words(count: int) -> str:
    return " ".join(CUT.split()[:count])


@pytest.mark.parametrize(
    ("wordings", "sample", "prompt", "target"),
    [
        ([PRE], Sample("1", "caption", (IMAGE,), targets=(SAID,)), " what does the image describe?", " a man made person thing, here."),
        ([FINE], Sample("1", "caption", (IMAGE,), targets=(SAID,)), " what does the image describe?", " A manmade person Thing here"),
        ([PRE], Sample("1", "caption", (VIDEO,), targets=(LONG,)), " what does the video describe?", f" {words(30)}"),
        ([FINE], Sample("1", "caption", (VIDEO,), targets=(CUT,)), " what does the video describe?", f" {words(20)}"),
        ([PRE], Sample("1", "caption", (AUDIO,)), " what does the audio describe?", ""),
        ([FINE], Sample("1", "caption", (AUDIO,)), " what does the video describe?", ""),
        ([PRE], Sample("1", "vqa", (IMAGE,), "What/which colour", ("red",)), " what which colour", " red"),
        ([FINE], Sample("1", "vqa", (VIDEO,), "What/which colour", ("Red",)), " what which colour?", " Red"),
        ([FINE], Sample("1", "vqa", (IMAGE,), "?*What colour?"), " what colour?", ""),
        ([FINE], Sample("1", "vqa", (IMAGE,), LONG), f" {words(80)}?", ""),
        ([PRE, FINE], Sample("1", "matching", (IMAGE,), SAID, ("yes",)), ' does the image describe " a man made person thing, here. "?', " yes"),
        ([PRE, FINE], Sample("1", "matching", (VIDEO,), "a cup", ("no",)), ' does the video describe " a cup "?', " no"),
        ([PRE, FINE], Sample("1", "matching", (AUDIO,), "a cup"), ' does the audio describe " a cup "?', ""),
        ([PRE, FINE], Sample("1", "answer_matching", (IMAGE,), "Is it red? yes", ("no",)),
         ' what is the answer to question " is it red? ". is " yes "?', " no"),
        ([PRE, FINE], Sample("1", "grounding", (IMAGE,), "The Cup", box=(0, 0.25, 0.5, 1)),
         ' which region does the text " the cup " describe?', "<bin_0> <bin_250> <bin_500> <bin_999>"),
        ([PRE, FINE], Sample("1", "region_caption", (IMAGE,), targets=("The cup",), box=(0, 0.25, 0.5, 1)),
         "  what does the region describe? region:", " the cup"),
        ([PRE, FINE], Sample("1", "entailment", (IMAGE,), "It is Red.", ("maybe",)), ' does the image describe " it is red. "?', " maybe"),
        ([PRE, FINE], Sample("1", "generate_image", (), "A Red-white cup", ("3 0",)),
         " what is the complete image? caption: A Red-white cup", "<code_3> <code_0>"),
        ([PRE, FINE], Sample("1", "infill_image", (IMAGE,)), " what is the image in the middle part?", ""),
        ([PRE, FINE], Sample("1", "detect", (IMAGE,), targets=("Cup 0 0.25 0.5 1",)),
         " what are the objects in the image?", ("<bin_0> <bin_250> <bin_500> <bin_999>", " Cup")),
    ],
)  # fmt: skip
def test_published_wording(wordings, sample, prompt, target):
    for wording in wordings:
        posed = pose(sample, wording)
        assert next(part for part in posed.prompt if isinstance(part, str)) == prompt
        assert posed.target == target
        assert posed.echo == (wording == FINE and sample.task in ("vqa", "entailment"))


def test_other_tasks_are_worded_the_same():
    for sample in (
        Sample("1", "name", (IMAGE,), targets=("Cup",)),
        Sample("1", "transcribe", (AUDIO,), targets=("Hello.",)),
        Sample("1", "summarize", (), "A Text"),
        Sample("1", "infill", (), "A <mask> Text", ("A long Text",)),
        Sample("1", "classify", (AUDIO,), choices=("A", "b")),
    ):
        assert pose(sample) == pose(sample, PRE) == pose(sample, FINE)


def test_masked_text_stands_before_the_last_two_tokens():
    """Section 3 says it in GPT-2's tokens: the masked text comes before the last two of ` what is the complete text of " "?`."""
    nano = BUNDLED / "nano"
    if not (nano / "tokenizer.json").is_file():
        pytest.skip("the bundled model is not there yet: src/monoglot/assets/nano")
    gpt2 = Tokenizer.load(nano / "tokenizer.json", read_config(nano).vocabulary)
    frame = gpt2.encode(' what is the complete text of " "?').tolist()
    inside = [*gpt2.encode(" the big").tolist(), gpt2.vocabulary.mask, *gpt2.encode(" cup, red").tolist()]
    posed = pose(Sample("1", "infill", (), "the big <mask> cup, red"))
    ids = [token for part in posed.prompt for token in gpt2.encode(part).tolist()]
    assert ids == [*frame[:-2], *inside, *frame[-2:]]


# --- the decoder's prompt ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["vqa", "entailment"])
def test_the_decoder_reads_the_question_first(tokenizer, task):
    """`prev_output`: the decoder reads [bos, question, answer]; what is before the answer is no target."""
    picture = Media("image", square((220, 20, 20)))
    preparer = Preparer(tokenizer, tiny_config(wording=FINE))
    asked = Sample("1", task, (picture,), "is it", ("maybe",))
    other = Sample("2", "caption", (picture,), targets=("red",))
    batch = preparer.collate([preparer.example(asked), preparer.example(other)])
    question = ' does the image describe " is it "?' if task == "entailment" else " is it?"
    said, answer = tokenizer.encode(question).tolist(), tokenizer.encode(" maybe").tolist()
    assert [BOS, *said, EOS] == [token for token in batch.source_ids[0].tolist() if token != PAD]
    row_in, row_out, valid = batch.target_in[0], batch.target_out[0], batch.target_valid[0]
    length = len(said) + len(answer) + 1
    assert row_in[:length].tolist() == [BOS, *said, *answer]
    assert row_out[:length].tolist() == [PAD] * len(said) + [*answer, EOS]
    assert valid[:length].tolist() == [False] * len(said) + [True] * (len(answer) + 1)
    assert not valid[length:].any()
    red = tokenizer.encode(" red").tolist()
    assert batch.target_out[1][: len(red) + 1].tolist() == [*red, EOS]
    assert batch.target_valid[1].sum() == len(red) + 1
    assert batch.code_rows is None


def test_codes_fill_the_grid_and_are_marked(tokenizer):
    preparer = Preparer(tokenizer, tiny_config())
    codes = np.arange(16) % 16
    drawn = preparer.example(Sample("1", "generate_image", (), "the red", (" ".join(map(str, codes)),)))
    text = preparer.example(Sample("2", "summarize", (), "the red", ("red",)))
    batch = preparer.collate([drawn, text])
    assert batch.code_rows.tolist() == [True, False]
    assert batch.target_out[0].tolist() == [tokenizer.vocabulary.code(int(code)) for code in codes] + [EOS]
    assert preparer.collate([text]).code_rows is None

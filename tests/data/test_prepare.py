"""From a sample to numbers: posed by its task, media read, laid out."""

from __future__ import annotations

import numpy as np
import pytest
from small import square, tiny_config

from monoglot.data.prepare import Preparer
from monoglot.errors import InputError, MediaError
from monoglot.modalities import Grid
from monoglot.nouns import Media, Sample
from monoglot.text.vocabulary import BOS, EOS, PAD

RED = Media("image", square((220, 20, 20)))
TONE = Media("audio", (np.sin(np.arange(3000) / 9).astype(np.float32), 16_000))


@pytest.fixture
def preparer(tokenizer):
    return Preparer(tokenizer, tiny_config())


def test_a_sample_becomes_an_example(preparer, tokenizer):
    sample = Sample("1", "vqa", (RED, TONE), "what?", ("red", "blue"), weight=2.0)
    example = preparer.example(sample)
    assert example.sample is sample
    assert example.grids == (Grid(1, 2, 2), Grid(10, 1, 1))
    ids = example.sequence.source_ids.tolist()
    assert ids == [PAD] * 14 + [BOS, *tokenizer.encode(" what?").tolist(), EOS]
    assert example.sequence.target_ids.tolist() == [*tokenizer.encode(" red").tolist(), EOS]
    assert example.sequence.weight == 2.0
    assert [item.shape for item in example.sequence.media] == [(3, 64, 64), (3200,)]


def test_without_target(preparer):
    sample = Sample("1", "grounding", (RED,), "it", box=(0, 0, 1, 1))
    assert len(preparer.example(sample).sequence.target_ids) == 5
    bare = preparer.example(sample, with_target=False)
    assert len(bare.sequence.target_ids) == 0
    assert bare.posed.writes == "box"
    assert bare.sequence.source_ids.tolist() == preparer.example(sample).sequence.source_ids.tolist()


def test_variants_are_other_copies(preparer):
    sample = Sample("1", "name", (RED,))
    plain, copy = (preparer.example(sample, variant=variant).sequence.media[0] for variant in (0, 1))
    assert not np.array_equal(plain, copy)


def test_a_batch_of_many_kinds(preparer):
    samples = [Sample("1", "name", (RED,)), Sample("2", "transcribe", (TONE,)), Sample("3", "summarize", (), "the red")]
    batch = preparer.collate([preparer.example(sample) for sample in samples])
    assert set(batch.media) == {"image", "audio"}
    assert (batch.media["image"].rows, batch.media["audio"].rows) == ([0], [1])
    assert len(batch) == 3


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        (Sample("1", "nmae", (RED,)), InputError, "no task named 'nmae'; closest: 'name'"),
        (Sample("1", "name", (Media("smell", "a"),)), InputError, "smell: this model does not read it"),
        (Sample("1", "vqa", (RED, Media("smell", "a")), "x"), InputError, "sample 1: smell: this model does not read it; it reads: image, video, audio"),
        (Sample("1", "name", (Media("image", "absent.png"),)), MediaError, "absent.png"),
        (Sample("1", "vqa", (RED,), where="rows.jsonl:4"), InputError, "^rows.jsonl:4: text: "),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared(preparer, sample, error, message):
    with pytest.raises(error, match=message):
        preparer.example(sample)

"""The least that work can take: by hand for a model of four numbers a state, and against what torch counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import square, tiny_model, tiny_tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from monoglot.bench.limit import (
    Asked,
    Rates,
    Work,
    measure_rates,
    media_of,
    media_work,
    step_weights,
    transformer_work,
    weight_bytes,
)
from monoglot.data.prepare import Preparer
from monoglot.model.config import BASE, ModelConfig
from monoglot.model.layers import Cache
from monoglot.nouns import Media, Sample
from monoglot.text.vocabulary import Vocabulary


@pytest.fixture
def four() -> ModelConfig:
    """D 4, F 8, two layers of each kind, V 4 + 5 + 1 + 0 + 2 = 12."""
    sizes = {"width": 4, "ffn": 8, "heads": 2, "encoder_layers": 2, "decoder_layers": 2}
    return ModelConfig(**sizes, vocabulary=Vocabulary(num_words=5, num_codes=0, num_bins=2), positions="added")


def test_by_hand(four):
    # A layer of the encoder: q, k, v, out 4 x 4 each, up and down 4 x 8: 128 weights. Three places: 3 x 128 products, and 2 x 3 x 3 x 4 between places.
    work = transformer_work(four, Asked(places=3, media=((2, 6),), steps=2, beam=5), size=4)
    connector = 6 * 4
    assert work["encode"] == Work(2 * (2 * (3 * 128 + 72) + 2 * connector), 4 * (2 * 128 + connector))
    # Keys and values of three places in two layers: 2 x 4 x 4 weights each.
    assert work["cross"] == Work(2 * 2 * 3 * 32, 4 * 2 * 32)
    # A step: own q, k, v, out and the source's q, out, 6 x 16, up and down 64, twice; 12 words x 4.
    weights = 2 * (96 + 64) + 48
    assert step_weights(four) == weights
    first = 1 * (weights + 2 * 2 * (1 + 3) * 4)  # one beam sees one token and three places, in two layers, twice
    second = 5 * (weights + 2 * 2 * (2 + 3) * 4)
    read = (
        2 * weights + 2 * 2 * 4 * (3 + 1) + 2 * 2 * 4 * (3 + 5 * 2)
    )  # keys and values of the source once, of each beam's past
    assert work["steps"] == Work(2 * (first + second), 4 * read)


def test_the_published_decoder_reads_95_million_weights_a_step():
    assert step_weights(BASE) == pytest.approx(95.2e6, rel=1e-3)


@pytest.mark.parametrize("positions", ["added", "untied"])
def test_against_torch(positions):
    model = tiny_model(positions, encoders=True)
    c, preparer = model.config, Preparer(tiny_tokenizer(), model.config)
    picture = Media("image", square((200, 0, 0)))
    sample = Sample("1", "vqa", (picture,), "what is red and blue?")
    batch = preparer.collate([preparer.example(sample)])
    places = batch.source_ids.shape[1]
    asked = Asked(places, tuple(media_of(batch, model)), steps=1)
    work = transformer_work(c, asked, size=4)

    def counted(run):
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            made = run()
        return counter.get_total_flops(), made

    flops, features = counted(lambda: model.encode_media(batch.media))
    assert media_work(model, batch, 4).operations == flops > 0
    flops, memory = counted(lambda: model.encode(batch, features))
    assert flops == work["encode"].operations
    start = torch.tensor([c.start[:1]])
    flops, _ = counted(lambda: model.logits(model.decode(start, memory, cache=Cache())))
    # Left out: biases among the tokens written so far, and queries of the bias over the source; they are the same for all sources.
    made_ahead = 2 * (3 * c.width**2 + c.width) if positions == "untied" else 0
    assert flops - made_ahead == work["cross"].operations + work["steps"].operations


def test_rows_and_beams_share_weights(four):
    one = transformer_work(four, Asked(3, (), steps=4), 2)
    many = transformer_work(four, Asked(3, (), steps=4, rows=8), 2)
    for part in ("encode", "cross", "steps"):
        assert many[part].operations == 8 * one[part].operations
    assert many["encode"].bytes == one["encode"].bytes
    assert many["steps"].bytes < 8 * one["steps"].bytes
    wide = transformer_work(four, Asked(3, (), steps=4, beam=5), 2)
    assert one["steps"].bytes < wide["steps"].bytes < many["steps"].bytes


def test_rates_are_of_this_machine():
    rates = measure_rates("float32", 1 << 20, seconds=0.01)
    assert 1e8 < rates.operations < 1e15
    assert 1e7 < rates.bytes < 1e14
    assert Rates(10.0, 1e9).seconds(Work(20.0, 8.0)) == 2.0
    assert np.isfinite(measure_rates("bfloat16", 0, seconds=0.01).operations)


def test_weights_that_16_bits_hold():
    model = tiny_model()
    assert weight_bytes(model, "float32") == 4
    model.bfloat16().float()
    assert [weight_bytes(model, name) for name in ("float32", "bfloat16", "int8")] == [2, 2, 1]
    c, asked = model.config, Asked(3, (), steps=1)
    full, half = transformer_work(c, asked, 4)["steps"], transformer_work(c, asked, 4, 2)["steps"]
    assert full.bytes - half.bytes == 2 * step_weights(c)

"""The two languages of names: every published entry has a meaning, and the way there leads back."""

from __future__ import annotations

import csv
import re

import pytest
import torch
from published_files import GOLDEN, tiny_state
from tiny import formula_weights, tiny_model

from monoglot.interop.fairseq import UNUSED
from monoglot.interop.published import our_name, published_names, to_published, transformer_from_published

with open(GOLDEN / "tiny_state_dict.tsv") as file:
    PUBLISHED = [row["name"] for row in csv.DictReader(file, delimiter="\t")]


@pytest.mark.parametrize("part", ["encoder.embed_images", "encoder.embed_videos", "encoder.embed_audios", ""])
def test_every_published_entry_is_named_or_explained(part):
    names = [name for name in PUBLISHED if (re.match(r"(encoder\.embed_\w+s)\.", name) or ["", ""])[1] == part]
    assert len(names) > 50
    for name in names:
        explained = any(re.fullmatch(pattern, name) for pattern, _ in UNUSED)
        assert our_name(name) or explained, name


def test_there_and_back():
    model, state = tiny_model(), formula_weights()
    again = to_published(transformer_from_published(state), model.config)
    assert {name for name in again if name in state} == {name for name in state if our_name(name)}
    assert all(torch.equal(again[name], state[name]) for name in again)


def test_an_entry_without_a_meaning():
    assert our_name("encoder.layers.0.adapter.weight") is None
    assert our_name("decoder.layers.0.attn_ln.weight") is None  # the decoder's is called self_attn_ln
    assert published_names("encoders_layers.0.kv.weight") == ()
    assert set(transformer_from_published(tiny_state("image"))) >= {
        "words.weight",
        "encoders.image.layer1.0.conv1.weight",
    }

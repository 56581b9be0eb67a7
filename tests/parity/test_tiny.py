"""The transformer against golden tensors of the published one (section 28.2 of its description)."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import CASES, GOLDEN, Case, tiny_model

from monoglot.data.collate import collate
from monoglot.model.layers import Cache
from monoglot.nouns import Sequence, Span
from monoglot.text.vocabulary import EOS, PAD


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_states_and_logits(model, name):
    case = Case(name)
    batch, stored = case.batch, case.tensors
    memory = model.encode(batch, model.encode_media(batch.media))
    for row, (expected, columns) in enumerate(case.aligned(stored["out.encoder_out"])):
        torch.testing.assert_close(memory.states[row, columns], expected, atol=1e-4, rtol=0)
        assert int(memory.valid[row].sum()) == len(expected)
    for row, (expected, columns) in enumerate(case.aligned(stored["out.position_embeddings"])):
        torch.testing.assert_close(memory.positions[row, columns], expected, atol=1e-4, rtol=0)
    logits = model.logits(model.decode(batch.target_in, memory, code_rows=batch.code_rows))
    valid = batch.target_valid
    torch.testing.assert_close(logits[valid], stored["out.logits"][valid], atol=1e-4, rtol=0)


@torch.no_grad()
def test_patches_left_out(model):
    """A picture of which five patches are kept, in a random order (section 15): their places go with them."""
    stored = load_file(GOLDEN.parent / "golden_preprocess" / "sampled5.safetensors")
    batch = Case("image_text").batch
    media, ids = batch.media["image"], Case("image_text").tensors["in.src_tokens"]
    sequences = []
    for row, kept in enumerate(stored["patch_orders"].tolist()):
        media.grids[row] = media.grids[row]._replace(kept=tuple(kept))
        source = np.concatenate([np.full(5, PAD), ids[row][ids[row] != PAD].numpy()])
        sequences.append(Sequence(source, (Span("image", 0, 5),), (media.items[row],), np.array([EOS])))
    sampled = collate(sequences, [[grid] for grid in media.grids])
    memory = model.encode(sampled, model.encode_media(sampled.media))
    valid = memory.valid
    assert valid.shape == stored["out.encoder_out"].shape[:2]
    torch.testing.assert_close(memory.states[valid], stored["out.encoder_out"][valid], atol=1e-4, rtol=0)
    torch.testing.assert_close(memory.positions[valid], stored["out.position_embeddings"][valid], atol=1e-4, rtol=0)
    rng = random.Random(0)
    whole = media.grids[0].rows * media.grids[0].cols
    assert [rng.sample(range(whole), 5) for _ in range(2)] == stored["patch_orders"].tolist()


@pytest.mark.parametrize("name", [case for case in CASES if case != "text_long"])
@torch.no_grad()
def test_step_by_step_decoding_is_the_same(model, name):
    batch = Case(name).batch
    memory = model.encode(batch, model.encode_media(batch.media))
    whole = model.decode(batch.target_in, memory, code_rows=batch.code_rows)
    cache = Cache()
    steps = [
        model.decode(batch.target_in[:, t : t + 1], memory, code_rows=batch.code_rows, cache=cache)
        for t in range(whole.shape[1])
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=0)


def test_gradients_have_the_stored_norms(model):
    expected = json.loads((GOLDEN / "losses_and_misc.json").read_text())[
        "grad_norms_image_text_eps0.1_sumloss_evalmode"
    ]
    batch = Case("image_text").batch
    from monoglot.train.losses import token_losses

    model.zero_grad()
    losses = token_losses(model(batch)[batch.target_valid], batch.target_out[batch.target_valid], smoothing=0.1)
    losses.sum().backward()
    from monoglot.interop.published import our_name

    checked = 0
    for published, norm in expected.items():
        ours = our_name(published)
        parameters = dict(model.named_parameters())
        if ours in parameters and parameters[ours].grad is not None:
            assert parameters[ours].grad.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-5), published
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@torch.no_grad()
def test_losses(model, name, smoothing):
    from monoglot.train.losses import token_losses

    expected = json.loads((GOLDEN / "losses_and_misc.json").read_text())[name]["losses"][f"ce_eps{smoothing}"]
    batch = Case(name).batch
    losses = token_losses(model(batch)[batch.target_valid], batch.target_out[batch.target_valid], smoothing=smoothing)
    assert len(losses) == expected["sample_size"]
    assert losses.double().mean().item() == pytest.approx(expected["loss"] / expected["sample_size"], abs=1e-5)

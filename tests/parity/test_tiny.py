"""The transformer against golden tensors of the published one (section 28.2 of its description)."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from record import REFERENCE, agree
from safetensors.torch import load_file
from tiny import CASES, GOLDEN, Case, tiny_model

from monoglot.data.collate import collate
from monoglot.interop.published import our_name
from monoglot.model.layers import Cache
from monoglot.nouns import Sequence, Span
from monoglot.text.vocabulary import EOS, PAD
from monoglot.train.losses import token_losses

STORED = json.loads((GOLDEN / "losses_and_misc.json").read_text())
STATES = LOGITS = 1e-4


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_states_and_logits(model, name):
    states_and_logits(model, f"tiny/{name}", Case(name))


def states_and_logits(model, where, case):
    batch, stored = case.batch, case.tensors
    memory = model.encode(batch, model.encode_media(batch.media))
    for row, (expected, columns) in enumerate(case.aligned(stored["out.encoder_out"])):
        agree(where, "encoder output", memory.states[row, columns], expected, STATES)
        agree(where, "valid places", int(memory.valid[row].sum()), len(expected))
    for row, (expected, columns) in enumerate(case.aligned(stored["out.position_embeddings"])):
        agree(where, "position embeddings", memory.positions[row, columns], expected, STATES)
    logits = model.logits(model.decode(batch.target_in, memory, code_rows=batch.code_rows))
    valid = batch.target_valid
    agree(where, "logits", logits[valid], stored["out.logits"][valid], LOGITS)


@pytest.mark.parametrize(
    ("name", "types", "videos"),
    [("quirk_mixed_audio_video_video", [1, 2, 1], [1, 0]), ("quirk_mixed_image_video", [0, 0], [0])],
)
@torch.no_grad()
def test_mixed_batches_of_the_published_model_once_its_mistake_is_made(model, name, types, videos):
    """It gives rows the clips of other rows (section 15). We don't; given the rows it confuses, we say what it says."""
    file = REFERENCE / "tiny" / f"case_{name}.safetensors"
    if not file.is_file():
        pytest.skip("golden tensors too large for the repository: tiny/case_quirk_*")
    tensors = load_file(file)
    tensors["in.patch_types"] = torch.tensor(types)
    tensors["mid.video_features"] = tensors["mid.video_features"][videos]
    states_and_logits(model, f"tiny/{name}", Case(name, tensors))


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
    case = "tiny/image_text_sampled5"
    agree(case, "encoder output", memory.states[valid], stored["out.encoder_out"][valid], STATES)
    agree(case, "position embeddings", memory.positions[valid], stored["out.position_embeddings"][valid], STATES)
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
    batch = Case("image_text").batch
    model.zero_grad()
    losses = token_losses(model(batch)[batch.target_valid], batch.target_out[batch.target_valid], smoothing=0.1)
    losses.sum().backward()
    ours = {name: weight.grad.norm() for name, weight in model.named_parameters() if weight.grad is not None}
    stored = STORED["grad_norms_image_text_eps0.1_sumloss_evalmode"]
    # Some entries go by another name here (keys and values are one matrix), and so does a sum of two parts' gradients.
    pairs = [(ours[our_name(name)], norm) for name, norm in stored.items() if our_name(name) in ours]
    large = [(mine, norm) for mine, norm in pairs if norm > 0.1]
    small = [(mine, norm) for mine, norm in pairs if norm <= 0.1]
    assert len(large) >= 80
    where = "tiny/gradients of image_text"
    agree(where, "norms above 0.1", *map(torch.tensor, zip(*large)), 1e-4, relative=True)
    if small:
        agree(where, "norms up to 0.1", *map(torch.tensor, zip(*small)), 1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@torch.no_grad()
def test_losses(model, name, smoothing):
    expected = STORED[name]["losses"][f"ce_eps{smoothing}"]
    batch = Case(name).batch
    losses = token_losses(model(batch)[batch.target_valid], batch.target_out[batch.target_valid], smoothing=smoothing)
    agree(f"tiny/{name}", "tokens in the loss", len(losses), expected["sample_size"])
    mean = losses.double().mean().item()
    what = f"mean loss of a token, smoothing {smoothing}"
    agree(f"tiny/{name}", what, mean, expected["loss"] / expected["sample_size"], 1e-5)

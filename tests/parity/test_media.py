"""Reading pictures, clips and sounds against what the published model's reader made of them (sections 5 to 7 and 28.4)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import wave64
from PIL import Image
from record import agree
from safetensors.torch import load_file

from monoglot.modalities import audio, image, video
from monoglot.modalities.audio import AudioConfig, filled, resample, to_sixteen_bits
from monoglot.modalities.image import ImageConfig
from monoglot.modalities.networks.parts import normalised
from monoglot.modalities.video import VideoConfig, as_square, drawn_frames
from monoglot.nouns import Media

FOLDER = Path(__file__).parent / "golden_preprocess"
STORED = load_file(FOLDER / "media.safetensors")
JSON = json.loads((FOLDER / "media.json").read_text())
PICTURE = str(FOLDER / "synthetic_200x150.png")


@pytest.mark.parametrize("published", [False, True])
def test_pictures(published):
    config = ImageConfig(encoder="resnet101", size=64, published=published)
    pixels = image.prepare(Media("image", PICTURE), config)
    case = "preprocess/image" + ", published" * published
    agree(case, "pixels, of 255", pixels / 255, STORED["image.64"].numpy() / 255, 1 / 255)
    rows = normalised(torch.from_numpy(pixels), torch.float32)[:, :8]
    agree(case, "normalised pixels", rows, STORED["image.64_normalised"], 2 / 255 + 1e-6)
    referred = image.prepare(Media("image", PICTURE), config.model_copy(update={"size": 512}))[:, ::4, ::4]
    agree(case, "pixels for boxes, of 255", referred / 255, STORED["image.refcoco"].numpy() / 255, 1 / 255)


@pytest.mark.parametrize("size", [48, 72])  # frames are 60 high: less, and more than there is
def test_frames_are_cut_out_of_the_middle(size):
    config = VideoConfig(encoder="resnext101_3d", published=True).model_copy(update={"size": size})
    frames = STORED["video.frames"].permute(0, 2, 3, 1).numpy()
    cut = np.stack([np.asarray(as_square(Image.fromarray(frame), config)) for frame in frames])
    agree("preprocess/video", f"frames cut to {size}", cut.transpose(3, 0, 1, 2), STORED[f"video.cut_{size}"].numpy())


@pytest.mark.parametrize("case", JSON["frame_indices"])
def test_frames_are_drawn_as_after_seed_0(case):
    drawn = drawn_frames(case["vlen"], case["num_frames"])
    agree("preprocess/video", f"{case['num_frames']} of {case['vlen']} frames drawn", drawn, case["rand_seed0"])


def test_frames_by_default_are_those_of_the_middle_give_or_take_one():
    for case in JSON["frame_indices"]:
        if case["vlen"] >= 2 * case["num_frames"]:
            ours = video.centres(0, case["vlen"], case["num_frames"]).astype(int)
            assert np.abs(ours - case["middle"]).max() <= 1


@pytest.mark.parametrize("case", JSON["audio_padding"])
def test_short_sounds_are_repeated_and_long_ones_cut_at_random(case):
    config = AudioConfig(encoder="cnn14", published=True, sixteen_bits=False).model_copy(
        update={"max_seconds": case["max_len"] / 48_000, "pad_seconds": case["max_len"] / 48_000}
    )
    samples = np.arange(1, case["input_len"] + 1, dtype=np.float32)
    if not case["longer"]:
        assert filled(samples, config).tolist() == case["out"]
    item = audio.prepare(Media("audio", (samples / 100, 48_000)), config)
    agree(
        "preprocess/audio",
        f"{case['input_len']} samples to {case['max_len']}",
        item * 100,
        np.array(case["out"], np.float32),
        1e-5,
    )


def test_sixteen_bits():
    np.testing.assert_array_equal(
        to_sixteen_bits(wave64(24_000, 1)), STORED["audio.int16"].numpy().astype(np.float32) / np.float32(32767)
    )


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100])
def test_resampling_is_as_good(rate):
    """Another resampler than the published option's, on purpose: away from the ends they are 60 dB alike."""
    ours = resample(STORED[f"audio.from_{rate}"].numpy(), rate, 48_000)
    theirs = STORED[f"audio.{rate}_to_48000"].numpy()
    assert len(ours) == len(theirs)
    assert np.abs(ours - theirs)[300:-300].max() < 1e-3 * np.abs(theirs).max()

"""The published encoders against golden tensors (sections 14 and 28), by maps, by log-mel, by statistics inside; and their names."""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from formula import COMPUTED, PREFIXES, fill, reference, uniform, wave
from record import agree
from safetensors.torch import load_file
from tiny import GOLDEN

from monoglot.modalities import MODALITIES
from monoglot.modalities.audio import AudioConfig, mel_filters
from monoglot.modalities.networks.cnn14 import HIGHEST_HZ, LOWEST_HZ, MELS, N_FFT, Cnn14, shown
from monoglot.modalities.networks.resnet import BLOCKS, ResNet
from monoglot.modalities.networks.resnext3d import ResNeXt3D
from monoglot.store import SkipInit

PREPROCESS = Path(__file__).parent / "golden_preprocess"
ONE_EACH = (1, 1, 1, 1)


def cnn14(hop: int) -> Cnn14:
    return Cnn14(mel_filters(48_000, N_FFT, MELS, LOWEST_HZ, HIGHEST_HZ), hop)


def build(kind: str, blocks: tuple[int, ...], hop: int) -> ResNet | ResNeXt3D | Cnn14:
    with SkipInit():
        return {"image": lambda: ResNet(blocks), "video": lambda: ResNeXt3D(blocks), "audio": lambda: cnn14(hop)}[
            kind
        ]()


@lru_cache
def filled(kind: str, blocks: tuple[int, ...]) -> ResNet | ResNeXt3D | Cnn14:
    """A network with its weights by formula, made once."""
    return fill(build(kind, blocks, 200), kind)


def ear(hop: int) -> Cnn14:
    network = filled("audio", ())
    network.hop = hop
    return network.eval()


@pytest.fixture(scope="module", autouse=True)
def forget():
    yield
    filled.cache_clear()


@pytest.fixture(scope="module")
def golden():
    return load_file(PREPROCESS / "networks.safetensors")


@pytest.fixture(scope="module")
def stats():
    return json.loads((PREPROCESS / "media.json").read_text())["module_stats"]


def close(case: str, what: str, found: torch.Tensor, expected: torch.Tensor, bound: float = 1e-5) -> None:
    """Within the bound, of the value where it is above 1: sums of thousands of products depend on their order that much."""
    size = expected.abs().clamp(min=1)
    agree(case, f"{what}, of the value above 1", found / size, expected / size, bound)


SOUNDS = 3e-5
"""Bound of what CNN14 says: even from the stored log-mel its rounding alone is above 1e-5 on some processors."""


INPUTS = {
    "case_image_text": ("image", lambda: uniform("image_text/patch_images", (2, 3, 96, 128), -1, 1)),
    "case_grounding": ("image", lambda: uniform("grounding/patch_images", (2, 3, 64, 64), -1, 1)),
    "case_video_text": ("video", lambda: uniform("video_text/patch_videos", (2, 3, 32, 64, 96), -1, 1)),
    "case_audio_text": ("audio", lambda: torch.stack([wave(100_000, 0), wave(100_000, 1)])),
}


@pytest.mark.parametrize("case", INPUTS)
@torch.no_grad()
def test_one_block_a_stage(case):
    kind, make = INPUTS[case]
    expected = load_file(GOLDEN / f"{case}.safetensors")[f"mid.{kind}_features"]
    network = ear(480) if kind == "audio" else filled(kind, ONE_EACH)
    found = network.maps(make())
    close(
        f"tiny/{case.removeprefix('case_')}", f"{kind} features", found, expected, SOUNDS if kind == "audio" else 1e-5
    )


@torch.no_grad()
def test_pictures_at_full_depth(golden):
    found = filled("image", BLOCKS[101]).maps(uniform("module/image", (1, 3, 64, 96), -1, 1))
    close("full/modules/image", "features", found, golden["image.out"])


@pytest.mark.parametrize(("frames", "side"), [(8, 64), (16, 64), (3, 48)])
@torch.no_grad()
def test_clips_at_full_depth(golden, frames, side):
    found = filled("video", BLOCKS[101]).maps(
        uniform(f"module/video{frames}x{side}", (1, 3, frames, side, side), -1, 1)
    )
    close("full/modules/video", f"features of {frames} frames of {side}", found, golden[f"video{frames}x{side}.out"])


@torch.no_grad()
def test_sounds_at_full_depth(golden):
    sound = wave(48_000, 1)[None]
    agree("full/modules/audio", "log-mel, dB", ear(200).log_mel(sound)[0], golden["audio.logmel_hop200"], 1e-3)
    close("full/modules/audio", "features", ear(200).maps(sound), golden["audio.out"], SOUNDS)


@torch.no_grad()
def test_ofa_stops_a_stage_earlier(stats):
    three = build("image", BLOCKS[101][:3], 0)
    three.load_state_dict({name: filled("image", BLOCKS[101]).state_dict()[name] for name in three.state_dict()})
    found, expected = three.maps(uniform("module/image", (1, 3, 64, 96), -1, 1)), stats["image.layer3"]
    assert list(found.shape) == expected["shape"]
    assert found.double().mean().item() == pytest.approx(expected["mean"], abs=1e-5)
    assert found.flatten()[:4].tolist() == pytest.approx(expected["first4"], abs=1e-5)
    assert found.flatten()[-4:].tolist() == pytest.approx(expected["last4"], abs=1e-5)
    assert three.channels == 1024


@pytest.mark.parametrize(
    ("encoder", "millions"),
    # torchvision's counts of ResNet-50, 101, 152 without the classifier's 2,049,000
    [("resnet50", 23.508032), ("resnet101", 42.500160), ("resnet152", 58.143808)],
)
def test_sizes_are_those_that_are_known(encoder, millions):
    with torch.device("meta"):
        network = MODALITIES["image"].encoders[encoder](None)
        ofa = MODALITIES["image"].encoders[f"ofa_{encoder}"](None)
    assert sum(parameter.numel() for parameter in network.parameters()) == round(millions * 1e6)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items() if not name.startswith("layer4")}
    assert {name: tensor.shape for name, tensor in ofa.state_dict().items()} == shapes


def used(rows, prefix: str) -> dict[str, list[int]]:
    """Name without its prefix -> shape, for every entry that the encoders are said to take."""
    unused = ("fc.", "spectrogram_extractor.")
    entries = {
        row["name"].removeprefix(prefix): json.loads(row["shape"]) for row in rows if row["name"].startswith(prefix)
    }
    return {
        name: shape
        for name, shape in entries.items()
        if not name.startswith(unused) and not name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("kind", PREFIXES)
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_names_and_shapes_are_the_published_ones(kind, size):
    path = GOLDEN / "tiny_state_dict.tsv" if size == "tiny" else reference("state_dict_base.tsv")
    with open(path) as file:
        published = used(csv.DictReader(file, delimiter="\t"), PREFIXES[kind])
    with torch.device("meta"):
        network = build(kind, ONE_EACH if size == "tiny" else BLOCKS[101], 200)
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == published
    assert len(published) > 30


def test_a_checkpoint_brings_its_own_bands():
    """PANN's own weights hold bands made for 32 kHz; they count, not the ones built."""
    network = build("audio", (), 200)
    other = mel_filters(32_000, N_FFT, MELS, LOWEST_HZ, HIGHEST_HZ)
    state = network.state_dict() | {"logmel_extractor.melW": torch.from_numpy(other).T.contiguous()}
    before = network.log_mel(wave(24_000, 1)[None])
    network.load_state_dict(state)
    assert (network.log_mel(wave(24_000, 1)[None]) - before).abs().max() > 1
    assert COMPUTED[1] + "melW" not in dict(network.named_parameters())


@pytest.mark.parametrize("rate", [32_000, 48_000])
def test_bands_are_librosas(rate):
    stored = load_file(reference("preprocess/audio.safetensors"))[f"melW_{rate}"]
    bands = torch.from_numpy(mel_filters(rate, N_FFT, MELS, LOWEST_HZ, HIGHEST_HZ)).T
    agree("preprocess/audio", f"mel bands at {rate} Hz", bands, stored, 1e-7)


@pytest.mark.parametrize("hop", [200, 480])
def test_log_mel(hop):
    expected = load_file(PREPROCESS / "media.safetensors")[f"audio.logmel_hop{hop}"]
    found = build("audio", (), hop).log_mel(wave(24_000, 1)[None])[0]
    agree("preprocess/audio", f"log-mel with hop {hop}, dB", found, expected, 1e-3)


def test_training_hides_stripes_of_sounds_and_nothing_of_pictures():
    torch.manual_seed(0)
    mask = shown(200, 400, 64)
    hidden_frames, hidden_bands = (mask == 0).all(2).sum(1), (mask == 0).all(1).sum(1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert 100 < int(hidden_frames.max()) <= 126  # two of at most 63
    assert 10 < int(hidden_bands.max()) <= 14  # two of at most 7
    assert float(hidden_frames.float().mean()) == pytest.approx(2 * 31.5, rel=0.15)
    assert len({tuple(row) for row in hidden_frames[:, None].tolist()}) > 20
    assert shown(1, 32, 64).shape == (1, 32, 64)

    sound = [wave(20_000, 0)]
    hearing, eye = ear(480), filled("image", ONE_EACH)
    with torch.no_grad():
        still = hearing(sound)[0]
        assert torch.equal(hearing(sound)[0], still)
        assert not torch.equal(hearing.train()(sound)[0], still)
        picture = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)]
        seen = eye(picture)[0]
        assert torch.equal(eye.train()(picture)[0], seen)
    assert not any("num_batches_tracked" in name for name in eye.state_dict())


@pytest.mark.parametrize("kind", PREFIXES)
def test_fresh_ones_keep_numbers_in_range_and_learn(kind):
    torch.manual_seed(0)
    network = {
        "image": lambda: ResNet(BLOCKS[50]),
        "video": lambda: ResNeXt3D((3, 4, 6, 3)),
        "audio": lambda: cnn14(480),
    }[kind]()
    item = wave(20_000, 0) if kind == "audio" else torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    (features,) = network.eval()([item if kind != "video" else item.expand(4, 3, 64, 64)])
    assert 0.01 < features.std() < 10
    features.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_too_short_a_sound_says_so():
    with pytest.raises(ValueError, match=r"100 samples is too short; CNN14 needs 6200"):
        build("audio", (), 200)([torch.zeros(100)])
    assert MODALITIES["audio"].grid(torch.zeros(480_000), AudioConfig(encoder="cnn14")).length == 150

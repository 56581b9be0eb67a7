"""Networks: against the same arithmetic written out in numpy, alone against in company, tokens against the grid."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from monoglot.errors import InputError
from monoglot.modalities import MODALITIES
from monoglot.modalities.audio import AudioConfig, WhisperEncoder, load_whisper_encoder, log_mel, mel_filters, sinusoids
from monoglot.modalities.image import FINE_BLOCK, ImageConfig, Lite0Image, Lite0Trunk, load_lite0
from monoglot.modalities.video import Lite0Video, VideoConfig

SETTINGS = {
    "image": (ImageConfig(size=32), ImageConfig(size=64)),
    "video": (VideoConfig(size=32, frames=2), VideoConfig(size=32, frames=3)),
    "audio": (AudioConfig(max_seconds=1), AudioConfig(max_seconds=2)),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def item(name, config, seed):
    generator = torch.Generator().manual_seed(seed)
    if name == "audio":
        return torch.rand(int(config.max_seconds * config.rate), generator=generator) * 0.5 - 0.25
    shape = (3, config.size, config.size) if name == "image" else (config.frames, 3, config.size, config.size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module", params=["image", "video", "audio"])
def modality(request):
    return MODALITIES[request.param]


@pytest.fixture(scope="module")
def encoder(modality):
    torch.manual_seed(0)
    config = SETTINGS[modality.name][0]
    return modality.encoders[config.encoder](config).eval()


def test_an_item_is_not_changed_by_its_company(modality, encoder):
    small, large = SETTINGS[modality.name]
    items = [item(modality.name, config, seed) for seed, config in enumerate((small, large, small, small, large))]
    encoder.train()  # training mode changes nothing: norms use their running statistics
    with torch.inference_mode():
        together = encoder(items)
        alone = [encoder([one])[0] for one in items]
    for a, b, one in zip(together, alone, items):
        assert a.shape == b.shape == (modality.grid(one, small).length, encoder.channels)
        assert (a - b).abs().max() < 1e-5 * max(1, a.abs().max())
    assert (together[0] - together[2]).abs().max() > 1e-3


def test_fresh_encoders_keep_numbers_in_range(modality, encoder):
    with torch.inference_mode():
        features = encoder([item(modality.name, SETTINGS[modality.name][0], 0)])[0]
    assert torch.isfinite(features).all()
    assert 0.01 < features.std() < 10


def test_weights_are_float_parameters_that_learn(modality, encoder):
    features = encoder([item(modality.name, SETTINGS[modality.name][0], 0)])[0]
    features.square().mean().backward()
    grads = [parameter.grad for parameter in encoder.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    encoder.zero_grad()


# --- lite0


def published_state(seed=0):
    """A state dict with the published names and shapes, and numbers of the size that trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    state, before = {}, 32
    names = ["_conv_stem"]
    shapes = [(32, 3, 3, 3)]
    norms = [("_bn0", 32)]
    index = 0
    for repeats, kernel, expansion, after in (
        (1, 3, 1, 16),
        (2, 3, 6, 24),
        (2, 5, 6, 40),
        (3, 3, 6, 80),
        (3, 5, 6, 112),
        (4, 5, 6, 192),
        (1, 3, 6, 320),
    ):
        for _ in range(repeats):
            wide, prefix = before * expansion, f"_blocks.{index}."
            if expansion > 1:
                names.append(prefix + "_expand_conv")
                shapes.append((wide, before, 1, 1))
                norms.append((prefix + "_bn0", wide))
            names += [prefix + "_depthwise_conv", prefix + "_project_conv"]
            shapes += [(wide, 1, kernel, kernel), (after, wide, 1, 1)]
            norms += [(prefix + "_bn1", wide), (prefix + "_bn2", after)]
            before, index = after, index + 1
    names.append("_conv_head")
    shapes.append((1280, 320, 1, 1))
    norms.append(("_bn1", 1280))
    for name, shape in zip(names, shapes):
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
    for name, width in norms:
        state[f"{name}.weight"] = torch.rand(width, generator=generator) + 0.5
        state[f"{name}.bias"] = torch.randn(width, generator=generator) * 0.3
        state[f"{name}.running_mean"] = torch.randn(width, generator=generator) * 0.3
        state[f"{name}.running_var"] = torch.rand(width, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(0)
    return state


def same_padding(x, kernel, stride):
    """TensorFlow's rule: as many outputs as ceil(side / stride), the odd pixel of padding at the right and bottom."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def lite0_written_out(state, pixels):
    """The network as a list of operations on a flat state dict, in float64."""
    state = {name: value.double() for name, value in state.items()}

    def conv(x, name, norm, stride=1, relu=True):
        weight = state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(same_padding(x, weight.shape[2], stride), weight, stride=stride, groups=groups)
        mean, var, gamma, beta = (
            state[f"{norm}.{f}"][:, None, None] for f in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / torch.sqrt(var + 1e-3) * gamma + beta
        return x.clamp(0, 6) if relu else x

    x = conv((pixels.double() - 127) / 128, "_conv_stem", "_bn0", 2)
    fine = x
    for index in range(16):
        prefix, start = f"_blocks.{index}.", x
        if f"{prefix}_expand_conv.weight" in state:
            x = conv(x, prefix + "_expand_conv", prefix + "_bn0")
        x = conv(x, prefix + "_depthwise_conv", prefix + "_bn1", 2 if index in (1, 3, 5, 11) else 1)
        x = conv(x, prefix + "_project_conv", prefix + "_bn2", relu=False)
        x = x + start if x.shape == start.shape else x
        fine = x if index == FINE_BLOCK else fine
    return conv(x, "_conv_head", "_bn1"), fine


@pytest.fixture(scope="module")
def trunk_and_state():
    trunk = Lite0Trunk().eval()
    state = published_state()
    load_lite0(trunk, state | {"_fc.weight": torch.zeros(1000, 1280)})
    return trunk, state


def test_lite0_equals_the_network_written_out(trunk_and_state):
    trunk, state = trunk_and_state
    pixels = item("image", ImageConfig(size=64), 3)[None]
    with torch.inference_mode():
        coarse, fine = trunk.features(pixels)
        tokens = trunk(pixels)[0]
    expected_coarse, expected_fine = lite0_written_out(state, pixels)
    assert (coarse - expected_coarse).abs().max() < 1e-3  # activations go up to 6, through 52 layers in float32
    assert (fine - expected_fine).abs().max() < 1e-4 * expected_fine.abs().max()
    for row in range(2):
        for col in range(2):
            token = tokens[2 * row + col]
            assert torch.equal(token[:1280], coarse[0, :, row, col])
            cells = [fine[0, :, 2 * row + y, 2 * col + x] for y in (0, 1) for x in (0, 1)]
            assert torch.equal(token[1280:], torch.cat(cells))


def test_lite0_counts():
    assert sum(parameter.numel() for parameter in Lite0Trunk().parameters()) == 3_371_008
    assert Lite0Trunk.channels == 1728


def test_a_frame_is_seen_as_a_picture_is(trunk_and_state):
    trunk, _ = trunk_and_state
    image, video = Lite0Image(ImageConfig(size=64)), Lite0Video(VideoConfig(size=64, frames=3))
    assert image.shared == video.shared == ("trunk",)
    image.trunk = video.trunk = trunk
    clip = item("video", VideoConfig(size=64, frames=3), 1)
    with torch.inference_mode():
        by_frames = torch.cat(image(list(clip)))
        assert (video([clip])[0] - by_frames).abs().max() < 1e-4


def test_load_lite0_says_what_is_wrong(trunk_and_state):
    _, state = trunk_and_state
    missing = {name: value for name, value in state.items() if name != "_blocks.3._bn1.bias"}
    with pytest.raises(InputError, match=r"EfficientNet-Lite0 weights: _blocks\.3\._bn1\.bias: missing; give"):
        load_lite0(Lite0Trunk(), missing)
    with pytest.raises(InputError, match="size mismatch"):
        load_lite0(Lite0Trunk(), state | {"_bn0.bias": torch.zeros(3)})


# --- whisper


def test_mel_filters_are_the_known_ones():
    """By another route: the matrix column by column from its definition, and values that Whisper's own file has."""
    filters = mel_filters()

    def hertz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * math.log(8) / math.log(6.4)
    for band in range(80):
        left, centre, right = (hertz(top * (band + k) / 81) for k in range(3))
        for bin_ in range(201):
            frequency = bin_ * 40.0
            height = 2 / (right - left)
            expected = height * max(
                0.0, min((frequency - left) / (centre - left), (right - frequency) / (right - centre))
            )
            assert filters[band, bin_] == pytest.approx(expected, abs=1e-7)
    assert filters.shape == (80, 201)
    assert filters[0, 1] == pytest.approx(0.024862593, abs=1e-7)
    assert filters[0, 0] == 0


def log_mel_written_out(sound):
    """Frame by frame with numpy's FFT."""
    padded = np.pad(sound.astype(np.float64), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [padded[start : start + 400] * window for start in range(0, len(sound), 160)]
    power = np.abs(np.fft.rfft(np.stack(frames), axis=1)) ** 2
    bands = np.log10(np.maximum(mel_filters().astype(np.float64) @ power.T, 1e-10))
    return (np.maximum(bands, bands.max() - 8) + 4) / 4


def test_log_mel_equals_numpy():
    rng = np.random.default_rng(0)
    loud, quiet = rng.uniform(-1, 1, (2, 3200)).astype(np.float32) * [[1.0], [1e-3]]
    filters, hann = torch.from_numpy(mel_filters()), torch.hann_window(400)
    got = log_mel(torch.tensor(np.stack([loud, quiet]), dtype=torch.float32), filters, hann).numpy()
    assert got.shape == (2, 80, 20)
    for one, sound in zip(got, (loud, quiet)):
        assert np.abs(one - log_mel_written_out(sound)).max() < 1e-4
    silent = log_mel(torch.zeros(1, 3200), filters, hann)
    assert (silent == (-10 + 4) / 4).all()


def ctranslate2_arrays(width, layers, seed=0):
    rng = np.random.default_rng(seed)

    def array(*shape):
        return (rng.normal(size=shape) / math.sqrt(math.prod(shape[1:]) or 1)).astype(np.float16)

    arrays = {
        "encoder/conv1/weight": array(width, 80, 3),
        "encoder/conv1/bias": array(width) * 0.1,
        "encoder/conv2/weight": array(width, width, 3),
        "encoder/conv2/bias": array(width) * 0.1,
        "encoder/layer_norm/gamma": array(width),
    }
    for index in range(layers):
        prefix = f"encoder/layer_{index}/"
        for part in ("self_attention", "ffn"):
            arrays[prefix + part + "/layer_norm/gamma"] = 1 + 0.1 * array(width)
            arrays[prefix + part + "/layer_norm/beta"] = 0.1 * array(width)
        for name, shape in (
            ("self_attention/linear_0", (3 * width, width)),
            ("self_attention/linear_1", (width, width)),
            ("ffn/linear_0", (4 * width, width)),
            ("ffn/linear_1", (width, 4 * width)),
        ):
            arrays[f"{prefix}{name}/weight"] = array(*shape)
            arrays[f"{prefix}{name}/bias"] = 0.1 * array(shape[0])
        arrays[f"{prefix}self_attention/linear_0/bias"][width : 2 * width] = 0
    return arrays


def whisper_written_out(arrays, sound, width, layers, heads):
    """In numpy, float64, from the stacked arrays as they are."""
    a = {name: value.astype(np.float64) for name, value in arrays.items()}
    erf = np.vectorize(math.erf)

    def gelu(x):
        return x * 0.5 * (1 + erf(x / math.sqrt(2)))

    def conv(x, name, stride):  # x [channels, time]
        padded = np.pad(x, ((0, 0), (1, 1)))
        columns = [padded[:, t : t + 3].ravel() for t in range(0, x.shape[1], stride)]
        return (
            a[f"encoder/{name}/weight"].reshape(width, -1) @ np.stack(columns, 1) + a[f"encoder/{name}/bias"][:, None]
        )

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * a[f"{name}/layer_norm/gamma"] + a[f"{name}/layer_norm/beta"]

    def linear(x, name):
        return x @ a[f"{name}/weight"].T + a[f"{name}/bias"]

    x = gelu(conv(gelu(conv(log_mel_written_out(sound), "conv1", 1)), "conv2", 2)).T
    x = x + sinusoids(1500, width)[: len(x)].numpy()
    for index in range(layers):
        attention, ffn = f"encoder/layer_{index}/self_attention", f"encoder/layer_{index}/ffn"
        q, k, v = np.split(linear(norm(x, attention), f"{attention}/linear_0"), 3, axis=-1)
        outs = []
        for q_h, k_h, v_h in zip(*(np.split(part, heads, axis=-1) for part in (q, k, v))):
            scores = q_h @ k_h.T / math.sqrt(width // heads)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            outs.append(weights / weights.sum(-1, keepdims=True) @ v_h)
        x = x + linear(np.concatenate(outs, -1), f"{attention}/linear_1")
        x = x + linear(gelu(linear(norm(x, ffn), f"{ffn}/linear_0")), f"{ffn}/linear_1")
    return x


def test_whisper_equals_the_network_written_out():
    width, layers, heads = 24, 2, 3
    encoder = WhisperEncoder(AudioConfig(), width=width, layers=layers, heads=heads).eval()
    arrays = ctranslate2_arrays(width, layers)
    load_whisper_encoder(encoder, arrays)
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 6400).astype(np.float32)
    with torch.inference_mode():
        got = encoder([torch.from_numpy(sound)])[0].numpy()
    assert got.shape == (20, width)
    assert np.abs(got - whisper_written_out(arrays, sound, width, layers, heads)).max() < 1e-4


def test_whisper_positions():
    """Rows by the formula, one number at a time; first row zeros and ones."""
    table = sinusoids(1500, 384)
    for place, channel in ((0, 5), (7, 0), (33, 100), (1499, 191)):
        angle = place / 10_000 ** (channel / 191)
        assert table[place, channel] == pytest.approx(math.sin(angle), abs=2e-4)
        assert table[place, channel + 192] == pytest.approx(math.cos(angle), abs=2e-4)


def test_whisper_is_tiny_and_keeps_no_tables():
    encoder = WhisperEncoder(AudioConfig())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 7_631_616
    assert {name.split(".")[0] for name in encoder.state_dict()} == {"conv1", "conv2", "layers"}


def test_whisper_lengths():
    encoder = WhisperEncoder(AudioConfig(), width=24, layers=1, heads=3).eval()
    grid = MODALITIES["audio"].grid
    with torch.inference_mode():
        for samples, tokens in ((320, 1), (640, 2), (16000, 50), (480_000, 1500), (1000, 3)):
            sound = torch.zeros(samples)
            assert len(encoder([sound])[0]) == grid(sound, AudioConfig()).length == tokens
        for samples in (100, 480_320):
            with pytest.raises(ValueError, match=f"a sound of {samples} samples makes"):
                encoder([torch.zeros(samples)])


def test_load_whisper_says_what_is_wrong():
    encoder = WhisperEncoder(AudioConfig(), width=24, layers=2, heads=3)
    arrays = ctranslate2_arrays(24, 2)
    del arrays["encoder/layer_1/ffn/layer_norm/gamma"]
    with pytest.raises(InputError, match=r"Whisper weights: encoder/layer_1/ffn/layer_norm/gamma: missing; give"):
        load_whisper_encoder(encoder, arrays)
    with pytest.raises(InputError, match="size mismatch"):
        load_whisper_encoder(encoder, ctranslate2_arrays(48, 2))

"""The painter against its arithmetic written out, on checkpoints laid out as taming-transformers lays out its own."""

from __future__ import annotations

import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from vqgan_layout import F8, F16, SIZES, checkpoint

from monoglot.errors import InputError
from monoglot.interop.vqgan import load_vqgan


@torch.no_grad()
def written_out(state, multipliers, attends, codebook, codes):
    """float[3, H, W] from int64[h, w], step by step."""

    def conv(x, name, padding=1):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def norm(x, name):
        groups = x.view(1, 32, -1)
        x = (
            (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        ).view_as(x)
        return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def swish(x):
        return x * torch.sigmoid(x)

    def block(x, name):
        h = conv(swish(norm(x, f"{name}.norm1")), f"{name}.conv1")
        h = conv(swish(norm(h, f"{name}.norm2")), f"{name}.conv2")
        return h + (conv(x, f"{name}.nin_shortcut", 0) if f"{name}.nin_shortcut.weight" in state else x)

    def attention(x, name):
        channels, height, width = x.shape[1:]
        q, k, v = (conv(norm(x, f"{name}.norm"), f"{name}.{part}", 0)[0].reshape(channels, -1) for part in "qkv")
        weights = (torch.einsum("ci,cj->ij", q, k) * channels**-0.5).softmax(1)
        return x + conv(torch.einsum("ij,cj->ci", weights, v).view(1, channels, height, width), f"{name}.proj_out", 0)

    x = conv(state[codebook][codes].permute(2, 0, 1)[None], "post_quant_conv", 0)
    x = conv(x, "decoder.conv_in")
    x = block(attention(block(x, "decoder.mid.block_1"), "decoder.mid.attn_1"), "decoder.mid.block_2")
    for level in reversed(range(len(multipliers))):
        for index in range(SIZES["blocks"]):
            x = block(x, f"decoder.up.{level}.block.{index}")
            if attends[level]:
                x = attention(x, f"decoder.up.{level}.attn.{index}")
        if level:
            x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"decoder.up.{level}.upsample.conv")
    return conv(swish(norm(x, "decoder.norm_out")), "decoder.conv_out")[0]


@pytest.mark.parametrize("layout", [F8, F16], ids=["gumbel f8", "vq f16"])
@torch.no_grad()
def test_pixels_are_those_of_the_arithmetic(layout, tmp_path):
    state = checkpoint(**layout)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    painter = load_vqgan(tmp_path / "last.ckpt")
    assert painter.scale == 2 ** (len(layout["multipliers"]) - 1)
    assert not painter.training
    codes = torch.randint(0, SIZES["codes"], (4, 4), generator=torch.Generator().manual_seed(1))
    expected = written_out(state, codes=codes, **layout)
    pixels = painter(codes[None])[0]
    assert pixels.shape == (3, 4 * painter.scale, 4 * painter.scale)
    torch.testing.assert_close(pixels, expected, atol=2e-4, rtol=1e-4)
    painted = painter.paint(codes.flatten().tolist())
    assert painted.dtype == np.uint8
    levels = ((expected.clamp(-1, 1) + 1) / 2 * 255).permute(1, 2, 0).numpy()
    assert np.abs(painted - levels).max() <= 1.1, "cut to whole levels"
    assert painted.std() > 0


def test_every_kind_of_file(tmp_path):
    state = checkpoint(**F8)
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "bare.pt")
    torch.save({"state_dict": state}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    pictures = [load_vqgan(tmp_path / name).paint([7] * 9) for name in ("a.safetensors", "bare.pt", "old.ckpt")]
    assert all(np.array_equal(pictures[0], other) for other in pictures)


def test_lightning_beside_the_weights_is_not_needed(tmp_path, monkeypatch):
    """Its callbacks' state lies in the file under their classes; they are neither installed nor imported."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    with monkeypatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        callbacks = {module.ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}}
        torch.save({"state_dict": checkpoint(**F8), "callbacks": callbacks}, tmp_path / "last.ckpt")
    assert load_vqgan(tmp_path / "last.ckpt").paint([0]).shape == (8, 8, 3)
    assert module.__name__ not in sys.modules


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": checkpoint(**F8), "callbacks": Hostile()}, "bad.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Hostile()))
    for name in ("bad.ckpt", "plain.ckpt"):
        with pytest.raises(InputError, match=f"{name}: vqgan: cannot be read"):
            load_vqgan(name)
    assert not (tmp_path / "hostile-was-here").exists()


def test_what_is_no_vqgan(tmp_path):
    state = checkpoint(**F8)
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    missing = {name: tensor for name, tensor in state.items() if name != "decoder.mid.block_1.conv1.weight"}
    torch.save(missing, tmp_path / "missing.ckpt")
    for name in (
        "text.ckpt",
        "text.safetensors",
        "empty.ckpt",
        "other.ckpt",
        "list.ckpt",
        "missing.ckpt",
        "absent.ckpt",
    ):
        with pytest.raises(InputError, match=name) as caught:
            load_vqgan(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "message"),
    [([], "0 image codes do not fill a square"), ([1] * 5, "5 image codes do not fill"), ([50], r"0 \.\. 49"), ([-1], r"0 \.\. 49")],
)  # fmt: skip
def test_codes_that_are_no_picture(codes, message, tmp_path):
    save_file(checkpoint(**F8), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=message):
        load_vqgan(tmp_path / "a.safetensors").paint(codes)

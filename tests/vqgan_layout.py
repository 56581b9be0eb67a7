"""A checkpoint as taming-transformers lays out its VQGANs: every name and shape, the values drawn."""

from __future__ import annotations

import torch

F8 = {"multipliers": (1, 1, 2, 2), "attends": (False, False, False, True), "codebook": "quantize.embed.weight"}
F16 = {"multipliers": (1, 1, 1, 2, 2), "attends": (False, False, False, False, True), "codebook": "quantize.embedding.weight"}  # fmt: skip
SIZES = {"width": 32, "blocks": 3, "z": 24, "embedding": 16, "codes": 50}


def checkpoint(multipliers, attends, codebook) -> dict[str, torch.Tensor]:
    """What a VQModel (`embedding`) or GumbelVQ (`embed`) keeps: its names, its shapes."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def conv(name, out, into, size=3):
        state[f"{name}.weight"] = torch.randn(out, into, size, size, generator=generator) / (into * size**2) ** 0.5
        state[f"{name}.bias"] = torch.randn(out, generator=generator) / 10

    def norm(name, channels):
        state[f"{name}.weight"] = 1 + torch.randn(channels, generator=generator) / 10
        state[f"{name}.bias"] = torch.randn(channels, generator=generator) / 10

    def block(name, into, out):
        norm(f"{name}.norm1", into)
        conv(f"{name}.conv1", out, into)
        norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out)
        if into != out:
            conv(f"{name}.nin_shortcut", out, into, 1)

    def attention(name, channels):
        norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", channels, channels, 1)

    state[codebook] = torch.randn(SIZES["codes"], SIZES["embedding"], generator=generator)
    conv("post_quant_conv", SIZES["z"], SIZES["embedding"], 1)
    channels = SIZES["width"] * multipliers[-1]
    conv("decoder.conv_in", channels, SIZES["z"])
    block("decoder.mid.block_1", channels, channels)
    attention("decoder.mid.attn_1", channels)
    block("decoder.mid.block_2", channels, channels)
    for level in reversed(range(len(multipliers))):
        out = SIZES["width"] * multipliers[level]
        for index in range(SIZES["blocks"]):
            block(f"decoder.up.{level}.block.{index}", channels, out)
            channels = out
            if attends[level]:
                attention(f"decoder.up.{level}.attn.{index}", out)
        if level:
            conv(f"decoder.up.{level}.upsample.conv", out, out)
    norm("decoder.norm_out", channels)
    conv("decoder.conv_out", 3, channels)
    # What a checkpoint holds beside the decoder.
    conv("encoder.conv_in", 32, 3)
    conv("quant_conv", SIZES["embedding"], SIZES["z"], 1)
    conv("quantize.proj", SIZES["codes"], SIZES["z"], 1)
    conv("loss.discriminator.main.0", 8, 3, 4)
    return state

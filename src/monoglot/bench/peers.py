"""Public models of the same size, to be measured beside ours: transformers' own classes, random weights, no download.

PEERS[name] -> Peer -> build -> pixels float[B, 3, side, side] -> write so many tokens -> ids

Sizes are those of the published checkpoints. What weights say does not change how long a fixed number of tokens takes.
Needs the extra `bench` (transformers); `require` says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from monoglot.errors import InputError
from monoglot.registry import Registry
from monoglot.rng import stream
from monoglot.store import SkipInit


@dataclass(frozen=True)
class Peer:
    """One published model."""

    source: str
    """Which published configuration its sizes are from."""
    side: int
    """Pixels of a side of the pictures that it was trained on."""
    build: Callable[[Any], nn.Module]
    """transformers -> the model."""
    encoder: Callable[[Any], Callable[[Tensor], Any]]
    """model -> what it does with a picture before it writes."""
    prompt: Callable[[int], dict[str, Tensor]]
    """Rows -> what it is asked, beside the pixels."""


class Running:
    """A peer that is ready to write.

    Raises InputError when transformers is missing, or has no such model.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.float32):
        transformers = require()
        self.peer = PEERS[name]
        try:
            with SkipInit():
                model = self.peer.build(transformers)
        except AttributeError as error:
            wrong = f"transformers {transformers.__version__} does not have it ({error})"
            raise InputError.at("peers", name, wrong, "pip install 'monoglot[bench]'") from None
        _draw(model)
        self.model = model.to(dtype).eval()
        self.dtype = dtype

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def pictures(self, rows: int) -> Tensor:
        """float[rows, 3, side, side], as its preparing would make them."""
        rng = stream(0, "bench", "pictures")
        drawn = rng.standard_normal((rows, 3, self.peer.side, self.peer.side), dtype="float32")
        return torch.from_numpy(drawn).to(self.dtype)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> None:
        self.peer.encoder(self.model)(pixels)

    @torch.no_grad()
    def write(self, pixels: Tensor, *, beam: int, tokens: int) -> Tensor:
        """int64[rows, ...]: ids, exactly `tokens` of them new."""
        lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        generate: Any = self.model.generate
        return generate(
            pixel_values=pixels, **self.peer.prompt(len(pixels)), num_beams=beam, do_sample=False, **lengths
        )


def require() -> Any:
    """transformers; InputError with the fix in one line when it is not there."""
    if find_spec("transformers") is None:
        raise InputError('peers need transformers; run: pip install "monoglot[bench]"')
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is to be fetched
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """N(0, 0.02) for matrices, norms that change nothing: weights as large as a model's at the start of training."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.named_parameters():
        if tensor.dim() > 1:
            tensor.normal_(0, 0.02, generator=generator)
        else:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)


# --- the models -------------------------------------------------------------------------------------------------------


def _blip(t: Any) -> nn.Module:
    vision = {"image_size": 384, "num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12}
    text = {"vocab_size": 30524, "num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12}
    return t.BlipForConditionalGeneration(t.BlipConfig(vision_config=vision, text_config=text))


def _git(t: Any) -> nn.Module:
    return t.GitForCausalLM(t.GitConfig(vision_config={"image_size": 224, "patch_size": 16}))


def _vit_gpt2(t: Any) -> nn.Module:
    vision = t.ViTConfig(image_size=224)
    text = t.GPT2Config(add_cross_attention=True, is_decoder=True)
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = 50256
    return t.VisionEncoderDecoderModel(config)


FLORENCE_PLACES = 577
"""Tokens of a picture of 768 px: 24 x 24 and their mean."""


def _florence(t: Any) -> nn.Module:
    text = t.BartConfig(
        vocab_size=51328,
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_position_embeddings=1024,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    vision = t.Florence2VisionConfig(projection_dim=768)
    return t.Florence2ForConditionalGeneration(t.Florence2Config(text_config=text, vision_config=vision))


def _florence_prompt(rows: int) -> dict[str, Tensor]:
    ids = [0, *[51289] * FLORENCE_PLACES, *range(100, 107), 2]  # "What does the image describe?"
    tokens = torch.tensor(ids).repeat(rows, 1)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


PEERS: Registry[Peer] = Registry("peer")
PEERS.add(
    "BLIP base",
    Peer(
        "Salesforce/blip-image-captioning-base (arXiv 2201.12086)",
        384,
        _blip,
        lambda model: model.vision_model,
        lambda rows: {},
    ),
)
PEERS.add(
    "GIT base",
    Peer(
        "microsoft/git-base (arXiv 2205.14100)",
        224,
        _git,
        lambda model: model.git.image_encoder,
        lambda rows: {"input_ids": torch.full((rows, 1), 101)},
    ),
)
PEERS.add(
    "ViT-B + GPT-2",
    Peer(
        "nlpconnect/vit-gpt2-image-captioning",
        224,
        _vit_gpt2,
        lambda model: model.encoder,
        lambda rows: {},
    ),
)
PEERS.add(
    "Florence-2 base",
    Peer(
        "microsoft/Florence-2-base (arXiv 2311.06242)",
        768,
        _florence,
        lambda model: model.get_image_features,
        _florence_prompt,
    ),
)

"""Small things that many tests need: a tokenizer of single bytes and a few merges, a model of some ten thousand weights, coloured squares."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor, nn

from monoglot.modalities import MODALITIES, Encoder
from monoglot.modalities.base import run_by_shape
from monoglot.model.config import ModelConfig
from monoglot.model.unified import UnifiedModel
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import Vocabulary

MERGES = ["Ġ w", "Ġ t", "h e", "Ġt he", "a t", "Ġw h", "Ġwh at", "r e", "re d", "Ġ red", "Ġ b", "l u", "lu e", "Ġb lue"]
VOCABULARY = Vocabulary(num_words=256 + len(MERGES), num_codes=16, num_bins=1000)
MODALITY_SETTINGS = {
    "image": {"size": 64},
    "video": {"size": 32, "frames": 2, "frame_positions": 4},
    "audio": {"pad_seconds": 0.1, "max_seconds": 0.5},
}

POOLED = {
    name: {"modalities": {of: settings | more.get(of, {}) for of, settings in MODALITY_SETTINGS.items()}}
    for name, more in {
        "first": {"image": {"pooled": "first"}},
        "alone": {"image": {"pooled": "alone"}},
        "words": {
            "image": {"pooled": "first", "pooled_words": 5, "pooled_sharpness": 3.0, "words": 3},
            "audio": {"pooled": "first", "pooled_words": 4},
        },
    }.items()
}
"""Changes of a configuration whose pictures, or sounds too, have a token that stands for the whole."""

ENCODER_SETTINGS = {"cnn14": {"pad_seconds": 0.2}}
"""What an encoder needs beside the settings of its modality."""


def byte_letters() -> list[str]:
    """GPT-2's letter for each byte, in its order: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]


def gpt2_json(merges: list[str] = MERGES) -> str:
    """A tokenizer.json like GPT-2's, with few merges."""
    tokens = [*byte_letters(), *("".join(merge.split(" ")) for merge in merges)]
    return json.dumps({"model": {"vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges}})


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.from_gpt2(gpt2_json(), VOCABULARY)


class Cells(Encoder):
    """A stand-in for an encoder: the mean of each token's part of the item, mixed by fixed weights. Counts its calls."""

    channels = 5

    def __init__(self, name: str, settings):
        super().__init__()
        self.name, self.settings, self.calls = name, settings, 0
        self.mix = nn.Linear(1, self.channels)

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        self.calls += 1
        return run_by_shape(self._run, items)

    def _run(self, stack: Tensor) -> Tensor:
        settings = self.settings.model_copy(update={"pooled": "none"} if self.name != "video" else {})
        tokens = MODALITIES[self.name].grid(stack[0], settings).length
        x = stack.float().flatten(1)
        x = x[:, : x.shape[1] // tokens * tokens].unflatten(1, (tokens, -1)).mean(-1, keepdim=True)
        return self.mix(x / 50)


def tiny_config(positions: str = "added", **changes) -> ModelConfig:
    settings = {
        "name": "tiny",
        "vocabulary": VOCABULARY,
        "width": 32,
        "ffn": 64,
        "heads": 2,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "source_positions": 128,
        "target_positions": 64,
        "grid_side": 30,
        "code_grid": 4,
        "positions": positions,
        "modalities": MODALITY_SETTINGS,
    }
    return ModelConfig.model_validate(settings | changes)


def tiny_model(positions: str = "added", *, encoders: bool = False, seed: int = 0, **changes) -> UnifiedModel:
    """A model with weights large enough that everything shows; stand-ins for encoders unless real ones are asked for."""
    torch.manual_seed(seed)
    config = tiny_config(positions, **changes)
    standins = None if encoders else {name: Cells(name, settings) for name, settings in config.modalities.items()}
    model = UnifiedModel(config, standins)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("encoders") and parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model.eval()


def square(colour: tuple[int, int, int], place: tuple[int, int] = (20, 20), side: int = 30) -> np.ndarray:
    """uint8[90, 90, 3]: a square of that colour on white, its upper left corner at (row, column)."""
    picture = np.full((90, 90, 3), 255, np.uint8)
    picture[place[0] : place[0] + side, place[1] : place[1] + side] = colour
    return picture


COLOURS = {"red": (220, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 220), "black": (0, 0, 0)}

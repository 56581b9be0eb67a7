"""nano starts from parts that others trained: EfficientNet-Lite0's eyes, Whisper tiny.en's ears and language.

    part -> arrays -> the rows and matrices of a fresh UnifiedModel that mean the same

At the start the model transcribes as Whisper does: the audio connector is the identity, the encoder's new layers add nothing, and its last LayerNorm is
Whisper's. Everything else is learned from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from monoglot.interop.ctranslate2 import read_ctranslate2
from monoglot.interop.parts import Part, part_or_none
from monoglot.modalities.audio import WhisperEncoder, load_whisper_encoder
from monoglot.modalities.image import Lite0Trunk, load_lite0
from monoglot.model.layers import DecoderLayer, EncoderLayer
from monoglot.model.unified import UnifiedModel
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import BOS, EOS, SPECIALS, UNK

# Rows of Whisper's vocabulary (arXiv 2212.04356, its tokenizer for English-only models).
END_OF_TEXT, START_OF_TRANSCRIPT, NO_TIMESTAMPS = 50256, 50257, 50362
GPT2_WORDS = 50257
START = (BOS, UNK)
"""What nano's answers begin with (`ModelConfig.start`): the rows of Whisper's two start tokens. With only one its transcripts break: docs/log.md."""


def tokenizer_from_part(part: Part | None, vocabulary) -> Tokenizer | None:
    """GPT-2's words as the Whisper part carries them, with our ids."""
    return (
        None
        if part is None
        else Tokenizer.from_gpt2(Path(part.files["tokenizer.json"]).read_text(encoding="utf-8"), vocabulary)
    )


def warm_start(model: UnifiedModel, tokenizer: Tokenizer, *, seed: int = 0, language: bool = True) -> dict[str, str]:
    """Fill what the parts know, in place. A part that is gone leaves random weights and a warning. Without `language` only the eyes and ears are filled
    (a cold decoder).

    Returns what was taken: part -> its source and licence, for the lineage.
    """
    taken = {}
    with torch.no_grad():
        eyes = [encoder.trunk for encoder in model.encoders.values() if hasattr(encoder, "trunk")]
        if eyes and (part := part_or_none("lite0")):
            weights = torch.load(part.files["model.pth"], weights_only=True)
            for trunk in eyes:  # usually one and the same
                load_lite0(cast(Lite0Trunk, trunk), weights)
            taken["lite0"] = f"{part.source}; {part.licence}"
        if part := part_or_none("whisper-tiny-en"):
            arrays = read_ctranslate2(part.files["model.bin"])
            if "audio" in model.encoders:
                load_whisper_encoder(cast(WhisperEncoder, model.encoders["audio"]), arrays)
                if language:
                    _hear_as_whisper(model, arrays)
            if language:
                _speak_as_whisper(model, arrays, tokenizer, np.random.default_rng(seed))
            taken["whisper-tiny-en"] = f"{part.source}; {part.licence}"
    return taken


def _hear_as_whisper(model: UnifiedModel, arrays: dict[str, np.ndarray]) -> None:
    """The unified encoder hands Whisper's states on unchanged: identity connector, branches that add nothing, Whisper's last LayerNorm."""
    nn.init.eye_(cast(nn.Linear, model.source.connectors["audio"]).weight)
    nn.init.zeros_(model.source.types.weight)
    for layer in cast("list[EncoderLayer]", model.encoder_layers):
        for silent in (layer.attention.out, layer.ffn.down):
            nn.init.zeros_(silent.weight)
    _norm(model.encoder_norm, arrays, "encoder/layer_norm")


def _speak_as_whisper(
    model: UnifiedModel, arrays: dict[str, np.ndarray], tokenizer: Tokenizer, rng: np.random.Generator
) -> None:
    vocabulary = tokenizer.vocabulary
    embeddings = np.asarray(arrays["decoder/embeddings/weight"], dtype=np.float32)
    words = embeddings[:GPT2_WORDS].copy()
    _part_twins(words, tokenizer, rng)
    rows = model.words.weight
    rows[len(SPECIALS) : len(SPECIALS) + GPT2_WORDS] = torch.from_numpy(words)
    rows[len(SPECIALS) + END_OF_TEXT] = -torch.from_numpy(
        words.mean(0)
    )  # a filler row: as far from every word as can be
    rows[EOS] = torch.from_numpy(embeddings[END_OF_TEXT])
    for ours, whispers in zip(START, (START_OF_TRANSCRIPT, NO_TIMESTAMPS)):
        rows[ours] = torch.from_numpy(embeddings[whispers])
    rows[vocabulary.bins.start :] = torch.from_numpy(location_codes(vocabulary.num_bins, words, rng))
    positions = _tensor(arrays, "decoder/position_encodings/encodings")
    model.target.text_positions.weight[: len(positions)] = positions[: len(model.target.text_positions.weight)]
    for index, layer in enumerate(cast("list[DecoderLayer]", model.decoder_layers)):
        name = f"decoder/layer_{index}"
        stacked, bias = (
            _tensor(arrays, f"{name}/self_attention/linear_0/weight"),
            _tensor(arrays, f"{name}/self_attention/linear_0/bias"),
        )
        width = stacked.shape[1]
        _fill(layer.attention.q, stacked[:width], bias[:width])
        _fill(layer.attention.kv, stacked[width:], bias[width:])
        _linear(layer.attention.out, arrays, f"{name}/self_attention/linear_1")
        _norm(layer.attention_norm, arrays, f"{name}/self_attention/layer_norm")
        _linear(layer.cross.q, arrays, f"{name}/attention/linear_0")
        _linear(layer.cross.kv, arrays, f"{name}/attention/linear_1")
        _linear(layer.cross.out, arrays, f"{name}/attention/linear_2")
        _norm(layer.cross_norm, arrays, f"{name}/attention/layer_norm")
        _linear(layer.ffn.up, arrays, f"{name}/ffn/linear_0")
        _linear(layer.ffn.down, arrays, f"{name}/ffn/linear_1")
        _norm(layer.ffn_norm, arrays, f"{name}/ffn/layer_norm")
    _norm(model.decoder_norm, arrays, "decoder/layer_norm")


def location_codes(num_bins: int, words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32[num_bins, D]: rows for location bins that look like words in length, and like their neighbours.

    Waves of random slowness along the side, mixed at random: near bins point to near directions, so a table that stays frozen still tells where.
    """
    width = words.shape[1]
    centre = words.mean(0)
    spread = float(np.linalg.norm(words - centre, axis=1).mean())
    waves = np.exp(rng.uniform(np.log(0.5), np.log(num_bins / 8), size=width))
    phase = rng.uniform(0, 2 * np.pi, size=width)
    codes = np.cos(np.pi * np.linspace(0, 1, num_bins)[:, None] * waves + phase)
    offset = rng.normal(size=width)
    codes = codes / np.linalg.norm(codes, axis=1, keepdims=True) + 0.5 * offset / np.linalg.norm(offset)
    return (centre + spread * codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)


def _part_twins(words: np.ndarray, tokenizer: Tokenizer, rng: np.random.Generator) -> None:
    """Words that English speech never uses (parts of other scripts) all have nearly one row in Whisper tiny.en. As the table stays frozen they could never
    be told apart, so they get directions of their own, of the usual length."""
    shift = len(SPECIALS)
    printable = {"Ġ", "Ċ"}
    foreign = [
        number - shift
        for token, number in tokenizer.words.get_vocab().items()
        if shift <= number < shift + len(words)
        and any(ord(letter) > 126 and letter not in printable for letter in token)
    ]
    centre = words.mean(0)
    spread = float(np.linalg.norm(words - centre, axis=1).mean())
    noise = rng.normal(size=(len(foreign), words.shape[1]))
    words[sorted(foreign)] = centre + spread * noise / np.linalg.norm(noise, axis=1, keepdims=True)


def _tensor(arrays: dict[str, np.ndarray], name: str) -> Tensor:
    return torch.from_numpy(np.asarray(arrays[name], dtype=np.float32))


def _fill(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def _linear(linear: nn.Linear, arrays: dict[str, np.ndarray], name: str) -> None:
    _fill(linear, _tensor(arrays, f"{name}/weight"), _tensor(arrays, f"{name}/bias"))


def _norm(norm: nn.LayerNorm, arrays: dict[str, np.ndarray], name: str) -> None:
    norm.weight.copy_(_tensor(arrays, f"{name}/gamma"))
    norm.bias.copy_(_tensor(arrays, f"{name}/beta"))

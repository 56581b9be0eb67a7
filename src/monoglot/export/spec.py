"""preprocess.json: how a row becomes the inputs of the graphs, and their outputs an answer, for programs that have no monoglot.

ModelConfig, answers, graphs -> model, tokens, source, media, tasks, answers, graphs
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from monoglot import __version__
from monoglot.adapters import Answers
from monoglot.errors import InputError
from monoglot.export.graphs import WEIGHTS, Graph
from monoglot.export.runtime import FORMAT
from monoglot.modalities import audio, image
from monoglot.modalities.networks import cnn14
from monoglot.model.config import ModelConfig
from monoglot.nouns import Box, Media, Posed, Sample
from monoglot.tasks import TASKS
from monoglot.tasks.name import LANGUAGES
from monoglot.tasks.wording import pose
from monoglot.text.boxes import box_to_text
from monoglot.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNK

_TEXTS = ("{text}", "{text}? {answer}")
"""What a row's text is put as; some tasks want two things in it."""
_BOX: Box = (0.0, 0.25, 0.5, 1.0)

GREEDY = (
    "Feed `tokens.start` (behind it, where the task says `echo`, the words of the prompt) with a past of length 0, then one token at a time with the "
    "keys and values of the step before. At each step take the likeliest of what the task `writes`: 'words' are ids below `mask` without `pad`, "
    "`end` only after the first; a 'box' four of `bins`; 'codes' code_grid ** 2 of `codes`. Stop at `end`, or after `max_length` tokens. "
    "With choices, take the likeliest id that continues one of them, each encoded with a space before it and `end` behind it."
)
HEADS = (
    "head_N.onnx answers the question of the N-th of `answers`. `pooled` is, block by block of its `head.blocks`, the mean (std, max) over the tokens "
    "of all items of that modality, or over the valid `states` for 'memory'; 0 where there is none. Probabilities are those of its `head.classes`."
)


def spec_of(config: ModelConfig, answers: Sequence[Answers], graphs: Sequence[Graph], precision: str) -> dict[str, Any]:
    """All of preprocess.json."""
    v = config.vocabulary
    return {
        "format": FORMAT,
        "monoglot": __version__,
        "precision": precision,
        "model": config.model_dump(mode="json"),
        "tokens": {
            "start": list(config.start),
            "end": EOS,
            "bos": BOS,
            "pad": PAD,
            "unknown": UNK,
            "size": v.size,
            "words": [len(SPECIALS), v.mask],
            "mask": v.mask,
            "codes": [v.codes.start, v.codes.stop],
            "bins": [v.bins.start, v.bins.stop],
        },
        "source": {
            "layout": "parts of the prompt in order: words as tokenizer.json encodes them, `bos` before the first, for media `pad` as often as it "
            "has tokens; `end` at the end; rows of a batch are filled with `pad` on the right, where `valid` is false",
            "item": "0 for text, n for the tokens of the batch's n-th media item, counted modality by modality",
            "places": "row * source length + column of each media token, items one after the other",
            "pooled": "1 for a token that stands for a whole item: the mean of all its others, before them; 0 for the others",
            "cells": f"'grid': row * {config.grid_side} + column + 1 of each token; 'square': tokens fill the smallest square; 0: pooled",
            "frames": "number of the frame that a token is of, from 0",
            "longest_text": config.source_positions,
            "greedy": GREEDY,
        },
        "media": {name: media_spec(name, settings) for name, settings in config.modalities.items()},
        "tasks": {name: task_spec(config, name) for name in TASKS},
        "answers": [page.model_dump(mode="json") for page in answers],
        "heads": HEADS,
        "weights": WEIGHTS,
        "graphs": {graph.file: _signature(graph) for graph in graphs},
    }


def media_spec(name: str, settings: Any) -> dict[str, Any]:
    """How one modality's files become its graph's items."""
    told: dict[str, Any] = {"graph": f"{name}.onnx", "settings": settings.model_dump(mode="json")}
    if name in ("image", "video"):
        fit = "the whole picture, aspect not kept" if getattr(settings, "fit", "squeeze") == "squeeze" else "its middle"
        told |= {
            "item": f"uint8[{'frames, ' if name == 'video' else ''}3, {settings.size}, {settings.size}], RGB, 0 to 255",
            "reading": "EXIF orientation applied; a JPEG may come reduced (Pillow's draft); transparent pictures resized, then put on white",
            "resize": {"size": [settings.size, settings.size], "filter": "bicubic, antialiased (Pillow)", "takes": fit},
            "normalisation": "in the graph",
            "token_pixels": 16 if settings.encoder.startswith("ofa_") else image.CELL,
            "order": "frame by frame, row by row",
        }
    if name == "video":
        told["times"] = f"the frame on screen at the centre of each of {settings.frames} equal parts of the clip"
    if name == "audio":
        told |= {
            "item": f"float32[samples], mono (mean of channels), -1 to 1, {settings.rate} a second",
            "resampling": "soxr, high quality",
            "filling": f"the first {settings.max_seconds:g} s, filled with {settings.fill} to a multiple of {settings.pad_seconds:g} s",
            "mel": mel_spec(settings),
        }
    return told


def mel_spec(settings: Any) -> dict[str, Any]:
    """What the graph of sounds does first."""
    if settings.encoder == "cnn14":
        sizes = {"n_fft": cnn14.N_FFT, "hop": settings.hop, "bands": cnn14.MELS}
        return {"where": "in the graph", **sizes, "low_hz": cnn14.LOWEST_HZ, "high_hz": cnn14.HIGHEST_HZ}
    sizes = {"n_fft": audio.N_FFT, "hop": audio.HOP, "bands": audio.MELS, "samples_a_token": audio.TOKEN}
    return {"where": "in the graph", **sizes, "low_hz": 0.0, "high_hz": audio.RATE / 2}


def task_spec(config: ModelConfig, name: str) -> dict[str, Any]:
    """A task's prompts, by medium and language: parts in their order, with {image}, {video}, {audio}, {text}, {answer} and {box} where the row's go.

    `choices` are those that hold for rows without any of their own.
    """
    task = TASKS[name]
    longest = min(task.max_length, config.target_positions - len(config.start))
    told: dict[str, Any] = {"max_length": longest, "choices": []}
    prompts: dict[str, Any] = {}
    for medium in (*config.modalities, "text"):
        by_language = {}
        for language in LANGUAGES:
            if (posed := _posed(config, name, medium, language)) is None:
                continue
            by_language[language] = [part.source if isinstance(part, Media) else _open(part) for part in posed.prompt]
            own = _posed(config, name, medium, language, choices=())
            told |= {"writes": posed.writes, "echo": posed.echo, "choices": list(own.choices) if own else []}
        if by_language:
            same = len({json.dumps(prompt) for prompt in by_language.values()}) == 1
            prompts[medium] = {"any": next(iter(by_language.values()))} if same else by_language
    return told | {"prompts": prompts}


def _posed(
    config: ModelConfig, task: str, medium: str, language: str, *, choices: tuple[str, ...] = ("a", "b")
) -> Posed | None:
    """How a row of such a medium is posed; None if the task takes none."""
    media = () if medium == "text" else (Media(medium, f"{{{medium}}}"),)
    for text in _TEXTS:
        with suppress(InputError):
            return pose(Sample("1", task, media, text, (), _BOX, choices, language), config.wording)
    return None


def _open(part: str) -> str:
    return str(part).replace(box_to_text(_BOX), "{box}")


def _signature(graph: Graph) -> dict[str, Any]:
    def shape(example: Any, axes: dict[int, str]) -> list[Any]:
        return [axes.get(axis, size) for axis, size in enumerate(example.shape)]

    inputs = {
        name: {"type": str(example.dtype).removeprefix("torch."), "shape": shape(example, axes)}
        for name, (example, axes) in graph.inputs.items()
    }
    return {"inputs": inputs, "outputs": list(graph.outputs)}


def read_files(folder: Path) -> dict[str, int]:
    """Bytes of each file."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}

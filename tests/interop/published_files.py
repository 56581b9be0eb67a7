"""Checkpoints as the authors' trainer writes them, in miniature: the golden weights, its settings, what else it keeps. And a dictionary."""

from __future__ import annotations

import csv
import json
import random
import sys
import types
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from small import gpt2_json
from torch import Tensor, nn

from monoglot.interop import fairseq
from monoglot.modalities import MODALITIES, Encoder

PARITY = Path(__file__).parents[1] / "parity"
sys.path.insert(0, str(PARITY))  # its helpers make the golden weights and batches

from tiny import GOLDEN, formula_weights  # noqa: E402

SETTINGS = json.loads((GOLDEN / "config.json").read_text())
WORDS = 300
"""Lines of the miniature's dictionary."""


class Stage(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 1, bias=False)}))


class OneBlockAStage(Encoder):
    """Stands for an encoder: four stages of one block, as many channels as the published ones. Features are passed on."""

    channels = 2048

    def __init__(self, config: object):
        super().__init__()
        for index in range(1, 5):
            self.add_module(f"layer{index}", Stage())

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return items


class TwoConvolutions(OneBlockAStage):
    """The same for sounds, whose blocks are named otherwise."""

    def __init__(self, config: object):
        Encoder.__init__(self)
        self.conv_block1 = nn.ModuleDict({f"conv{i}": nn.Conv2d(1, 2, 1, bias=False) for i in (1, 2)})


STANDINS = {
    "image": ((1, 1, 1, 1), OneBlockAStage),
    "video": ((1, 1, 1, 1), OneBlockAStage),
    "audio": ((2,), TwoConvolutions),
}


def use_standins(monkeypatch) -> None:
    """Small encoders become known: to the import by their stages, to the settings by name."""
    for modality, (blocks, encoder) in STANDINS.items():
        monkeypatch.setitem(fairseq.NETWORKS, (modality, blocks), f"standin_{modality}")
        monkeypatch.setitem(MODALITIES[modality].encoders, f"standin_{modality}", encoder)


def tiny_state(*modalities: str) -> dict[str, Tensor]:
    """The golden weights under their names, with the copies, tables and counts that the trainer saves beside them."""
    state = {n: t for n, t in formula_weights().items() if _reads(n) in (None, *modalities)}
    for modality in modalities:
        for name, tensor in STANDINS[modality][1](None).state_dict().items():
            state[f"encoder.embed_{modality}s.{name}"] = torch.full(tensor.shape, 0.5)
    if "image" in modalities:
        state["encoder.embed_images.fc.weight"] = torch.ones(7, 2048)
    for side in ("encoder", "decoder"):
        state[f"{side}.version"] = torch.tensor([3.0])
        state[f"{side}.token_rp_bucket"] = torch.zeros(4, 4, dtype=torch.long)
        state[f"{side}.image_rp_bucket"] = torch.zeros(4, 4, dtype=torch.long)
    state["decoder.image_position_idx"] = torch.zeros(786, dtype=torch.long)
    state["decoder.embed_tokens.weight"] = state["encoder.embed_tokens.weight"]
    state["decoder.output_projection.weight"] = state["encoder.embed_tokens.weight"]
    return state


def uniform(name: str, shape: list[int], lo: float, hi: float) -> Tensor:
    """The golden tensors' draw: seeded by a name (section 28.1 of the published model's arithmetic)."""
    draw = np.random.RandomState(zlib.crc32(name.encode())).random_sample(int(np.prod(shape)))
    return torch.from_numpy((lo + (hi - lo) * draw).astype(np.float32).reshape(shape))


def picture_weights() -> dict[str, Tensor]:
    """The golden weights of the miniature's ResNet, one block a stage at full width, as a checkpoint has them."""
    with open(GOLDEN / "tiny_state_dict.tsv") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["name"].startswith("encoder.embed_images.")]
    state = {}
    for name, shape, low, high in ((r["name"], json.loads(r["shape"]), r["fill_lo"], r["fill_hi"]) for r in rows):
        count = torch.tensor(0)  # num_batches_tracked
        state[name] = uniform(name, shape, float(low), float(high)) if low else count
    return state


def _reads(name: str) -> str | None:
    """The modality that an entry is only there for."""
    for modality in STANDINS:
        if name.startswith((f"encoder.{modality}_proj", f"encoder.embed_{modality}_positions")):
            return modality
    return None


def fairseq_contents(state: dict[str, Tensor], **settings: object) -> dict[str, object]:
    """What the authors' trainer hands to torch.save."""
    told = {name: value for name, value in SETTINGS.items() if not isinstance(value, (list, dict))}
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    return {
        "args": None,
        "cfg": {"common": {"seed": 7}, "model": Namespace(**told | {"patch_frame_size": 64} | settings), "task": {}},
        "model": state,
        "criterion": None,
        "optimizer_history": [{"optimizer_name": "FP16Optimizer", "num_updates": 3}],
        "task_state": {},
        "extra_state": {"previous_training_time": 0.03, "train_iterator": {"epoch": 2}},
        "last_optimizer_state": optimizer,
    }


def save(path: Path, contents: object, *, old_format: bool = False) -> Path:
    torch.save(contents, path, _use_new_zipfile_serialization=not old_format)
    return path


def write_bpe(folder: Path, words: int = WORDS) -> Path:
    """encoder.json, vocab.bpe and dict.txt of a small tokenizer; the dictionary is in an order of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads(gpt2_json())["model"]
    (folder / "encoder.json").write_text(json.dumps(model["vocab"]))
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *model["merges"], ""]))
    numbers = [str(number) for number in model["vocab"].values()]
    random.Random(0).shuffle(numbers)
    numbers += [f"madeupword{index:04d}" for index in range(words - len(numbers))]
    (folder / "dict.txt").write_text("".join(f"{symbol} {1000 - i}\n" for i, symbol in enumerate(numbers)))
    return folder


def class_of(module: str, name: str, base: type = object) -> type:
    """A class that pickles as `module.name`; `forget` removes it again."""
    made = type(name, (base,), {"__module__": module})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, made)
    return made


def forget(*tops: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in tops]:
        del sys.modules[name]

"""The published model in miniature, as the golden tensors in golden/ have it: weights by formula, batches from the stored ids and features."""

from __future__ import annotations

import csv
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from monoglot.data.collate import Batch, collate
from monoglot.interop.published import transformer_from_published
from monoglot.modalities.base import Encoder, Grid
from monoglot.model.config import ModelConfig
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Sequence, Span
from monoglot.text.vocabulary import PAD, Vocabulary

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem.removeprefix("case_") for path in GOLDEN.glob("case_*.safetensors"))
MODALITIES = ("image", "video", "audio")


class Stored(Encoder):
    """The published convolutional encoders' outputs are stored, so the transformer is tested alone."""

    channels = 2048

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return items


class Positions:
    frame_positions = 0

    def __init__(self, positions: str):
        self.positions = positions


def tiny_model() -> UnifiedModel:
    config = ModelConfig(
        name="tiny",
        vocabulary=Vocabulary(num_words=300, num_codes=16, num_bins=20),
        width=64,
        ffn=128,
        heads=4,
        encoder_layers=2,
        decoder_layers=2,
        code_grid=4,
    ).model_copy(
        update={"modalities": {"image": Positions("grid"), "video": Positions("grid"), "audio": Positions("square")}}
    )
    model = UnifiedModel(config, {name: Stored() for name in MODALITIES})
    model.load_state_dict(transformer_from_published(formula_weights()))
    return model.eval()


def formula_weights() -> dict[str, Tensor]:
    """Every weight is a uniform draw seeded by its name; bounds as in tiny_state_dict.tsv."""
    state = {}
    with open(GOLDEN / "tiny_state_dict.tsv") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            name = row["name"]
            if not row["fill_lo"] or any(part in name for part in ("embed_images.", "embed_videos.", "embed_audios.")):
                continue
            shape = json.loads(row["shape"])
            lo, hi = float(row["fill_lo"]), float(row["fill_hi"])
            uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(int(np.prod(shape)))
            state[name] = torch.from_numpy((lo + (hi - lo) * uniform).astype(np.float32).reshape(shape))
    state["encoder.embed_tokens.weight"][2] *= 2
    return state


class Case:
    """One golden case as a batch of ours, and the way back to the stored layout [modality padding-free text]."""

    def __init__(self, name: str, tensors: dict[str, Tensor] | None = None):
        self.tensors = load_file(GOLDEN / f"case_{name}.safetensors") if tensors is None else tensors
        ids, target = self.tensors["in.src_tokens"], self.tensors["in.target"]
        count = len(ids)
        masks = self.tensors.get("in.patch_masks", torch.ones(count, dtype=torch.bool))
        media = self._media(count)
        codes = self.tensors.get("in.code_masks")
        sequences, grids = [], []
        for row in range(count):
            text = ids[row][ids[row] != PAD].numpy()
            items = [media[row]] if row in media and bool(masks[row]) else []
            room = sum(grid.length for _, _, grid in items)
            source = np.concatenate([np.full(room, PAD), text])
            spans = tuple(Span(kind, 0, grid.length) for kind, _, grid in items)
            answer = target[row][target[row] != PAD].numpy()
            sequences.append(Sequence(source, spans, tuple(feature for _, feature, _ in items), answer))
            grids.append([grid for _, _, grid in items])
        self.batch: Batch = collate(sequences, grids)
        self.batch.code_rows = codes
        self.media_columns = self.tensors["out.encoder_out"].shape[1] - ids.shape[1]

    def _media(self, rows: int) -> dict[int, tuple[str, Tensor, Grid]]:
        kinds = [0] * rows
        if "in.patch_types" in self.tensors:
            kinds = self.tensors["in.patch_types"].tolist()
        taken = [0, 0, 0]
        media = {}
        for row, kind in enumerate(kinds):
            name = MODALITIES[kind]
            if f"mid.{name}_features" not in self.tensors:
                continue
            feature = self.tensors[f"mid.{name}_features"][taken[kind]]  # [C, (frames,) rows, cols]
            taken[kind] += 1
            grid = Grid(*feature.shape[1:]) if feature.dim() == 4 else Grid(1, *feature.shape[1:])
            media[row] = (name, feature.flatten(1).T.contiguous(), grid)
        return media

    def aligned(self, stored: Tensor) -> list[tuple[Tensor, slice]]:
        """For each row: the stored valid values, and which of our columns they should be in."""
        pairs = []
        for row, valid in enumerate(~self.tensors["out.encoder_padding_mask"]):
            kept = stored[row][valid]
            pairs.append((kept, slice(0, len(kept))))
        return pairs

"""What is measured of a model of ours: as users run it, and the plain way that this is to equal.

--model -> folder (`base`: drawn now) -> Predictor, plain model -> Writer: one prepared picture -> encode -> beam search -> ids
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from monoglot.bench.measure import Seconds, Stages
from monoglot.data.collate import Batch
from monoglot.data.prepare import Preparer
from monoglot.decode.predict import Predictor, load
from monoglot.decode.search import SearchSettings, beam_search
from monoglot.decode.steps import PlainSteps, Steps, steps_of
from monoglot.errors import InputError
from monoglot.model.config import ModelConfig, unival_base
from monoglot.model.inference import for_inference
from monoglot.model.linears import to_precision
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.nouns import Media, Sample
from monoglot.rng import stream
from monoglot.store import BUNDLED, load_model, model_folder, save_model
from monoglot.text.tokenizer import Tokenizer

NAME = "monoglot"
"""How ours is called beside others."""
BASE = "base"
"""The name that stands for the published configuration with random weights."""
SIDE = 384
"""Pixels of a side of its pictures, as in the first stages of its pretraining."""
TOKENS = 16
"""That one answer has, beside eos, where models are compared."""
BEAM = 5

Way = Callable[[UnifiedModel, Memory, int, Tensor | None], Steps]


@contextmanager
def folder_of(model: str) -> Iterator[Path]:
    """A model's folder. That of `base` is written here, and removed at the end: 330 million random weights, 1.3 GB.

    Raises InputError when there is no such model.
    """
    if model != BASE or Path(model).exists():
        folder = model_folder(model)
        if not folder.is_dir():
            known = f"{BASE} (random weights), nano, or a model folder"
            raise InputError.at(model, "model", "no such folder and no such name", f"give one of: {known}")
        yield folder
        return
    settings = unival_base().model_dump(mode="json")
    settings["modalities"]["image"]["size"] = SIDE
    config = ModelConfig.model_validate(settings)
    torch.manual_seed(0)
    drawn = UnifiedModel(config)
    words = Tokenizer.load(BUNDLED / "nano" / "tokenizer.json", config.vocabulary)
    with TemporaryDirectory(prefix="monoglot-bench-") as drawn_to:
        save_model(Path(drawn_to), drawn, words)
        del drawn
        yield Path(drawn_to)


def predictor_of(folder: Path, *, fixed: bool, beam: int = BEAM, precision: str = "auto") -> Predictor:
    """A model as users load it; every medium is encoded anew.

    Args:
        fixed: answers have TOKENS tokens and eos, found with `beam` beams; else the lengths and beams of their tasks.
    """
    search = SearchSettings(beam=beam, max_length=TOKENS, min_length=TOKENS) if fixed else None
    predictor = load(folder, search=search, precision=precision)
    predictor.keep_features(None)
    return predictor


def plain_steps(model: UnifiedModel, memory: Memory, width: int, code_rows: Tensor | None) -> Steps:
    """The decoder as training runs it."""
    return PlainSteps(model, memory, code_rows)


@dataclass
class Writer:
    """One way to write captions of prepared pictures."""

    model: UnifiedModel
    way: Way

    @torch.no_grad()
    def encode(self, batch: Batch) -> Memory:
        return self.model.encode(batch, self.model.encode_media(batch.media))

    def write(self, batch: Batch, *, beam: int) -> list[tuple[int, ...]]:
        """The best ids of each row, TOKENS and eos."""
        settings = SearchSettings(beam=beam, max_length=TOKENS, min_length=TOKENS)
        found = beam_search(self.model, self.encode(batch), settings, code_rows=batch.code_rows, steps=self.way)
        return [hypotheses[0].tokens for hypotheses in found]

    def by_part(self, batch: Batch, *, beam: int) -> Seconds:
        """Seconds of encoders, transformer, each kind of step (`first` makes keys and values of the source), and the search around them."""
        stages = Stages()
        calls = 0

        class Timed:
            def __init__(self, inner: Steps):
                self.inner = inner

            def __call__(self, ids: Tensor) -> Tensor:
                nonlocal calls
                calls += 1
                with stages("first" if calls == 1 else "steps"):
                    return self.inner(ids)

            def select(self, index: Tensor, beams: int) -> None:
                with stages("steps"):
                    self.inner.select(index, beams)

        def timed_way(model: UnifiedModel, memory: Memory, width: int, code_rows: Tensor | None) -> Steps:
            with stages("first"):
                return Timed(self.way(model, memory, width, code_rows))

        timed = Writer(self.model, timed_way)
        watched = (
            (self.model, "encode_media", "media"),
            (self.model, "encode", "encode"),
            (self.model, "logits", "words"),
        )
        with stages.watching(watched), stages("search"):
            timed.write(batch, beam=beam)
        return stages.seconds | {"total": sum(stages.seconds.values())}


def writers(folder: Path, precision: str, dtype: torch.dtype) -> dict[str, Writer]:
    """Ours as a Predictor answers by it, and the plain way with all weights in `dtype`."""
    fast = to_precision(for_inference(load_model(folder)[0]), precision)
    plain, _ = load_model(folder)
    return {NAME: Writer(fast, steps_of), "plain decoder": Writer(plain.to(dtype), plain_steps)}


def captions(predictor: Predictor, rows: int) -> Batch:
    """So many pictures of noise, prepared, to be captioned. InputError when the model reads no pictures."""
    size = getattr(predictor.model.config.modalities.get("image"), "size", 224)
    rng = stream(0, "bench", "pictures")
    noise = rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8)
    samples = [Sample(str(n), "caption", (Media("image", one),)) for n, one in enumerate(noise)]
    preparer = Preparer(predictor.tokenizer, predictor.model.config)
    return preparer.collate([preparer.example(sample, with_target=False) for sample in samples])

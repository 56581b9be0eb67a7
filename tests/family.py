"""Models to merge: a tiny start and what fine-tuning could have made of it."""

from __future__ import annotations

from pathlib import Path

import torch
from small import tiny_model, tiny_tokenizer

from monoglot.model.unified import UnifiedModel
from monoglot.store import save_model


def start(seed: int = 0, **changes) -> UnifiedModel:
    """A model of some 60 thousand weights that reads text alone, unless said otherwise."""
    return tiny_model(encoders=True, seed=seed, **{"modalities": {}, **changes})


def moved(model: UnifiedModel, seed: int, size: float = 0.1) -> UnifiedModel:
    """The same model, each weight moved at random; statistics and counters too."""
    generator = torch.Generator().manual_seed(seed)
    changed = UnifiedModel(model.config)
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            state[name] = tensor + size * torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                state[name] = state[name].abs() + 0.1
        else:
            state[name] = tensor + seed
    changed.load_state_dict(state)
    return changed.eval()


def saved(folder: Path, model: UnifiedModel, **settings) -> str:
    save_model(folder, model, tiny_tokenizer(), **settings)
    return str(folder)


def family_of(folder: Path) -> dict[str, str]:
    """Folders of a start, `base`, and three models that came from it, `a`, `b` and `c`."""
    base = start()
    found = {"base": saved(folder / "base", base)}
    for number, name in enumerate("abc", start=1):
        found[name] = saved(folder / name, moved(base, number))
    return found

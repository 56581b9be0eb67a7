"""The model that a run or a stage begins with.

recipe -> parts, or a model folder -> UnifiedModel, Tokenizer, lineage;    UnifiedModel + changed settings -> UnifiedModel
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ValidationError

from monoglot.adapters import is_adapter, read_adapter
from monoglot.errors import InputError
from monoglot.interop.parts import part_or_none
from monoglot.interop.warm_start import tokenizer_from_part, warm_start
from monoglot.model.config import ModelConfig
from monoglot.model.lora import add_lora, fold_lora
from monoglot.model.unified import UnifiedModel
from monoglot.store import BUNDLED, base_folder, load_model, model_folder, read_weights
from monoglot.text.tokenizer import Tokenizer
from monoglot.train.recipe import Recipe, first_problem, merged


def start_model(recipe: Recipe) -> tuple[UnifiedModel, Tokenizer, dict[str, Any]]:
    """The model that a run begins with, its tokenizer and where it comes from."""
    if recipe.start not in ("warm", "cold"):
        folder = model_folder(recipe.start)
        model, tokenizer = load_model(folder)
        if not recipe.adapter:
            fold_lora(model)
        if recipe.model_changes:
            model = changed_model(model, recipe.model_changes, seed=recipe.seed)
        if recipe.lora is not None:
            try:
                add_lora(model, recipe.lora, seed=recipe.seed)
            except ValueError as error:
                raise InputError.at("recipe", "lora", str(error)) from None
        return model, tokenizer, {"parents": [recipe.start]}
    assert recipe.model is not None, "the recipe checks this"
    torch.manual_seed(recipe.seed)
    model = UnifiedModel(recipe.model)
    from_part = tokenizer_from_part(part_or_none("whisper-tiny-en"), recipe.model.vocabulary)
    if from_part is not None:
        tokenizer = from_part
    else:
        tokenizer = Tokenizer.load(BUNDLED / "nano" / "tokenizer.json", recipe.model.vocabulary)
    parts = warm_start(model, tokenizer, seed=recipe.seed, language=recipe.start == "warm")
    return model, tokenizer, {"parents": [], "parts": parts, "start": recipe.start}


def unchanged(recipe: Recipe, model: UnifiedModel) -> set[str]:
    """Names of the tensors that a run has left as its start had them; none of a start that is no model folder."""
    if recipe.start in ("warm", "cold"):
        return set()
    folder = model_folder(recipe.start)
    if is_adapter(folder):
        folder = base_folder(read_adapter(folder))
    before = read_weights(folder / "model.safetensors")
    return {
        name
        for name, tensor in model.state_dict().items()
        if name in before and torch.equal(tensor.cpu(), before[name])
    }


def changed_model(model: UnifiedModel, changes: dict[str, Any], *, seed: int = 0) -> UnifiedModel:
    """The model under other settings, with its weights; what a new modality needs is fresh, drawn with `seed`.

    Raises InputError for settings that are none, or that do not fit the weights.
    """
    try:
        config = ModelConfig.model_validate(merged(model.config.model_dump(mode="json"), changes))
    except ValidationError as error:
        field, wrong = first_problem(error, ModelConfig)
        raise InputError.at("recipe", f"model_changes.{field}", wrong) from None
    torch.manual_seed(seed)
    changed = UnifiedModel(config)
    weights, wanted = model.state_dict(), changed.state_dict()
    fresh = set(config.modalities) - set(model.config.modalities)
    differ = [
        name
        for name in {**wanted, **weights}
        if not fresh & set(name.split("."))
        and getattr(weights.get(name), "shape", 0) != getattr(wanted.get(name), "shape", 1)
    ]
    if differ:
        wrong = f"the weights of the start do not fit: {', '.join(differ[:3])}"
        raise InputError.at(
            "recipe", "model_changes", wrong, "sizes, frames, dropout and new modalities can be changed"
        )
    changed.load_state_dict(weights, strict=False)
    return changed.eval()

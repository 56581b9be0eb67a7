"""recipes/published/ against the published hyper-parameters, written down here once more (sections 22 to 25 of the description)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from small import MODALITY_SETTINGS, tiny_model

from monoglot.modalities import MODALITIES
from monoglot.model.config import ModelConfig
from monoglot.model.unified import Memory
from monoglot.train.optim import freeze
from monoglot.train.recipe import Recipe, merged, read_recipe
from monoglot.train.stages import run_length

FOLDER = Path(__file__).parents[2] / "recipes" / "published"
PROCESSORS = 8  # of one node; how many nodes there were is not known
ENCODERS = {"image": "resnet101", "video": "resnext101_3d", "audio": "cnn14"}
KNOWN = "wording" in ModelConfig.model_fields and all(
    encoder in MODALITIES[name].encoders for name, encoder in ENCODERS.items()
)
needs_encoders = pytest.mark.skipif(not KNOWN, reason="the published encoders and wording are not registered here")


class Run(NamedTuple):
    lr: float
    epochs: int
    warmup: float
    batch: int
    accumulated: int
    smoothing: float
    words: tuple[int, int]
    embeddings: str  # "frozen" or "trainable"
    image: int | None = None
    video: int | None = None
    frames: int | None = None
    loss: str = "cross_entropy"
    drop_worst: tuple[float, int] = (0.0, 0)
    trie: bool = False
    ema: float | None = None


BONUS = {"loss": "encouraging", "drop_worst": (0.05, 6000)}
TABLE = {
    "coco_caption": Run(1e-5, 10, 0.06, 16, 1, 0.1, (80, 20), "frozen", image=480, **BONUS),
    "vqav2": Run(1e-4, 20, 0.04, 16, 1, 0.1, (80, 30), "frozen", image=480, trie=True, ema=0.9999),
    "refcoco": Run(5e-5, 10, 0.06, 8, 4, 0.1, (80, 20), "trainable", image=512),
    "refcoco_plus": Run(5e-5, 10, 0.06, 8, 4, 0.1, (80, 20), "trainable", image=512),
    "refcocog": Run(5e-5, 10, 0.06, 8, 4, 0.1, (80, 20), "trainable", image=512),
    "snli_ve": Run(5e-5, 10, 0.06, 8, 4, 0.0, (80, 20), "trainable", image=480, trie=True),
    "msrvtt_caption": Run(1e-5, 20, 0.06, 16, 2, 0.1, (80, 20), "frozen", video=384, frames=16, **BONUS),
    "activitynet_caption": Run(3e-5, 25, 0.06, 16, 2, 0.1, (80, 20), "frozen", video=384, frames=16, **BONUS),
    "msrvtt_qa": Run(
        *(1e-4, 35, 0.04, 8, 2, 0.1, (80, 30), "frozen", None, 384, 8, "encouraging"), trie=True, ema=0.9999
    ),
    "msvd_qa": Run(
        *(1e-4, 40, 0.04, 8, 2, 0.1, (80, 30), "frozen", None, 384, 8, "encouraging"), trie=True, ema=0.9999
    ),
    "audiocaps": Run(1e-4, 25, 0.06, 8, 2, 0.1, (80, 20), "frozen", **BONUS),
    "clotho": Run(5e-5, 25, 0.06, 16, 1, 0.1, (80, 20), "frozen", **BONUS),
}
CONNECTOR_ONLY = {  # what differs from the full fine-tune: rate, epochs, batch
    "linear_coco_caption": ("coco_caption", 5e-4, 25, 16, 2),
    "linear_vqav2": ("vqav2", 5e-4, 25, 16, 2),
    "linear_msrvtt_caption": ("msrvtt_caption", 1e-3, 25, 16, 2),
    "linear_msrvtt_qa": ("msrvtt_qa", 1e-4, 40, 8, 2),
    "linear_audiocaps": ("audiocaps", 5e-4, 25, 8, 2),
}
TABLE |= {
    name: TABLE[full]._replace(lr=lr, epochs=epochs, batch=batch, accumulated=accumulated)
    for name, (full, lr, epochs, batch, accumulated) in CONNECTOR_ONLY.items()
}
STAGES = {  # rate, epochs used, image, video, frames
    "base_stage1_image": (2e-4, 15, 384, None, None),
    "base_stage2_video": (1e-4, 8, 384, 224, 8),
    "base_stage3_highres": (5e-5, 1, 480, 384, 16),
}


def read(name: str) -> Recipe:
    return read_recipe(FOLDER / f"{name}.yaml")


def test_there_is_a_page_for_each_and_no_other():
    assert {path.stem for path in FOLDER.iterdir()} == {*TABLE, *STAGES, "image_generation"}


def test_names_are_those_of_the_files():
    for path in FOLDER.iterdir():
        assert yaml.safe_load(path.read_text())["name"] == path.stem


@pytest.mark.parametrize("name", TABLE)
def test_fine_tuning(name):
    recipe, expected = read(name), TABLE[name]
    changes = recipe.model_changes
    media = changes["modalities"]
    optimizer, loss = recipe.optimizer, recipe.loss
    assert (
        Run(
            lr=optimizer.lr,
            epochs=recipe.epochs,
            warmup=optimizer.warmup,
            batch=recipe.rows_at_once,
            accumulated=recipe.mixture[0].quota // recipe.rows_at_once // PROCESSORS,
            smoothing=recipe.smoothing,
            words=(recipe.source_words, recipe.target_words),
            embeddings="frozen" if "words" in recipe.freeze else "trainable",
            image=media.get("image", {}).get("size"),
            video=media.get("video", {}).get("size"),
            frames=media.get("video", {}).get("frames"),
            loss=loss.kind,
            drop_worst=(loss.drop_worst, loss.drop_worst_after),
            trie=loss.constrain,
            ema=recipe.ema,
        )
        == expected
    )
    assert recipe.mixture[0].quota == expected.batch * expected.accumulated * PROCESSORS
    assert loss.log_end == 0.75
    assert (optimizer.betas, optimizer.weight_decay, optimizer.decay, optimizer.clip) == ((0.9, 0.999), 0.01, "all", 1)
    assert recipe.start == "runs/base_stage3_highres/model"
    assert changes["wording"] == "unival_finetuning"
    assert not {"dropout", "drop_path"} & set(changes), "0.1 each, as the start has them"
    assert media.get("audio", {"encoder": "cnn14", "hop": 200}) == {"encoder": "cnn14", "hop": 200}
    assert len(media) == 1
    assert recipe.schedule_epochs is None
    assert bool(recipe.mixture[0].choices) == (expected.trie and not name.startswith("snli"))
    assert recipe.freeze in ((), ("words",)) or name in CONNECTOR_ONLY


@pytest.mark.parametrize("name", CONNECTOR_ONLY)
def test_connector_only(name):
    """Section 25: the connectors and the tables of media positions, nothing else."""
    still = MODALITY_SETTINGS["video"] | {"frame_positions": 0}  # as the published model has none
    model = tiny_model("untied", modalities=MODALITY_SETTINGS | {"video": still})
    freeze(model, read(name).freeze)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    connectors = {f"source.connectors.{kind}.{part}" for kind in ENCODERS for part in ("weight", "bias")}
    assert trained == connectors | {name for name, _ in model.named_parameters() if name.startswith("source.cells.")}


def test_image_generation():
    recipe = read("image_generation")
    assert (recipe.steps, recipe.epochs, recipe.smoothing, recipe.freeze) == (50_000, None, 0.0, ())
    assert (recipe.rows_at_once, recipe.mixture[0].quota) == (8, 8 * 2 * PROCESSORS)
    assert recipe.optimizer.lr == 1e-3
    assert recipe.optimizer.warmup * recipe.steps == pytest.approx(2000)
    assert (recipe.model_changes["code_grid"] * 8, recipe.source_words) == (256, 64)
    assert recipe.loss.constrain


def test_a_whole_picture_has_room():
    """1024 codes behind bos are one more than text has places; a text as long is refused."""
    side = read("image_generation").model_changes["code_grid"]
    longest = ModelConfig().target_positions
    assert side**2 == longest
    model = tiny_model("untied", modalities={}, code_grid=side, target_positions=longest, grid_side=42)
    memory = Memory(torch.zeros(2, 3, 32), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, 32))
    ids = torch.zeros(2, side**2 + 1, dtype=torch.long)
    with torch.no_grad():
        states = model.decode(ids, memory, code_rows=torch.tensor([True, False]))
        before = model.decode(ids[:, :-1], memory, code_rows=torch.tensor([True, False]))
    torch.testing.assert_close(states[:, :-1], before, atol=1e-5, rtol=1e-5)
    for rows in (None, torch.tensor([False, False])):
        with pytest.raises(ValueError, match="1025 tokens is longer than the 1024"):
            model.decode(ids, memory, code_rows=rows)
    with pytest.raises(ValueError, match="1026 tokens"):
        model.decode(torch.zeros(2, side**2 + 2, dtype=torch.long), memory, code_rows=torch.tensor([True, True]))


def settings(name: str) -> ModelConfig:
    """The model of a page, through all that it starts from."""
    recipe = read(name)
    if recipe.model is not None:
        return recipe.model
    before = settings(recipe.start.removeprefix("runs/").removesuffix("/model"))
    return ModelConfig.model_validate(merged(before.model_dump(mode="json"), recipe.model_changes))


@needs_encoders
@pytest.mark.parametrize("name", STAGES)
def test_pretraining(name):
    lr, epochs, image, video, frames = STAGES[name]
    recipe, model = read(name), settings(name)
    optimizer = recipe.optimizer
    assert (optimizer.lr, recipe.epochs, recipe.schedule_epochs, optimizer.warmup) == (lr, epochs, 50, 0.01)
    assert (optimizer.betas, optimizer.weight_decay, optimizer.decay, optimizer.clip) == ((0.9, 0.999), 0.01, "all", 5)
    assert (recipe.smoothing, recipe.freeze, recipe.loss.kind, recipe.ema) == (0.0, (), "cross_entropy", None)
    assert (recipe.source_words, recipe.target_words) == (80, 30)
    assert model.modalities["image"].size == image
    assert set(model.modalities) == ({"image", "video"} if video else {"image"})
    if video:
        assert (model.modalities["video"].size, model.modalities["video"].frames) == (video, frames)
    base = ModelConfig()
    assert (model.dropout, model.drop_path) == (0.1, 0.1)
    changed = {field for field in ModelConfig.model_fields if getattr(model, field) != getattr(base, field)}
    assert changed == {"name", "wording", "modalities"}, "the defaults are the published transformer"
    assert {kind: read_.encoder for kind, read_ in model.modalities.items()} == {
        kind: ENCODERS[kind] for kind in model.modalities
    }


@needs_encoders
@pytest.mark.parametrize("name", [*TABLE, "image_generation"])
def test_a_page_fits_what_it_starts_from(name):
    model = settings(name)
    assert model.wording == "unival_finetuning"
    assert all(
        model.modalities[kind].encoder == encoder for kind, encoder in ENCODERS.items() if kind in model.modalities
    )


def test_what_a_step_of_pretraining_holds():
    """6.25 examples for each of the 2 x 2 x 8 main rows in stage 1; later as many pictures as clips."""
    quotas = {s["name"]: s["quota"] for s in yaml.safe_load((FOLDER / "base_stage1_image.yaml").read_text())["mixture"]}
    assert sum(quotas.values()) == 6.25 * 2 * 2 * PROCESSORS
    assert quotas["captions"] == quotas["vqa"] == quotas["grounding"] == 8 * quotas["cc12m"] == 2 * 2 * PROCESSORS
    for name in ("base_stage2_video", "base_stage3_highres"):
        recipe = read(name)
        assert [source.quota for source in recipe.mixture] == [2 * 4 * 2 * PROCESSORS] * 2
    steps, schedule = run_length(recipe, 128_000, recipe.mixture[0].quota)
    assert (steps, schedule) == (1000, 50_000)

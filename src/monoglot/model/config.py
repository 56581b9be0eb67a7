"""The settings of a model, field by field. `BASE` is the published model, `unival_base` has its encoders too; `nano` lives in its own folder's config.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from monoglot.modalities import MODALITIES
from monoglot.registry import unknown_name
from monoglot.tasks.wording import Wording
from monoglot.text.vocabulary import BOS, Vocabulary


class ModelConfig(BaseModel):
    """One encoder-decoder. Defaults are the published `unival_base` (UnIVAL, arXiv 2307.16184)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("base", description="How the model is called in messages and reports.")
    vocabulary: Vocabulary = Field(Vocabulary(), description="Which id means what.")
    width: int = Field(768, ge=1, description="D, the width of every state.")
    ffn: int = Field(3072, ge=1, description="Width inside the feed-forward layers.")
    heads: int = Field(12, ge=1, description="Attention heads; must divide the width.")
    encoder_layers: int = Field(6, ge=0)
    decoder_layers: int = Field(6, ge=1)
    source_positions: int = Field(1024, ge=4, description="Longest text in the source, in tokens.")
    target_positions: int = Field(1024, ge=4, description="Longest answer, in tokens.")
    start: tuple[int, ...] = Field(
        (BOS,),
        min_length=1,
        description="Tokens that every answer begins with, unseen. nano's two are Whisper's: start of transcript, no timestamps.",
    )
    wording: Wording = Field(
        "own",
        description="How tasks put their rows: 'own', or as UnIVAL did in its 'unival_pretraining' or 'unival_finetuning'.",
    )
    positions: Literal["untied", "added"] = Field(
        "untied",
        description="'untied': positions speak in a bias beside the content, as in the published model; 'added': added to the embeddings.",
    )
    attention_scale: float = Field(
        2.0, gt=0, description="Scores are divided by sqrt(attention_scale * head width); 1 is the usual attention."
    )
    norm_attention: bool = Field(True, description="LayerNorm after each attention (the published scale_attn).")
    norm_ffn: bool = Field(True, description="LayerNorm inside each feed-forward layer (scale_fc).")
    scale_heads: bool = Field(True, description="A learned factor for each head (scale_heads).")
    norm_target: bool = Field(True, description="LayerNorm on the decoder's embeddings; the encoder's always have it.")
    token_bucket: int = Field(
        256,
        ge=2,
        description="Relative text distances up to half of this are exact, further ones logarithmic ('untied').",
    )
    grid_side: int = Field(42, ge=1, description="Media positions lie on a grid of this many rows and columns.")
    code_grid: int = Field(
        16,
        ge=1,
        description="Rows and columns of image codes that the decoder can write (the published code_image_size / 8).",
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    drop_path: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Rate at which the last layer's branches are left out of a sample in training; grows linearly from 0.",
    )
    modalities: dict[str, Any] = Field({}, description="Settings of each modality that the model reads, by name.")

    @field_validator("modalities")
    @classmethod
    def _known_modalities(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {name: _read_settings(name, settings) for name, settings in value.items()}

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def _read_settings(name: str, settings: Any) -> Any:
    """The settings of one modality; ValueError in one line."""
    modality = MODALITIES[name]
    try:
        read: Any = modality.config.model_validate(settings)  # each has an `encoder`
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][-1]) if first["loc"] else ""
        wrong = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            wrong = unknown_name("key", key, modality.config.model_fields)
        raise ValueError(": ".join(part for part in (name, key, wrong) if part)) from None
    if read.encoder not in modality.encoders:
        raise ValueError(f"{name}: {unknown_name('encoder', read.encoder, modality.encoders)}")
    return read


BASE = ModelConfig()
"""The published transformer, without modality encoders."""

PUBLISHED_ENCODERS = {"image": "resnet101", "video": "resnext101_3d", "audio": "cnn14"}


def unival_base(*media: str, published: bool = False) -> ModelConfig:
    """The published `unival_base` with its encoders, at the sizes of its last stage and of its fine-tuning.

    Args:
        media: which modalities a checkpoint reads; all three unless said. Image only: stage 1 and RefCOCO; image and
            video: from stage 2 on; all: fine-tuned on sounds.
        published: what each modality's switch of that name says.

    Source: sections 8, 14 and 18 of the published model's arithmetic.

    >>> {name: settings.encoder for name, settings in unival_base("image", "video").modalities.items()}
    {'image': 'resnet101', 'video': 'resnext101_3d'}
    """
    wanted = media or tuple(PUBLISHED_ENCODERS)
    for name in wanted:
        if name not in PUBLISHED_ENCODERS:
            raise ValueError(unknown_name("published modality", name, PUBLISHED_ENCODERS))
    settings = {name: {"encoder": PUBLISHED_ENCODERS[name], "published": published} for name in wanted}
    return ModelConfig(modalities=settings)

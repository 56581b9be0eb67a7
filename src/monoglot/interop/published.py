"""The published checkpoints' names and ours, both ways.

state dict of fairseq's UnIVAL or OFA -> transformer_from_published -> state dict of UnifiedModel -> to_published -> the former

One entry of ours is made of one published entry or of two: keys and values are one matrix here, and the two relation
tables are one, behind a row that says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from monoglot.model.config import ModelConfig

ENCODERS = {
    "encoder.embed_images.": "encoders.image.",
    "encoder.embed_videos.": "encoders.video.",
    "encoder.embed_audios.": "encoders.audio.",
}
"""Where each modality's network is kept; behind these prefixes its names are the published ones."""

# Published name <-> ours; the first that fits wins. What {...} stands for is below.
_NAMES: tuple[tuple[str, str], ...] = (
    ("encoder.embed_tokens.weight", "words.weight"),
    ("encoder.type_embedding.weight", "source.types.weight"),
    ("encoder.layernorm_embedding.{leaf}", "source.word_norm.{leaf}"),
    ("encoder.patch_layernorm_embedding.{leaf}", "source.media_norm.{leaf}"),
    ("encoder.{modality}_proj.{leaf}", "source.connectors.{modality}.{leaf}"),
    ("encoder.embed_{modality}_positions.weight", "source.cells.{modality}.weight"),
    ("encoder.embed_positions.weight", "source.text_positions.weight"),
    ("encoder.pos_ln.{leaf}", "source.text_position_norm.{leaf}"),
    ("encoder.image_pos_ln.{leaf}", "source.cell_norm.{leaf}"),
    ("encoder.pos_{end}_linear.{leaf}", "encoder_bias.{end}.{leaf}"),
    ("decoder.self_pos_{end}_linear.{leaf}", "decoder_bias.{end}.{leaf}"),
    ("decoder.cross_pos_{end}_linear.{leaf}", "cross_bias.{end}.{leaf}"),
    ("decoder.layernorm_embedding.{leaf}", "target.word_norm.{leaf}"),
    ("decoder.code_layernorm_embedding.{leaf}", "target.code_norm.{leaf}"),
    ("decoder.embed_positions.weight", "target.text_positions.weight"),
    ("decoder.embed_image_positions.weight", "target.cells.weight"),
    ("decoder.pos_ln.{leaf}", "target.text_position_norm.{leaf}"),
    ("decoder.image_pos_ln.{leaf}", "target.cell_norm.{leaf}"),
    ("{side}.layer_norm.{leaf}", "{side}_norm.{leaf}"),
    ("{side}.layers.{n}.self_attn.c_attn", "{side}_layers.{n}.attention.head_scale"),
    ("{side}.layers.{n}.self_attn.{map}_proj.{leaf}", "{side}_layers.{n}.attention.{map}.{leaf}"),
    ("{side}.layers.{n}.self_attn_layer_norm.{leaf}", "{side}_layers.{n}.attention_norm.{leaf}"),
    ("encoder.layers.{n}.attn_ln.{leaf}", "encoder_layers.{n}.attention_out_norm.{leaf}"),
    ("decoder.layers.{n}.self_attn_ln.{leaf}", "decoder_layers.{n}.attention_out_norm.{leaf}"),
    ("decoder.layers.{n}.encoder_attn.c_attn", "decoder_layers.{n}.cross.head_scale"),
    ("decoder.layers.{n}.encoder_attn.{map}_proj.{leaf}", "decoder_layers.{n}.cross.{map}.{leaf}"),
    ("decoder.layers.{n}.encoder_attn_layer_norm.{leaf}", "decoder_layers.{n}.cross_norm.{leaf}"),
    ("decoder.layers.{n}.cross_attn_ln.{leaf}", "decoder_layers.{n}.cross_out_norm.{leaf}"),
    ("{side}.layers.{n}.final_layer_norm.{leaf}", "{side}_layers.{n}.ffn_norm.{leaf}"),
    ("{side}.layers.{n}.fc1.{leaf}", "{side}_layers.{n}.ffn.up.{leaf}"),
    ("{side}.layers.{n}.fc2.{leaf}", "{side}_layers.{n}.ffn.down.{leaf}"),
    ("{side}.layers.{n}.ffn_layernorm.{leaf}", "{side}_layers.{n}.ffn.norm.{leaf}"),
    ("{side}.{table}_rel_pos_table_list.{n}.weight", "{side}_relations.{n}.{table}"),
    *((theirs + "{rest}", ours + "{rest}") for theirs, ours in ENCODERS.items()),
)
_STANDS_FOR = {
    "side": "encoder|decoder",
    "n": r"\d+",
    "modality": "image|video|audio",
    "map": "q|k|v|out",
    "end": "q|k",
    "table": "token|image",
    "leaf": "weight|bias",
    "rest": ".+",
}


def our_name(published: str) -> str | None:
    """Our name for one published entry; keys and values, and the two relation tables, still apart. None when we have no such thing.

    >>> our_name("decoder.layers.3.encoder_attn.k_proj.bias")
    'decoder_layers.3.cross.k.bias'
    """
    return _translate(published, 0)


def published_names(ours: str) -> tuple[str, ...]:
    """The published entries that one entry of ours is made of, in order; none when they have no such thing.

    >>> published_names("decoder_layers.3.cross.kv.bias")
    ('decoder.layers.3.encoder_attn.k_proj.bias', 'decoder.layers.3.encoder_attn.v_proj.bias')
    >>> published_names("source.frames.video.weight")
    ()
    """
    parts = [ours]
    if match := re.fullmatch(r"(\w+_layers\.\d+\.\w+)\.kv\.(\w+)", ours):
        parts = [f"{match[1]}.{part}.{match[2]}" for part in "kv"]
    elif match := re.fullmatch(r"(\w+_relations\.\d+)\.weight", ours):
        parts = [f"{match[1]}.{table}" for table in ("token", "image")]
    names = tuple(name for part in parts if (name := _translate(part, 1)) is not None)
    return names if len(names) == len(parts) else ()


def joined(ours: str, parts: Sequence[Tensor]) -> Tensor:
    """One entry of ours from its published parts, which are in the order of `published_names`. A single part is passed on, not copied."""
    if "_relations." in ours:
        parts = [parts[0].new_zeros(1, parts[0].shape[1]), *parts]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def transformer_from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published entries that we have a name for, as ours."""
    named = [name for published in state if (name := our_name(published)) is not None]
    whole = {re.sub(r"(_layers\.\d+\.\w+)\.[kv]\.", r"\1.kv.", name) for name in named}
    whole = {re.sub(r"(_relations\.\d+)\.\w+$", r"\1.weight", name) for name in whole}
    return {name: joined(name, [state[part] for part in published_names(name)]) for name in sorted(whole)}


def to_published(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A state dict of ours under the published names: the way back, without what the published model computes or copies."""
    published: dict[str, Tensor] = {}
    for ours, tensor in state.items():
        names = published_names(ours)
        if "_relations." in ours:
            tokens = 2 * config.token_bucket - 1
            parts: Sequence[Tensor] = (tensor[1 : 1 + tokens], tensor[1 + tokens :])
        else:
            parts = tensor.chunk(len(names)) if len(names) > 1 else (tensor,)
        published |= dict(zip(names, parts))
    return published


@lru_cache(maxsize=8192)
def _translate(name: str, direction: int) -> str | None:
    """`name` in the other language; direction 0 reads theirs, 1 reads ours."""
    for pattern, pair in zip(_PATTERNS[direction], _NAMES):
        if match := pattern.fullmatch(name):
            return pair[1 - direction].format(**match.groupdict())
    return None


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)  # text, placeholder, text, ...
    return re.compile("".join(f"(?P<{p}>{_STANDS_FOR[p]})" if i % 2 else re.escape(p) for i, p in enumerate(parts)))


_PATTERNS = tuple([_pattern(pair[direction]) for pair in _NAMES] for direction in (0, 1))

"""The published checkpoints' names and ours. Only the transformer and its embeddings; each modality's encoder maps its own.

state dict of fairseq's UnIVAL -> transformer_from_published -> state dict of UnifiedModel
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

# Published name -> ours; the first pattern that matches the whole name wins.
_LAYER = r"(encoder|decoder)\.layers\.(\d+)\."
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"encoder\.embed_tokens\.weight", r"words.weight"),
    (r"encoder\.type_embedding\.weight", r"source.types.weight"),
    (r"encoder\.layernorm_embedding\.(\w+)", r"source.word_norm.\1"),
    (r"encoder\.patch_layernorm_embedding\.(\w+)", r"source.media_norm.\1"),
    (r"encoder\.(image|video|audio)_proj\.(\w+)", r"source.connectors.\1.\2"),
    (r"encoder\.embed_(image|video|audio)_positions\.weight", r"source.cells.\1.weight"),
    (r"encoder\.embed_positions\.weight", r"source.text_positions.weight"),
    (r"encoder\.pos_ln\.(\w+)", r"source.text_position_norm.\1"),
    (r"encoder\.image_pos_ln\.(\w+)", r"source.cell_norm.\1"),
    (r"encoder\.pos_([qk])_linear\.(\w+)", r"encoder_bias.\1.\2"),
    (r"decoder\.self_pos_([qk])_linear\.(\w+)", r"decoder_bias.\1.\2"),
    (r"decoder\.cross_pos_([qk])_linear\.(\w+)", r"cross_bias.\1.\2"),
    (r"decoder\.layernorm_embedding\.(\w+)", r"target.word_norm.\1"),
    (r"decoder\.code_layernorm_embedding\.(\w+)", r"target.code_norm.\1"),
    (r"decoder\.embed_positions\.weight", r"target.text_positions.weight"),
    (r"decoder\.embed_image_positions\.weight", r"target.cells.weight"),
    (r"decoder\.pos_ln\.(\w+)", r"target.text_position_norm.\1"),
    (r"decoder\.image_pos_ln\.(\w+)", r"target.cell_norm.\1"),
    (r"(encoder|decoder)\.layer_norm\.(\w+)", r"\1_norm.\2"),
    (_LAYER + r"self_attn\.c_attn", r"\1_layers.\2.attention.head_scale"),
    (_LAYER + r"self_attn\.(q|k|v|out)_proj\.(\w+)", r"\1_layers.\2.attention.\3.\4"),
    (_LAYER + r"encoder_attn\.c_attn", r"\1_layers.\2.cross.head_scale"),
    (_LAYER + r"encoder_attn\.(q|k|v|out)_proj\.(\w+)", r"\1_layers.\2.cross.\3.\4"),
    (_LAYER + r"self_attn_layer_norm\.(\w+)", r"\1_layers.\2.attention_norm.\3"),
    (_LAYER + r"(?:attn_ln|self_attn_ln)\.(\w+)", r"\1_layers.\2.attention_out_norm.\3"),
    (_LAYER + r"encoder_attn_layer_norm\.(\w+)", r"\1_layers.\2.cross_norm.\3"),
    (_LAYER + r"cross_attn_ln\.(\w+)", r"\1_layers.\2.cross_out_norm.\3"),
    (_LAYER + r"final_layer_norm\.(\w+)", r"\1_layers.\2.ffn_norm.\3"),
    (_LAYER + r"fc1\.(\w+)", r"\1_layers.\2.ffn.up.\3"),
    (_LAYER + r"fc2\.(\w+)", r"\1_layers.\2.ffn.down.\3"),
    (_LAYER + r"ffn_layernorm\.(\w+)", r"\1_layers.\2.ffn.norm.\3"),
    (r"(encoder|decoder)\.(token|image)_rel_pos_table_list\.(\d+)\.weight", r"\1_relations.\3.\2"),
)


def our_name(published: str) -> str | None:
    """Our name for one published entry; keys and values, and the two relation tables, still apart. None when the transformer has no such thing.

    >>> our_name("decoder.layers.3.encoder_attn.k_proj.bias")
    'decoder_layers.3.cross.k.bias'
    """
    for pattern, replacement in _RENAMES:
        if match := re.fullmatch(pattern, published):
            return match.expand(replacement)
    return None


def transformer_from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's part of a published state dict under our names: keys and values fused, relation tables joined behind an empty row."""
    named = {ours: tensor for name, tensor in state.items() if (ours := our_name(name)) is not None}
    result = {
        name: tensor
        for name, tensor in named.items()
        if not re.search(r"\.[kv]\.(weight|bias)$|_relations\.\d+\.(token|image)$", name)
    }
    result |= {name: tensor for name, tensor in named.items() if re.search(r"_bias\.k\.", name)}
    for name in named:
        if match := re.fullmatch(r"(.*_layers\.\d+\.\w+)\.k\.(weight|bias)", name):
            result[f"{match[1]}.kv.{match[2]}"] = torch.cat([named[name], named[f"{match[1]}.v.{match[2]}"]])
        if match := re.fullmatch(r"(\w+_relations\.\d+)\.token", name):
            nothing = torch.zeros(1, named[name].shape[1], dtype=named[name].dtype)
            result[f"{match[1]}.weight"] = torch.cat([nothing, named[name], named[f"{match[1]}.image"]])
    return result

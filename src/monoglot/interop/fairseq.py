"""`monoglot import`: a published checkpoint becomes a model folder.

    read_checkpoint -> find_weights (state, settings) -> config_of -> tokenizer -> fill a model -> folder, with import.json

UnIVAL of any stage and OFA of any size give a finished model; BART-base gives the start of stage 1: what it lacks is fresh.
Everything is checked before the first byte is written, and the folder appears whole or not at all.

Source: sections 8, 17 and 18 of the published model's arithmetic.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from torch import Tensor

from monoglot.errors import InputError
from monoglot.files import sha256_of, write_json
from monoglot.interop.bpe import read_bpe
from monoglot.interop.checkpoint import plain, read_checkpoint
from monoglot.interop.published import ENCODERS, joined, published_names
from monoglot.modalities import MODALITIES
from monoglot.modalities.networks.resnet import BLOCKS
from monoglot.model.config import PUBLISHED_ENCODERS, ModelConfig
from monoglot.model.unified import UnifiedModel
from monoglot.store import SkipInit, save_model
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import SPECIALS, Vocabulary

NETWORKS: dict[tuple[str, tuple[int, ...]], str] = {
    **{("image", blocks): f"resnet{depth}" for depth, blocks in BLOCKS.items()},
    **{("image", blocks[:3]): f"ofa_resnet{depth}" for depth, blocks in BLOCKS.items()},
    ("video", BLOCKS[101]): PUBLISHED_ENCODERS["video"],
    ("audio", (2, 2, 2, 2, 2, 2)): PUBLISHED_ENCODERS["audio"],
}
"""(modality, blocks of each stage) -> the name of our encoder. OFA's networks stop a stage earlier than UnIVAL's."""

READING = {
    "image": {"patch_image_size": "size"},
    "video": {"patch_frame_size": "size", "num_frames": "frames"},
    "audio": {"hop_size": "hop"},
}
"""How media are read: the checkpoint's setting -> ours. What it does not say is as the encoder's defaults have it."""

PLACES: dict[str, dict[str, Any]] = {"image": {}, "video": {"frame_positions": 0}, "audio": {"positions": "square"}}
"""Where tokens lie: frames of a clip share one grid, sounds lie as if they filled a square (sections 9 and 10)."""

PRETRAINING = "unify_task"
"""The task of stages 1 and 2 in a checkpoint's settings; each fine-tuning has its own, and other prompts (section 3)."""

ARITHMETIC: dict[str, object] = {
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "activation_fn": "gelu",
    "no_scale_embedding": True,
    "share_all_embeddings": True,
    "layernorm_embedding": True,
    "patch_layernorm_embedding": True,
    "code_layernorm_embedding": True,
    "add_type_embedding": True,
    "disable_entangle": True,
    "entangle_position_embedding": False,
    "no_token_positional_embeddings": False,
    "scale_resids": False,
    "qk_norm": False,
    "add_mm_type_embedding": False,
    "encoder_prompt": False,
    "decoder_prompt": False,
    "adapter": False,
    "no_cross_attention": False,
    "cross_self_attention": False,
}
"""Settings that decide what is computed, each with the only value that this model computes; absent ones are taken for that."""

COPY = "the same as encoder.embed_tokens.weight"
UNUSED: tuple[tuple[str, str], ...] = (
    (r"(encoder|decoder)\.version|.*_float_tensor", "a version number"),
    (r"(encoder|decoder)\.(\w+_rp_bucket|image_position_idx)", "computed here"),
    (r"decoder\.(embed_tokens|output_projection)\.weight|lm_head\.weight", COPY),
    (r"encoder\.embed_images\.fc\..*", "ImageNet's classifier"),
    (r".*\.num_batches_tracked", "a count that nothing reads"),
    (r"encoder\.embed_audios\.spectrogram_extractor\..*", "computed here"),
    (r"classification_heads\..*", "a classifier's head"),
    (r"final_logits_bias", "zeros"),
)
"""Published entries that a finished model does without, and why."""

STAGE_1 = {"image": {"encoder": PUBLISHED_ENCODERS["image"], "size": 384}}
"""What a start from BART sees with, as stage 1 does; the network's weights are fresh."""

Status = Literal["taken", "converted", "fresh", "unused"]


@dataclass(frozen=True)
class Entry:
    """What became of one entry: `taken` as it is, `converted` (joined), `fresh` (the file lacks it), `unused` (we lack it)."""

    status: Status
    published: tuple[str, ...]
    ours: str
    shape: tuple[int, ...]
    why: str = ""


@dataclass(frozen=True)
class Weights:
    """What a checkpoint says: published names -> tensors, and its settings."""

    path: Path
    state: dict[str, Tensor]
    settings: dict[str, Any]
    which: Literal["model", "ema"]

    @property
    def is_bart(self) -> bool:
        return "encoder.pos_q_linear.weight" not in self.state and "encoder.type_embedding.weight" not in self.state

    def matrix(self, name: str) -> tuple[int, int]:
        """Rows and columns of an entry that must be there."""
        if name not in self.state:
            fix = "the checkpoint is incomplete or of another architecture"
            raise InputError.at(self.path, name, "is missing", fix)
        if self.state[name].dim() != 2:
            raise InputError.at(self.path, name, f"is {list(self.state[name].shape)}, expected a matrix")
        return len(self.state[name]), self.state[name].shape[1]

    def said(self, name: str, otherwise: float) -> float:
        """A number of the settings; `otherwise` when they do not hold it."""
        value = self.settings.get(name)
        if value is None:
            return otherwise
        if not isinstance(value, (int, float)):
            raise InputError.at(self.path, name, f"is a {type(value).__name__}, expected a number")
        return value

    def count(self, pattern: str) -> int:
        """How many different numbers stand in names that begin like the pattern's."""
        return len({match[1] for name in self.state if (match := re.match(pattern, name))})


@dataclass(frozen=True)
class Imported:
    """What `import_checkpoint` did."""

    folder: Path
    config: ModelConfig
    which: Literal["model", "ema"]
    entries: tuple[Entry, ...]

    @property
    def unknown(self) -> list[str]:
        """Published entries that nothing here explains."""
        return [entry.published[0] for entry in self.entries if entry.status == "unused" and not entry.why]


def import_checkpoint(
    path: Path,
    out: Path,
    *,
    bpe: Path | None,
    ema: bool = True,
    without: Sequence[str] = (),
    published: bool = False,
) -> Imported:
    """Write a model folder from a published checkpoint.

    Args:
        bpe: folder of dict.txt, encoder.json, vocab.bpe (`utils/BPE` of the authors' code), or of vocab.json, merges.txt.
        ema: take the averaged weights when the file has them, as the authors do for VQA.
        without: modalities whose encoder is left out.
        published: what each modality's switch of that name says: read media as the authors do at evaluation.

    Raises:
        InputError: not such a file; an architecture that is not computed here; an entry missing or of another shape; the
            dictionary does not fit; `out` holds something already. Nothing is written then.

    >>> import_checkpoint(Path("checkpoint1.pt"), Path("unival"), bpe=Path("BPE")).config.width  # doctest: +SKIP
    768
    """
    path, out = Path(path), Path(out)
    for modality in without:
        MODALITIES[modality]  # a misspelt name is told
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError.at(out, "--out", "is there already", "give a new folder")
    if bpe is None:
        fix = "give the folder of dict.txt, encoder.json and vocab.bpe: utils/BPE in the authors' code"
        raise InputError.at("command line", "--bpe-dir", "is missing: a checkpoint does not hold its dictionary", fix)
    weights = find_weights(path, read_checkpoint(path), ema=ema)
    config = config_of(weights, without=without, published=published)
    tokenizer = read_bpe(bpe, config.vocabulary)
    model, entries = build(weights, config)
    _write(out, model, tokenizer, weights, entries)
    return Imported(out, config, weights.which, tuple(entries))


# --- what the file says -----------------------------------------------------------------------------------------------


def find_weights(path: Path, contents: dict[str, Any], *, ema: bool = True) -> Weights:
    """The state dict and the settings in a checkpoint: fairseq's, or a bare state dict (as Hugging Face keeps BART)."""
    state, which = contents.get("model", contents), "model"
    extra = contents.get("extra_state")
    if ema and isinstance(extra, dict) and isinstance(extra.get("ema"), dict) and extra["ema"]:
        state, which = extra["ema"], "ema"
    state = state if isinstance(state, dict) else {}
    tensors = {str(n).removeprefix("model."): t.detach() for n, t in state.items() if isinstance(t, Tensor)}
    config = plain(contents.get("cfg"))
    settings = config.get("model") if isinstance(config, dict) else plain(contents.get("args"))
    if "shared.weight" in tensors:
        tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    needed = ("encoder.embed_tokens.weight", "encoder.layers.0.fc1.weight", "decoder.layers.0.fc1.weight")
    if any(name not in tensors for name in needed):
        some = ", ".join(list(tensors)[:3]) or "no tensors"
        raise InputError.at(path, "model", f"holds {some}", "expected the weights of UnIVAL, OFA or BART")
    return Weights(path, tensors, settings if isinstance(settings, dict) else {}, which)  # type: ignore[arg-type]


def config_of(weights: Weights, *, without: Sequence[str] = (), published: bool = False) -> ModelConfig:
    """The model's settings: sizes from the shapes, the rest from the settings that the file carries.

    Raises:
        InputError: the settings ask for arithmetic that is not ours, or for an encoder that is not here.
    """
    if not weights.is_bart:
        _same_arithmetic(weights)
    ffn, width = weights.matrix("encoder.layers.0.fc1.weight")
    named = weights.settings.get("arch") or weights.settings.get("_name")
    pretrained = weights.settings.get("task", PRETRAINING) == PRETRAINING
    page: dict[str, Any] = {
        "name": str(named or ("bart_base" if weights.is_bart else "unival")),
        "width": width,
        "ffn": ffn,
        "heads": weights.said("encoder_attention_heads", width // 64),
        "encoder_layers": weights.count(r"encoder\.layers\.(\d+)\."),
        "decoder_layers": weights.count(r"decoder\.layers\.(\d+)\."),
        "source_positions": weights.matrix("encoder.embed_positions.weight")[0] - 2,
        "target_positions": weights.matrix("decoder.embed_positions.weight")[0] - 2,
        "dropout": weights.said("dropout", 0.1),
        "wording": "unival_pretraining" if pretrained else "unival_finetuning",
    }
    if weights.is_bart:
        modalities = {name: settings for name, settings in STAGE_1.items() if name not in without}
    else:
        modalities = _modalities(weights, without)
        buckets, heads = weights.matrix("encoder.token_rel_pos_table_list.0.weight")
        page |= {
            "vocabulary": _vocabulary(weights),
            "heads": heads,
            "token_bucket": (buckets + 1) // 2,
            "grid_side": math.isqrt(weights.matrix("decoder.embed_image_positions.weight")[0] - 1),
            "code_grid": int(weights.said("code_image_size", 128)) // 8,
            "attention_scale": weights.said("attn_scale_factor", 2),
            "norm_attention": "encoder.layers.0.attn_ln.weight" in weights.state,
            "norm_ffn": "encoder.layers.0.ffn_layernorm.weight" in weights.state,
            "scale_heads": "encoder.layers.0.self_attn.c_attn" in weights.state,
            "drop_path": weights.said("encoder_drop_path_rate", 0.1),
        }
    page["modalities"] = {name: settings | {"published": published} for name, settings in modalities.items()}
    try:
        return ModelConfig.model_validate(page)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError.at(weights.path, field, first["msg"].removeprefix("Value error, ")) from None


def _same_arithmetic(weights: Weights) -> None:
    for name, ours in ARITHMETIC.items():
        theirs = weights.settings.get(name)
        if theirs is not None and not (isinstance(theirs, (bool, str, int)) and theirs == ours):
            wrong = f"is {theirs!r}, and only {ours!r} is computed here"
            raise InputError.at(weights.path, name, wrong, "this variant of the architecture cannot be imported")


def _vocabulary(weights: Weights) -> Vocabulary:
    """Words are what image codes and location bins leave of the embedding's rows."""
    size = weights.matrix("encoder.embed_tokens.weight")[0]
    codes, bins = int(weights.said("code_dict_size", 8192)), int(weights.said("num_bins", 1000))
    words = size - len(SPECIALS) - 1 - codes - bins
    if words < 1:
        wrong = f"has {size} rows, too few for {codes} image codes and {bins} location bins"
        raise InputError.at(weights.path, "encoder.embed_tokens.weight", wrong)
    return Vocabulary(num_words=words, num_codes=codes, num_bins=bins)


def _modalities(weights: Weights, without: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of each modality that the file has a connector for."""
    found: dict[str, dict[str, Any]] = {}
    for modality in ("image", "video", "audio"):
        if modality in without or f"encoder.{modality}_proj.weight" not in weights.state:
            continue
        blocks = _blocks(weights, modality)
        if (modality, blocks) not in NETWORKS:
            wrong = f"the {modality} encoder has stages of {', '.join(map(str, blocks)) or 'no'} blocks"
            known = ", ".join(f"{name} {blocks}" for (kind, blocks), name in NETWORKS.items() if kind == modality)
            fix = f"known here: {known}; --without {modality} imports the rest"
            raise InputError.at(weights.path, f"encoder.embed_{modality}s", wrong, fix)
        told = {ours: weights.said(theirs, 0) for theirs, ours in READING[modality].items()}
        reading = {name: value for name, value in told.items() if value}
        found[modality] = {"encoder": NETWORKS[modality, blocks]} | PLACES[modality] | reading
    return found


def _blocks(weights: Weights, modality: str) -> tuple[int, ...]:
    """How many blocks each stage of an encoder has: layer1.0, layer1.1, ... or conv_block1.conv1, ..."""
    name = re.compile(rf"encoder\.embed_{modality}s\.(?:layer|conv_block)(\d+)\.(?:conv)?(\d+)\.")
    found = {match.groups() for entry in weights.state if (match := name.match(entry))}
    stages = Counter(int(stage) for stage, _ in found)
    return tuple(stages[stage] for stage in sorted(stages))


# --- the model --------------------------------------------------------------------------------------------------------


def build(weights: Weights, config: ModelConfig) -> tuple[UnifiedModel, list[Entry]]:
    """A model with the file's weights, in the file's type, and what became of every entry. One-to-one entries are not copied.

    Raises:
        InputError: an entry is missing or of another shape, or the file has parts of layers that are not computed here.
    """
    start = weights.is_bart
    with torch.random.fork_rng(devices=[]), nullcontext() if start else SkipInit():
        torch.manual_seed(0)
        model = UnifiedModel(config)
    state, entries, missing = {}, [], []
    for ours, tensor in model.state_dict().items():
        names = published_names(ours)
        absent = [name for name in names if name not in weights.state]
        if names and not absent:
            state[ours] = _fitted(weights, ours, names, tensor, config)
            status: Status = "taken" if state[ours] is weights.state[names[0]] else "converted"
            entries.append(Entry(status, names, ours, tuple(tensor.shape)))
        else:
            missing += absent or [ours]
            entries.append(Entry("fresh", (), ours, tuple(tensor.shape), "not in the file"))
    if missing and not start:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        fix = "the checkpoint is incomplete or of another architecture"
        raise InputError.at(weights.path, "model", f"{', '.join(missing[:3])}{more} missing", fix)
    entries += _unused(weights, config, {name for entry in entries for name in entry.published})
    model.load_state_dict(state, strict=False, assign=True)
    return model.eval(), entries


def _fitted(weights: Weights, ours: str, names: Sequence[str], like: Tensor, config: ModelConfig) -> Tensor:
    """The file's tensor for one entry of ours, checked against its shape."""
    parts = [weights.state[name] for name in names]
    found = " and ".join(str(list(part.shape)) for part in parts)
    try:
        tensor = joined(ours, parts)
    except (RuntimeError, IndexError):
        raise InputError.at(weights.path, names[0], f"is {found}, which do not go together") from None
    if weights.is_bart and ours == "words.weight":
        tensor = _words_of_bart(weights, tensor, config)
    if tensor.shape != like.shape:
        wrong = f"is {found}, expected {list(like.shape)} by the rest of the file"
        raise InputError.at(weights.path, names[0], wrong, "the checkpoint is damaged or of another architecture")
    return tensor


def _words_of_bart(weights: Weights, theirs: Tensor, config: ModelConfig) -> Tensor:
    """BART's words and, from its last row, its mask; codes and bins are drawn as the published model draws new rows."""
    mask, size = config.vocabulary.mask, config.vocabulary.size
    if theirs.dim() != 2 or len(theirs) <= mask:
        wrong = f"is {list(theirs.shape)}, expected more than {mask} rows"
        raise InputError.at(weights.path, "encoder.embed_tokens.weight", wrong, "give BART-base")
    new = torch.randn(size - mask - 1, config.width, generator=torch.Generator().manual_seed(0)) * config.width**-0.5
    return torch.cat([theirs[:mask], theirs[-1:], new.to(theirs.dtype)])


def _unused(weights: Weights, config: ModelConfig, used: set[str]) -> list[Entry]:
    """An entry for everything that nobody took. Copies are compared; unexplained parts of layers are refused."""
    words = weights.state["encoder.embed_tokens.weight"]
    entries = []
    for name, tensor in weights.state.items():
        if name in used:
            continue
        why = next((reason for pattern, reason in UNUSED if re.fullmatch(pattern, name)), "")
        if why == COPY and tensor.data_ptr() != words.data_ptr() and not torch.equal(tensor, words):
            wrong = "differs from encoder.embed_tokens.weight; only one matrix for both is computed here"
            raise InputError.at(weights.path, name, wrong, "this variant of the architecture cannot be imported")
        if re.match(r"(encoder|decoder)\.layers\.", name):
            wrong = "is a part of a layer that is not computed here"
            raise InputError.at(weights.path, name, wrong, "this variant of the architecture cannot be imported")
        modality = re.match(r"encoder\.(?:embed_)?(image|video|audio)", name)
        if modality and modality[1] not in config.modalities:
            why = f"{modality[1]} is left out"
        entries.append(Entry("unused", (name,), "", tuple(tensor.shape), why))
    return entries


# --- the folder -------------------------------------------------------------------------------------------------------


def _write(out: Path, model: UnifiedModel, tokenizer: Tokenizer, weights: Weights, entries: Sequence[Entry]) -> None:
    """All files of the folder beside it, then the folder at once. Weights keep the file's type, unless it mixes several."""
    kinds = {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}
    dtype = kinds.pop() if len(kinds) == 1 and torch.float64 not in kinds else torch.float32
    source = {"file": weights.path.name, "sha256": sha256_of(weights.path), "weights": weights.which}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        card = _card(model.config, source, weights.is_bart)
        save_model(temporary, model, tokenizer, dtype=dtype, card=card, lineage={"parents": [], "imported": source})
        write_json(temporary / "import.json", source | {"entries": [asdict(entry) for entry in entries]})
        os.replace(temporary, out)
    except OSError as error:
        wrong = f"cannot be written ({error.strerror or error})"
        raise InputError.at(out, "--out", wrong, "free some space or choose another place") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _card(config: ModelConfig, source: dict[str, str], start: bool) -> str:
    what = (
        "The start of a first training stage: BART's weights, the rest is fresh and has learned nothing."
        if start
        else ""
    )
    media = ", ".join(("text", *config.modalities))
    return (
        f"# {config.name}\n\nImported from `{source['file']}` (weights: {source['weights']}; sha256 `{source['sha256']}`); "
        f"import.json lists every entry. It reads {media}. {what}\n\nThe licence is that of the weights' authors.\n"
    )


def summary(imported: Imported) -> Table:
    """What became of the entries, for the terminal: those that differ in a number, or in weight and bias, on one line; each encoder on one."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in imported.entries:
        theirs, ours = _pair(entry.published), _in_general(entry.ours)
        groups.setdefault((entry.status, theirs, ours, entry.why), []).append(entry)
    table = Table(box=None, pad_edge=False)
    for column in ("", "published", "here", "entries", "shape", ""):
        table.add_column(column, justify="right" if column == "entries" else "left", overflow="fold")
    order = ("taken", "converted", "fresh", "unused")
    for (status, theirs, ours, why), members in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
        shapes = list(dict.fromkeys(" x ".join(map(str, entry.shape)) or "one number" for entry in members))
        shape = ", ".join(shapes) if len(shapes) < 3 else f"{len(shapes)} shapes"
        note = why or ("not known here" if status == "unused" else "")
        table.add_row(status, theirs, ours, str(len(members)), shape, note)
    return table


def show(imported: Imported) -> None:
    """Print the table and what is to be known of it."""
    console = Console(width=None if Console().is_terminal else 180)
    console.print(summary(imported))
    counts = Counter(entry.status for entry in imported.entries)
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    read = ", ".join(["text", *(f"{name} ({part.encoder})" for name, part in imported.config.modalities.items())])
    averaged = "averaged weights (EMA)" if imported.which == "ema" else "weights"
    print(f"{imported.folder}: {imported.config.name}, {averaged}; reads {read}; {words}")
    if imported.unknown:
        some = ", ".join(imported.unknown[:3])
        print(
            f"warning: {len(imported.unknown)} entries are not known here ({some}); answers may differ from the authors'"
        )


def _pair(names: Sequence[str]) -> str:
    """Names in general; of a second one only what differs from the first."""
    first, *others = [_in_general(name).split(".") for name in names] or [[""]]
    differ = [[part for part, same in zip(other, first) if part != same] for other in others]
    return " + ".join([".".join(first), *(".".join(parts) for parts in differ)])


def _in_general(name: str) -> str:
    for prefix in (*ENCODERS, *ENCODERS.values()):
        if name.startswith(prefix):
            return f"{prefix}*"
    return re.sub(r"\.(weight|bias)$", ".*", re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name))

"""The whole published model at full size, 330 million weights by formula, against its stored states, logits and hypotheses (section 28.3)."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from formula import COMPUTED, PREFIXES, fill, reference, uniform, wave, weight
from record import agree
from safetensors.torch import load_file
from tiny import Case

from monoglot.decode.search import SearchSettings, beam_search
from monoglot.interop.published import transformer_from_published
from monoglot.model.config import unival_base
from monoglot.model.unified import UnifiedModel
from monoglot.store import SkipInit
from monoglot.train.losses import token_losses

pytestmark = pytest.mark.slow

INPUTS = {
    "text": None,
    "image": (0, lambda: uniform("full/image", (2, 3, 384, 384), -1, 1)),
    "video": (1, lambda: uniform("full/video", (1, 3, 8, 224, 224), -1, 1)),
    "audio": (2, lambda: wave(480_000, 0)[None]),
    "grounding": (0, lambda: uniform("full/grounding", (1, 3, 512, 512), -1, 1)),
}
KINDS = tuple(PREFIXES)


@pytest.fixture(scope="module")
def model():
    path = reference("state_dict_base.tsv")
    with SkipInit():
        model = UnifiedModel(unival_base())
    with open(path) as file:
        entries = [(row["name"], json.loads(row["shape"])) for row in csv.DictReader(file, delimiter="\t")
                   if row["dtype"] == "float32" and not row["tied_to"] and not row["name"].startswith(tuple(PREFIXES.values()))
                   and not row["name"].endswith("version")]  # fmt: skip
    state = transformer_from_published({name: weight(name, tuple(shape)) for name, shape in entries})
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("encoders.") for name in missing)
    for kind, encoder in model.encoders.items():
        fill(encoder, kind)
    return model.eval()


@pytest.fixture(scope="module")
def stored():
    return load_file(reference("full/full_outputs.safetensors"))


@pytest.fixture(scope="module")
def expected():
    return json.loads(reference("full/full_expected.json").read_text())


@pytest.fixture(scope="module")
def run(model, stored):
    """Case -> (batch, memory), each encoded once."""
    found = {}

    @torch.no_grad()
    def once(name):
        if name not in found:
            tensors = {
                key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")
            }
            if INPUTS[name] is not None:
                number, make = INPUTS[name]
                tensors["in.patch_types"] = torch.full((len(tensors["in.src_tokens"]),), number)
                tensors[f"mid.{KINDS[number]}_features"] = model.encoders[KINDS[number]].maps(make())
            batch = Case(name, tensors).batch
            features = {kind: media.items for kind, media in batch.media.items()}
            found[name] = tensors, batch, model.encode(batch, features)
        return found[name]

    return once


def test_weights_are_the_stored_ones(model, expected):
    for name in ("encoder.embed_images.layer3.22.conv2.weight", "encoder.embed_videos.layer3.10.bn2.running_var"):
        kind = "image" if "images" in name else "video"
        tensor = model.encoders[kind].state_dict()[name.removeprefix(PREFIXES[kind])]
        assert tensor.double().sum().item() == pytest.approx(expected["weight_checks"][name]["sum_f64"], abs=1e-6)
    bands = model.encoders["audio"].state_dict()[COMPUTED[1] + "melW"]
    check = expected["weight_checks"][PREFIXES["audio"] + COMPUTED[1] + "melW"]
    assert bands.double().sum().item() == pytest.approx(check["sum_f64"], abs=1e-5)


@pytest.mark.parametrize("name", INPUTS)
@torch.no_grad()
def test_states_and_logits(name, model, stored, expected, run):
    tensors, batch, memory = run(name)
    rows = tensors["enc_rows"]
    valid = ~tensors["encoder_padding_mask"][:, rows]
    case = f"full/{name}"
    agree(case, "valid places", int(memory.valid.sum()), int((~tensors["encoder_padding_mask"]).sum()))
    agree(case, "encoder output", memory.states[:, rows][valid], tensors["encoder_out_rows"][valid], 1e-4)
    agree(
        case, "position embeddings", memory.positions[:, rows][valid], tensors["position_embeddings_rows"][valid], 1e-5
    )
    logits = model.logits(model.decode(batch.target_in, memory))
    valid = batch.target_valid
    some = logits[..., stored["vocab_subset_ids"]]
    agree(case, "logits", some[valid], tensors["logits_vocab_subset"][valid], 1e-4)
    agree(case, "log of the sum of all logits", logits.logsumexp(-1)[valid], tensors["logits_logsumexp"][valid], 1e-4)
    agree(case, "likeliest words", logits.argmax(-1)[valid], tensors["logits_top10_ids"][valid][:, 0])
    for smoothing in (0.0, 0.1):
        losses = token_losses(logits[valid], batch.target_out[valid], smoothing=smoothing)
        known = expected["cases"][name]["losses"][f"ce_eps{smoothing}"]
        assert len(losses) == known["sample_size"]
        agree(
            case,
            f"mean loss of a token, smoothing {smoothing}",
            losses.mean(),
            known["loss"] / known["sample_size"],
            1e-4,
        )


SEARCHES = {
    "greedy_len16": SearchSettings(beam=1, max_length=16, min_length=16),
    "beam5_len16_ngram3": SearchSettings(beam=5, max_length=16, min_length=16, no_repeat_ngram=3),
    "beam5_min4_max4": SearchSettings(beam=5, max_length=4, min_length=4),
    "beam5_min4_max4_range58457_59457": SearchSettings(beam=5, max_length=4, min_length=4),
}


class Range:
    """Location tokens and the four special ones, at every step: the published constraint_range."""

    longest = 5

    def allowed(self, written) -> np.ndarray:
        return np.concatenate([np.arange(4), np.arange(58_457, 59_457)])


@pytest.mark.parametrize(
    ("name", "search"),
    [(name, search) for name in INPUTS for search in SEARCHES if ("min4" in search) == (name == "grounding")],
)
@torch.no_grad()
def test_hypotheses(name, search, model, expected, run):
    _, batch, memory = run(name)
    ranges = [Range()] * len(batch) if "range" in search else None
    found = beam_search(model, memory, SEARCHES[search], constraints=ranges)
    for hypotheses, known in zip(found, expected["cases"][name]["generation"][search], strict=True):
        ours = hypotheses[: len(known)]
        tokens = [word for h in known for word in (*h["tokens"], -1)]
        agree(f"full/{name}", f"{search}: tokens", [word for h in ours for word in (*h.tokens, -1)], tokens)
        agree(f"full/{name}", f"{search}: scores", [h.score for h in ours], [h["score"] for h in known], 1e-4)

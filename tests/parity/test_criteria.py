"""Our losses against numbers of the published criteria (sections 19 and 28.2 of the description)."""

from __future__ import annotations

import json
import re

import pytest
import torch
from record import agree
from safetensors.torch import load_file
from tiny import GOLDEN, Case, tiny_model

from monoglot.text.vocabulary import EOS, PAD
from monoglot.train.losses import Objective
from monoglot.train.recipe import Loss

CRITERIA = json.loads((GOLDEN / "criterion_expected.json").read_text())
VARIANTS = json.loads((GOLDEN / "losses_and_misc.json").read_text())["loss_variants"]


def only(start: int, end: int, size: int) -> torch.Tensor:
    """bool[size]: the special tokens and a range of ids."""
    ids = torch.arange(size)
    return (ids < 4) | ((ids >= start) & (ids < end))


def summed(
    loss: Loss, smoothing: float, logits, target, weights=None, allowed=None, step: int = 0
) -> tuple[float, float]:
    """The published numbers: the sum of the losses of the tokens that are kept, and how many these are."""
    groups = torch.zeros(len(target), dtype=torch.long)
    weights = torch.ones(len(target)) if weights is None else weights
    objective = Objective(loss, smoothing)
    losses = objective(logits, target, groups, weights, allowed, step=step)
    count = torch.tensor([len(target)])
    return float(losses.double().sum()), float(objective.kept_share(count, step)[0]) * len(target)


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_on_raw_logits(name):
    stored = load_file(GOLDEN / "criterion_inputs.safetensors")
    valid = stored["target"] != PAD
    logits, target = stored["logits"][valid], stored["target"][valid]
    kind, eps, *options = re.sub(r" \(.*", "", name).split("|")
    given = dict(option.split("=", 1) if "=" in option else (option, "") for option in options)
    drop = re.match(r"([\d.]+),after=(\d+),update=(\d+)", given.get("drop_worst_ratio", "0,after=0,update=0"))
    loss = Loss(
        kind={"ce": "cross_entropy", "el": "encouraging"}[kind],
        log_end=float(given.get("log_end", 1)),
        drop_worst=float(drop[1]),
        drop_worst_after=int(drop[2]),
    )
    allowed = None
    if "constraint_masks" in given:
        allowed = stored["constraint_masks"][valid]
    elif "constraint_range" in given:
        allowed = only(*map(int, given["constraint_range"].split(",")), logits.shape[1]).expand_as(logits)
    weights = stored["conf"][:, None].expand_as(valid)[valid] if "conf" in given else None
    total, kept = summed(loss, float(eps.removeprefix("eps=")), logits, target, weights, allowed, step=int(drop[3]))
    # log(1 - p) of a sure token has few digits left in float32, and processors round p differently; the tangent bounds it.
    bound = 1e-4 if (loss.kind, loss.log_end) == ("encouraging", 1) else 2e-5
    agree(f"tiny/criterion/{name}", "sum of losses", total, CRITERIA[name]["loss"], bound)
    agree(f"tiny/criterion/{name}", "tokens that count", kept, float(CRITERIA[name]["sample_size"]), 1e-6)


@pytest.fixture(scope="module")
def answered():
    """Logits and targets of the golden picture and code cases, and the row of each token."""
    model, found = tiny_model(), {}
    for name in ("image_text", "image_gen"):
        batch = Case(name).batch
        with torch.no_grad():
            logits = model(batch)[batch.target_valid]
        found[name] = logits, batch.target_out[batch.target_valid], batch.target_valid.nonzero()[:, 0]
    return found


def limited(target: torch.Tensor, size: int) -> torch.Tensor:
    """bool[N, size]: the target, eos and the ids 5 to 14."""
    allowed = torch.zeros(len(target), size, dtype=torch.bool)
    allowed[:, [EOS, *range(5, 15)]] = True
    return allowed.scatter(1, target[:, None], True)


@pytest.mark.parametrize(
    ("name", "loss", "options"),
    [
        ("ce_eps0.1", Loss(), {}),
        ("ce_eps0.1_conf0.3_1.0", Loss(), {"conf": [0.3, 1.0]}),
        ("ce_eps0.1_dropworst0.2_after0_upd1", Loss(drop_worst=0.2), {"step": 1}),
        ("ce_eps0.1_constraint_range_305_321", Loss(), {"range": (305, 321)}),
        ("ce_eps0.1_constraint_masks(target,2,5..14)", Loss(), {"masks": True}),
        ("el_eps0.1_logend0.75", Loss(kind="encouraging", log_end=0.75), {}),
        ("el_eps0.1_logend1.0", Loss(kind="encouraging", log_end=1.0), {}),
        ("el_eps0.1_logend0.5", Loss(kind="encouraging", log_end=0.5), {}),
        ("el_eps0.1_logend0.05", Loss(kind="encouraging", log_end=0.05), {}),
        (
            "el_eps0.1_logend0.75_dropworst0.05_dropbest0.05_upd7",
            Loss(kind="encouraging", log_end=0.75, drop_worst=0.05),
            {"step": 7},
        ),
    ],
)
def test_criteria_on_the_model(answered, name, loss, options):
    logits, target, rows = answered["image_gen" if "range" in options else "image_text"]
    weights = torch.tensor(options["conf"])[rows] if "conf" in options else None
    allowed = None
    if "range" in options:
        allowed = only(*options["range"], logits.shape[1]).expand_as(logits)
    if "masks" in options:
        allowed = limited(target, logits.shape[1])
    total, kept = summed(loss, 0.1, logits, target, weights, allowed, step=options.get("step", 0))
    agree(f"tiny/loss_variants/{name}", "sum of losses", total, VARIANTS[name]["loss"], 1e-6, relative=True)
    agree(f"tiny/loss_variants/{name}", "tokens that count", kept, float(VARIANTS[name]["sample_size"]), 1e-5)

"""What matters to a model: the diagonal of its Fisher information on some rows.

    rows -> for each: log p(target) -> gradient -> squared -> mean over rows -> a file of tensors

Source: arXiv 2111.09832, equation 3, with the rows' targets in place of answers drawn from the model (the empirical Fisher information).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from monoglot.data.prepare import Preparer
from monoglot.decode.predict import Predictor, load
from monoglot.merge.parents import Stored, Tensors
from monoglot.merge.plan import Plan
from monoglot.merge.recipe import MergePage
from monoglot.merge.score import read_answered
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Sample


def measure_information(page: MergePage, plan: Plan, folder: Path) -> list[Tensors]:
    """Fisher information of each parent, on its rows, of what differs between parents; one file each in `folder`."""
    wanted = set(plan.names("merged"))
    files = page.fisher_data if len(page.fisher_data) > 1 else page.fisher_data * len(page.parents)
    rows = [read_answered(Path(file), page.fisher_rows) for file in files]  # all are right before the first is used
    found: list[Tensors] = []
    for index, (parent, samples) in enumerate(zip(plan.parents, rows)):
        information = fisher_information(load(parent.folder), samples, wanted, label=parent.given)
        path = folder / f"fisher.{index}.safetensors"
        save_file(information, path)
        found.append(Stored(path))
    return found


def fisher_information(
    predictor: Predictor, samples: Sequence[Sample], wanted: Iterable[str], *, label: str = ""
) -> dict[str, Tensor]:
    """Mean squared gradient of each row's log-probability, float32, for the parameters named.

    Args:
        samples: rows with answers.
        wanted: names as in `state_dict`; those that are no parameters are left out.

    Raises:
        InputError: a row cannot be read.
    """
    model, names = predictor.model, set(wanted)
    chosen = {name: parameter for name, parameter in model.named_parameters() if name in names}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    total = {name: torch.zeros_like(parameter, requires_grad=False) for name, parameter in chosen.items()}
    screen = Console(stderr=True)
    for sample in track(
        samples, f"Fisher information {label}", console=screen, transient=True, disable=not screen.is_terminal
    ):
        gradients = torch.autograd.grad(
            log_likelihood(model, predictor.preparer, sample), list(chosen.values()), allow_unused=True
        )
        for name, gradient in zip(chosen, gradients):
            if gradient is not None:
                total[name].addcmul_(gradient, gradient, value=1 / len(samples))
    return total


def log_likelihood(model: UnifiedModel, preparer: Preparer, sample: Sample) -> Tensor:
    """log p(target) of one row, in nats."""
    batch = preparer.collate([preparer.example(sample)])
    chosen = model(batch)[batch.target_valid].log_softmax(-1)
    return chosen.gather(-1, batch.target_out[batch.target_valid][:, None]).sum()

"""Connectors that begin where media of one answer already lie close together, and near its words: closed form, before the first step.

rows -> features of frozen encoders, a box's own cells alone -> linear discriminants -> turned towards the words -> a connector of cells or pooled tokens

Letters: N rows, C channels of an encoder, K answers, D width of the model.
Source: linear discriminant analysis (Fisher 1936; Rao 1948) whose axes are turned by orthogonal Procrustes (Schönemann 1966).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from monoglot.data.features import CachingPreparer, FeatureCache
from monoglot.data.rowfile import RowFile
from monoglot.errors import InputError
from monoglot.modalities.base import Grid
from monoglot.model.features import features, open_cache
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Box, Sample
from monoglot.text.tokenizer import Tokenizer
from monoglot.train.recipe import Recipe

_ROWS = 32
"""Rows that are encoded together."""
RIDGE = 1e-4
"""Added to the within-class covariance of features whose mean length is 1. With 3e-4 fewer unseen drawings are named (docs/log.md)."""


def begin_connectors(recipe: Recipe, model: UnifiedModel, tokenizer: Tokenizer, *, quiet: bool = False) -> None:
    """Fill the connectors that the recipe's `connectors` names, in place.

    Raises:
        InputError: a file has no row with such media and an answer, all rows have one answer, or a row cannot be read (no quarantine here).
    """
    model.eval()
    preparer = CachingPreparer(tokenizer, model.config)
    preparer.cache = cache = open_cache(model, recipe.feature_cache.gigabytes, recipe.feature_cache.folder)
    for page in recipe.connectors:
        table = model.source.pooled if page.pooled else model.source.connectors
        for name in (page.modality, *page.also) if page.pooled else ():
            if name not in table:
                wrong = f"this model has no pooled token of {name}"
                raise InputError.at("recipe", "connectors", wrong, "give the modality `pooled: first`")
        x, answers = [], []
        for source in page.data:
            rows = RowFile(Path(recipe.data_folder) / source.data, limit=source.limit)
            samples = [rows[index] for index in range(len(rows))]
            found = region_features(model, preparer, samples, page.modality, cache, what=source.data, quiet=quiet)
            if not found:
                wrong = f"no row has {page.modality} and an answer"
                raise InputError.at(rows.path, "connectors", wrong, "give rows with both")
            x += [feature for feature, _ in found]
            answers += [answer for _, answer in found]
        names = sorted(set(answers))
        if len(names) < 2:
            wrong = f"all rows have the answer {names[0]!r}"
            raise InputError.at("recipe", "connectors", wrong, "give rows with several answers")
        labels = torch.tensor([names.index(answer) for answer in answers])
        weight, bias = toward_words(
            torch.stack(x).double(), labels, word_means(model, tokenizer, names).double(), width=model.config.width
        )
        with torch.no_grad():
            for name in (page.modality, *page.also):
                connector = cast(nn.Linear, table[name])
                connector.weight.copy_(weight)
                connector.bias.copy_(bias)
    if cache is not None:
        cache.close()


def region_features(
    model: UnifiedModel,
    preparer: CachingPreparer,
    samples: Sequence[Sample],
    modality: str,
    cache: FeatureCache | None,
    *,
    what: str = "rows",
    quiet: bool = True,
) -> list[tuple[Tensor, str]]:
    """(float32[C], answer) of each row with one item of the modality: the mean of its tokens, or of those under the row's box.

    A row with a box is left out where pooled tokens are alone. What a row with a box is about is its phrase (`grounding`) or its answer (`region_caption`).
    """
    usable = [
        sample for sample in samples if [media.modality for media in sample.media] == [modality] and _about(sample)
    ]
    found: list[tuple[Tensor, str]] = []
    screen = Console(stderr=True)
    parts = range(0, len(usable), _ROWS)
    for first in track(
        parts, f"connector: {what}", console=screen, transient=True, disable=quiet or not screen.is_terminal
    ):
        part = usable[first : first + _ROWS]
        batch = preparer.collate([preparer.example(sample, with_target=False) for sample in part])
        with torch.no_grad():
            tokens = features(model, batch.to(model.words.weight.device), cache)[modality]
        for sample, grid, item in zip(part, batch.media[modality].grids, tokens):
            if sample.box and not grid.cells:
                continue  # a pooled token says nothing of a part
            found.append((share_of_cells(sample.box, grid).to(item) @ item, _about(sample)))
    return found


def _about(sample: Sample) -> str:
    """The words that media of a row stand for."""
    return sample.text if sample.task == "grounding" else next(iter(sample.targets), "")


def share_of_cells(box: Box | None, grid: Grid) -> Tensor:
    """float32[L], of sum 1: how much of a box (x0 y0 x1 y1, fractions) lies in each token's cell; all alike without one.

    A pooled token counts only where it is alone.

    >>> share_of_cells((0.0, 0.0, 0.5, 1.0), Grid(1, 1, 2))
    tensor([1., 0.])
    """
    if not grid.cells:
        return torch.ones(grid.length)
    x0, y0, x1, y1 = box or (0.0, 0.0, 1.0, 1.0)
    across, down = _overlap(x0, x1, grid.cols), _overlap(y0, y1, grid.rows)
    cells = (down[:, None] * across).flatten().repeat(grid.frames)
    cells = grid.pick(cells)
    return torch.cat([cells.new_zeros(int(grid.pooled)), cells / cells.sum().clamp(min=1e-12)])


def _overlap(low: float, high: float, cells: int) -> Tensor:
    edges = torch.linspace(0, 1, cells + 1)
    return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)


def word_means(model: UnifiedModel, tokenizer: Tokenizer, answers: Sequence[str]) -> Tensor:
    """float32[K, D]: the mean row of each answer's tokens, of rows brought to mean 0 and variance 1 as the model does."""
    rows = F.layer_norm(model.words.weight.detach(), (model.config.width,)).cpu()
    return torch.stack([rows[torch.as_tensor(tokenizer.encode(f" {answer}")).long()].mean(0) for answer in answers])


def toward_words(x: Tensor, labels: Tensor, words: Tensor, *, width: int) -> tuple[Tensor, Tensor]:
    """A linear map under which rows of one class lie close together, and classes lie like their words as far as turning them allows.

    Args:
        x: float64[N, C].
        labels: int64[N], all of 0 .. K - 1.
        words: float64[K, D].
        width: D.

    Returns:
        weight float64[D, C], bias float64[D]; what it makes of x has mean class 0 and about the length of words less their mean.

    >>> x = torch.tensor([[0.0, 0, 9], [0, 1, -9], [5, 0, 8], [5, 1, -8]], dtype=torch.float64)
    >>> weight, bias = toward_words(x, torch.tensor([0, 0, 1, 1]), torch.eye(2, dtype=torch.float64), width=2)
    >>> (x @ weight.T + bias).argmax(1).tolist()
    [0, 0, 1, 1]
    """
    centre = x.mean(0)
    length = (x - centre).norm(dim=1).mean()
    z = (x - centre) / length
    means = torch.zeros(len(words), x.shape[1], dtype=x.dtype).index_add_(0, labels, z)
    means /= labels.bincount(minlength=len(words))[:, None]
    within = z - means[labels]
    covariance = within.T @ within / len(z) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    whiten = torch.linalg.cholesky(torch.linalg.inv(covariance))  # [C, C]
    middle = means.mean(0)
    classes = (means - middle) @ whiten
    axes = torch.linalg.svd(classes, full_matrices=False).Vh[:width].T  # [C, at most D]: the widest between classes
    target = words - words.mean(0)
    left, _, right = torch.linalg.svd((classes @ axes).T @ target, full_matrices=False)
    turned = whiten @ axes @ left @ right  # [C, D]
    scale = target.norm(dim=1).mean() / ((z - middle) @ turned).norm(dim=1).mean()
    weight = (turned * scale / length).T
    return weight, -(weight @ (centre + length * middle))

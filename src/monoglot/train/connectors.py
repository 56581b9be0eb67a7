"""Connectors that begin where media of one answer already lie close together, and near its words: closed form, before the first step.

rows -> features of frozen encoders, a box's own cells alone -> linear discriminants -> turned towards the words, or as classes and their words -> connector

Letters: N rows, C channels of an encoder, K answers, D width of the model.
Source: linear discriminant analysis (Fisher 1936; Rao 1948) whose axes are turned by orthogonal Procrustes (Schönemann 1966).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from monoglot.data.features import CachingPreparer, FeatureCache
from monoglot.data.rowfile import RowFile
from monoglot.errors import InputError
from monoglot.modalities.base import Grid
from monoglot.model.config import ModelConfig
from monoglot.model.features import features, open_cache
from monoglot.model.place import WordConnector
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Box, Sample
from monoglot.text.tokenizer import Tokenizer
from monoglot.train.recipe import Recipe

_ROWS = 32
"""Rows that are encoded together."""
RIDGE = 1e-4
"""Added to the within-class covariance of features whose mean length is 1. With 3e-4 fewer unseen drawings are named (docs/log.md)."""
_FOLDS = 6
_SHARPNESS = (0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.5)
"""Factors of a squared distance; 0.5 would be right if rows that are new scattered like those that the discriminants know."""


def begin_connectors(recipe: Recipe, model: UnifiedModel, tokenizer: Tokenizer, *, quiet: bool = False) -> None:
    """Fill the connectors that the recipe's `connectors` names, in place.

    Raises:
        InputError: a file has no row with such media and an answer, all rows have one answer, or a row cannot be read (no quarantine here).
    """
    model.eval()
    as_read = CachingPreparer(tokenizer, model.config)
    as_read.cache = cache = open_cache(model, recipe.feature_cache.gigabytes, recipe.feature_cache.folder)
    for page in recipe.connectors:
        table = model.source.pooled if page.pooled else model.source.connectors
        for name in (page.modality, *page.also):
            if name not in model.source.connectors:
                wrong = f"this model has no {name}"
                raise InputError.at("recipe", "connectors", wrong, f"it has {', '.join(model.source.connectors)}")
            if name not in table:
                wrong = f"this model has no pooled token of {name}"
                raise InputError.at("recipe", "connectors", wrong, "give the modality `pooled: first`")
        preparer, kept = as_read, cache
        if not page.pooled and (whole := _with_cells(model.config, page.modality)) is not None:
            preparer, kept = CachingPreparer(tokenizer, whole), None
        x, answers = [], []
        for source in page.data:
            rows = RowFile(Path(recipe.data_folder) / source.data, limit=source.limit)
            samples = [rows[index] for index in range(len(rows))]
            found = region_features(model, preparer, samples, page.modality, kept, what=source.data, quiet=quiet)
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
        fitted = torch.stack(x).double(), labels, word_means(model, tokenizer, names).double()
        for name in (page.modality, *page.also):
            connector = table[name]
            if isinstance(connector, WordConnector):
                if len(names) != (count := connector.scores.out_features):
                    field = "pooled_words" if page.pooled else "words"
                    wrong = f"the rows have {len(names)} answers, {field} of {name} is {count}"
                    raise InputError.at("recipe", "connectors", wrong, f"give it `{field}: {len(names)}`")
                weights = mixture_of_words(*fitted, width=model.config.width)
            else:
                weights = dict(zip(("weight", "bias"), toward_words(*fitted, width=model.config.width)))
            connector.load_state_dict(weights)
    if cache is not None:
        cache.close()


def _with_cells(c: ModelConfig, modality: str) -> ModelConfig | None:
    """The settings under which a modality's cells can be seen, if pooled tokens stand in their place until a later stage; else None."""
    settings = c.modalities[modality]
    if getattr(settings, "pooled", "none") != "alone":
        return None
    shown = settings.model_copy(update={"pooled": "none"})
    return c.model_copy(update={"modalities": c.modalities | {modality: shown}})


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
    axes, bias = discriminants(x, labels, len(words), width=width)
    z = x @ axes.T + bias
    target = words - words.mean(0)
    left, _, right = torch.linalg.svd(_means(z, labels, len(words)).T @ target, full_matrices=False)
    scale = target.norm(dim=1).mean() / z.norm(dim=1).mean()
    turn = scale * (left @ right).T  # [D, axes]
    return turn @ axes, turn @ bias


def mixture_of_words(x: Tensor, labels: Tensor, words: Tensor, *, width: int) -> dict[str, Tensor]:
    """The state of a `WordConnector` that says of x how likely each class is by its discriminants, mixes their words, and adds nothing.

    How sharply distances tell classes apart is what foretells rows best that the discriminants were not fitted to: among so many channels, those
    that they were fitted to always lie closer. Arguments as of `toward_words`.

    >>> x = torch.tensor([[0.0, 0, 9], [0, 1, -9], [5, 0, 8], [5, 1, -8]], dtype=torch.float64)
    >>> state = mixture_of_words(x, torch.tensor([0, 0, 1, 1]), torch.eye(2).double(), width=2)
    >>> connector = WordConnector(3, 2, answers=2).double()
    >>> connector.load_state_dict(state)
    <All keys matched successfully>
    >>> connector(x).round().abs().tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    count = len(words)
    part = torch.arange(len(x)) % _FOLDS
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    surprise = torch.zeros(len(_SHARPNESS), dtype=x.dtype)
    for fold in range(_FOLDS):
        held_out, rest = order[part == fold], order[part != fold]
        known = torch.isin(labels, labels[rest])
        held_out = held_out[known[held_out]]
        if not len(held_out) or len(labels[rest].unique()) < 2:
            continue
        axes, bias = discriminants(x[rest], labels[rest], count, width=width)
        means = _means(x[rest] @ axes.T + bias, labels[rest], count)
        scores = _nearness(x[held_out] @ axes.T + bias, means)
        scores[:, labels[rest].bincount(minlength=count) == 0] = float("-inf")
        for index, sharpness in enumerate(_SHARPNESS):
            surprise[index] += F.cross_entropy(sharpness * scores, labels[held_out], reduction="sum")
    sharpness = _SHARPNESS[int(surprise.argmin())]
    axes, bias = discriminants(x, labels, count, width=width)
    means = _means(x @ axes.T + bias, labels, count)
    pad = (0, 0, 0, width - len(axes))
    return {
        "linear.weight": x.new_zeros(width, x.shape[1]),
        "linear.bias": x.new_zeros(width),
        "axes.weight": F.pad(axes, pad),
        "axes.bias": F.pad(bias, pad[2:]),
        "scores.weight": F.pad(2 * sharpness * means, (0, width - len(axes))),
        "scores.bias": -sharpness * means.square().sum(1),
        "words.weight": words.T.contiguous(),
    }


def _nearness(z: Tensor, means: Tensor) -> Tensor:
    """float64[N, K]: minus the squared distance of each row to each class, but for what all classes have in common."""
    return 2 * z @ means.T - means.square().sum(1)


def _means(z: Tensor, labels: Tensor, count: int) -> Tensor:
    """float64[K, D]: mean of each class; 0 for one without rows."""
    summed = torch.zeros(count, z.shape[1], dtype=z.dtype).index_add_(0, labels, z)
    return summed / labels.bincount(minlength=count).clamp(min=1)[:, None]


def discriminants(x: Tensor, labels: Tensor, count: int, *, width: int) -> tuple[Tensor, Tensor]:
    """A linear map to the at most D axes that part classes best, on which rows of a class scatter by 1 in all directions.

    Args:
        x: float64[N, C].
        labels: int64[N] of 0 .. K - 1, of which some may have no row.
        count: K.
        width: D.

    Returns:
        weight float64[A, C], bias float64[A] with A the smaller of C, K and D; the mean class comes to lie at 0.
    """
    centre = x.mean(0)
    length = (x - centre).norm(dim=1).mean()
    z = (x - centre) / length
    means = _means(z, labels, count)
    within = z - means[labels]
    covariance = within.T @ within / len(z) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    whiten = torch.linalg.cholesky(torch.linalg.inv(covariance))  # [C, C]
    means = means[labels.unique()]
    middle = means.mean(0)
    axes = torch.linalg.svd((means - middle) @ whiten, full_matrices=False).Vh[:width]  # the widest between classes
    weight = axes @ whiten.T / length
    return weight, -(weight @ (centre + length * middle))

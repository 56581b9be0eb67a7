"""The weighted mean of the weights: theta = sum of w_i theta_i, sum of w_i = 1.

With equal weights: model soups (arXiv 2203.05482), fusing (arXiv 2204.03044), model ratatouille (arXiv 2212.10445); which models are averaged
makes the difference (recipes/merge). With weights of choice between two models: WiSE-FT (arXiv 2109.01903), and UnIVAL's
interpolation of models that were fine-tuned on different tasks (arXiv 2307.16184).
"""

from __future__ import annotations

from monoglot.merge.base import MERGERS, Merger, Pieces

AVERAGE = MERGERS.add(
    "average",
    Merger(
        merge=Pieces.mean,
        summary="the mean of the weights",
        source="model soups (arXiv 2203.05482), fusing (arXiv 2204.03044), ratatouille (arXiv 2212.10445)",
        weighted=False,
    ),
)

INTERPOLATE = MERGERS.add(
    "interpolate",
    Merger(
        merge=Pieces.mean,
        summary="the mean of the weights, each model counting as said",
        source="WiSE-FT (arXiv 2109.01903), UnIVAL (arXiv 2307.16184)",
        needs_weights=True,
    ),
)

"""Merging of models by their weights, tensor by tensor.

    page -> open parents -> plan (what is shared) -> for each tensor: Pieces -> Merger -> written -> model folder

`MERGERS` names the methods, each in a file of its own.
"""

from monoglot.merge import average, dare, fisher, model_stock, slerp, task_arithmetic, ties  # noqa: F401
from monoglot.merge.base import MERGERS, Merger, Pieces

__all__ = ["MERGERS", "Merger", "Pieces"]

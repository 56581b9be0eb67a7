"""A merge is one page: what is merged, how, and on which rows it is judged. Leftover keys raise.

page.yaml, or options of the command line -> MergePage
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monoglot.errors import InputError
from monoglot.merge.base import MERGERS, Merger
from monoglot.registry import unknown_name


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Search(_Page):
    """Coefficients are looked for on validation rows."""

    data: tuple[str, ...] = Field(
        min_length=1, description="Files of rows with answers, one for each task that the merged model shall do."
    )
    score: Literal["metric", "loss"] = Field(
        "metric",
        description="The task's first metric, or the mean loss of an answer's token, in nats: finer on few rows.",
    )
    rows: int = Field(200, ge=1, description="At most so many rows of each file, drawn.")
    trials: int = Field(12, ge=1, description="Most models that are tried beside the parents.")


class MergePage(_Page):
    """Everything a merge needs."""

    name: str = Field("merged", description="What the model is called.")
    method: str = Field("average", description="How: one of MERGERS; docs/merge.md says which when.")
    parents: tuple[str, ...] = Field(
        description="Model folders, or names of bundled models. The first gives the settings."
    )
    base: str | None = Field(None, description="The parents' common start, for the methods that need it.")
    weights: tuple[float, ...] | None = Field(
        None, description="How much each parent counts; brought to a sum of 1. Leave out for equal ones."
    )
    scale: float | None = Field(None, description="How far to go from the base: 1 is all that was learned on average.")
    density: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of each model's changes that is kept ('ties': the largest, 'dare': random ones).",
    )
    fisher_data: tuple[str, ...] = Field(
        (), description="Rows on which 'fisher' measures what matters to each parent: a file for each, or one for all."
    )
    fisher_rows: int = Field(64, ge=1, description="At most so many rows of each of these files, drawn.")
    seed: int = Field(0, description="Of the random part that 'dare' keeps.")
    search: Search | None = Field(None, description="Look for weights and scale on validation rows.")
    test: tuple[str, ...] = Field(
        (), description="Files of rows on which parents and result are scored in the end; the search never sees them."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="How the result's weights are stored."
    )
    int8: tuple[str, ...] = Field((), description="Matrices to store as 8-bit integers, by pattern.")
    out: str | None = Field(None, description="The new model folder.")

    @property
    def merger(self) -> Merger:
        return MERGERS[self.method]

    def setting(self, name: str) -> float:
        """`scale` or `density` as the page says, or the method's own."""
        given = getattr(self, name)
        return self.merger.settings.get(name, 1.0) if given is None else given


def read_page(path: Path, options: Mapping[str, Any] = {}) -> MergePage:
    """Read a YAML page; `options` are put over what stands there.

    Raises InputError that names the file, the field and, for a misspelt key, its nearest neighbours.
    """
    try:
        page = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        fix = "give a YAML file, for example recipes/merge/interpolate.yaml"
        raise InputError.at(path, "recipe", f"cannot be read ({error.strerror})", fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError.at(path, "recipe", f"is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(page, dict):
        raise InputError.at(path, "recipe", "is not a page of keys and values")
    return make_page({**page, **options}, where=str(path))


def make_page(settings: Mapping[str, Any], *, where: str = "command line") -> MergePage:
    """Check settings, one by one and together.

    >>> make_page({"parents": ["a", "b"], "method": "interpolate", "weights": [4, 1]}).merger.summary
    'the mean of the weights, each model counting as said'
    """
    try:
        page = MergePage.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        field, wrong = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = Search if first["loc"][0] == "search" else MergePage
            wrong = unknown_name("key", str(first["loc"][-1]), known.model_fields)
        raise InputError.at(where, field, wrong) from None
    for field, wrong, fix in _problems(page):
        raise InputError.at(where, field, wrong, fix)
    return page


def _problems(page: MergePage) -> Iterator[tuple[str, str, str]]:
    """(field, what is wrong, the fix) of what does not go together, the first first."""
    try:
        merger = page.merger
    except InputError as error:
        yield "method", str(error), ""
        return
    count, method = len(page.parents), page.method
    if merger.needs_base and page.base is None:
        yield "base", "is missing", f"{method} needs the model that the parents were fine-tuned from"
    if page.base is not None and not merger.needs_base:
        uses = ", ".join(name for name, other in MERGERS.items() if other.needs_base)
        yield "base", f"has no meaning for {method}", f"these use it: {uses}"
    if count < merger.least:
        models = "1 model" if count == 1 else f"{count} models"
        yield "parents", f"{models} given, {method} needs {merger.least} or more", "name the models to merge"
    if merger.most is not None and count > merger.most:
        yield (
            "parents",
            f"{count} models given, {method} takes {merger.most}",
            "merge two, then the result with the next",
        )
    if page.weights is not None:
        if not merger.weighted:
            yield "weights", f"have no meaning for {method}", "interpolate takes them"
        if len(page.weights) != count:
            yield "weights", f"{len(page.weights)} for {count} models", "give one for each, in their order"
        if not all(math.isfinite(weight) and weight >= 0 for weight in page.weights):
            yield "weights", f"{_listed(page.weights)}: not all are numbers from 0 on", "for example 0.8,0.2"
        if not sum(page.weights):
            yield "weights", "sum to zero", "let at least one model count"
    elif merger.needs_weights and page.search is None:
        yield "weights", "are missing", "say how much each model counts, or search for it on validation rows"
    for name in ("scale", "density"):
        value = getattr(page, name)
        if value is not None and name not in merger.settings:
            yield name, f"has no meaning for {method}", "leave it out"
        if value is not None and not math.isfinite(value):
            yield name, f"is {value}", "give a number"
    if merger.needs_fisher and len(page.fisher_data) not in (1, count):
        wrong = "is missing" if not page.fisher_data else f"{len(page.fisher_data)} files for {count} models"
        yield "fisher_data", wrong, "give rows that each model does well: a file for each, or one for all"
    if page.fisher_data and not merger.needs_fisher:
        yield "fisher_data", f"has no meaning for {method}", "fisher takes it"
    if page.search is not None and not (merger.weighted and count > 1) and "scale" not in merger.settings:
        yield "search", f"{method} has no coefficients to look for", "interpolate, task_arithmetic and others have"
    if page.search is not None and page.weights is not None:
        yield "weights", "are given and searched for", "leave one out"


def _listed(weights: tuple[float, ...]) -> str:
    return ",".join(f"{weight:g}" for weight in weights)

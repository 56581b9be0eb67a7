"""The five questions, each as runs that differ in one thing and are equal in budget.

question -> [Planned]: every arm with every seed
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.evidence.runs import Planned

SEEDS = (0, 1, 2)
ROWS, STEPS = 32, 300
"""Rows a step and steps of a run, unless its question says otherwise."""

Page = dict[str, Any]


def source(name: str, **settings: Any) -> Page:
    return {"name": name, "data": f"{name}.train.jsonl", **settings}


def plan(question: str, arms: Iterable[tuple[str, Page]], asked: tuple[str, ...], **rest: Any) -> list[Planned]:
    arms = list(arms)
    return [Planned(question, arm, seed, page, asked, **rest) for seed in SEEDS for arm, page in arms]


# --- (a) how rows are mixed ---

MIXED = ("kinds", "clip_kinds", "names", "drums")
"""From the largest data set to the smallest."""


def mixing() -> list[Planned]:
    """One shuffled file; shares by size, by the root of size; equal shares."""
    each = [source(name) for name in MIXED]
    arms: dict[str, Page] = {
        "concatenated": {"mixture": [source("all")]},
        "proportional": {"mixture": each, "temperature": 1},
        "temperature 2": {"mixture": each, "temperature": 2},
        "equal quotas": {"mixture": each},
    }
    budget: Page = {"rows": ROWS, "steps": STEPS}
    return plan("mixing", [(arm, budget | page) for arm, page in arms.items()], MIXED)


# --- (b) one stage or a curriculum ---

FEW_FRAMES = {"modalities": {"video": {"size": 64, "frames": 2}}}
SMALL = {"modalities": {"image": {"size": 64}, "video": {"size": 64, "frames": 2}}}
WHOLE = {"modalities": {"image": {"size": 96}, "video": {"size": 64, "frames": 4}}}
PICTURES, CLIPS = ("names", "kinds"), ("clip_kinds",)


def curriculum() -> list[Planned]:
    """The same number of rows, all at once or in three stages. Scores: features kept. Costs: encoders trained, a tenth of the steps.

    What the learning rate does costs nothing, so the arms that keep it have no costs of their own.
    """
    scored = plan("curriculum", _one_stage_or_three(STEPS), (*PICTURES, *CLIPS))
    trained = {"freeze": ["words"], "feature_cache": {"gigabytes": 0}}
    arms = [(f"{arm}, cost", page | trained) for arm, page in _one_stage_or_three(STEPS // 10)[:3]]
    return scored + plan("curriculum", arms, ())


def _one_stage_or_three(steps: int) -> list[tuple[str, Page]]:
    each = [source(name) for name in (*PICTURES, *CLIPS)]
    page: Page = {"rows": ROWS, "mixture": each}
    return [
        ("one stage", page | {"steps": steps, "model_changes": WHOLE}),
        ("curriculum", page | {"stages": _stages(steps, SMALL)}),
        ("curriculum, 96 px", page | {"stages": _stages(steps, FEW_FRAMES)}),
        ("one stage, rate kept", page | {"model_changes": WHOLE, "stages": _only_the_rate(steps)}),
        ("curriculum, rate kept", page | {"stages": _stages(steps, FEW_FRAMES, KEPT)}),
    ]


def _only_the_rate(steps: int) -> list[Page]:
    """Everything from the start; as in a curriculum whose rate is kept, it falls in the last sixth."""
    last = steps - steps // 2 - steps // 3
    return [{"name": "kept", "steps": steps - last} | KEPT, {"name": "falling", "steps": last}]


KEPT = {"optimizer": {"schedule": "constant"}}
"""The learning rate falls in the last stage alone."""


def _stages(steps: int, first: Page, rate: Page | None = None) -> list[Page]:
    """Half of the steps on pictures, a third with clips, the rest on everything in its whole size; before that, `first` says how it is seen."""
    pictures, clips = [source(name) for name in PICTURES], [source(name) for name in CLIPS]
    last = steps - steps // 2 - steps // 3
    before = {"model_changes": first} | (rate or {})
    return [
        {"name": "pictures", "mixture": pictures, "steps": steps // 2} | before,
        {"name": "clips", "mixture": clips, "steps": steps // 3, "replay": 0.5} | before,
        {"name": "whole", "mixture": pictures + clips, "steps": last, "model_changes": WHOLE},
    ]


# --- (c) do tasks help each other ---

ROWS_EACH = 8


def together() -> list[Planned]:
    """Each task alone, with all others, and all but each; every task that takes part has the same rows in every step."""
    groups: dict[str, tuple[str, ...]] = {"all": MIXED}
    groups |= {f"{name} alone": (name,) for name in MIXED}
    groups |= {f"without {name}": tuple(other for other in MIXED if other != name) for name in MIXED}
    return [
        planned
        for arm, names in groups.items()
        for planned in plan(
            "together",
            [(arm, {"mixture": [source(name, quota=ROWS_EACH) for name in names], "rows": None, "steps": STEPS})],
            names,
        )
    ]


# --- (d) a modality that was never pretrained on ---

SOUNDS = {"drums": 10, "prompts": 10, "sounds": 4}
"""Rows of each in every step of fine-tuning."""
FINE_TUNING_STEPS = 100


def transfer() -> list[Planned]:
    """Pretrained on pictures and clips, on pictures, on text, on nothing; then fine-tuned on sounds."""
    before = {"pictures and clips": (*PICTURES, *CLIPS), "pictures": PICTURES, "text": ("docstrings",)}
    sounds = {"mixture": [source(name, quota=quota) for name, quota in SOUNDS.items()], "rows": None}
    planned = plan(
        "transfer",
        [
            (arm, {"mixture": [source(name) for name in names], "rows": ROWS, "steps": STEPS})
            for arm, names in before.items()
        ],
        (),
        keep=True,
    )
    for start in (*before, None):
        arm = f"sounds after {start or 'nothing'}"
        planned += plan("transfer", [(arm, sounds | {"steps": FINE_TUNING_STEPS})], tuple(SOUNDS), start=start)
    return planned


# --- (e) does `auto` replace tuning ---

COMMON, RARE = ("kinds", "drums"), "groups"
LARGEST = 4098
"""Rows of the largest common data set."""
IMBALANCES = (1, 10, 100)
SHARES = (0.1, 0.6)
"""Shares of the rare task's rows that are tried by hand, beside equal (a third) and proportional ones; the others share the rest equally."""


def auto() -> list[Planned]:
    """`balance: auto` as docs/balance.md recommends it, against fixed mixtures, when one task is 1, 10 and 100 times rarer."""
    planned = []
    for imbalance in IMBALANCES:
        each = [*map(source, COMMON), source(RARE, limit=LARGEST // imbalance)]
        arms: dict[str, Page] = {
            "proportional": {"mixture": each, "temperature": 1},
            "equal": {"mixture": each},
            "temperature 3": {"mixture": each, "temperature": 3},
            "auto": {"mixture": each, "temperature": 3, "balance": "auto"},
        }
        for share in SHARES if imbalance > 1 else ():
            weights = {name: (1 - share) / len(COMMON) for name in COMMON} | {RARE: share}
            arms[f"rare {share:.0%}"] = {"mixture": [one | {"weight": weights[one["name"]]} for one in each]}
        named = [(f"1:{imbalance} {arm}", {"rows": ROWS, "steps": STEPS} | page) for arm, page in arms.items()]
        planned += plan("auto", named, (*COMMON, RARE), facts={"imbalance": imbalance})
    return planned


QUESTIONS = {"mixing": mixing, "curriculum": curriculum, "together": together, "transfer": transfer, "auto": auto}

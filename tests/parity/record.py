"""`agree` compares with a stored value, and notes how far apart the two were: docs/parity.md is made of these notes.

    agree("tiny/text_only", "logits", ours, theirs, bound=1e-4)

The case is the golden set and its part (`tiny/...`, `full/...`, `preprocess/...`); what is compared is said in words.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(os.environ.get("MONOGLOT_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
"""All golden tensors; those that are too large for the repository are only there. Their tests skip where it is not."""


@dataclass(frozen=True)
class Agreement:
    """One comparison."""

    test: str
    case: str
    what: str
    values: int
    """How many numbers (or words) were compared."""
    difference: float
    """The largest; infinite if the shapes differ or ours has what is no number."""
    bound: float
    kind: str
    """"absolute" or "relative" difference of numbers; "unequal", the count of entries that are not the same."""

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound


@dataclass
class Records:
    """What a test run has noted."""

    agreements: list[Agreement] = field(default_factory=list)
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Test -> (passed, failed or skipped; why it was skipped)."""

    def to_json(self) -> dict[str, Any]:
        tests = [{"test": name, "outcome": how, "reason": why} for name, (how, why) in self.outcomes.items()]
        return {"agreements": [asdict(one) for one in self.agreements], "tests": tests}


RECORDS = Records()


def agree(case: str, what: str, ours: Any, theirs: Any, bound: float = 0.0, *, relative: bool = False) -> None:
    """Assert that `ours` is within `bound` of the stored `theirs`, and note it.

    Args:
        case: golden set and part, as "tiny/image_text".
        what: the thing compared, in words.
        ours, theirs: tensors, arrays, numbers, texts or lists of them. Whole numbers and texts have to be equal
            (`bound` 0 entries that are not); of other numbers the largest difference counts.
        relative: measure |ours - theirs| / max(|theirs|, 1e-6).

    Raises:
        AssertionError: further apart than `bound`, shapes that differ, or a value of ours that is not finite where
            theirs is.
    """
    a, b = _array(ours), _array(theirs)
    exact = (b if b.size else a).dtype.kind not in "fc"
    kind = "unequal" if exact else "relative" if relative else "absolute"
    difference = _difference(a, b, kind) if a.shape == b.shape else np.inf
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    one = Agreement(test, case, what, b.size, difference, bound, kind)
    RECORDS.agreements.append(one)
    shapes = "" if a.shape == b.shape else f"; shapes {a.shape} and {b.shape}"
    assert one.holds, f"{case}: {what}: {kind} difference {difference:.3g} exceeds {bound:.3g}{shapes}"


def _difference(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    if kind == "unequal":
        return float((a != b).sum())
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # infinite in the same places, and a mark for nothing
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b) / (np.maximum(np.abs(b), 1e-6) if kind == "relative" else 1.0)
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return float(apart.max(initial=0.0))


def _array(value: Any) -> np.ndarray:
    """Tensors of any kind as numpy; bfloat16 and the like, which numpy lacks, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.dtype.is_floating_point and value.element_size() < 4 else value
        return value.numpy()
    return np.asarray(value)

"""Results as one picture: a caption by ours, the plain decoder, peers and the machine's limit; an answer by its stages.

results of one or more models -> PNG
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from monoglot.bench.show import shown
from monoglot.bench.stages import STAGES
from monoglot.errors import InputError
from monoglot.files import atomic_path

ENCODE, DECODE = "#4a7fd6", "#d1702a"
COLOURS = {"read": "#9aa3af", "prepare": "#c9b458", "media": "#2c5aa8", "encode": ENCODE, "decode": DECODE}
COLOURS |= {"encoding": ENCODE, "decoding": DECODE}
NAMES = {"media": "media encoder", "encode": "transformer encoder", "encoding": "both encoders", "decoding": "decode"}
Bars = list[tuple[str, dict[str, float], tuple[float, float] | None]]
"""Label, milliseconds of each stage, quartiles of their sum."""


def require() -> None:
    """InputError with the fix in one line, unless matplotlib is there."""
    if find_spec("matplotlib") is None:
        raise InputError('a figure needs matplotlib; run: pip install "monoglot[report]"')


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each `compare` and each `stages` among the results. InputError when there is neither, or matplotlib is missing."""
    require()
    from matplotlib.figure import Figure

    panels = [(_title(found, "a caption"), compared(found)) for found in results if "compare" in found["parts"]]
    panels += [(_title(found, "a question"), staged(found)) for found in results if "stages" in found["parts"]]
    if not panels:
        raise InputError.at(path, "--figure", "nothing to draw", "measure stages or compare")
    heights = [0.34 * len(bars) + 0.9 for _, bars in panels]
    figure = Figure(figsize=(7.6, sum(heights)), layout="constrained")
    for axes, (title, bars) in zip(figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0], panels):
        _panel(axes, title, bars)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def compared(results: Mapping[str, Any]) -> Bars:
    """The limit, ours, the plain decoder, peers: encoding and decoding of one caption with the widest beam."""
    part = results["parts"]["compare"]
    ours = part["systems"]["monoglot"]
    whole = next(iter(ours["seconds"]))
    least = part["limit"][ours["precision"]]["seconds"]
    bars: Bars = [
        (
            "limit of this machine",
            _ms(encoding=least["media"] + least["encode"], decoding=least["cross"] + least["steps"]),
            None,
        )
    ]
    for name, system in part["systems"].items():
        took = system["seconds"][whole]
        stages = _ms(encoding=took["all_encoding"]["median"], decoding=took["all_decoding"]["median"])
        bars.append(
            (f"{name} ({system['parameters'] / 1e6:.0f} M, {system['pixels']} px)", stages, _span(took["total"]))
        )
    return bars


def staged(results: Mapping[str, Any]) -> Bars:
    """Each kind of question, stage by stage."""
    return [
        (kind, _ms(**{stage: found["seconds"][stage]["median"] for stage in STAGES}), _span(found["seconds"]["total"]))
        for kind, found in results["parts"]["stages"]["questions"].items()
    ]


def _title(results: Mapping[str, Any], what: str) -> str:
    model, machine = results["model"], results["machine"]
    return f"{model['name']}: {what} ({model['precision']}, threads: {machine['threads']})"


def _ms(**seconds: float) -> dict[str, float]:
    return {stage: 1000 * value for stage, value in seconds.items()}


def _span(spread: Mapping[str, float]) -> tuple[float, float]:
    return 1000 * spread["low"], 1000 * spread["high"]


def _panel(axes: Any, title: str, bars: Bars) -> None:
    places = range(len(bars))
    ends = [0.0] * len(bars)
    for stage in bars[0][1]:
        widths = [stages[stage] for _, stages, _ in bars]
        axes.barh(places, widths, 0.62, left=ends, color=COLOURS[stage], label=NAMES.get(stage, stage))
        ends = [end + width for end, width in zip(ends, widths)]
    longest = max(ends)
    for place, end, (_, _, span) in zip(places, ends, bars):
        if span is not None:
            axes.plot(span, [place, place], color="black", linewidth=1.2)
            end = max(end, span[1])
        axes.text(end + 0.012 * longest, place, shown(sum(bars[place][1].values()) / 1000), va="center", fontsize=8)
    axes.set_yticks(places, [label for label, _, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.13 * longest)
    axes.set_xlabel("milliseconds (median; black: quartiles of the sum)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(title, fontsize=9, loc="left", x=-0.3)  # over the labels, beside the legend
    axes.spines[["top", "right"]].set_visible(False)
    above: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "ncols": len(bars[0][1])}
    axes.legend(fontsize=7, frameon=False, handlelength=1, columnspacing=1, **above)

"""How well near copies of pictures are told: altered copies found, different emoji taken for one another, time of the search.

    python benchmarks/near_copies.py packs/emoji [--distance 4] [--copies 600] [--hashes 1000000] [--out benchmarks/results/FILE.json]

Pictures of one drawing style show different emoji each: every pair that is told to be near copies counts as false, although
some are drawn alike but for a mouth or a hand. Copies are made of drawings and of scenes (photo-like JPEG files of the pack).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageFilter

import monoglot
from monoglot.data.duplicates import count_ones, look, near_pairs, same_colours
from monoglot.modalities.image import WHITE, on_background, read_picture
from monoglot.nouns import Media


def picture(path: Path) -> Image.Image:
    return on_background(read_picture(Media("image", str(path)), 128), WHITE)


def altered(original: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    width, height = original.size
    yield "half the size", original.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    yield "1.5 times the size", original.resize((width * 3 // 2, height * 3 // 2), Image.Resampling.LANCZOS)
    for quality in (90, 60, 30):
        file = io.BytesIO()
        original.save(file, "JPEG", quality=quality)
        yield f"JPEG of quality {quality}", Image.open(file).convert("RGB")
    for factor in (0.85, 1.05, 1.1):
        yield f"brightness times {factor}", ImageEnhance.Brightness(original).enhance(factor)
    yield "contrast times 1.2", ImageEnhance.Contrast(original).enhance(1.2)
    yield "blurred by 1 pixel", original.filter(ImageFilter.GaussianBlur(1))
    yield "2% cut off each side", original.crop((width // 50, height // 50, width - width // 50, height - height // 50))
    yield "mirrored (is another picture)", original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def found_share(paths: list[Path], distance: int) -> dict[str, float]:
    """Kind of change -> share of copies that are told."""
    told: dict[str, list[bool]] = {}
    for path in paths:
        original = picture(path)
        seen = look(original)
        for change, copy in altered(original):
            other = look(copy)
            near = seen.bits is not None and other.bits is not None
            near = near and (seen.bits ^ other.bits).bit_count() <= distance
            told.setdefault(change, []).append(near and bool(same_colours(seen.colours[None], other.colours[None])[0]))
    return {change: round(float(np.mean(shares)), 3) for change, shares in told.items()}


def false_pairs(folder: Path, distance: int) -> dict[str, int]:
    """Of the drawings of one style: how many, and pairs told by their bits alone and with their colours."""
    looks = [look(picture(path)) for path in sorted(folder.glob("*.png"))]
    looks = [seen for seen in looks if seen.bits is not None]
    bits = np.array([seen.bits for seen in looks], np.uint64)
    colours = np.array([seen.colours for seen in looks])
    by_bits = [pairs for pairs in near_pairs(bits, distance)]
    pairs = np.concatenate(by_bits) if by_bits else np.zeros((0, 2), int)
    told = pairs[same_colours(colours[pairs[:, 0]], colours[pairs[:, 1]])]
    return {
        "drawings": len(looks),
        "pairs": len(looks) * (len(looks) - 1) // 2,
        "told by bits": len(pairs),
        "told": len(told),
        "drawings told": len(np.unique(told)),
    }


def search_time(hashes: int, distance: int) -> dict[str, Any]:
    """Seconds for random hashes with one near copy each hundredth, and of comparing all with all for a fiftieth of them."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, hashes, np.uint64)
    bits[: hashes // 100] = bits[-(hashes // 100) :] ^ np.uint64(0b1001)
    began, used = time.perf_counter(), time.process_time()
    pairs = sum(len(some) for some in near_pairs(bits, distance))
    seconds = {"clock": round(time.perf_counter() - began, 1), "processor": round(time.process_time() - used, 1)}
    some = bits[: hashes // 50]
    used = time.process_time()
    compared = sum(int((count_ones(some[i + 1 :] ^ some[i]) <= distance).sum()) for i in range(len(some)))
    by_all = round(time.process_time() - used, 1)
    assert compared == sum(len(one) for one in near_pairs(some, distance))
    return {
        "hashes": hashes,
        "pairs found": pairs,
        "seconds": seconds,
        "processor seconds, all with all, of a fiftieth": by_all,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path, help="The folder of the pack emoji.")
    parser.add_argument("--distance", type=int, default=4)
    parser.add_argument("--copies", type=int, default=600, help="Pictures of either kind that copies are made of.")
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    media = arguments.pack / "media"
    styles = sorted(
        folder for folder in media.iterdir() if folder.is_dir() and folder.name not in ("scenes", "sharealike")
    )
    rng = np.random.default_rng(0)
    drawings = [path for style in styles for path in sorted(style.glob("*.png"))]
    scenes = sorted((media / "scenes").glob("*.jpg"))
    drawn = [[paths[i] for i in rng.permutation(len(paths))[: arguments.copies]] for paths in (drawings, scenes)]
    by_style = {style.name: false_pairs(style, arguments.distance) for style in styles}
    results = {
        "command": " ".join(["python", "benchmarks/near_copies.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]},
        "versions": {"numpy": np.__version__, "pillow": PIL.__version__, "monoglot": monoglot.__version__},
        "distance": arguments.distance,
        "copies found, of drawings": found_share(drawn[0], arguments.distance),
        "copies found, of scenes": found_share(drawn[1], arguments.distance),
        "false, by style": by_style,
        "false, in all": {name: sum(one[name] for one in by_style.values()) for name in next(iter(by_style.values()))},
        "search": search_time(arguments.hashes, arguments.distance),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

"""The pack `solar`: pictures of solar cells under current -> is the cell defective? of which kind is it?

    wheel -> labels.csv -> Cell(number, probability, kind) -> blocks of neighbours -> split by block -> rows

The 2,624 cells are cut from 44 modules, but the package does not say which cell is from which. Their numbers tell: kinds
change at blocks of cells, and how cells look jumps every 60 numbers up to 1,200 (a module has 60 cells, some 48 or 72).
Between 1,201 and 2,144 cells are missing and the borders are not sure, so that these are two large blocks, which train.
No block is in two splits.

Not for commercial use (CC BY-NC-SA 4.0): built only when it is asked for by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from monoglot.data.packs import fetch
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.fetch import MissingSource

SOURCE = ("elpv-dataset", "1.0.0.post1")
SHA256 = "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"
LICENCE = "CC BY-NC-SA 4.0"
TERMS = f"the pictures are {LICENCE}: not for commercial use, and what is made from them is shared alike"

STARTS = (*range(1, 1201, 60), 1201, 1615, 2145, 2217, 2277, 2337, 2397, 2445, 2505, 2565)
"""Number of the first cell of each block."""
LARGEST_MODULE = 72
"""Cells; a larger block is several modules, and trains."""
DEFECTIVE = 0.5
"""Probability from which on a cell counts as defective; the experts said 0, 1/3 (perhaps not), 2/3 (perhaps) or 1."""

DEFECT_QUESTION = "is this solar cell defective?"
KIND_QUESTION = "what kind of solar cell is this?"
KINDS = {"mono": "monocrystalline", "poly": "polycrystalline"}


@dataclass(frozen=True)
class Cell:
    """One picture and what the experts said of it."""

    file: Path
    number: int
    """From 1, in the order in which the cells were cut."""
    probability: float
    """That it is defective."""
    kind: str
    """'mono' or 'poly'."""

    @property
    def defective(self) -> bool:
        return self.probability >= DEFECTIVE


def read_cells(folder: Path) -> list[Cell]:
    """The cells of labels.csv, whose lines are `images/cell0001.png  1.0  mono`."""
    cells = []
    for number, line in enumerate((folder / "labels.csv").read_text(encoding="utf-8").splitlines(), start=1):
        name, probability, kind = line.split()
        cells.append(Cell(folder / name, number, float(probability), kind))
    return cells


def blocks(cells: Sequence[Cell]) -> list[Sequence[Cell]]:
    """Neighbours that are of one module, or of several that cannot be told apart."""
    edges = [start - 1 for start in STARTS if start <= len(cells)]
    return [cells[low:high] for low, high in pairwise([*edges, len(cells)])]


def split_blocks(found: Sequence[Sequence[Cell]]) -> list[str]:
    """The split of each block. Of each kind, modules are sorted by their share of defective cells and dealt in turn, so
    that every split has good and bad ones: a third tests, a sixth validates."""
    splits = ["train"] * len(found)
    by_kind = defaultdict(list)
    for number, block in enumerate(found):
        if len(block) <= LARGEST_MODULE:
            by_kind[block[0].kind].append((sum(cell.defective for cell in block) / len(block), number))
    for modules in by_kind.values():
        for place, (_, number) in enumerate(sorted(modules)):
            splits[number] = "test" if place % 3 == 1 else "valid" if place % 6 == 2 else "train"
    return splits


def build(writer: PackWriter) -> None:
    """Write two rows a cell: whether it is defective, and of which kind it is."""
    package = fetch.pip(*SOURCE)
    if package.sha256 != SHA256:
        raise MissingSource(f"pip package {SOURCE[0]}: its sha256 is {package.sha256}, expected {SHA256}")
    writer.source(package)
    found = blocks(read_cells(package.folder / "elpv_dataset/data"))
    for block, split in writer.track(list(zip(found, split_blocks(found))), "modules"):
        group = f"{block[0].number:04}-{block[-1].number:04}"
        for cell in block:
            name = cell.file.stem
            shared = {"task": "classify", "image": writer.media(cell.file.name, cell.file.read_bytes())}
            held = {"group": group, "probability": cell.probability, "licence": LICENCE}
            row = {"id": f"defects/{name}", **shared, "text": DEFECT_QUESTION}
            writer.add(
                "defects", split, {**row, "target": ("no", "yes")[cell.defective], "choices": ["yes", "no"], **held}
            )
            row = {"id": f"kinds/{name}", **shared, "text": KIND_QUESTION}
            writer.add("kinds", split, {**row, "target": KINDS[cell.kind], "choices": list(KINDS.values()), **held})
    writer.notice(
        f"elpv-dataset {package.version}",
        f"{LICENCE} (https://creativecommons.org/licenses/by-nc-sa/4.0/)",
        "Electroluminescence pictures of solar cells by ZAE Bayern, labelled by experts; pictures as they are. To be cited: "
        "Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery, "
        "EU PVSEC 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15; Deitsch et al., Solar Energy 185 (2019) 455-468, "
        "doi:10.1016/j.solener.2019.02.067; Deitsch et al., Machine Vision and Applications 32 (2021), "
        "doi:10.1007/s00138-021-01191-9.\n\n"
        "Ours: `yes` from a probability of 0.5 on. `group`: the package does not name the modules; groups are blocks of "
        "neighbouring numbers, one module each as far as the pictures tell, except 1201-1614 and 1615-2144, which are "
        "several modules each and train.",
    )


PACKS.add("solar", Pack("solar", f"solar cells: defective or not, of which kind ({LICENCE})", build, terms=TERMS))

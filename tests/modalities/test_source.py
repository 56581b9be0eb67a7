"""Members of shards, found by name and by place."""

from __future__ import annotations

import tarfile

import pytest

from monoglot.errors import MediaError
from monoglot.modalities import source
from monoglot.modalities.source import open_source, tar_index
from monoglot.nouns import Media

FILES = {
    "a.jpg": b"first",
    "b.jpg": b"second" * 200,
    "in/ü.jpg": b"third",
    "odd@5+3": b"named like a place",
    "n" * 120: b"long",
}


@pytest.fixture
def shard(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in FILES.items():
            (tmp_path / "file").write_bytes(data)
            tar.add(tmp_path / "file", name)
    return tmp_path / "s.tar"


def read(name: str) -> bytes:
    file, told = open_source(Media("image", name))
    with file:
        assert told == name
        return file.read()


def test_by_name(shard):
    for name, data in FILES.items():
        assert read(f"tar://{shard}#{name}") == data


def test_by_place_no_header_but_its_own_is_read(shard, monkeypatch):
    places = dict(tar_index(shard))

    def no_index(*_):
        raise AssertionError("the headers are gone through")

    monkeypatch.setattr(source, "tar_index", no_index)
    for name, data in FILES.items():
        if len(name) <= 100 and name.isascii():  # as packs name them
            offset, size = places[name]
            assert read(f"tar://{shard}#{name}@{offset}+{size}") == data


def test_a_place_that_is_not_the_members_is_refused(shard):
    offset, size = tar_index(shard)["b.jpg"]
    wrong = [f"a.jpg@{offset}+{size}", f"b.jpg@{offset + 512}+{size}", f"b.jpg@0+{size}", f"b.jpg@{offset}+999999"]
    for member in wrong:
        with pytest.raises(
            MediaError, match=r"no member '.*'.*; the index beside the shard is of another; pack the rows"
        ):
            read(f"tar://{shard}#{member}")
    with pytest.raises(MediaError, match=r"no member 'c.jpg@512\+5' in this tar; it holds 5 files"):
        read(f"tar://{shard}#c.jpg@512+5")
    with pytest.raises(MediaError, match="no such file"):
        read(f"tar://{shard.with_name('t.tar')}#b.jpg@{offset}+{size}")


def test_an_empty_member_is_told(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    for name in ("a.jpg", "a.jpg@512+0"):
        with pytest.raises(MediaError, match=r"the file is empty \(0 bytes\)"):
            read(f"tar://{tmp_path}/s.tar#{name}")

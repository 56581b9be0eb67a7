"""What is kept of encoders: same numbers back, never past the bound, whole after any kill."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from small import tiny_config

from monoglot.data import features
from monoglot.data.collate import Keyed
from monoglot.data.features import CachingPreparer, FeatureCache, RecentFeatures, fingerprint
from monoglot.modalities import Grid
from monoglot.nouns import Media, Sample


def numbers(seed: int, rows: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, channels)).astype(np.float32)


def fill(cache: FeatureCache, count: int, name: str = "k", **shape) -> None:
    for index in range(count):
        array = numbers(index, **shape)
        cache.put(f"{name}{index}", array, Grid(1, 1, len(array)))


def holds(cache: FeatureCache, key: str, seed: int) -> bool:
    found = cache.get(key)
    if found is not None:
        assert found[0].dtype == np.float16
        np.testing.assert_array_equal(found[0], numbers(seed).astype(np.float16))
        assert found[1] == Grid(1, 1, 4)
    return found is not None


def test_put_and_get_now_and_later(tmp_path):
    cache = FeatureCache(tmp_path / "new" / "folder", 10**6)
    assert cache.get("k0") is None
    fill(cache, 5)
    cache.put("k0", numbers(99), Grid(1, 1, 4))  # what is there stays
    assert all(holds(cache, f"k{index}", index) for index in range(5))
    cache.close()
    again = FeatureCache(tmp_path / "new" / "folder", 10**6)
    assert len(again) == 5
    assert all(holds(again, f"k{index}", index) for index in range(5))
    again.close()


def test_bound(tmp_path):
    cache = FeatureCache(tmp_path, 60)
    fill(cache, 5)  # 24 bytes each
    cache.close()
    again = FeatureCache(tmp_path, 60)
    fill(again, 5)
    assert len(again) == 2
    assert (tmp_path / "features.bin").stat().st_size == 48
    again.close()


def test_what_another_process_keeps_is_seen_after_a_refresh(tmp_path, monkeypatch):
    """Whole lines only, each once; looking again costs nothing while nothing was kept."""
    one, other = FeatureCache(tmp_path, 10**6), FeatureCache(tmp_path, 10**6)
    fill(one, 3)
    assert other.get("k0") is None
    other.refresh()
    assert all(holds(other, f"k{index}", index) for index in range(3))
    line = json.dumps(["half", 0, 4, 3, [1, 1, 4], 0]).encode()
    lines = os.open(tmp_path / "index.jsonl", os.O_WRONLY | os.O_APPEND)
    os.write(lines, line[:20])
    other.refresh()
    assert len(other) == 3
    os.write(lines, line[20:] + b"\n")
    other.refresh()
    assert len(other) == 4
    fill(other, 5)
    one.refresh()
    assert all(holds(one, f"k{index}", index) for index in range(5))
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *arguments: reads.append(arguments) or pread(*arguments))
    one.refresh()
    other.refresh()
    assert len(reads) <= 1, "only what the other wrote itself, once"
    one.close()
    other.close()


def test_the_bound_is_for_all_processes_together(tmp_path):
    one, other = FeatureCache(tmp_path, 60), FeatureCache(tmp_path, 60)
    fill(one, 1)
    fill(other, 5, name="o")
    fill(one, 5)
    assert (tmp_path / "features.bin").stat().st_size == 48
    one.close()
    other.close()


def test_refreshing_beside_reading_and_keeping(tmp_path):
    """A thread reads ahead while the loop keeps features: everything is found, nothing is torn."""
    cache, writer = FeatureCache(tmp_path, 10**7), FeatureCache(tmp_path, 10**7)
    wrong: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(300):
                cache.refresh()
                for index in range(0, 200, 17):
                    holds(cache, f"w{index}", index)
                    holds(cache, f"c{index}", index)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for index in range(200):
        writer.put(f"w{index}", numbers(index), Grid(1, 1, 4))
        cache.put(f"c{index}", numbers(index), Grid(1, 1, 4))
    for thread in threads:
        thread.join()
    assert wrong == []
    cache.refresh()
    assert len(cache) == 400
    cache.close()
    writer.close()


@pytest.mark.parametrize("lost", [1, 23, 24, 25, 60, 120])
def test_data_that_lost_its_end(tmp_path, lost):
    cache = FeatureCache(tmp_path, 10**6)
    fill(cache, 5)
    cache.close()
    os.truncate(tmp_path / "features.bin", 120 - lost)
    again = FeatureCache(tmp_path, 10**6)
    whole = 5 - -(-lost // 24)
    assert [holds(again, f"k{index}", index) for index in range(5)] == [index < whole for index in range(5)]
    fill(again, 5)
    assert all(holds(again, f"k{index}", index) for index in range(5))
    again.close()
    last = FeatureCache(tmp_path, 10**6)  # old lines do not speak for new data
    assert all(holds(last, f"k{index}", index) for index in range(5))
    last.close()


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_an_index_that_lost_its_end(tmp_path, lost):
    cache = FeatureCache(tmp_path, 10**6)
    fill(cache, 3)
    cache.close()
    index = tmp_path / "index.jsonl"
    os.truncate(index, index.stat().st_size - lost)
    again = FeatureCache(tmp_path, 10**6)
    fill(again, 4)
    again.close()
    last = FeatureCache(tmp_path, 10**6)
    assert all(holds(last, f"k{number}", number) for number in range(4))
    last.close()


def test_nothing_waits_for_the_end_of_the_run(tmp_path):
    cache = FeatureCache(tmp_path, 10**6)
    fill(cache, 3)
    killed = FeatureCache(tmp_path, 10**6)  # as if the first had never been closed
    assert len(killed) == 3
    cache.close()
    killed.close()


def test_foreign_lines_are_passed_over(tmp_path):
    (tmp_path / "index.jsonl").write_bytes(b'5\n{"a": 1}\n["k", 1]\n\xff\xfe\n["k0", "x", 1, 1, [1, 1, 1], 3, 4]')
    cache = FeatureCache(tmp_path, 10**6)
    assert len(cache) == 0
    fill(cache, 1)
    cache.close()
    again = FeatureCache(tmp_path, 10**6)
    assert holds(again, "k0", 0)
    again.close()


def test_two_runs_share_a_folder(tmp_path):
    one, two = FeatureCache(tmp_path, 10**6), FeatureCache(tmp_path, 10**6)
    for index in range(4):
        one.put(f"one{index}", numbers(index), Grid(1, 1, 4))
        two.put(f"two{index}", numbers(10 + index), Grid(1, 1, 4))
    assert all(holds(one, f"one{index}", index) and holds(two, f"two{index}", 10 + index) for index in range(4))
    one.close()
    two.close()
    both = FeatureCache(tmp_path, 10**6)
    assert all(holds(both, f"one{index}", index) and holds(both, f"two{index}", 10 + index) for index in range(4))
    both.close()


def test_a_full_disk_ends_keeping_not_the_run(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path, 10**6)
    fill(cache, 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(features.os, "write", full)
        fill(cache, 3)
    fill(cache, 3)
    assert len(cache) == 1
    assert holds(cache, "k0", 0)
    cache.close()


class Settings:
    source_positions = target_positions = 64
    start = (0,)

    def __init__(self, modalities):
        self.modalities = modalities


@pytest.fixture
def preparer(tokenizer, tmp_path):
    made = CachingPreparer(tokenizer, tiny_config())
    made.cache = FeatureCache(tmp_path / "cache", 10**6)
    yield made
    made.cache.close()


def picture(path, colour):
    Image.new("RGB", (20, 20), colour).save(path)
    return Sample("1", "name", (Media("image", str(path)),))


def test_a_kept_item_is_not_read_again(preparer, tmp_path):
    sample = picture(tmp_path / "a.png", "red")
    first = preparer.example(sample).sequence.media[0]
    assert isinstance(first, Keyed)
    assert not first.encoded
    preparer.cache.put(first.key, numbers(0), Grid(1, 2, 2))
    second = preparer.example(sample)
    assert second.sequence.media[0].encoded
    assert second.grids == (Grid(1, 2, 2),)
    np.testing.assert_array_equal(second.sequence.media[0].value, numbers(0).astype(np.float16))


def test_keys_tell_files_windows_and_copies_apart(preparer, tmp_path):
    path = tmp_path / "a.png"
    sample = picture(path, "red")
    keys = {preparer.example(sample, variant=variant).sequence.media[0].key for variant in (0, 1, 2, -1)}
    assert len(keys) == 4
    os.utime(path, ns=(1, 1))  # written again, of equal size
    keys.add(preparer.example(sample).sequence.media[0].key)
    picture(path, "blue")
    keys.add(preparer.example(sample).sequence.media[0].key)
    assert len(keys) == 6
    windows = [Media("video", str(path), start, end) for start, end in ((None, None), (0.0, 1.0), (0.0, 2.0))]
    assert len({features._key(media, 0) for media in windows}) == 3


def test_what_is_no_plain_file_is_not_kept(preparer):
    array = Sample("1", "name", (Media("image", np.zeros((9, 9, 3), np.uint8)),))
    assert isinstance(preparer.example(array).sequence.media[0], np.ndarray)
    preparer.cache, kept = None, preparer.cache
    assert isinstance(preparer.example(array).sequence.media[0], np.ndarray)
    preparer.cache = kept


def test_fingerprint_tells_weights_and_settings_apart():
    torch.manual_seed(0)
    encoder = torch.nn.Linear(2, 2)
    first = fingerprint(encoder, {"size": 64})
    assert first == fingerprint(encoder, {"size": 64})
    assert len(first) == 12
    assert first != fingerprint(encoder, {"size": 96})
    with torch.no_grad():
        encoder.weight[0, 0] += 1e-6
    assert first != fingerprint(encoder, {"size": 64})


def test_members_of_a_shard_have_keys(tmp_path):
    """Each member its own, and another one when the shard changes."""
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"x" * 1024)
    media = [Media("image", f"tar://{shard}#{name}") for name in ("a.png", "b.png", "a.png@512+9")]
    keys = [features._key(item, 0) for item in media]
    assert None not in keys
    assert len(set(keys)) == 3
    shard.write_bytes(b"x" * 2048)
    assert not {features._key(item, 0) for item in media} & set(keys)
    assert features._key(Media("image", f"tar://{tmp_path}/absent.tar#a.png"), 0) is None


# --- in memory --------------------------------------------------------------------------------------------------------


def test_what_was_asked_for_last_stays():
    kept = RecentFeatures(3 * numbers(0).nbytes)
    for index in range(3):
        kept.put(f"k{index}", numbers(index), Grid(1, 1, 4))
    assert kept.get("k0") is not None
    kept.put("k3", numbers(3), Grid(1, 1, 4))
    assert [kept.get(f"k{index}") is not None for index in range(4)] == [True, False, True, True]
    np.testing.assert_array_equal(kept.get("k3")[0], numbers(3))
    kept.put("large", np.zeros(10**6, np.float32), Grid(1, 1, 4))
    assert kept.get("large") is None
    assert len(kept) == 3
    whole = np.zeros((100, *numbers(0).shape), numbers(0).dtype)
    kept.put("part", whole[1], Grid(1, 1, 4))
    assert kept.get("part")[0].base is None


def test_recent_features_go_by_content(tmp_path):
    kept, path = RecentFeatures(), tmp_path / "a.png"
    picture(path, "red")
    shutil.copy(path, tmp_path / "b.png")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(path, "member.png")
    sources = [str(path), path, str(tmp_path / "b.png"), path.read_bytes(), f"tar://{tmp_path}/s.tar#member.png"]
    (one,) = {kept.key(Media("image", source), 0) for source in sources}
    stat = os.stat(path)
    picture(path, "blue")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert kept.key(Media("image", str(path)), 0) != one
    assert len({kept.key(Media("video", str(path), start, 2.0), 0) for start in (None, 0.5, 1.0)}) == 3
    assert kept.key(Media("image", str(tmp_path / "none.png")), 0) is None
    assert kept.key(Media("image", np.zeros((9, 9, 3), np.uint8)), 0) is None
    long = bytes(features.HASHED + 2)
    assert kept.key(Media("image", long), 0) != kept.key(Media("image", long[:-1] + b"x"), 0)
    (tmp_path / "long.mp4").write_bytes(long)
    media = Media("video", str(tmp_path / "long.mp4"))
    assert kept.key(media, 0) == features._key(media, 0)
    arrays = (
        np.zeros((2, 3), np.uint8),
        np.zeros((3, 2), np.uint8),
        np.zeros((2, 3), np.int8),
        np.ones((2, 3), np.uint8),
    )
    assert len({kept.key_of("image", array) for array in arrays}) == 4


def test_recent_features_leave_pixels_in_the_batch(preparer, tmp_path):
    """Whoever takes a batch from a predictor gets what `prepare` made, also of what is kept."""
    preparer.cache.close()
    preparer.cache, preparer.lately = RecentFeatures(), RecentFeatures()
    sample = picture(tmp_path / "a.png", "red")
    first = preparer.example(sample).sequence.media[0]
    preparer.cache.put(first.key, numbers(0), Grid(1, 1, 4))
    second = preparer.example(sample).sequence.media[0]
    assert not second.encoded
    assert second.value is first.value  # read once
    array = Sample("1", "name", (Media("image", np.zeros((9, 9, 3), np.uint8)),))
    assert preparer.example(array).sequence.media[0].key.startswith("image|")
    preparer.cache = FeatureCache(tmp_path / "again", 10**6)  # for the fixture to close

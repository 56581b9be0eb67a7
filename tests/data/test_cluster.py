"""Rows prepared by several workers against the same rows prepared by one; killed workers, bad rows; and Ray where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monoglot.data import cluster
from monoglot.data.cluster import ALONE, Block, PackBlock, Workers, blocks_of, prepare, work_through
from monoglot.data.pack import PARTS, Problem, begin, pack
from monoglot.data.rowfile import RowFile
from monoglot.errors import InputError
from monoglot.modalities.source import open_source

HAS_RAY = importlib.util.find_spec("ray") is not None
ALONE_OR_RAY = [pytest.param(ALONE, id="alone"), pytest.param(Workers(2, "auto"), id="ray", marks=pytest.mark.slow)]
PROCESSES = pytest.param(Workers(2), id="processes")


@pytest.fixture(scope="module")
def ray_here():
    """Ray on this machine, started once."""
    if not HAS_RAY:
        pytest.skip("needs the extra cluster")
    with cluster._ray(Workers(2, "local")) as ray:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its processes cannot import this page
        yield ray


@pytest.fixture(autouse=True)
def _started(request):
    """Starts it for the tests that need it."""
    if "[ray" in request.node.name:
        request.getfixturevalue("ray_here")


@pytest.fixture
def rows(tmp_path):
    """37 rows of pictures and texts, some about the same picture."""
    folder = tmp_path / "given"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(37):
        picture = f"{number // 2}.png"
        if number % 2 == 0:
            Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(folder / picture)
        media = {"image": picture} if number % 5 else {"text": f"text {number}"}
        lines.append({"id": f"r{number}", "task": "caption", "target": f"t{number}", **media})
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "pack.json"}


def rows_of(folder: Path) -> list[tuple]:
    """Everything a pack holds, bytes too, without places."""
    found = []
    for sample in RowFile(folder):
        data = []
        for item in sample.media:
            file, _ = open_source(item)
            with file:
                data.append(file.read())
        found.append((replace(sample, media=(), where=""), [item.modality for item in sample.media], data))
    return found


@pytest.mark.parametrize("workers", [*ALONE_OR_RAY[1:], PROCESSES])
def test_every_row_once_in_its_order_whoever_works(rows, tmp_path, workers):
    alone = prepare(rows, tmp_path / "alone", block_rows=8)
    made = prepare(rows, tmp_path / "made", block_rows=8, workers=workers)
    assert made == alone
    assert files_of(tmp_path / "made") == files_of(tmp_path / "alone")
    assert len(made["shardlist"]) == 5
    pack(rows, tmp_path / "packed")
    assert rows_of(tmp_path / "made") == rows_of(tmp_path / "packed")
    assert prepare(rows, tmp_path / "made", block_rows=8) == made


@pytest.mark.parametrize("block_rows", [1, 36, 37, 1000])
def test_any_size_of_block(rows, tmp_path, block_rows):
    prepare(rows, tmp_path / "out", block_rows=block_rows, shard_mb=0.01)
    assert [sample.id for sample in RowFile(tmp_path / "out")] == [f"r{number}" for number in range(37)]


def test_a_pack_is_prepared_again_and_made_smaller(rows, tmp_path):
    from monoglot.data.shrink import Shrink

    prepare(rows, tmp_path / "first", block_rows=8)
    small = prepare(tmp_path / "first", tmp_path / "small", block_rows=16, shrink=Shrink(image_side=20))
    assert small["origin"]["shrink"]["image_side"] == 20
    sizes = set()
    for sample in RowFile(tmp_path / "small"):
        for item in sample.media:
            file, _ = open_source(item)
            with file, Image.open(file) as picture:
                sizes.add((picture.size, picture.format))
    assert sizes == {((20, 13), "JPEG")}
    pack(rows, tmp_path / "packed", shrink=Shrink(image_side=20))
    assert rows_of(tmp_path / "packed") == rows_of(tmp_path / "small")


# --- stopped and begun again ------------------------------------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path
from monoglot.data.cluster import Workers, prepare
if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), block_rows=3, shard_mb=0.01, workers=Workers(int(sys.argv[3]), sys.argv[4]))
"""


@pytest.mark.parametrize(
    "workers",
    [pytest.param(ALONE, id="alone"), pytest.param(Workers(2, "local"), id="its own ray", marks=pytest.mark.slow)],
)
def test_killed_it_goes_on_and_keeps_what_is_finished(rows, tmp_path, workers):
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join(line.replace('"id": "r', f'"id": "{copy}r') for copy in range(40) for line in lines))
    prepare(rows, tmp_path / "whole", block_rows=3, shard_mb=0.01)
    if workers.cluster and not HAS_RAY:
        pytest.skip("needs the extra cluster")
    out, script = tmp_path / "out", tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = [sys.executable, script, rows, out, str(workers.count or 1), workers.cluster]
    scratch = Path(tempfile.mkdtemp(prefix="k"))  # what Ray leaves when it is killed
    process = subprocess.Popen(arguments, start_new_session=True, env=os.environ | {"TMPDIR": str(scratch)})
    while process.poll() is None and len(list((out / PARTS).glob("*.json"))) < 20:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
    assert not (out / "pack.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (out / PARTS).glob("*.json")}
    assert len(kept) >= 20
    shards = {out / path.name.removesuffix(".json"): 0 for path in kept}
    shards = {path: path.stat().st_mtime_ns for path in shards}
    prepare(rows, out, block_rows=3, shard_mb=0.01, workers=Workers(1))
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_folder_keeps_to_its_rows_and_settings(rows, tmp_path):
    out = tmp_path / "out"
    pack(rows, tmp_path / "packed")
    with pytest.raises(InputError, match=r"pack.json: data: belongs to other rows or settings \(block_rows differ\)"):
        prepare(rows, tmp_path / "packed")
    settings, _ = begin(RowFile(rows), out, shard_mb=256, shrink=None, block_rows=8)
    PackBlock(rows, out, settings, 256_000_000, None)(Block(0, 0, 8))  # and stopped after this block
    with pytest.raises(InputError, match=r"block-000000-000000.tar.json: .*\(block_rows differ\)"):
        prepare(rows, out, block_rows=7)
    with pytest.raises(InputError, match=r"block-000000-000000.tar.json: .*\(block_rows differ\)"):
        pack(rows, out)
    assert prepare(rows, out, block_rows=8)["rows"] == 37


# --- bad rows ---------------------------------------------------------------------------------------------------------


def broken(rows: Path, numbers: list[int]) -> None:
    lines = rows.read_text().splitlines()
    for number in numbers:
        lines[number] = '{"task": "caption", "image": "absent.png"}' if number % 2 else "{"
    rows.write_text("\n".join(lines))


@pytest.mark.parametrize("workers", ALONE_OR_RAY)
def test_bad_rows_are_listed_in_order_and_counted(rows, tmp_path, workers):
    broken(rows, [3, 8, 9, 10, 11, 12, 13, 14, 15, 36])  # all of block 1
    out = tmp_path / "out"
    made = prepare(rows, out, block_rows=8, workers=workers)
    assert (made["rows"], made["left_out"]) == (27, 10)
    problems = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    assert [int(problem["row"].rsplit(":", 1)[1]) - 1 for problem in problems] == [3, *range(8, 16), 36]
    assert {"no such file" in p["error"] or "broken JSON" in p["error"] for p in problems} == {True}
    assert [shard["url"][6:12] for shard in made["shardlist"]] == ["000000", "000002", "000003", "000004"]


@pytest.mark.parametrize("workers", [*ALONE_OR_RAY, PROCESSES])
def test_too_many_bad_rows_stop_it(rows, tmp_path, workers):
    broken(rows, [*range(11)])
    with pytest.raises(InputError, match=r"problems.jsonl: data: 11 of 37 rows cannot be packed; mend them or raise"):
        prepare(rows, tmp_path / "out", block_rows=8, workers=workers)
    assert len((tmp_path / "out" / "problems.jsonl").read_text().splitlines()) == 11
    assert prepare(rows, tmp_path / "out", block_rows=8, share=0.5)["left_out"] == 11
    broken(rows, [*range(37)])
    with pytest.raises(InputError, match="none of 37 rows can be packed"):
        prepare(rows, tmp_path / "none", block_rows=8, share=1.0)
    rows.write_text("")
    with pytest.raises(InputError, match="has no rows"):
        prepare(rows, tmp_path / "empty")


# --- workers that fail ------------------------------------------------------------------------------------------------


class Dies:
    """Its process is killed at block 2: the first time, or each time."""

    def __init__(self, folder: Path, always: bool = False):
        self.folder, self.always = folder, always

    def __call__(self, block: Block) -> list[Problem]:
        seen = self.folder / "seen"
        if block.number == 2 and (self.always or not seen.exists()):
            seen.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [Problem(f"row {block.start}", "bad")]


class Refuses:
    def __call__(self, block: Block) -> list[Problem]:
        raise InputError.at(f"block {block.number}", "disk", "is full")


def by(make, workers: Workers) -> list[str]:
    return sorted(problem.row for some in work_through(make, blocks_of(8, 2), workers, "working") for problem in some)


@pytest.mark.parametrize("workers", ALONE_OR_RAY)
def test_what_a_worker_refuses_is_one_line(workers):
    with pytest.raises(InputError, match=r"^block \d: disk: is full$"):
        by(Refuses, workers)


def test_a_process_that_dies_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"the process of a worker died .* finished blocks are kept"):
        by(partial(Dies, tmp_path), Workers(2))


@pytest.mark.slow
def test_ray_begins_a_block_again_but_not_for_ever(tmp_path, ray_here):
    assert by(partial(Dies, tmp_path), Workers(2, "auto")) == ["row 0", "row 2", "row 4", "row 6"]
    with pytest.raises(RuntimeError, match="the process of a worker died"):
        by(partial(Dies, tmp_path, True), Workers(2, "auto"))


# --- the command line -------------------------------------------------------------------------------------------------


def test_command_line(rows, tmp_path, command):
    code, out, _ = command("data", "pack", rows, tmp_path / "a", "--workers", 1, "--block-rows", 10, "--image-side", 20)
    assert (code, out[:-1]) == (0, f"{tmp_path / 'a'}: 37 rows in 4 shards, 0.1 MB")
    code, out, _ = command("data", "pack", rows, tmp_path / "b", "--check")
    assert code == 0
    code, _, err = command("data", "pack", rows, tmp_path / "c", "--block-rows", 10)
    assert (code, err) == (
        2,
        "command line: --block-rows: needs --workers or --cluster; one process packs rows one by one\n",
    )


def test_without_ray_the_extra_is_named(rows, tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = command("data", "pack", rows, tmp_path / "out", "--cluster", "local")
    assert (code, err) == (
        2,
        'command line: --cluster: Ray is not installed; run: pip install "monoglot[cluster]"\n',
    )


@pytest.mark.skipif(not HAS_RAY, reason="needs the extra cluster")
@pytest.mark.parametrize("address", ["nowhere", "nobody.invalid:6379", "127.0.0.1:{closed}", "auto", "127.0.0.1:99999"])
def test_an_address_without_ray_is_told(rows, tmp_path, address, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    given = address.format(closed=closed)
    with pytest.raises(InputError, match=f"command line: --cluster: no Ray answers at '{given}'") as error:
        prepare(rows, tmp_path / "out", workers=Workers(1, given))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_gpus_that_the_cluster_lacks(rows, tmp_path, ray_here):
    with pytest.raises(InputError, match=r"--gpus: 0.5 wanted by each worker, the cluster has 0; leave it out"):
        prepare(rows, tmp_path / "out", block_rows=1, workers=Workers(None, "auto", gpus=0.5))

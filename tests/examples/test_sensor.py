"""examples/sensor.py: what is read is what stands in the file, and amplitude stays heard."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from media import PLUGINS, plugged

from monoglot.errors import MediaError
from monoglot.modalities import MODALITIES
from monoglot.nouns import Media


@pytest.fixture(scope="module", autouse=True)
def sensor():
    with plugged(*PLUGINS):
        yield MODALITIES["sensor"]


def wave(rate: float, seconds: float, hertz: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def read(sensor, source, variant=0, start=None, end=None, **settings):
    return sensor.prepare(Media("sensor", source, start, end), sensor.config(**settings), variant)


def written(table: np.ndarray, head: str = "", between: str = ",") -> bytes:
    file = io.StringIO()
    np.savetxt(file, table, delimiter=between, header=head, comments="", fmt="%.9g")
    return file.getvalue().encode()


def test_values_as_they_stand_then_the_last_one_repeated(sensor):
    table = np.arange(26, dtype=np.float32).reshape(13, 2)
    series = read(sensor, table, channels=3)
    assert (series.dtype, series.shape) == (np.float32, (3, 16))
    np.testing.assert_array_equal(series[:2, :13], table.T)
    np.testing.assert_array_equal(series[:2, 13:], table.T[:, 12:].repeat(3, 1))
    np.testing.assert_array_equal(series[2], 0)
    assert sensor.grid(series, sensor.config()).length == 1 + 16 // 8


@pytest.mark.parametrize(("head", "between"), [("", ","), ("vibration,temperature", ","), ("a;b", ";"), ("a\tb", "\t")])
def test_tables_and_arrays_are_the_same(sensor, head, between):
    table = np.stack([wave(50, 1), 20 + wave(50, 1, 1)], axis=1)
    plain = read(sensor, table)
    np.testing.assert_allclose(read(sensor, written(table, head, between)), plain, atol=1e-6)
    file = io.BytesIO()
    np.save(file, table)
    np.testing.assert_array_equal(read(sensor, file.getvalue()), plain)
    np.testing.assert_array_equal(read(sensor, table[:, 0]), read(sensor, table[:, :1]))


def test_any_rate_becomes_the_models(sensor):
    expected = wave(50, 4)
    for rate in (25, 50, 200, 133.3):
        given = wave(rate, 4)
        seconds = 100 + np.arange(len(given)) / rate
        by_column = read(sensor, written(np.stack([seconds, given], axis=1), "time,x"))[0]
        for found in (read(sensor, (given, rate))[0], read(sensor, given, file_rate=rate)[0], by_column):
            np.testing.assert_allclose(found[20:160], expected[20:160], atol=0.02)
    uneven = np.sort(np.random.default_rng(0).uniform(0, 4, 2000))
    given = written(np.stack([np.sin(2 * np.pi * 2 * (uneven - uneven[0])), uneven], axis=1), "x,Seconds")
    np.testing.assert_allclose(read(sensor, given)[0][20:160], expected[20:160], atol=0.05)


def test_windows_and_the_longest(sensor):
    table = np.arange(500.0)
    np.testing.assert_array_equal(read(sensor, table, start=2.0, end=2.16)[0], np.arange(100, 108))
    assert read(sensor, table, start=9.9, end=99)[0].tolist() == [495, 496, 497, 498, 499, 499, 499, 499]
    assert read(sensor, table, max_seconds=1.6).shape[1] == 80
    with pytest.raises(MediaError, match="starts at 10 s but lasts 10 s"):
        read(sensor, table, start=10.0)


def test_loud_and_quiet_have_one_shape_and_two_sizes(sensor):
    """All tokens but the first are the same whatever the gain; the first one is not, from 0.1 to 10,000."""
    torch.manual_seed(0)
    encoder = sensor.encoders["conv"](sensor.config(channels=1))
    base = wave(50, 2, 3).astype(np.float32)
    with torch.no_grad():
        tokens = [encoder([torch.from_numpy(read(sensor, gain * base, channels=1))])[0] for gain in (0.1, 1, 100, 1e4)]
    for louder in tokens[1:]:
        torch.testing.assert_close(louder[1:], tokens[0][1:], atol=0.02, rtol=0.02)
    gaps = [(a[0] - b[0]).norm().item() for a, b in pairwise(tokens)]
    assert min(gaps) > 0.1
    assert max(gaps) < 4 * min(gaps), "decades are steps of about one size"


def test_copies_move_or_do_not(sensor):
    base = np.stack([wave(50, 4), wave(50, 4, 1)], axis=1)
    still = read(sensor, base, variant=-3)
    assert still.shape == read(sensor, base).shape
    assert np.corrcoef(still[0], read(sensor, base)[0])[0, 1] > 0.99
    assert len({read(sensor, base, variant=k).shape for k in range(1, 12)}) > 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"a,b\n1,x\n", "is neither CSV nor NPY"),
        (b"a,b\n", "it holds no readings"),
        (b"1,2\n3\n", "is neither CSV nor NPY"),
        (b"1,nan\n", "holds values that are not numbers"),
        (b"time,x\n1,1\n1,2\n", "its seconds do not rise"),
        (b"\x93NUMPY broken", "is neither CSV nor NPY"),
        (np.zeros((5, 9)), "has 9 columns, the model takes 8; give one reading a row"),
        (np.zeros((2, 2, 2)), "is no series"),
        (np.zeros((0, 2)), "is no series"),
        ((np.zeros((5, 2)), -1.0), "is no series"),
        (np.array(["a"]), "is no series"),
    ],
)
def test_what_is_no_series(sensor, source, message):
    with pytest.raises(MediaError) as caught:
        read(sensor, source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

"""examples/depth.py: numbers keep their meaning, and what the camera did not see changes nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from media import PLUGINS, plugged
from PIL import Image

from monoglot.errors import MediaError
from monoglot.modalities import MODALITIES
from monoglot.nouns import Media


@pytest.fixture(scope="module", autouse=True)
def depth():
    with plugged(*PLUGINS):
        yield MODALITIES["depth"]


def read(depth, source, variant=0, **settings):
    return depth.prepare(Media("depth", source), depth.config(**({"size": 16} | settings)), variant)


def saved(values: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, values)
    else:
        Image.fromarray(values).save(file, kind)
    return file.getvalue()


def test_millimetres_become_a_share_of_the_range(depth):
    values = np.tile(np.array([200, 1650, 3100, 6000], np.uint16).repeat(4), (16, 1))
    item = read(depth, values)
    assert (item.dtype, item.shape) == (np.float32, (2, 16, 16))
    expected = ((values / 1000 - 0.2) / 5.8).clip(0, 1)
    np.testing.assert_allclose(item[0], expected, atol=1e-5)
    np.testing.assert_array_equal(item[1], 1)
    assert read(depth, np.full((16, 16), 9000, np.uint16))[0].max() == 1


def test_degrees_of_a_thermal_camera(depth):
    kelvin = np.full((20, 30), 31_015, np.uint16)  # hundredths: 37 degrees
    item = read(depth, kelvin, scale=0.01, offset=-273.15, lowest=0, highest=100)
    np.testing.assert_allclose(item[0], 0.37, atol=1e-5)


@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
@pytest.mark.parametrize("type_", [np.uint16, np.float32])
def test_files_are_read_as_arrays_are(depth, kind, type_):
    values = np.random.default_rng(0).uniform(300, 5000, (24, 40)).astype(type_)
    if type_ is np.float32:
        values /= 1000  # metres
        if kind == "png":
            return
    np.testing.assert_array_equal(read(depth, saved(values, kind)), read(depth, values))


def test_what_was_not_seen_is_in_no_average(depth):
    values = np.full((32, 32), 3100, np.uint16)
    values[:, ::2] = 0  # half of what each place stands for
    values[:16] = 0
    item = read(depth, values)
    np.testing.assert_allclose(item[0, 8:], 0.5, atol=1e-5)
    np.testing.assert_allclose(item[1, 8:], 0.5, atol=1e-5)
    np.testing.assert_array_equal(item[:, :8], 0)
    metres = np.where(values, values / 1000, np.nan)
    np.testing.assert_allclose(read(depth, metres), item, atol=1e-6)


def test_copies_keep_within_the_range_and_invent_nothing(depth):
    values = np.full((40, 60), 3100, np.uint16)
    values[:, :30] = 0
    for variant in (1, 2, 3, -1, -2):
        item = read(depth, values, variant)
        assert item.min() >= 0
        assert item.max() <= 1
        seen = item[1] > 0.5
        np.testing.assert_allclose(item[0][seen], 0.5, atol=0.05)
    unmoved = read(depth, values, -1)
    np.testing.assert_array_equal(unmoved[:, :, :8], 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4), np.uint16), "holds no valid value; 0, or nan"),
        (np.full((4, 4), np.nan), "holds no valid value"),
        (np.zeros((4, 4, 3), np.uint8), "is not one value a pixel; give a PNG, TIFF or NPY of one channel"),
        (saved(np.zeros((4, 4, 3), np.uint8), "png"), "is not one value a pixel"),
        (saved(np.ones((64, 64), np.uint16), "png")[:90], ""),
        (b"\x93NUMPY broken", "is no NPY file"),
        (b"what is this?", ""),
    ],
)
def test_what_is_no_such_picture(depth, source, message):
    with pytest.raises(MediaError) as caught:
        read(depth, source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_range_that_is_none(depth):
    with pytest.raises(ValueError, match="lowest 3 is not below highest 2"):
        depth.config(lowest=3, highest=2)

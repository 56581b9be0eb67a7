"""Near hashes against comparing all with all; altered copies of pictures against other pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from monoglot.data.duplicates import Look, count_ones, hash64, look, near_pairs, same_colours


def by_comparing_all(bits, distance):
    numbers = [int(number) for number in bits]
    return [
        [i, j]
        for i in range(len(numbers))
        for j in range(i + 1, len(numbers))
        if bin(numbers[i] ^ numbers[j]).count("1") <= distance
    ]


def found(bits, distance):
    return sorted(pair for pairs in near_pairs(np.array(bits, np.uint64), distance) for pair in pairs.tolist())


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 4, 6, 9, 16])
def test_near_pairs_are_those_of_comparing_all_each_once(distance):
    rng = np.random.default_rng(distance)
    bits = rng.integers(0, 2**64, 60, np.uint64)
    copies = [int(number) for number in rng.choice(bits, 140)]
    flipped = [copy ^ sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 12), False)) for copy in copies]
    bits = np.concatenate([bits, np.array(flipped, np.uint64)])
    expected = by_comparing_all(bits, distance)
    assert found(bits, distance) == expected
    assert len(expected) >= (distance > 0)


@given(
    st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 3, 2**63, 2**64 - 1]), max_size=12), st.integers(0, 5)
)
def test_near_pairs_of_any_numbers(bits, distance):
    assert found(bits, distance) == by_comparing_all(bits, distance)


def test_near_pairs_of_many_equal_numbers():
    assert len(found([7] * 50 + [0], 2)) == 50 * 49 // 2
    assert found([], 4) == found([1], 4) == []
    with pytest.raises(ValueError, match="distance 17 is not in"):
        next(near_pairs(np.zeros(2, np.uint64), 17))


def test_count_ones():
    numbers = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64)
    assert count_ones(numbers).tolist() == [bin(int(number)).count("1") for number in numbers]


def test_hash64_parts_its_parts():
    assert len({hash64("ab"), hash64("a", "b"), hash64("ab", ""), hash64("", "ab"), hash64(b"ba"), hash64()}) == 6
    assert hash64("é") == hash64("é".encode())


# --- pictures ---------------------------------------------------------------------------------------------------------


def scene(seed: int, size=(240, 180)) -> Image.Image:
    """A few coloured shapes on a sky."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", size, tuple(rng.integers(120, 255, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for shape in range(6):
        x, y = (int(rng.integers(0, side)) for side in size)
        width, height = rng.integers(20, 90, 2).tolist()
        draw_it = draw.ellipse if shape % 2 else draw.rectangle
        draw_it((x, y, x + width, y + height), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return picture


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


ALTERED = {
    "resized": lambda picture: picture.resize((100, 75), Image.Resampling.LANCZOS),
    "enlarged": lambda picture: picture.resize((360, 270), Image.Resampling.BICUBIC),
    "encoded again": lambda picture: as_jpeg(picture, 70),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.05),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.9),
    "all of these": lambda picture: as_jpeg(ImageEnhance.Brightness(picture.resize((200, 150))).enhance(1.04), 80),
}


def near(a: Image.Image, b: Image.Image) -> bool:
    return alike(look(a), look(b))


def alike(one: Look, other: Look) -> bool:
    assert one.bits is not None
    assert other.bits is not None
    coloured_alike = bool(same_colours(one.colours[None], other.colours[None])[0])
    return bin(one.bits ^ other.bits).count("1") <= 4 and coloured_alike


@pytest.mark.parametrize("change", ALTERED)
def test_an_altered_copy_is_near(change):
    found = [near(scene(seed), ALTERED[change](scene(seed))) for seed in range(60)]
    assert sum(found) >= 59  # benchmarks/near_copies.py has the shares for drawings and photo-like pictures


def test_other_pictures_are_not_near():
    looks = [look(scene(seed)) for seed in range(40)]
    assert not any(alike(a, b) for i, a in enumerate(looks) for b in looks[:i])


def test_the_same_shape_in_other_colours_is_not_near():
    def heart(colour):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).polygon([(32, 60), (4, 20), (18, 6), (32, 16), (46, 6), (60, 20)], fill=colour)
        return picture

    assert near(heart("#e02020"), heart("#e42424"))
    assert not near(heart("#e02020"), heart("#2020e0"))
    assert not near(heart("#e02020"), heart("#20a020"))


def test_plain_pictures_have_no_bits():
    for colour in ("white", "black", "#123456"):
        assert look(Image.new("RGB", (50, 70), colour)).bits is None
    assert look(Image.new("RGB", (1, 1))).bits is None
    assert look(scene(0)).colours.shape == (48,)


def test_the_dct_is_the_textbook_one():
    fft = pytest.importorskip("scipy.fft")
    picture = scene(5)
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    low = fft.dct(fft.dct(grey, axis=0), axis=1)[1:9, 1:9]
    expected = (low > 0.1 * np.sqrt((low**2).mean())).ravel()
    assert [bool(look(picture).bits >> (63 - place) & 1) for place in range(64)] == expected.tolist()

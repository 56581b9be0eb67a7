"""Names in plain sight: neighbours for a wrong one, loud about a second one."""

from __future__ import annotations

import pytest

from monoglot.errors import InputError
from monoglot.registry import Registry, unknown_name


@pytest.fixture
def animals():
    registry = Registry[int]("animal")
    registry.add("cat", 1)
    registry.add("dog", 2)
    return registry


def test_it_is_a_mapping(animals):
    assert animals["cat"] == 1
    assert list(animals) == ["cat", "dog"]
    assert dict(animals) == {"cat": 1, "dog": 2}
    assert len(animals) == 2
    assert "cat" in animals
    assert "bat" not in animals
    assert 3 not in animals
    assert animals.add("cow", [3]) == [3]


def test_a_wrong_name(animals):
    with pytest.raises(InputError) as caught:
        animals["cta"]
    assert str(caught.value) == "no animal named 'cta'; closest: 'cat'; known: cat, dog"
    with pytest.raises(InputError, match=r"^no animal named 'hippopotamus'; known: cat, dog$"):
        animals["hippopotamus"]
    with pytest.raises(InputError, match=r"^no animal named 3; known: cat, dog$"):
        animals[3]
    assert unknown_name("thing", "", []) == "no thing named ''; known: "


def test_a_name_taken_twice(animals):
    with pytest.raises(ValueError, match="animal 'cat' is registered twice"):
        animals.add("cat", 5)
    assert animals["cat"] == 1

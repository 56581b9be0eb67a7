"""chair_i, chair_s: against a count by hand, and the lists of synonyms."""

import json

import pytest

from monoglot.errors import InputError
from monoglot.evaluate.metrics import METRICS
from monoglot.evaluate.metrics.chair import EVERYDAY, NOTHING, Synonyms, chair, plural, read_synonyms

KNOWN = Synonyms(
    {
        "person": ["man", "woman"],
        "dog": ["puppy", "子犬", "犬"],
        "cat": ["猫"],
        "sausage": ["hot dog"],
        "train": [],
        NOTHING: ["train track"],
    }
)
BY_MENTION, BY_CAPTION = chair(KNOWN)


def test_counts_by_hand():
    said = [
        "Two men with a dog and a cat",  # the cat is not there: 1 of 3
        "a puppy eats a hot dog beside a puppy",  # the puppies are not there: 2 of 3
        "a train track in the sun",  # names nothing
        "a woman on a train",  # all there, one of them as an annotation
        "",
    ]
    there = [["a man and his dog"], ["a sausage on a train track"], ["a cat"], ["a person waits", "train"], ["a dog"]]
    scores = BY_MENTION.score(said, there)
    assert scores.terms.tolist() == [[1, 3], [2, 3], [0, 0], [0, 2], [0, 0]]
    assert scores.value == 3 / 8
    scores = BY_CAPTION.score(said, there)
    assert scores.per_item.tolist() == [1, 1, 0, 0, 0]
    assert scores.value == 2 / 5


def test_the_longest_phrase_counts():
    assert KNOWN.objects("a hot dog, a dog, hot dogs and hot puppies") == ["sausage", "dog", "sausage", "dog"]
    assert KNOWN.objects("a trainer trains dogs on the train tracks") == ["train", "dog"]
    assert KNOWN.objects("") == []


def test_languages_without_spaces():
    assert KNOWN.objects("猫と子犬がいる。", "ja") == ["cat", "dog"]
    assert BY_MENTION.score(["猫と犬"], [["犬がいる"]], lang="ja").value == 0.5


@pytest.mark.parametrize(
    ("one", "more"),
    [("man", "men"), ("snowman", "snowmen"), ("child", "children"), ("grandchild", "grandchildren"), ("human", "humans"),
     ("bus", "buses"), ("box", "boxes"), ("bench", "benches"), ("glass", "glasses"), ("puppy", "puppies"), ("toy", "toys"),
     ("sheep", "sheep"), ("scissors", "scissors"), ("knife", "knives"), ("t-shirt", "t-shirts"), ("y", "ys")],
)  # fmt: skip
def test_plurals(one, more):
    assert plural(one) == more


def test_the_default_list_knows_everyday_things():
    text = "A man, two women and a police officer with mice in red buses; a T-shirt and a train station"
    assert EVERYDAY.objects(text) == ["person"] * 3 + ["mouse", "bus", "shirt"]
    assert METRICS["chair_i"].score(["a dog and a cat"], [["puppies play"]]).value == 0.5
    assert METRICS["chair_s"].score(["a dog and a cat", "a dog"], [["puppies play"], ["a puppy"]]).value == 0.5


def test_lists_in_files(tmp_path):
    text = tmp_path / "synonyms.txt"
    text.write_text("# animals\ndog, puppy , hound\n\ncat\n-, hot dog\n", encoding="utf-8")
    same = tmp_path / "synonyms.json"
    same.write_text(json.dumps({"dog": ["puppy", "hound"], "cat": [], "-": ["hot dog"]}), encoding="utf-8")
    for file in (text, same):
        assert read_synonyms(file).objects("hounds and cats eat hot dogs") == ["dog", "cat"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "synonyms: cannot be read"),
        ("a.txt", b"\xff", "synonyms: cannot be read"),
        ("a.txt", b"# nothing\n", "synonyms: names no object"),
        ("a.json", b"{", "synonyms: is not JSON"),
        ("a.json", b'["dog"]', "synonyms: is not a list of synonyms"),
        ("a.txt", b"dog, puppy\ncat, puppy\n", "'puppy' names 'dog' and 'cat'"),
        ("a.txt", b"dog, !\n", "'!' has no words"),
    ],
)
def test_wrong_lists_are_told(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_synonyms(tmp_path / name)
    assert "\n" not in str(caught.value)

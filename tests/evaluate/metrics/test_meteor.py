"""METEOR against its own program: values that the Java jar gave, and the jar itself where Java is."""

import random
import shutil

import numpy as np
import pytest

from monoglot.errors import InputError
from monoglot.evaluate.metrics import METRICS, meteor
from monoglot.evaluate.metrics.stem import stem
from monoglot.evaluate.metrics.text import caption_tokens

# What meteor-1.5.jar says with -norm -m "exact stem synonym" -w "1.0 0.6 0.8" to the captions' tokens.
WITHOUT_PARAPHRASES = [
    ("A man is riding a wave on a surfboard.", ["A surfer rides a large wave.", "a man on a surfboard in the ocean"], 0.31171022007127236),
    ("a red bus on the street", ["a red bus on the street"], 1.0),
    ("on the street a red bus", ["a red bus on the street"], 0.5183550629438616),
    ("two dogs playing in the grass", ["Two puppies play on a lawn.", "dogs running through grass"], 0.3127146771776744),
    ("the man's dog isn't running", ["a dog of the man is not running", "the dog doesn't run"], 0.32443415234503503),
    ("a large automobile near a well-known building", ["a big car beside a famous building", "a car"], 0.25736750403948927),
    ("women holding umbrellas", ["a woman holds an umbrella", "ladies with an umbrella"], 0.1874965028498848),
    ("a a a a cat", ["a cat sat on a mat by a door"], 0.16782483608634538),
    ("a train arrives at 5:30 p.m. in the U.S.", ["the train came at 5:30 pm in the us", "a train"], 0.5781959868206226),
    ("nothing in common", ["two zebras graze"], 0.0),
    ("a black-and-white photo of mice, etc. on shelves", ["black and white photograph of a mouse on the shelf"], 0.3953002949318078),
    ("the the cat the dog and the bird", ["the dog the cat and the the bird", "a bird"], 0.45383073909217597),
]  # fmt: skip
OF_THE_SET = 0.3542306911698609

# Words and what the jar's stemmer makes of them; all 110,678 words tried came out the same.
STEMS = """
    dying:die only:onli news:news generously:generous communism:communism arsenal:arsenal yelling:yell buying:buy
    exceeded:exceed inning:inning innings:inning proceeds:proceed agreed:agre hoping:hope hopping:hop falling:fall
    ties:tie cries:cri gas:gas gaps:gap cement:cement relational:relat conditional:condit radically:radic
    analogously:analog geologist:geologist fully:fulli hopefulness:hope actively:activ rational:ration
    decisiveness:decis electrical:electr communication:communic generate:generat adoption:adopt replacement:replac
    able:abl rate:rate controlling:control rolled:roll sky:sky happy:happi by:by beautiful:beauti national:nation
    formative:format singing:sing sing:sing aged:age uses:use eyed:eye o'clock:o'clock prickingingly:pricking
    cebuellaible:cebuella icicle:icicl publiciser:publicis reflexly:reflexli polonyfulness:polony
    advertency:advert dove'sanci:dove's millenarianism:millenarian irrelevant:irrelev restorative:restor
    intellectualization:intellectu affinitiesfulness:affinities semiweekly:semiweek apostatize:apostat
    metricallyedly:metric insecureness:insecur annexation:annex champerty:champerti muskellungeying:muskellungey
    entireness:entir sensify:sensifi linseed:linse tutting:tut fratchier:fratchier witness:wit inimitable:inimit
    possessive:possess juvenilesedly:juveniles
"""


def words(text):
    return meteor.meteor_words(caption_tokens(text))


@pytest.mark.parametrize("pair", STEMS.split())
def test_stems(pair):
    word, root = pair.split(":")
    assert stem(word) == root


def test_short_and_strange_words_have_stems():
    assert [stem(word) for word in ("", "y", "'", "''", "'s", "日本", "café", "1,000")] == [
        "", "y", "'", "''", "'s", "日本", "café", "1,000",
    ]  # fmt: skip


def test_captions_score_as_in_the_program():
    rows = []
    for said, texts, score in WITHOUT_PARAPHRASES:
        options = np.stack([meteor.counts(words(said), words(text), {}) for text in texts])
        assert meteor.meteor(options).max() == pytest.approx(score, abs=1e-12), said
        rows.append(options[meteor.meteor(options).argmax()])
    assert meteor.meteor(np.sum(rows, axis=0)) == pytest.approx(OF_THE_SET, abs=1e-12)


def test_words_are_split_again():
    text = "A man's T-shirt isn't black-and-white at 5:30 p.m., etc. x-y-z"
    assert " ".join(words(text)) == "a man ' s t shirt is n 't black and white at 5 : 30 pm etc. x y-z"


def test_a_paraphrase_stands_for_its_phrase():
    said, target = words("a man looking at dogs"), words("a man watching dogs")
    phrases = {"watching": ["looking at"]}
    plain, helped = (meteor.meteor(meteor.counts(said, target, known)) for known in ({}, phrases))
    assert plain < helped < 1
    backwards = {"looking at": ["watching"]}
    assert meteor.meteor(meteor.counts(said, target, backwards)) == helped


def test_nothing_said_or_expected_scores_nothing():
    for said, target in ((["a"], []), ([], ["a"]), ([], []), (["a"], ["b"])):
        assert meteor.meteor(meteor.counts(said, target, {})) == 0.0


def test_many_repeated_words_stay_within_the_beam():
    said = ["a", "b"] * 20
    score = meteor.meteor(meteor.counts(said, said[::-1], {}))
    assert 0 < score < 1


def test_without_its_lists_it_says_what_to_install(monkeypatch):
    meteor.lists.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install pycocoevalcap==1\.2"):
        METRICS["meteor"].score(["a dog"], ["a dog"])
    meteor.lists.cache_clear()


def test_other_languages_are_refused():
    with pytest.raises(InputError, match="item 1 is in 'ja'"):
        METRICS["meteor"].score(["a dog", "犬"], ["a dog", "犬"], lang=["en-GB", "ja"])


ALIKE = [
    "man person guy boy men", "woman lady girl women", "dog puppy dogs animal", "is are was", "running runs ran jogging",
    "riding rides rode", "big large huge", "street road highway", "car automobile truck", "on in at of top",
    "a the an", "field grass grassy", "food meal dinner", "man's woman's", "t-shirt two-way black-and-white",
    "holding carrying", "isn't can't", "5:30 p.m. 1,000 3 two", "etc. no. mr. vs.", "café 日本", "and with group front next to",
]  # fmt: skip


@pytest.mark.slow
def test_random_captions_score_as_in_the_program():
    tool = pytest.importorskip("pycocoevalcap.meteor.meteor")
    if shutil.which("java") is None:
        pytest.skip("needs java")
    rng = random.Random(0)
    groups = [group.split() for group in ALIKE]
    said, references = [], []
    for _ in range(300):
        kinds = [rng.choice(groups) for _ in range(rng.randint(1, 13))]
        texts = [[rng.choice(kind) for kind in kinds if rng.random() < 0.9] or ["a"] for _ in range(rng.randint(2, 6))]
        turn = rng.randrange(len(texts[0]))
        said.append(" ".join(texts[0][turn:] + texts[0][:turn]))
        references.append([" ".join(text) for text in texts[1:]])
    said[0] = references[0][0]

    def tokens(text):
        return " ".join(caption_tokens(text))

    kept = [i for i in range(300) if all(map(tokens, [said[i], *references[i]]))]  # the program waits for ever on ""
    said, references = [said[i] for i in kept], [references[i] for i in kept]
    gts = {i: [tokens(text) for text in texts] for i, texts in enumerate(references)}
    value, per_item = tool.Meteor().compute_score(gts, {i: [tokens(text)] for i, text in enumerate(said)})
    scores = METRICS["meteor"].score(said, references)
    assert scores.per_item == pytest.approx(per_item, abs=1e-12)
    assert scores.value == pytest.approx(value, abs=1e-12)
    assert np.mean(per_item) > 0.2

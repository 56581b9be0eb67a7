"""chair_i, chair_s: things that a caption names though no reference does (hallucination).

    caption -> objects it names -> those that some reference of the picture names too, and those that none does

chair_i  share of the objects named that are not there: each mention counts
chair_s  share of captions that name at least one of them

What is in a picture is what its references name, so annotated objects are given as further references:
`["a cat on a mat", "chair", "lamp"]`. Which words name which object is said by a `Synonyms` list; the default knows
everyday things, and `chair(read_synonyms(file))` makes the two metrics for a list of your own (COCO's has 80 objects).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from monoglot.errors import InputError
from monoglot.evaluate.intervals import averaged
from monoglot.evaluate.metrics.base import METRICS, Metric, Terms
from monoglot.evaluate.metrics.text import caption_tokens, is_unspaced

NOTHING = "-"
"""The object of phrases that name none though a word in them does: "train track" is no train."""


class Synonyms:
    """Which words name which object; plurals of English words are understood.

    Args:
        names: object -> the words and phrases that name it, beside its own. Phrases of `NOTHING` name no object.

    Raises:
        InputError: a phrase names two objects, or has no words.

    >>> known = Synonyms({"dog": ["puppy"], "sausage": ["hot dog"], "-": ["dog house"]})
    >>> known.objects("Two puppies eat hot dogs beside a dog house.")
    ['dog', 'sausage']
    """

    def __init__(self, names: Mapping[str, Iterable[str]]):
        self.names = {name: (*({name} - {NOTHING}), *others) for name, others in names.items()}
        self._spaced, self._unspaced = self._phrases("en"), self._phrases("ja")

    def objects(self, text: str, lang: str = "en") -> list[str]:
        """The objects that a text names, a mention each, in order. The longest phrase that fits counts."""
        return [name for name in self._mentions(caption_tokens(text, lang), lang) if name != NOTHING]

    def _mentions(self, tokens: list[str], lang: str) -> Iterator[str]:
        phrases = self._unspaced if is_unspaced(lang) else self._spaced
        longest = max(map(len, phrases), default=0)
        start = 0
        while start < len(tokens):
            ends = range(min(start + longest, len(tokens)), start, -1)
            end = next((end for end in ends if tuple(tokens[start:end]) in phrases), None)
            if end:
                yield phrases[tuple(tokens[start:end])]
            start = end or start + 1

    def _phrases(self, lang: str) -> dict[tuple[str, ...], str]:
        """Tokens -> the object they name."""
        found: dict[tuple[str, ...], str] = {}
        for name, phrases in self.names.items():
            for phrase in phrases:
                tokens = tuple(caption_tokens(phrase, lang))
                if not tokens:
                    raise InputError(f"synonyms: {name}: {phrase!r} has no words")
                forms = [tokens] if is_unspaced(lang) else [tokens, (*tokens[:-1], plural(tokens[-1]))]
                for form in forms:
                    if found.setdefault(form, name) != name:
                        raise InputError(f"synonyms: {phrase!r} names {found[form]!r} and {name!r}; let it name one")
        return found


_IRREGULAR = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice", "goose": "geese",
    "foot": "feet", "tooth": "teeth", "ox": "oxen", "knife": "knives", "leaf": "leaves", "loaf": "loaves",
    "wolf": "wolves", "shelf": "shelves", "scarf": "scarves", "half": "halves", "potato": "potatoes",
    "tomato": "tomatoes", "sheep": "sheep", "fish": "fish", "deer": "deer", "aircraft": "aircraft",
}  # fmt: skip


def plural(word: str) -> str:
    """More than one of an English noun.

    >>> [plural(word) for word in ("bus", "puppy", "toy", "snowman", "dog", "scissors")]
    ['buses', 'puppies', 'toys', 'snowmen', 'dogs', 'scissors']
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("man", "child")) and word != "human":
        return word[:-3] + "men" if word.endswith("man") else word + "ren"
    if word.endswith(("ss", "x", "ch", "sh", "bus")):
        return word + "es"
    if word.endswith("s"):
        return word
    if word.endswith("y") and word[-2:-1] not in ("", "a", "e", "i", "o", "u"):
        return word[:-1] + "ies"
    return word + "s"


def read_synonyms(file: Path | str) -> Synonyms:
    """Read a list: a line an object, `dog, puppy, hound` (as the list that was published with CHAIR), or JSON.

    JSON is `{"dog": ["puppy", "hound"]}`. A line that begins with `-,` lists phrases that name no object; empty lines
    and those that begin with # are left out.

    Raises:
        InputError: the file cannot be read, is no such list, or is empty.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.at(path, "synonyms", f"cannot be read ({error})", "give a text or JSON file") from error
    names: dict[str, list[str]] = {}
    if path.suffix == ".json":
        try:
            names = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError.at(path, "synonyms", "is not JSON", str(error)) from error
        if not isinstance(names, dict) or not all(isinstance(words, list) for words in names.values()):
            raise InputError.at(path, "synonyms", "is not a list of synonyms", 'expected {"dog": ["puppy"], ...}')
    else:
        for line in text.splitlines():
            name, *words = (part.strip() for part in line.split(","))
            if name and not name.startswith("#"):
                names.setdefault(name, []).extend(word for word in words if word)
    if not names:
        raise InputError.at(path, "synonyms", "names no object", "expected a line an object: dog, puppy, hound")
    return Synonyms(names)


def _everyday(lines: str) -> Synonyms:
    """Lines of `object: name, name ...`; a line that is set in further goes on."""
    pairs = (line.split(":") for line in re.sub(r"\n {8}", " ", lines).strip().splitlines())
    return Synonyms(
        {name.strip(): [word.strip() for word in words.split(",") if word.strip()] for name, words in pairs}
    )


EVERYDAY = _everyday("""
    person: people, man, woman, boy, girl, child, kid, baby, adult, lady, guy, gentleman, toddler, teenager, human, player, rider, skier,
        surfer, skater, chef, farmer, teacher, doctor, nurse, pilot, firefighter, police officer, policeman, bride, groom, student, singer
    dog: puppy, hound, poodle, guide dog, dog face
    cat: kitten, kitty, cat face
    horse: pony, foal, stallion, horse face
    cow: calf, cattle, cow face
    sheep: lamb, ewe, ram
    pig: piglet, pig face, boar
    goat:
    rabbit: bunny, hare, rabbit face
    mouse: rat, hamster, mouse face
    bear: teddy, bear cub
    panda:
    elephant: mammoth
    giraffe:
    zebra:
    lion: lioness
    tiger: tiger face
    monkey: ape, gorilla, orangutan, chimpanzee
    fox:
    wolf:
    deer: stag, fawn
    bird: parrot, eagle, dove, pigeon, owl, swan, flamingo, peacock, seagull, crow, sparrow
    duck: duckling
    chicken: hen, rooster, chick
    penguin:
    fish: goldfish, tropical fish, salmon
    whale: dolphin, orca
    shark:
    frog: toad
    turtle: tortoise
    snake:
    lizard: gecko
    crocodile: alligator
    snail:
    bee: honeybee, bumblebee
    butterfly:
    spider:
    car: automobile, sedan, convertible, taxi, cab, police car
    bus: trolleybus, minibus
    truck: lorry, fire engine, fire truck, pickup
    train: locomotive, tram, subway train, monorail
    bicycle: bike
    motorcycle: motorbike, scooter, moped
    airplane: plane, aeroplane, jet, aircraft, airliner
    helicopter:
    rocket: spaceship
    boat: ship, canoe, sailboat, ferry, yacht, speedboat, kayak
    apple: red apple, green apple
    banana:
    orange fruit: oranges, tangerine, mandarin
    pear:
    peach:
    lemon: lime
    cherry: cherries
    strawberry:
    grape: grapes
    pineapple:
    watermelon: melon
    tomato:
    potato:
    carrot:
    broccoli:
    corn: ear of corn, maize
    mushroom:
    bread: loaf, baguette, toast, bagel
    cheese: cheese wedge
    egg: fried egg
    pizza:
    sandwich: burger, hamburger, cheeseburger
    hot dog: sausage
    french fries: fries, chips
    cake: cupcake, birthday cake, shortcake
    doughnut: donut
    cookie: biscuit
    ice cream: soft ice cream
    cup: mug, teacup
    drinking glass: wine glass, glass of, tumbler
    bottle: baby bottle, bottle with popping cork
    bowl:
    plate: dish
    fork:
    knife: kitchen knife
    spoon:
    chair: stool, armchair
    couch: sofa
    bed:
    table: desk
    toilet:
    bathtub:
    door:
    window:
    lamp: lantern, light bulb
    candle:
    clock: alarm clock, mantelpiece clock, wristwatch
    book: notebook, open book
    newspaper:
    pencil: crayon
    pen: fountain pen
    scissors:
    key: old key
    umbrella: parasol
    bag: handbag, backpack, purse, suitcase
    hat: cap, top hat, helmet
    shoe: boot, sandal, sneaker, running shoe
    shirt: t-shirt, blouse
    dress: gown
    necktie:
    spectacles: glasses, eyeglasses, sunglasses, goggles
    television: tv
    computer: laptop, desktop computer
    phone: telephone, cellphone, mobile phone, smartphone
    camera: video camera
    guitar:
    piano: musical keyboard
    drum:
    trumpet:
    violin:
    ball: soccer ball, basketball, football, tennis ball, baseball, volleyball
    kite:
    skateboard:
    surfboard:
    ski: skis
    balloon:
    gift: wrapped gift, gift box
    flower: rose, tulip, sunflower, daisy, blossom, hibiscus
    tree: palm tree, pine, evergreen tree, christmas tree
    house: cottage, cabin
    castle:
    bridge:
    mountain: volcano, hill
    sun:
    moon: crescent moon, full moon
    star: glowing star
    cloud:
    rainbow:
    snowman:
    -: train track, train station, bus stop, bus station, bus driver, car park, car seat, bow tie, toilet paper, table tennis, clock tower,
        fish cake, egg carton, dog house, bird house, bear hug, cat food, dog food, horse race, fire hydrant
""")
"""A small list of our own for everyday things, as pictograms and photographs show them."""


def mentions(synonyms: Synonyms, by_caption: bool) -> Terms:
    """Terms float64[N, 2]: [named though absent, named]; [caption names something absent, 1] if `by_caption`."""

    def terms(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
        counts = []
        for said, targets, lang in zip(predictions, references, langs):
            there = {name for target in targets for name in synonyms.objects(target, lang)}
            named = synonyms.objects(said, lang)
            counts.append((sum(name not in there for name in named), len(named)))
        pairs = np.array(counts, dtype=np.float64)
        return averaged(pairs[:, 0] > 0) if by_caption else pairs

    return terms


def chair(synonyms: Synonyms) -> tuple[Metric, Metric]:
    """(chair_i, chair_s) under a list of synonyms.

    >>> by_mention, _ = chair(Synonyms({"dog": ["puppy"], "cat": [], "frisbee": []}))
    >>> by_mention.score(["a puppy and a cat"], [["a dog", "frisbee"]]).value
    0.5
    """
    source = "Rohrbach et al., Object Hallucination in Image Captioning, EMNLP 2018 (arXiv 1809.02156)"
    return (
        Metric(
            "chair_i", mentions(synonyms, False), higher_is_better=False, unit="share of objects named", source=source
        ),
        Metric("chair_s", mentions(synonyms, True), higher_is_better=False, unit="share of captions", source=source),
    )


CHAIR_I, CHAIR_S = (METRICS.add(metric.name, metric) for metric in chair(EVERYDAY))

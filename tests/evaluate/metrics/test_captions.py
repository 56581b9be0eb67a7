"""BLEU, ROUGE-L, CIDEr and CIDEr-D: against pycocoevalcap, sacrebleu and a slow loop of their formulas."""

import math
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from monoglot.evaluate.metrics import METRICS

WORDS = ["a", "the", "man", "dog", "bus", "red", "on", "in", "rides", "wave", "grass", "street", "two"]


def captions(seed, items, *, longest=12, references=4, shortest=1):
    """Plain words that no tokeniser changes: references at random, predictions that repeat most of the first one."""
    rng = np.random.default_rng(seed)
    expected = [
        [list(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(rng.integers(1, references + 1))]
        for _ in range(items)
    ]
    said = []
    for first, *_ in expected:
        changed = [word if rng.random() < 0.8 else rng.choice(WORDS) for word in first]
        extra = list(rng.choice(WORDS, max(rng.integers(-2, 4), shortest - len(first), 0)))
        said.append((changed + extra)[rng.integers(0, max(len(changed + extra) - shortest, 0) + 1) // 2 :])
    if not shortest:
        said[0] = []
    return [" ".join(text) for text in said], [[" ".join(text) for text in texts] for texts in expected]


def as_coco(predictions, references):
    return dict(enumerate(references)), {i: [text] for i, text in enumerate(predictions)}


def coco_bleu(predictions, references):
    scorer = BleuScorer(n=4)
    for said, expected in zip(predictions, references):
        scorer += (said, expected)
    return scorer.compute_score(option="closest")


def slow_cider(predictions, references, clip):
    """CIDEr as its paper writes it, one n-gram at a time."""

    def counts(text, n):
        tokens = text.split()
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    scores = []
    for said, expected in zip(predictions, references):
        total = 0.0
        for n in (1, 2, 3, 4):
            pictures = Counter(g for texts in references for g in {g for text in texts for g in counts(text, n)})

            def vector(text, n=n, pictures=pictures):
                rarity = {g: math.log(len(references) / max(1, pictures[g])) for g in counts(text, n)}
                return {g: c * rarity[g] for g, c in counts(text, n).items()}

            for text in expected:
                own, theirs = vector(said), vector(text)
                dot = sum((min(own[g], theirs[g]) if clip else own[g]) * theirs[g] for g in own if g in theirs)
                norm = math.sqrt(sum(v * v for v in own.values()) * sum(v * v for v in theirs.values()))
                gap = max(len(said.split()) - 1, 0) - max(len(text.split()) - 1, 0)
                penalty = math.exp(-(gap**2) / 72) if clip else 1.0
                total += dot / norm * penalty / (4 * len(expected)) if norm else 0.0
        scores.append(10 * total)
    return scores


@pytest.mark.parametrize(("items", "shortest"), [(1, 1), (2, 0), (40, 0), (60, 3)])
def test_equal_to_the_coco_tool(items, shortest):
    predictions, references = captions(items, items, shortest=shortest)
    gts, res = as_coco(predictions, references)

    bleu, bleu_items = coco_bleu(predictions, references)
    for order in (1, 2, 3, 4):
        scores = METRICS[f"bleu_{order}"].score(predictions, references)
        assert scores.value == pytest.approx(bleu[order - 1], rel=1e-9, abs=1e-12)
        assert scores.per_item == pytest.approx(bleu_items[order - 1], rel=1e-9, abs=1e-12)

    for name, tool in (("rouge_l_coco", Rouge()), ("cider_d", Cider())):
        value, per_item = tool.compute_score(gts, res)
        scores = METRICS[name].score(predictions, references)
        assert scores.value == pytest.approx(value, abs=1e-9)
        assert scores.per_item == pytest.approx(per_item, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_sacrebleus_without_smoothing(order):
    predictions, references = captions(9, 50, longest=20, references=1, shortest=6)
    tool = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
    expected = tool.corpus_score(predictions, [[texts[0] for texts in references]]).score / 100
    assert METRICS[f"bleu_{order}"].score(predictions, references).value == pytest.approx(expected, rel=1e-6)
    assert expected > 0.2


def test_bleu_with_many_references_is_sacrebleus():
    predictions, references = captions(5, 30, longest=20, shortest=4)
    references = [texts + texts[:1] * (4 - len(texts)) for texts in references]
    tool = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    expected = tool.corpus_score(predictions, [list(column) for column in zip(*references)]).score / 100
    assert expected > 0.2
    assert METRICS["bleu_4"].score(predictions, references).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "clip"), [("cider_d", True), ("cider", False)])
def test_cider_is_the_slow_loop(name, clip):
    predictions, references = captions(3, 25, shortest=0)
    scores = METRICS[name].score(predictions, references)
    assert scores.per_item == pytest.approx(slow_cider(predictions, references, clip), abs=1e-9)
    assert scores.value == pytest.approx(scores.per_item.mean())


def test_rouge_l_is_the_f1_of_the_best_reference():
    scores = METRICS["rouge_l"].score(["the cat sat on mats"], [["the cat sat", "a dog sat on the mats today"]])
    assert scores.value == pytest.approx(2 * (3 / 5) * 1 / (3 / 5 + 1))


@pytest.mark.parametrize("name", ["bleu_1", "bleu_4", "rouge_l", "rouge_l_coco", "cider_d", "cider"])
class TestEdges:
    def test_perfect(self, name):
        texts = ["a red bus parks here", "two dogs run in grass"]
        top = 10.0 if name.startswith("cider") else 1.0
        assert METRICS[name].score(texts, [[text] for text in texts]).value == pytest.approx(top)

    def test_empty_prediction(self, name):
        scores = METRICS[name].score(["", None, "..."], [["a dog"], ["a cat", "cats"], ["it"]])
        assert scores.per_item.tolist() == [0, 0, 0]
        assert scores.value == 0

    def test_empty_reference(self, name):
        assert METRICS[name].score(["a dog", "a cat"], [[""], ["", "!"]]).value == pytest.approx(0, abs=1e-5)

    def test_nothing_anywhere(self, name):
        assert METRICS[name].score([""], [[""]]).value == pytest.approx(0, abs=1e-5)

    def test_one_item(self, name):
        value = METRICS[name].score(["a red bus on the road"], ["a red bus on the road"]).value
        assert value == (0.0 if name.startswith("cider") else pytest.approx(1.0))  # one picture: no n-gram is rare

    def test_unicode_and_japanese(self, name):
        said, expected = ["赤い車が走る。", "猫が寝ている"], [["赤い車が走る"], ["ﾈｺが寝ている", "猫が寝ている！"]]
        worst = METRICS[name].score(["犬が二匹いる", "赤い車が走る"], expected, lang="ja").value
        best = METRICS[name].score(said, expected, lang="ja").value
        assert best > worst + 0.3

"""Scores of answers, each a registered `Metric`: predictions + references -> `Scores` (value, per item, interval).

    scores = METRICS["wer"].score(["a cat sat"], [["the cat sat"]])
    scores.value, scores.per_item, scores.interval(seed=0)

One page a family, imported here in plain sight:

    match   exact_match, accuracy, vqa_accuracy      answers that are right or wrong
    boxes   iou, iou_at_0.5                          where a thing is
    objects objects_f1                               all things in a picture
    edits   wer, cer                                 transcripts
    bleu    bleu_1 .. bleu_4                         captions, n-gram precision over the set
    rouge   rouge_l, rouge_l_coco                    summaries; captions as the COCO tool counts
    meteor  meteor                                   captions, synonyms and paraphrases count too
    cider   cider_d, cider                           captions, n-grams weighed by how telling they are
    chair   chair_i, chair_s                         captions, things named that are not there
"""

from monoglot.evaluate.metrics import bleu, boxes, chair, cider, edits, match, meteor, objects, rouge
from monoglot.evaluate.metrics.base import METRICS, Metric, Scores

__all__ = [
    "METRICS",
    "Metric",
    "Scores",
    "bleu",
    "boxes",
    "chair",
    "cider",
    "edits",
    "match",
    "meteor",
    "objects",
    "rouge",
]

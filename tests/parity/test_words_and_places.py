"""Words, boxes and places against the published tables, and two scores (sections 2, 4, 10 and 21 of their description)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from record import agree
from safetensors.torch import load_file

from monoglot.evaluate.metrics import METRICS
from monoglot.modalities import Grid
from monoglot.model.positions import grid_cells, grid_distance, square_cells, token_buckets
from monoglot.nouns import Symbols
from monoglot.text.boxes import box_to_text, text_to_box
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import Vocabulary

GOLDEN = Path(__file__).parent / "golden_preprocess"
WORDS = json.loads((GOLDEN / "tokenizer.json").read_text())
BOXES = json.loads((GOLDEN / "boxes.json").read_text())
SCORES = json.loads((GOLDEN / "metrics.json").read_text())
PLACES = load_file(GOLDEN / "positions.safetensors")
IMAGE_BUCKET42_CRC32, TOKEN_BUCKET256_CRC32 = 2460737357, 1659172807
"""crc32 of the published int64 tables, [1765, 1765] and [1024, 1024]."""


@pytest.fixture(scope="module")
def published(part) -> Tokenizer:
    """GPT-2's words and merges, from the pretrained part, under the published numbers."""
    gpt2 = Path(part("whisper-tiny-en").files["tokenizer.json"]).read_text(encoding="utf-8")
    table = load_file(GOLDEN / "bpe_to_dict.safetensors")["gpt2_bpe_id_to_dict_id"]
    return Tokenizer.from_gpt2(gpt2, Vocabulary(), word_ids=dict(enumerate(table.tolist())))


def test_ids_of_texts(published):
    for case in WORDS["tokenize"]:
        text = case["text"] if case.get("use_bpe", True) else Symbols(case["text"])
        agree("preprocess/tokenizer", "ids of texts and symbols", published.encode(text), case["ids"])


def test_texts_of_ids(published):
    for case in WORDS["decode"]:
        agree("preprocess/tokenizer", "texts of ids", published.decode(case["ids"]), case["text"])


def test_symbols(published):
    named = {name: number for name, number in WORDS["specials"].items() if name.startswith("<")}
    agree("preprocess/tokenizer", "symbols", [published.symbol(name) for name in named], list(named.values()))


@pytest.mark.parametrize("text", [" <bin_3> <bin_4>", "<s>", "<mask>", "<|endoftext|>", "madeupword0000"])
def test_words_are_never_symbols(published, text):
    assert {published.vocabulary.kind(number) for number in published.encode(text)} == {"word"}
    assert published.decode(published.encode(text)) == text


@pytest.mark.parametrize("case", BOXES["refcoco_quantisation"] + BOXES["pretrain_grounding"])
def test_bins_of_boxes(case):
    bins = " ".join(f"<bin_{number}>" for number in case["bins"])
    agree("preprocess/boxes", "bins", box_to_text(case["norm_box"]).split(), bins.split())


@pytest.mark.parametrize("case", BOXES["refcoco_quantisation"])
def test_boxes_of_bins(case):
    width, height = case["image_wh"]
    box = text_to_box(box_to_text(case["norm_box"]))
    pixels = np.array(box) * [width, height, width, height]
    agree("preprocess/boxes", "corners read back, pixels", pixels, case["dequantised_box"], 1e-3)


def by_pairs(longest, bucket):
    place = torch.arange(longest)
    return token_buckets(bucket, longest)[place[:, None] - place[None, :] + longest - 1]


def test_distances_in_text():
    where = "preprocess/places"
    agree(where, "buckets of 1024 words", token_buckets(256, 1024), PLACES["token_bucket_by_distance"])
    agree(where, "buckets of 64 words", by_pairs(64, 8), PLACES["token_bucket8_max64_full"])
    agree(where, "crc32 of 1024 x 1024", zlib.crc32(by_pairs(1024, 256).numpy().tobytes()), TOKEN_BUCKET256_CRC32)


def on_a_grid(side):
    ids = torch.arange(side**2 + 1)
    table = grid_distance(ids[:, None], ids[None, :], side)
    assert int(table.max()) == (2 * side - 1) ** 2 + 2
    return table


def test_distances_on_a_grid():
    agree("preprocess/places", "buckets of a 5 x 5 grid", on_a_grid(5), PLACES["image_bucket5_full"])
    checksum = zlib.crc32(on_a_grid(42).numpy().tobytes())
    agree("preprocess/places", "crc32 of a 42 x 42 grid", checksum, IMAGE_BUCKET42_CRC32)


def test_cells():
    cells = {
        "image_position_ids_16x12": grid_cells(Grid(1, 16, 12), 42),
        "video_position_ids_l2_h2_w3": grid_cells(Grid(2, 2, 3), 42),
        "audio_position_ids_n150": square_cells(150, 42),
        "audio_position_ids_n62": square_cells(62, 42),
    }
    for name, ours in cells.items():
        agree("preprocess/places", f"cells of {name.partition('_')[0]}", ours, PLACES[name])


def test_captions_score_as_in_validation():
    """CIDEr-D with document frequencies from the set itself; ours takes the text as written, with case and full stop."""
    stored = SCORES["ciderD_corpus"]
    said = [one["caption"][0].capitalize() + "." for one in stored["res"]]
    scores = METRICS["cider_d"].score(said, list(stored["gts"].values()))
    agree("preprocess/metrics", "CIDEr-D of captions", scores.per_item, stored["scores"], 1e-9)
    agree("preprocess/metrics", "CIDEr-D of the set", scores.value, stored["score"], 1e-9)


def test_boxes_score_as_in_validation():
    stored = SCORES["iou"]
    iou, half = (METRICS[name].score(stored["hyps"], stored["refs"]).per_item for name in ("iou", "iou_at_0.5"))
    agree("preprocess/metrics", "boxes with IoU of at least 0.5", half.astype(int), np.array(stored["acc05"], int))
    # The published IoU adds 1e-6 below, and gives boxes that do not meet a value, which never counts.
    meet = iou > 0
    agree("preprocess/metrics", "IoU of boxes that meet", iou[meet], np.array(stored["iou_raw"])[meet], 2e-7)

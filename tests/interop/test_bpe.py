"""The dictionary that a checkpoint was trained with: the published ids, from fairseq's files or Hugging Face's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from published_files import PARITY, WORDS, write_bpe
from safetensors.numpy import load_file
from small import gpt2_json

from monoglot.errors import InputError
from monoglot.interop.bpe import read_bpe
from monoglot.text.vocabulary import SPECIALS, Vocabulary

PUBLISHED = json.loads((PARITY / "golden_preprocess" / "tokenizer.json").read_text())
SMALL = Vocabulary(num_words=WORDS, num_codes=16, num_bins=20)


@pytest.fixture(scope="module")
def published_files(part, tmp_path_factory):
    """encoder.json, vocab.bpe, dict.txt as they are published: GPT-2's words, in the order of the golden table."""
    folder = tmp_path_factory.mktemp("bpe")
    model = json.loads(Path(part("whisper-tiny-en").files["tokenizer.json"]).read_text(encoding="utf-8"))["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "encoder.json").write_text(json.dumps(model["vocab"]))
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    ids = load_file(PARITY / "golden_preprocess" / "bpe_to_dict.safetensors")["gpt2_bpe_id_to_dict_id"].tolist()
    lines = [f"{bpe} 1" for _, bpe in sorted((number, bpe) for bpe, number in enumerate(ids))]
    (folder / "dict.txt").write_text("\n".join([*lines, *(f"madeupword{i:04d} 0" for i in range(3)), ""]))
    return folder


def test_published_ids(published_files):
    tokenizer = read_bpe(published_files, Vocabulary())
    for case in PUBLISHED["tokenize"]:
        if case.get("use_bpe", True):
            assert tokenizer.encode(case["text"]).tolist() == case["ids"], case["text"]
    for case in PUBLISHED["decode"]:
        assert tokenizer.decode(case["ids"]) == case["text"]


def test_hugging_face_files_give_the_same(published_files, tmp_path):
    fairseq = read_bpe(published_files, Vocabulary())
    words = json.loads((published_files / "encoder.json").read_text())
    lines = (published_files / "dict.txt").read_text().splitlines()
    order = {int(line.split()[0]): 4 + i for i, line in enumerate(lines) if line[0] != "m"}
    ids = {name: number for number, name in enumerate(SPECIALS)} | {w: order[n] for w, n in words.items() if n in order}
    ids |= {f"madeupword{i:04d}": 50261 + i for i in range(3)} | {"<mask>": 50264}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text((published_files / "vocab.bpe").read_text(encoding="utf-8"), encoding="utf-8")
    assert read_bpe(tmp_path, Vocabulary()).words.get_vocab() == fairseq.words.get_vocab()


def test_the_order_is_the_dictionarys(tmp_path):
    folder = write_bpe(tmp_path)
    tokenizer = read_bpe(folder, SMALL)
    number = json.loads(gpt2_json())["model"]["vocab"]["Ġred"]
    lines = [line.split()[0] for line in (folder / "dict.txt").read_text().splitlines()]
    assert tokenizer.encode(" red").tolist() == [4 + lines.index(str(number))]
    assert tokenizer.decode(tokenizer.encode("any 日本 text")) == "any 日本 text"


def edit(name, change):
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "dict.txt").unlink(), "bpe: dict.txt missing; give the folder of encoder.json, vocab.bpe, dict.txt"),
        (lambda f: [p.unlink() for p in f.iterdir()], "encoder.json, vocab.bpe, dict.txt missing"),
        (edit("dict.txt", lambda t: t + "7 1\n"), "dict.txt: has 301 words, the checkpoint's vocabulary 300"),
        (edit("dict.txt", lambda t: t.replace("madeupword0003", "hello")), "dict.txt:274: 'hello' is not the number of a GPT-2 word"),
        (edit("encoder.json", lambda t: "[]"), "encoder.json: is not a table of words"),
        (edit("encoder.json", lambda t: t[:-1]), "encoder.json: cannot be read as JSON"),
        (edit("vocab.bpe", lambda t: t + "one\n"), "vocab.bpe:15: 'one' is not a pair"),
        (lambda f: (f / "vocab.bpe").write_bytes(b"\xff\xfe"), "vocab.bpe: cannot be read"),
    ],
)  # fmt: skip
def test_damaged_files(damage, message, tmp_path):
    folder = write_bpe(tmp_path)
    damage(folder)
    with pytest.raises(InputError, match=message):
        read_bpe(folder, SMALL)


def test_gpt2s_own_vocabulary_is_not_taken_for_barts(tmp_path):
    model = json.loads(gpt2_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(model["merges"]))
    with pytest.raises(InputError, match="in GPT-2's order, not in the model's"):
        read_bpe(tmp_path, SMALL)

"""Answer a question about a picture from an exported folder; needs onnxruntime, numpy, pillow and tokenizers, neither torch nor monoglot.

    monoglot export --model nano --out out/nano-onnx
    python examples/onnx_answer.py out/nano-onnx cat.jpg
    python examples/onnx_answer.py out/nano-onnx cat.jpg --task classify --text "what is this?" --choices "cat,dog"

preprocess.json in the folder says what is done here; docs/export.md has more. tokenizers is there for byte-level BPE, which takes a page of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer


def picture(path: str, size: int) -> np.ndarray:
    """uint8[1, 3, size, size]: upright, resized whatever its shape, on white."""
    image = Image.open(path)
    image.draft("RGB", (size, size))  # a JPEG decodes faster at half its size
    image = ImageOps.exif_transpose(image)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB").resize((size, size), Image.BICUBIC)
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A") if image.mode == "RGBA" else None)
    return np.asarray(canvas).transpose(2, 0, 1)[None]


def answer(folder: Path, path: str, task: str, text: str, choices: list[str], lang: str) -> str:
    """The likeliest answer, token by token."""
    spec = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens, end = spec["tokens"], spec["tokens"]["end"]
    encode = lambda words: tokenizer.encode(words, add_special_tokens=False).ids  # noqa: E731
    session = lambda name: onnxruntime.InferenceSession(folder / name)  # noqa: E731

    # picture -> features[L, C]
    size, cell = spec["media"]["image"]["settings"]["size"], spec["media"]["image"]["token_pixels"]
    features = session("image.onnx").run(None, {"items": picture(path, size)})[0][0]
    rows, columns = np.indices((size // cell, size // cell))

    # prompt -> ids, with room for the picture's tokens
    prompts = spec["tasks"][task]["prompts"]["image"]
    ids, begun = [], False
    for part in prompts.get(lang) or prompts["any"]:
        if part == "{image}":
            first = len(ids)
            ids += [tokens["pad"]] * len(features)
        else:
            ids += [tokens["bos"]] * (not begun) + encode(part.replace("{text}", " ".join(text.split())))
            begun = True
    ids.append(end)
    item = np.zeros((1, len(ids)), np.int64)
    item[:, first : first + len(features)] = 1
    given = {"ids": np.array([ids]), "valid": np.ones((1, len(ids)), bool), "item": item, "image_features": features}
    given["image_places"] = np.arange(first, first + len(features))
    given["image_cells"] = (rows * spec["model"]["grid_side"] + columns + 1).flatten()

    # ids and features -> what the decoder reads
    source, step = session("source.onnx"), session("step.onnx")
    wanted = {one.name: one for one in source.get_inputs()}
    for name in wanted.keys() - given.keys():  # media that do not occur have no tokens
        given[name] = np.zeros((0, *wanted[name].shape[1:]), np.float32 if name.endswith("_features") else np.int64)
    names = [one.name for one in source.get_outputs()]
    read = dict(zip(names, source.run(names, {name: given[name] for name in wanted})))
    memory = {f"memory_{name}": array for name, array in read.items()}
    memory |= {"memory_valid": given["valid"], "code_rows": np.zeros(1, bool)}
    inputs = {one.name for one in step.get_inputs()}

    # token by token: the likeliest of those that may follow
    paths = [[*encode(f" {choice}"), end] for choice in choices or spec["tasks"][task]["choices"]]
    longest = max(map(len, paths)) - 1 if paths else spec["tasks"][task]["max_length"]
    free = [one for one in range(tokens["mask"]) if one not in (tokens["pad"], end)]
    written, fed, keys, values = [], tokens["start"], read["keys"][:, :, :, :0], read["values"][:, :, :, :0]
    while len(written) < longest:
        asked = {"tokens": np.array([fed]), "past_keys": keys, "past_values": values, **memory}
        logits, keys, values = step.run(None, {name: array for name, array in asked.items() if name in inputs})
        follow = [one[len(written)] for one in paths if one[: len(written)] == written]
        allowed = follow or free + [end] * bool(written)
        token = allowed[int(logits[0, allowed].argmax())]
        if token == end:
            break
        written, fed = [*written, token], [token]
    return tokenizer.decode([one for one in written if one >= tokens["words"][0]], skip_special_tokens=False).strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer a question about a picture.")
    parser.add_argument("folder", type=Path, help="what `monoglot export` wrote")
    parser.add_argument("image")
    parser.add_argument("--task", default="name", help="name, classify, vqa, caption, ...")
    parser.add_argument("--text", default="what is this?", help="the question, for tasks that take one")
    parser.add_argument("--choices", default="", help="possible answers, parted by commas")
    parser.add_argument("--lang", default="en")
    a = parser.parse_args()
    print(answer(a.folder, a.image, a.task, a.text, [c.strip() for c in a.choices.split(",") if c.strip()], a.lang))

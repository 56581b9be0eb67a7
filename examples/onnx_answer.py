"""Answer a question about a picture from an exported folder; needs onnxruntime, numpy, pillow and tokenizers, neither torch nor monoglot.

monoglot export --model nano --out out/nano-onnx
python examples/onnx_answer.py out/nano-onnx cat.jpg
python examples/onnx_answer.py out/nano-onnx cat.jpg --task classify --text "what is this?" --choices "cat,dog"
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer  # byte-level BPE, which would take a page of its own


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
    """The likeliest answer, token by token, or what an adapter's head says: preprocess.json explains it."""
    spec = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens, end, text = spec["tokens"], spec["tokens"]["end"], " ".join(text.split())
    encode = lambda words: tokenizer.encode(words, add_special_tokens=False).ids  # noqa: E731
    session = lambda name: onnxruntime.InferenceSession(folder / name)  # noqa: E731
    known = {(one["task"], one["text"], one["lang"]): number for number, one in enumerate(spec["answers"])}
    number = known.get((task, text, lang), known.get((task, "", lang)))
    choices = choices or (spec["tasks"][task]["choices"] if number is None else spec["answers"][number]["choices"])

    # picture -> features[L, C]
    size, cell = spec["media"]["image"]["settings"]["size"], spec["media"]["image"]["token_pixels"]
    features = session("image.onnx").run(None, {"items": picture(path, size)})[0][0]
    across, side = range(size // cell), spec["model"]["grid_side"]
    cells = [row * side + column + 1 for row in across for column in across]
    if spec["media"]["image"]["settings"]["pooled"] == "first":  # one token more, of cell 0
        cells, features = [0, *cells], np.concatenate([features.mean(0, keepdims=True), features])

    # prompt -> ids, with room for the picture's tokens
    prompts, ids = spec["tasks"][task]["prompts"]["image"], []
    for part in prompts.get(lang) or prompts["any"]:
        if part == "{image}":
            first = len(ids)
            ids += [tokens["pad"]] * len(features)
        else:
            ids += [tokens["bos"]] * (tokens["bos"] not in ids) + encode(part.replace("{text}", text))
    ids.append(end)
    item, places = np.zeros((1, len(ids)), np.int64), np.arange(first, first + len(features))
    item[0, places] = 1
    given = {"ids": np.array([ids]), "valid": np.ones((1, len(ids)), bool), "item": item, "image_features": features}
    given |= {"image_places": places, "image_cells": np.array(cells), "image_pooled": np.int64(np.array(cells) == 0)}

    # ids and features -> what the decoder reads
    source, step = session("source.onnx"), session("step.onnx")
    wanted = {one.name: one for one in source.get_inputs()}
    for name in wanted.keys() - given.keys():  # media that do not occur have no tokens
        given[name] = np.zeros((0, *wanted[name].shape[1:]), np.float32 if name.endswith("_features") else np.int64)
    read = dict(zip((one.name for one in source.get_outputs()), source.run(None, {k: given[k] for k in wanted})))

    # an adapter's head, if it knows the choices: pooled features -> its likeliest class among them
    head = None if number is None else spec["answers"][number]["head"]
    if head and set(choices) <= set(head["classes"]):
        said = {"image": features, "memory": read["states"][0]}
        blocks = [(*block.split("."), width) for block, width in head["blocks"].items()]
        pooled = [getattr(said[of], how)(0) if of in said else np.zeros(width) for of, how, width in blocks]
        chances = session(f"head_{number}.onnx").run(None, {"pooled": np.float32([np.concatenate(pooled)])})[0][0]
        return max(choices, key=lambda choice: chances[head["classes"].index(choice)])

    # token by token: the likeliest of those that may follow
    memory = {f"memory_{k}": v for k, v in {**read, "valid": given["valid"]}.items()} | {"code_rows": np.zeros(1, bool)}
    paths, inputs = [[*encode(f" {choice}"), end] for choice in choices], {one.name for one in step.get_inputs()}
    longest = max(map(len, paths)) - 1 if paths else spec["tasks"][task]["max_length"]
    free = [one for one in range(tokens["mask"]) if one not in (tokens["pad"], end)]
    written, fed, keys, values = [], tokens["start"], read["keys"][:, :, :, :0], read["values"][:, :, :, :0]
    while len(written) < longest and written[-1:] != [end]:
        asked = {"tokens": np.array([fed]), "past_keys": keys, "past_values": values, **memory}
        logits, keys, values = step.run(None, {name: array for name, array in asked.items() if name in inputs})
        allowed = [one[len(written)] for one in paths if one[: len(written)] == written] or free + [end] * bool(written)
        fed = [allowed[int(logits[0, allowed].argmax())]]
        written += fed
    return tokenizer.decode([one for one in written if one >= tokens["words"][0]], skip_special_tokens=False).strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer a question about a picture.")
    parser.add_argument("folder", type=Path, help="what `monoglot export` wrote")
    parser.add_argument("image")
    for name, default in {"task": "name", "text": "what is this?", "choices": "", "lang": "en"}.items():
        parser.add_argument(f"--{name}", default=default, help=f"{default!r} unless given")
    a = parser.parse_args()
    print(answer(a.folder, a.image, a.task, a.text, [c.strip() for c in a.choices.split(",") if c.strip()], a.lang))

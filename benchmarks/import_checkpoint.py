"""What importing a published checkpoint costs, and loading the folder that it becomes: seconds and peak memory.

    python benchmarks/import_checkpoint.py [--media image video audio] [--optimizer] [--small] [--out benchmarks/results/import.json]

The checkpoint is of the published layout and size with random weights (1.3 GB with all media; with --optimizer three times that, which an import never
reads). Each step runs in a process of its own. Peak memory counts mapped pages of the file too, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

STEPS = ("start", "make", "import", "load")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", nargs="*", default=["image", "video", "audio"], help="Encoders in the checkpoint.")
    parser.add_argument(
        "--optimizer", action="store_true", help="With two moments for each weight, as a trainer saves."
    )
    parser.add_argument("--small", action="store_true", help="Width 64, no encoders: to try the script.")
    parser.add_argument("--out", type=Path, help="Where the results go (JSON).")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run(arguments)))
        return
    results: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as home:
        for step in STEPS:
            command = [sys.executable, __file__, *sys.argv[1:], "--step", step, "--home", home]
            results[step] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        size = (Path(home) / "checkpoint.pt").stat().st_size
        results["checkpoint_gb"] = round(size / 1e9, 3)
        results["import"]["peak_to_size"] = round(results["import"]["peak_gb"] * 1e9 / size, 2)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


def run(arguments: argparse.Namespace) -> dict[str, float]:
    """One step, measured; what Python and PyTorch need without doing anything is the step `start`."""
    from monoglot.interop.fairseq import import_checkpoint
    from monoglot.store import load_model

    home = arguments.home
    began = time.monotonic()
    if arguments.step == "make":
        make(arguments, home)
    if arguments.step == "import":
        import_checkpoint(home / "checkpoint.pt", home / "model", bpe=home)
    if arguments.step == "load":
        load_model(home / "model")
    seconds = time.monotonic() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(seconds, 2), "peak_gb": round(peak / 1e9, 3)}


def make(arguments: argparse.Namespace, home: Path) -> None:
    """Write checkpoint.pt and a dictionary of the published size."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel

    from monoglot.interop.published import to_published
    from monoglot.model.config import BASE, unival_base
    from monoglot.model.unified import UnifiedModel

    config = unival_base(*arguments.media) if arguments.media else BASE
    if arguments.small:
        config = BASE.model_copy(update={"width": 64, "ffn": 128, "heads": 4, "encoder_layers": 2, "decoder_layers": 2})
    state = to_published(UnifiedModel(config).state_dict(), config)
    for name in ("embed_tokens", "output_projection"):
        state[f"decoder.{name}.weight"] = state["encoder.embed_tokens.weight"]
    state = {name: tensor.clone() if tensor._base is not None else tensor for name, tensor in state.items()}
    for side in ("encoder", "decoder"):
        state[f"{side}.image_rp_bucket"] = torch.zeros(1765, 1765, dtype=torch.long)
    moments = [torch.zeros_like(tensor) for tensor in state.values() for _ in range(2)] if arguments.optimizer else []
    cfg = {"model": Namespace(arch="unival_base", patch_image_size=480, hop_size=200)}
    torch.save({"cfg": cfg, "model": state, "last_optimizer_state": moments}, home / "checkpoint.pt")

    letters = sorted(ByteLevel.alphabet())
    fillers = [f"madeupword{index:04d}" for index in range(config.vocabulary.num_words - len(letters))]
    (home / "encoder.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    (home / "vocab.bpe").write_text("#version: 0.2\n")
    (home / "dict.txt").write_text("".join(f"{word} 1\n" for word in [*range(len(letters)), *fillers]))


if __name__ == "__main__":
    main()

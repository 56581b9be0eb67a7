"""The model cut into functions of tensors says what the model says; no ONNX here."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from small import POOLED, tiny_model, tiny_tokenizer

from monoglot.data.prepare import Preparer
from monoglot.errors import InputError
from monoglot.export.graphs import graphs_of
from monoglot.export.networks import HeadNetwork, MediaNetwork, SourceNetwork, StepNetwork, stft
from monoglot.export.runtime import OnnxModel
from monoglot.modalities import MODALITIES
from monoglot.modalities.audio import AudioConfig
from monoglot.modalities.networks import cnn14
from monoglot.model.head import fit_head
from monoglot.model.layers import Cache
from monoglot.model.lora import Lora, add_lora, fold_lora
from monoglot.nouns import Media, Sample

RNG = np.random.default_rng(0)
PICTURE = Media("image", RNG.integers(0, 255, (40, 40, 3), dtype=np.uint8))
CLIP = Media("video", RNG.integers(0, 255, (4, 40, 40, 3), dtype=np.uint8))
SOUND = Media("audio", (RNG.normal(0, 0.1, 4000).astype(np.float32), 16_000))


class Given:
    """Stands in for an ONNX session: a network with the names of its inputs."""

    def __init__(self, graph):
        self.network, self.names, self.examples = graph.network, list(graph.inputs), graph.inputs

    def get_inputs(self):
        class One:
            def __init__(self, name, shape):
                self.name, self.shape = name, shape

        return [One(name, list(example.shape)) for name, (example, _) in self.examples.items()]

    @torch.no_grad()
    def run(self, _, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        tensors = [torch.from_numpy(arrays[name]) for name in self.names]
        if isinstance(self.network, SourceNetwork):
            tensors = [*tensors[:3], tensors[3:]]
        return [tensor.numpy() for tensor in self.network(*tensors)]


def cut(model) -> Any:
    """An OnnxModel that runs the networks themselves; features come from the model's stand-in encoders."""
    graphs = {g.file: g for g in graphs_of(model, {name: torch.zeros(1) for name in model.config.modalities}, {})}
    pieces = OnnxModel.__new__(OnnxModel)
    torch.nn.Module.__init__(pieces)
    pieces.config, pieces.untied, pieces.encoders = model.config, model.untied, model.encoders
    pieces._source, pieces._step = Given(graphs["source.onnx"]), Given(graphs["step.onnx"])
    pieces._wanted = pieces._source.names
    return pieces


@pytest.mark.parametrize("changes", [{}, *POOLED.values()])
@pytest.mark.parametrize("positions", ["added", "untied"])
def test_a_mixed_and_padded_batch_is_read_and_answered_alike(positions, changes):
    """Rows of every length and medium beside one another; then six tokens one by one against all at once."""
    model = tiny_model(positions, **changes)
    preparer = Preparer(tiny_tokenizer(), model.config)
    samples = [
        Sample("1", "vqa", (PICTURE,), "what is the red hat that hit the wall?"),
        Sample("2", "vqa", (CLIP, SOUND), "what?"),
        Sample("3", "summarize", (), "the hat"),
        Sample("4", "vqa", (PICTURE, PICTURE), "which?"),
    ]
    batch = preparer.collate([preparer.example(sample, with_target=False) for sample in samples])
    assert not batch.source_valid.all()
    pieces = cut(model)
    with torch.no_grad():
        features = model.encode_media(batch.media)
        memory, read = model.encode(batch, features), pieces.encode(batch, features)
    valid = batch.source_valid
    assert torch.allclose(read.states[valid], memory.states[valid], atol=1e-5)
    code_rows = None if positions == "added" else torch.tensor([False, True, False, True])
    ids = torch.randint(4, 200, (4, 6))
    with torch.no_grad():
        expected = model.logits(model.decode(ids, memory, code_rows=code_rows))
    cache = Cache()
    for first, end in ((0, 2), (2, 3), (3, 5), (5, 6)):
        step = pieces.decode(ids[:, first:end], read, code_rows=code_rows, cache=cache)
        assert torch.allclose(step[:, 0], expected[:, end - 1], atol=1e-4)
    assert cache.length == 6


@torch.no_grad()
def test_padding_changes_nothing():
    model = tiny_model("added")
    preparer = Preparer(tiny_tokenizer(), model.config)
    short, long = Sample("1", "summarize", (), "hat"), Sample("2", "vqa", (PICTURE,), "what is the red hat there?")
    pieces = cut(model)
    states = []
    for samples in ([short], [short, long]):
        batch = preparer.collate([preparer.example(sample, with_target=False) for sample in samples])
        memory = pieces.encode(batch, model.encode_media(batch.media))
        logits = pieces.decode(torch.tensor([[0]] * len(samples)), memory)
        states.append((memory.states[0][: int(batch.source_valid[0].sum())], logits[0]))
    assert torch.allclose(states[0][0], states[1][0], atol=1e-5)
    assert torch.allclose(states[0][1], states[1][1], atol=1e-5)


def test_a_lora_is_folded_before_it_is_cut():
    model = tiny_model("added")
    add_lora(model, Lora(rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_up"):
                parameter.normal_(std=0.1)
    preparer = Preparer(tiny_tokenizer(), model.config)
    batch = preparer.collate([preparer.example(Sample("1", "summarize", (), "the hat"), with_target=False)])
    with torch.no_grad():
        before = model.encode(batch, {}).states
        fold_lora(model)
        assert not any("lora" in name for name in SourceNetwork(model).state_dict())
    assert torch.allclose(cut(model).encode(batch, {}).states, before, atol=1e-5)


def test_a_head_gives_the_same_probabilities_also_where_a_block_is_missing():
    torch.manual_seed(0)
    x, labels = torch.randn(12, 7), ["cat", "dog", "cow"] * 4
    head = fit_head(x, labels, blocks={"image.mean": 4, "memory.mean": 3})
    asked = torch.randn(5, 7)
    asked[1, :4] = 0
    assert torch.allclose(HeadNetwork(head)(asked), head.probabilities(asked), atol=1e-6)


@pytest.mark.parametrize(("n_fft", "hop"), [(400, 160), (1024, 200), (16, 4)])
def test_the_convolution_is_the_fourier_transform(n_fft, hop):
    sounds = torch.randn(3, 4000)
    options = {"window": torch.hann_window(n_fft), "center": True, "return_complex": True}
    wanted = torch.stft(sounds, n_fft, hop, **options)
    assert torch.allclose(stft(sounds, n_fft, hop, **options), wanted, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["whisper", "cnn14"])
def test_a_sound_encoder_says_the_same_without_a_fourier_transform(encoder, monkeypatch):
    monkeypatch.setattr(cnn14, "WIDTHS", (1, 4, 4, 4, 4, 4, 4))
    settings = AudioConfig(encoder=encoder, pad_seconds=0.2)
    torch.manual_seed(0)
    network = MODALITIES["audio"].encoders[encoder](settings).eval()
    sounds = torch.randn(2, 3200 if encoder == "whisper" else 9600) * 0.1
    wanted = torch.stack(network(list(sounds)))
    with patch("torch.functional._VF.stft", side_effect=AssertionError("the transform itself was called")):
        assert torch.allclose(MediaNetwork("audio", network)(sounds), wanted, atol=1e-4)


def test_an_encoder_that_cannot_be_traced_is_told():
    with pytest.raises(InputError, match="thermometer: the encoder Linear has no `_run`"):
        MediaNetwork("thermometer", torch.nn.Linear(1, 1))


def test_every_graph_says_what_may_have_any_length():
    model = tiny_model("untied", encoders=True, modalities={"image": {"size": 32}})
    graphs = {graph.file: graph for graph in graphs_of(model, {"image": torch.zeros(3, 32, 32)}, {})}
    assert list(graphs) == ["image.onnx", "source.onnx", "step.onnx"]
    assert isinstance(graphs["step.onnx"].network, StepNetwork)
    assert "code_rows" in graphs["step.onnx"].inputs
    for graph in graphs.values():
        assert all(0 in axes for _, axes in graph.inputs.values())

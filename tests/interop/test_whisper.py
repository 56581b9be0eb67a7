"""The real part: names and shapes as written down, and the oracle that our own encoder and decoder are held against."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from whisper_oracle import END, NO_TIMESTAMPS, START, VOCABULARY, WhisperOracle, log_mel, mel_filters

from monoglot.interop import MissingPart, fetch_part, read_ctranslate2


@pytest.fixture(scope="module")
def arrays():
    try:
        return read_ctranslate2(fetch_part("whisper-tiny-en", download=False).files["model.bin"])
    except MissingPart as missing:
        pytest.skip(f"run monoglot.interop.fetch_part('whisper-tiny-en') once: {missing}")


def test_names_and_shapes(arrays):
    assert len(arrays) == 149
    assert arrays["decoder/embeddings/weight"].shape == (VOCABULARY, 384)
    assert arrays["decoder/embeddings/weight"].dtype == np.float16
    assert arrays["decoder/projection/weight"] is arrays["decoder/embeddings/weight"]
    assert arrays["decoder/position_encodings/encodings"].shape == (448, 384)
    assert int(arrays["encoder/num_heads"]) == int(arrays["decoder/num_heads"]) == 6
    for side in ("encoder", "decoder"):
        for layer in range(4):
            bias = arrays[f"{side}/layer_{layer}/self_attention/linear_0/bias"]
            assert not bias[384:768].any(), "the keys have no bias"


def test_oracle_hears_silence_and_is_causal(arrays):
    oracle = WhisperOracle(arrays)
    with torch.no_grad():
        memory = oracle.encode(log_mel(np.zeros(16_000, np.float32)))
        assert memory.shape == (50, 384)
        ids = [START, NO_TIMESTAMPS, 2425, 13, END]
        logits = oracle.decode(memory, ids)
        assert logits.shape == (5, VOCABULARY)
        torch.testing.assert_close(oracle.decode(memory, ids[:3]), logits[:3], rtol=1e-4, atol=1e-3)


def test_log_mel_of_a_tone_peaks_in_its_band():
    """1 kHz lies on Slaney's corner: mel 15 of 0..45.245 in 81 steps."""
    assert mel_filters().shape == (80, 201)
    # Area one: a filter of height 2 / width, summed over bins 40 Hz apart; narrow ones are sampled coarsely.
    np.testing.assert_allclose(mel_filters()[40:].sum(1) * 40, 1, atol=0.15)
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    mel = log_mel(tone)
    assert mel.shape == (80, 100)
    assert int(mel[:, 50].argmax()) == round(15 / (45.245 / 81)) - 1
